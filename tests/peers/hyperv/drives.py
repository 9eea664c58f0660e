"""Virtual disks, and the drives that they are in. Hard disks count, whatever stands in them."""

from __future__ import annotations

import ntpath
from collections.abc import Iterable, Iterator
from typing import Any

from tests.peers.hyperv import show
from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.model import Disk, Drive, File, Machine, enum
from tests.peers.hyperv.parts import place
from tests.peers.hyperv.vms import bad, off, usable
from tests.peers.hyperv.world import World
from tests.peers.powershell.host import FileFault
from tests.peers.powershell.values import PSObject, text

MB = 1 << 20
FIRST_SIZE = 4 * MB  # of a VHDX without data


def _fault(bound: Bound, e: FileFault) -> Exception:
    kinds = {"System.IO.FileNotFoundException", "System.IO.DirectoryNotFoundException"}
    category = "ObjectNotFound" if e.kind in kinds else "InvalidOperation"
    return bound.failed(
        "ObjectNotFound" if e.kind in kinds else "OperationFailed", category, str(e)
    )


def new_vhd(world: World, bound: Bound) -> Iterable[Any]:
    made = []
    for path in bound.get("Path"):
        if not path.lower().endswith((".vhdx", ".vhd")):
            raise bad(bound, f"'{path}': a virtual hard disk is a file .vhdx or .vhd")
        try:
            if world.volume.is_file(path):
                text = (
                    "Failed to create the virtual hard disk. The system failed to"
                    f" create '{path}': The file exists."
                )
                raise bound.failed("OperationFailed", "ResourceExists", text)
            file = File(path, disk=_made(world, bound, path), length=FIRST_SIZE)
            if file.disk is not None and file.disk.kind == "Fixed":
                file.length = file.disk.size
            world.volume.put(file)
        except FileFault as e:
            raise _fault(bound, e) from e
        made.append(_vhd(world, path))
    return made


def _made(world: World, bound: Bound, path: str) -> Disk:
    if bound.set == "Differencing" or "ParentPath" in bound:
        parent = bound.get("ParentPath")
        if not ntpath.isabs(parent):
            parent = ntpath.join(ntpath.dirname(path), parent)
        above = world.volume.chain(parent)[0]
        assert above.disk is not None
        if ntpath.splitext(path)[1].lower() != ntpath.splitext(parent)[1].lower():
            raise bad(bound, f"'{path}' and its parent '{parent}' are not of one format")
        return Disk("Differencing", bound.get("SizeBytes", above.disk.size), above.path)
    if "SourceDisk" in bound:
        raise bad(bound, "New-VHD -SourceDisk is not simulated")
    size = bound.get("SizeBytes")
    if size < 3 * MB or size > 64 << 40:
        raise bad(bound, f"'{size}' is no size of a virtual hard disk")
    return Disk("Fixed" if bound.flag("Fixed") else "Dynamic", size)


def _vhd(world: World, path: str) -> PSObject:
    file = world.volume[path]
    assert file.disk is not None
    return PSObject({
        "Path": file.path, "VhdFormat": enum("VhdFormat", "VHDX"),
        "VhdType": enum("VhdType", file.disk.kind), "Size": file.disk.size,
        "FileSize": file.size, "ParentPath": file.disk.parent, "DiskIdentifier": file.disk.id,
        "Attached": any(m.state != "Off" for m in world.holders(path)),
        "MinimumSize": None, "LogicalSectorSize": 512, "PhysicalSectorSize": 4096,
        "BlockSize": 32 * MB, "FragmentationPercentage": 0, "Alignment": 1, "Number": None,
        "ComputerName": world.name, "DiskNumber": None,
    }, "Microsoft.Vhd.PowerShell.VirtualHardDisk")  # fmt: skip


