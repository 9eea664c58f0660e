"""What ``doctor`` asks of a Hyper-V host; changes nothing."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterator

from drivers.hyperv.ops import Batch, Call, Program, Row
from drivers.hyperv.place import Place
from drivers.hyperv.pool import SHELLS, Pool
from drivers.hyperv.shell import Answer
from provision.driver import Check

HYPERV_ADMINISTRATORS, ADMINISTRATORS = "S-1-5-32-578", "S-1-5-32-544"
QUOTAS = "WSMan:\\localhost\\Shell\\"
LEAST = {"MaxShellsPerUser": SHELLS + 2, "MaxMemoryPerShellMB": 512}
LEAST_BUILD = 14393  # Windows Server 2016: static memory, checkpoints, WinRM as we need them
LEAST_FREE_GIB = 10
_SID = re.compile(r"S-1-[\d-]+")


def examine(pool: Pool, place: Place) -> Iterator[Check]:
    """Version, rights, room, WinRM's quotas, and what is there that would be of use."""
    drive = ntpath.splitdrive(place.root)[0].upper()
    disk = Call(
        "Get-CimInstance",
        {"ClassName": "Win32_LogicalDisk", "Filter": "DriveType=3"},
        select=("DeviceID", "FreeSpace", "Size"), only={"DeviceID": [drive]},
    )  # fmt: skip
    asked = (
        Batch(ops=[Program("whoami", ("/groups", "/fo", "csv", "/nh"), lenient=True)]),
        Batch(ops=[disk]),
        *(
            Batch(ops=[Call("Get-Item", {"LiteralPath": QUOTAS + name}, select=("Value",))])
            for name in LEAST
        ),
        Batch(ops=[Call("Test-Path", {"LiteralPath": place.root}, select=(".",))]),
    )
    who, room, *quotas, folder = pool.read(asked)
    yield _version(place)
    yield _rights(_rows(who))
    yield from _room(place, drive, _rows(room), _rows(folder))
    for (name, least), found in zip(LEAST.items(), quotas, strict=True):
        yield _quota(name, least, _rows(found))
    yield Check(
        "CPU groups", place.grouped,
        "CpuGroups.exe is there" if place.grouped else "no CpuGroups.exe in the host's PATH",
        "" if place.grouped else "Microsoft's Download Center has it; guests.cpu.pin needs it",
        needed=False,
    )  # fmt: skip
    kept = place.root_cpus < place.cpus
    yield Check(
        "root partition", True,
        f"{place.root_cpus} of {place.cpus} CPUs" + ("" if kept else ": it shares all with guests"),
        "" if kept else "dom0.vcpus keeps some for it, by a restart (minroot)", needed=False,
    )  # fmt: skip


def _rows(answer: Answer) -> list[Row] | None:
    """What one operation gave back, None where it was refused."""
    return answer[0] if isinstance(answer, list) else None


def _version(place: Place) -> Check:
    fine = place.build >= LEAST_BUILD
    fix = "" if fine else "Windows Server 2016 or later"
    return Check("version", fine, place.version, fix)


def _rights(rows: list[Row] | None) -> Check:
    sids = set(_SID.findall(str(rows[0]["lines"]))) if rows else set()
    for sid, name in ((ADMINISTRATORS, "Administrators"), (HYPERV_ADMINISTRATORS, "Hyper-V's")):
        if sid in sids:
            only = "" if sid == ADMINISTRATORS else ": dom0.vcpus and jumbo frames need more"
            return Check("rights", True, f"one of {name} administrators{only}".replace(
                "Administrators administrators", "Administrators"))  # fmt: skip
    return Check(
        "rights", False, "neither of Administrators nor of Hyper-V Administrators",
        "Add-LocalGroupMember 'Hyper-V Administrators' USER, on the host",
    )  # fmt: skip


def _room(
    place: Place, drive: str, rows: list[Row] | None, folder: list[Row] | None
) -> Iterator[Check]:
    there = bool(folder and folder[0]["."]) or place.root == place.images
    fix = "" if there else "hypervisor.storage: a folder that the host has"
    yield Check("guests' disks", there, place.root, fix)
    if rows:
        free = int(rows[0]["FreeSpace"] or 0) / (1 << 30)
        fine = free >= LEAST_FREE_GIB
        fix = "" if fine else "make room, or hypervisor.storage: a folder of another disk"
        yield Check("disk space", fine, f"{free:.0f} GiB free on {drive}", fix, needed=False)


def _quota(name: str, least: int, rows: list[Row] | None) -> Check:
    what = f"WinRM {name}"
    if not rows:
        return Check(what, True, "cannot be read with these rights", needed=False)
    found = int(str(rows[0]["Value"]))
    fine = found >= least
    fix = "" if fine else f"Set-Item {QUOTAS}{name} {least}, on the host"
    return Check(what, fine, f"{found}, at least {least} are wanted", fix, needed=False)
