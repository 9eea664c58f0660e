"""Our vocabulary in Hyper-V's words and numbers, and back; names, marks, records. Pure.

https://learn.microsoft.com/powershell/module/hyper-v has each cmdlet and what it takes.
"""

from __future__ import annotations

import json
import ntpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from provision.driver import NicModel
from provision.resources import Guest, Vnic

SYNTHETIC, LEGACY = "synthetic", "legacy"
FLAVOUR = "vswitch"
ACCEL = "hyperv"
FOLDER = "provision"
MAC_PREFIX = "00:15:5d"
LEAST_MTU, MOST_MTU, HEADER = 1500, 9000, 14
MODELS: Mapping[str, NicModel] = {
    SYNTHETIC: NicModel(SYNTHETIC, (), ("hv_netvsc", "netvsc", "netvsc63"), MOST_MTU),
    # DEC 21140; the others are Windows', as its own is
    LEGACY: NicModel(LEGACY, ("1011:0009",), ("tulip", "dc21x4", "dc21x4vm"), LEAST_MTU),
}
WORDS = {"paravirtual": SYNTHETIC, "emulated": LEGACY}
NORMAL, NORMAL_HERE = 256, 100
MOST_WEIGHT_HERE = 10_000
MIB, MBIT = 1 << 20, 10**6
MOST_PATTERNS = 16
BEGIN = "[provision]"
_RECORD = re.compile(re.escape(BEGIN) + r" (\{.*\})", re.ASCII)


def vm_name(testbed: str, guest: str) -> str:
    return f"{testbed}-{guest}"


def vm_patterns(testbed: str, guests: Iterable[str]) -> list[str]:
    """Wildcards for these guests' VMs, that each is met by one of at most; few, else for all.

    With wildcards since one that is missing is an error without; others may be met too.
    """
    names = sorted(guests)
    if not 0 < len(names) <= MOST_PATTERNS:
        return [vm_name(testbed, "*")]
    found: list[str] = []
    for name in names:
        if not (found and name.startswith(found[-1])):
            found.append(name)
    return [vm_name(testbed, f"{name}*") for name in found]


@dataclass(frozen=True, slots=True)
class Files:
    """Where a guest's files are: a folder of its own, and all bear the testbed's name."""

    folder: str
    disk: str
    seed: str

    @property
    def above(self) -> tuple[str, str]:
        """The testbed's folder, and that of all testbeds."""
        testbed = ntpath.dirname(self.folder)
        return testbed, ntpath.dirname(testbed)


def files(root: str, testbed: str, guest: str) -> Files:
    """``root`` is where the host's user wants guests' disks."""
    folder = ntpath.join(root, FOLDER, testbed, guest)
    name = vm_name(testbed, guest)
    return Files(
        folder, ntpath.join(folder, f"{name}.vhdx"), ntpath.join(folder, f"{name}-seed.iso")
    )


def within(path: str, folder: str) -> bool:
    """Whether a path is in a folder, as Windows sees it: without regard to case."""
    one, other = (ntpath.normcase(ntpath.normpath(p)) for p in (path, folder))
    return one.startswith(other + "\\")


def image_path(image: str, default: str) -> str:
    """The parent disk: a path as it is, else a file of the host's own folder of disks."""
    if ntpath.isabs(image):
        return image
    name = image if ntpath.splitext(image)[1].lower() in (".vhdx", ".vhd") else f"{image}.vhdx"
    return ntpath.join(default, name)


def generation(guest: Guest) -> int:
    """Only generation 1 has legacy adapters, only generation 2 needs none of BIOS and IDE."""
    return 1 if any(nic.model == LEGACY for nic in guest.nics) else 2


def mac_here(mac: str) -> str:
    return mac.replace(":", "").upper()


def mac_ours(mac: str) -> str:
    """From what Hyper-V or Windows write: ``00155D000001`` or ``00-15-5D-00-00-01``."""
    digits = re.sub(r"[^0-9a-f]", "", mac.lower())
    return ":".join(digits[n : n + 2] for n in range(0, 12, 2))


def weight_here(weight: int) -> int:
    return min(max(round(weight * NORMAL_HERE / NORMAL), 1), MOST_WEIGHT_HERE)


def weight_ours(here: int, asked: int) -> int:
    """What was asked, where that is what it became; else what the number here amounts to."""
    if weight_here(asked) == here:
        return asked
    return max(round(here * NORMAL / NORMAL_HERE), 1)


def share_here(percent: int | None, vcpus: int, otherwise: int) -> int:
    """Per cent of one CPU as per cent of all of the guest's vCPUs, as Hyper-V counts."""
    return otherwise if percent is None else percent // vcpus


def share_ours(here: int, vcpus: int, otherwise: int, asked: int | None) -> int | None:
    """None where it is what a VM has that nobody limited, unless just that was asked."""
    if here == otherwise and (asked is None or share_here(asked, vcpus, otherwise) != here):
        return None
    return here * vcpus


def processor(guest: Guest) -> dict[str, int]:
    """Set-VMProcessor's parameters; all but the reserve can be changed while the VM runs."""
    return {
        "RelativeWeight": weight_here(guest.weight),
        "Maximum": share_here(guest.cap_percent, guest.vcpus, 100),
        "Reserve": share_here(guest.reserve_percent, guest.vcpus, 0),
    }


def adapter_names(guest: Guest) -> list[tuple[str, Vnic]]:
    """Each vNIC with what its adapter is called."""
    links = ((f"link {n}", nic) for n, nic in enumerate(guest.nics, 1))
    return [("management", guest.management), *links]


def notes(testbed: str, guest: Guest, *, half: bool = False) -> str:
    """The mark, and what only we know of the guest, in one line. ``half``: it is being made."""
    record = {
        "testbed": testbed,
        "image": guest.image,
        "weight": guest.weight,
        "cap": guest.cap_percent,
        "reserve": guest.reserve_percent,
        "pins": list(guest.pins),
        "os": guest.os,
        "nics": [[v.mac, v.address, v.mtu] for v in (guest.management, *guest.nics)],
    } | ({"half": True} if half else {})
    return f"{_about(testbed)} {BEGIN} {json.dumps(record, separators=(',', ':'))}"


def switch_notes(testbed: str) -> str:
    record = {"testbed": testbed}
    return f"{_about(testbed)} {BEGIN} {json.dumps(record, separators=(',', ':'))}"


def _about(testbed: str) -> str:
    return f"Made by provision; to remove it: provision down -n {testbed}."


def record(text: object) -> dict[str, Any]:
    """What our notes say, {} where they are none of ours."""
    found = _RECORD.search(str(text or "").replace("\r", "").replace("\n", ""))
    try:
        told = json.loads(found[1]) if found else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