def get_vhd(world: World, bound: Bound) -> Iterable[Any]:
    paths = bound.get("Path")
    if bound.set == "VMId":
        machines = [world.machine(i, bound) for i in bound.get("VMId")]
        paths = [d.path for m in machines for d in m.config.drives if d.path and not d.dvd]
    elif bound.set != "Path":
        raise bad(bound, "Get-VHD by disk is not simulated")
    found = []
    for path in paths:
        try:
            world.volume.chain(path)
        except FileFault as e:
            text = f"Getting the mounted storage instance for the path '{path}' failed. {e}"
            bound.call.error(bound.failed("ObjectNotFound", "ObjectNotFound", text).record)
        else:
            found.append(_vhd(world, path))
    return found


def _drives(world: World, bound: Bound, *, dvd: bool) -> Iterator[tuple[Machine, Drive]]:
    given = bound.get("VMDvdDrive" if dvd else "VMHardDiskDrive")
    if given is not None:
        for one in given if isinstance(given, list) else [given]:
            machine = world.machine(one.properties["VMId"], bound)
            for drive in machine.config.drives:
                if one.properties["Id"].endswith(str(drive.id)):
                    yield machine, drive
        return
    for machine in world.chosen(bound):
        for drive in machine.config.drives:
            where = {
                "ControllerNumber": drive.number, "ControllerLocation": drive.location,
                "ControllerType": drive.controller,
            }  # fmt: skip
            if drive.dvd == dvd and all(text(bound.get(k, v)) == text(v) for k, v in where.items()):
                yield machine, drive


def _get(*, dvd: bool) -> Any:
    def get(world: World, bound: Bound) -> Iterable[Any]:
        if bound.set == "VMSnapshot":
            raise bad(bound, f"{bound.name} -VMSnapshot is not simulated")
        return [show.drive(world, m, d) for m, d in _drives(world, bound, dvd=dvd)]

    return get


def _add(*, dvd: bool) -> Any:
    def add(world: World, bound: Bound) -> Iterable[Any]:
        made = []
        for one in world.chosen(bound):
            drive = place(bound, one, dvd=dvd)
            drive.path = bound.get("Path", "")
            if dvd and drive.path:
                _there(world, bound, drive.path)
            elif drive.path:
                usable(world, bound, drive.path)
            one.config.drives.append(drive)
            made.append(show.drive(world, one, drive))
        return made if bound.flag("Passthru") else []

    return add


def _there(world: World, bound: Bound, path: str) -> None:
    try:
        if world.volume[path].disk is not None or not path.lower().endswith(".iso"):
            raise bad(bound, f"'{path}' is no image of a DVD")
    except FileFault as e:
        raise _fault(bound, e) from e


def _remove(*, dvd: bool) -> Any:
    def remove(world: World, bound: Bound) -> Iterable[Any]:
        found = [*_drives(world, bound, dvd=dvd)]
        if not found and "VMName" in bound:
            raise bad(bound, f"no such drive in '{text(bound.get('VMName'))}'")
        for one, drive in found:
            if drive.controller == "IDE":
                off(bound, one)
            one.config.drives.remove(drive)
        return []

    return remove


def set_dvd(world: World, bound: Bound) -> Iterable[Any]:
    """A disc may be changed while the VM runs; an empty path takes it out."""
    if "ToControllerNumber" in bound or "ToControllerLocation" in bound:
        raise bad(bound, "moving a DVD drive is not simulated")
    found = [*_drives(world, bound, dvd=True)]
    if not found:
        raise bad(bound, "no such DVD drive")
    for _, drive in found:
        path = bound.get("Path", "")
        if path:
            _there(world, bound, path)
        drive.path = path
    return []


CMDLETS = {
    "New-VHD": new_vhd, "Get-VHD": get_vhd, "Get-VMHardDiskDrive": _get(dvd=False),
    "Add-VMHardDiskDrive": _add(dvd=False), "Remove-VMHardDiskDrive": _remove(dvd=False),
    "Get-VMDvdDrive": _get(dvd=True), "Add-VMDvdDrive": _add(dvd=True),
    "Remove-VMDvdDrive": _remove(dvd=True), "Set-VMDvdDrive": set_dvd,
}  # fmt: skip
