"""What VBoxManage prints of a VM, and the Guest that it is; pure.

The format of ``showvminfo --machinereadable`` is that of VBoxManageInfo.cpp in VirtualBox's
sources: ``key=value`` lines, text in quotes, with quotes and backslashes escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from drivers.libvirt.marks import address
from drivers.virtualbox import words
from provision.errors import DriverError
from provision.resources import Guest, Vnic

NOWHERE = "(nothing)"  # no NIC can have this name
GOING, STOPPED = frozenset({"running"}), frozenset({"poweroff", "aborted"})
#: it has a saved state, which must go before anything else of it may change
SAVED = frozenset({"saved", "aborted-saved"})
SETTLED = GOING | STOPPED | SAVED | {"paused", "gurumeditation"}
BYTES_PER_MBIT = 125_000
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    rf'({_QUOTED}|[^\s="][^="\n]*)=({_QUOTED}(?:,[^"\n]*)?|[^"\n]*)(?:\n|\Z)', re.DOTALL
)
# a screen's heading, which is no pair; CPUID overrides, which have no line ends in some versions
_ODD = re.compile(r"(?:[ \n][^\n]*|cpuid=[^\n]*)(?:\n|\Z)")
_VM = re.compile(r'"(.*)" \{([0-9a-f-]{36})\}')
_NIC = re.compile(r"NIC (\d+):.*\bBandwidth group: (.*)$")
_RATE = re.compile(r'"(.*)",Network,(\d+)')
_SLOT = re.compile(r'"?(.*)-(\d+)-(\d+)"?')


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a disk: a controller's name, a port, a device; ``medium`` is what is in it."""

    controller: str
    port: int
    device: int
    medium: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A VM of ours as VirtualBox has it. ``half``: it was never made to its end."""

    guest: Guest
    uuid: str
    state: str
    settings: str
    snapshots: tuple[str, ...]
    slots: tuple[Slot, ...]
    limits: frozenset[str]
    half: bool

    @property
    def folder(self) -> str:
        return self.settings.rpartition("/")[0]


def readable(text: str) -> dict[str, str]:
    """The pairs of a machine-readable output. Raises DriverError for what is none."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if odd := _ODD.match(text, at):
            at = odd.end()
            continue
        line = _LINE.match(text, at)
        if line is None:
            raise DriverError(f"VBoxManage printed no pair: {text[at : at + 80]!r}")
        found[_plain(line[1])] = line[2] if '",' in line[2] else _plain(line[2])
        at = line.end()
    return found


def listed(text: str) -> dict[str, str]:
    """UUIDs and names of ``list vms``; lines of warnings are left out."""
    return {m[2]: m[1] for line in text.splitlines() if (m := _VM.fullmatch(line))}


def groups(text: str) -> dict[int, str]:
    """The bandwidth groups of NICs by their numbers, which only the human output tells."""
    found = (_NIC.match(line) for line in text.splitlines())
    return {int(m[1]): m[2] for m in found if m and m[2] != "none"}


def record(text: str) -> dict[str, Any] | None:
    """What was asked for, of ``getextradata``; None where nothing of ours is there."""
    try:
        found = json.loads(text.removeprefix("Value: "))
    except ValueError:
        return None
    return found if isinstance(found, dict) and "management" in found else None


def marked(info: Mapping[str, str], testbed: str) -> bool:
    """Whether a VM bears the testbed's mark."""
    return words.group(testbed) in info.get("groups", "").split(",")


def vm(
    info: Mapping[str, str], name: str, asked: Mapping[str, Any] | None, nics: Mapping[int, str]
) -> Seen:
    """A VM of ours; raises DriverError where the output lacks what every VM has."""
    try:
        cpus, memory_mib, cap = (int(info[k]) for k in ("cpus", "memory", "cpuexecutioncap"))
        uuid, state, settings = (info[k] for k in ("UUID", "VMState", "CfgFile"))
    except (KeyError, ValueError) as e:
        raise DriverError(f"VBoxManage's output on guest {name} lacks {e}") from e
    rates = {m[1]: int(m[2]) for k, v in info.items()
             if k.startswith("BandwidthGroup") and (m := _RATE.fullmatch(v))}  # fmt: skip
    plugged = dict(_plugged(info, asked, {n: rates.get(g, 0) for n, g in nics.items()}))
    slots = tuple(_slots(info))
    has_disk = any(s.medium not in ("none", "emptydrive") and not _is_dvd(s) for s in slots)
    guest = Guest(
        name, cpus, memory_mib,
        image=str((asked or {}).get("image", "")) if has_disk else "(none)",
        management=plugged.pop(1, Vnic(NOWHERE, "", "", "")),
        nics=tuple(plugged[n] for n in sorted(plugged)),
        accel=words.ACCEL, cap_percent=_cap(cap, cpus, asked), running=state in GOING,
    )  # fmt: skip
    snapshots = tuple(v for k, v in info.items() if re.fullmatch(r"SnapshotName[-0-9]*", k))
    return Seen(guest, uuid, state, settings, snapshots, slots, frozenset(rates), asked is None)


def seed_slot(seen: Seen, seed: str) -> Slot | None:
    """Where the seed disk is, else a free place for it; None where there is none."""
    order = (seed, "emptydrive", "none")
    free = [s for want in order for s in seen.slots if s.medium == want]
    return free[0] if free else None


def _plain(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _cap(cap: int, cpus: int, asked: Mapping[str, Any] | None) -> int | None:
    """VirtualBox's is a share of every vCPU, and 100 is none at all."""
    whole = cap * cpus
    return whole if cap < 100 or (asked or {}).get("cap_percent") == whole else None


def _plugged(
    info: Mapping[str, str], asked: Mapping[str, Any] | None, rates: Mapping[int, int]
) -> Iterator[tuple[int, Vnic]]:
    numbers = sorted(int(k[3:]) for k in info if re.fullmatch(r"nic\d+", k))
    for n in numbers:
        if (kind := info[f"nic{n}"]) == "none":
            continue
        at = info.get({"bridged": f"bridgeadapter{n}", "hostonly": f"hostonlyadapter{n}"}.get(
            kind, ""), kind)  # fmt: skip
        if info.get(f"cableconnected{n}") != "on":
            at = f"{at} (unplugged)"
        found = Vnic(at, info.get(f"nictype{n}", ""), words.mac(info.get(f"macaddress{n}", "")), "")
        if asked is not None:
            found = replace(found, address=address(found.mac, n - 1, asked))
            meant = [asked["management"], *asked["nics"]]
            if found.address:  # MTU is the guest's own, by its seed
                found = replace(found, mtu=int(meant[n - 1]["mtu"]))
        rate = rates.get(n, 0)
        yield n, replace(found, rate_mbit=rate // BYTES_PER_MBIT or None)


def _slots(info: Mapping[str, str]) -> Iterator[Slot]:
    names = [v for k, v in info.items() if re.fullmatch(r"storagecontrollername\d+", k)]
    for key, value in info.items():
        found = _SLOT.fullmatch(key)
        if found and found[1] in names:
            yield Slot(found[1], int(found[2]), int(found[3]), value)


def _is_dvd(slot: Slot) -> bool:
    return slot.medium.lower().endswith((".iso", ".viso"))
