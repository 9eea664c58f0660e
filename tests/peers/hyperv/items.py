"""Files and folders by cmdlet, and the settings of WinRM, which are items too."""

from __future__ import annotations

import ntpath
from collections.abc import Iterable
from typing import Any

from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.model import File
from tests.peers.hyperv.world import MARKS, World, matches
from tests.peers.powershell.errors import PSError
from tests.peers.powershell.host import FileFault
from tests.peers.powershell.values import PSObject, text

COMMANDS = "Microsoft.PowerShell.Commands"
#: of a WinRM that nobody tuned
WSMAN = {
    "wsman:\\localhost\\shell\\maxshellsperuser": "30",
    "wsman:\\localhost\\shell\\maxprocessespershell": "25",
    "wsman:\\localhost\\shell\\maxmemorypershellmb": "1024",
    "wsman:\\localhost\\maxenvelopesizekb": "500",
}


def _paths(world: World, bound: Bound) -> list[str]:
    """What a cmdlet is about: literal paths, or patterns of what there is."""
    if "LiteralPath" in bound:
        return [*bound.get("LiteralPath")]
    found = []
    for path in bound.get("Path", ["C:\\"]):
        if MARKS & set(path):
            found += [p for p in world.volume.paths() if matches(path, p)]
        else:
            found.append(path)
    return found


def _failed(bound: Bound, id: str, category: str, message: str) -> PSError:
    command = f"{COMMANDS}.{bound.name.replace('-', '')}Command"
    error = bound.failed(id, category, message)
    return PSError(type(error.record)(f"{id},{command}", category, message))


def _missing(bound: Bound, path: str) -> PSError:
    message = f"Cannot find path '{path}' because it does not exist."
    return _failed(bound, "PathNotFound", "ObjectNotFound", message)


def _there(world: World, path: str) -> bool:
    try:
        return world.volume.is_file(path) or world.volume.is_folder(path)
    except FileFault:
        return False


def test_path(world: World, bound: Bound) -> Iterable[Any]:
    kind = text(bound.get("PathType", "Any"))
    found = []
    for path in bound.get("LiteralPath") or bound.get("Path"):
        paths = _paths(world, bound) if MARKS & set(path) and "Path" in bound else [path]
        there = [p for p in paths if _there(world, p)]
        if kind != "Any":
            folder = kind == "Container"
            there = [p for p in there if world.volume.is_folder(p) == folder]
        found.append(bool(there))
    return found


def _shown(world: World, path: str) -> PSObject:
    file = world.volume.find(path)
    shown: dict[str, Any] = {
        "FullName": path, "Name": ntpath.basename(path), "PSIsContainer": file is None,
        "Exists": True, "Extension": ntpath.splitext(path)[1],
    }  # fmt: skip
    if file is not None:
        shown |= {
            "FullName": file.path, "Length": file.size, "LastWriteTime": file.changed,
            "LastWriteTimeUtc": file.changed, "CreationTime": file.changed,
            "DirectoryName": ntpath.dirname(file.path),
        }  # fmt: skip
    return PSObject(shown, "System.IO.FileInfo" if file else "System.IO.DirectoryInfo", shown=path)


def get_item(world: World, bound: Bound) -> Iterable[Any]:
    found = []
    for path in _paths(world, bound):
        if path.lower() in WSMAN:
            name = path.rpartition("\\")[2]
            value = {"Name": name, "Value": WSMAN[path.lower()]}
            found.append(PSObject(value, "Microsoft.WSMan.Management.WSManConfigLeafElement"))
        elif _there(world, path):
            found.append(_shown(world, path))
        else:
            bound.call.error(_missing(bound, path).record)
    return found


def get_children(world: World, bound: Bound) -> Iterable[Any]:
    found = []
    for path in _paths(world, bound):
        if not _there(world, path):
            bound.call.error(_missing(bound, path).record)
            continue
        left = [*world.volume.below(path)] if world.volume.is_folder(path) else [path]
        while left:
            one = left.pop(0)
            folder = world.volume.is_folder(one)
            if bound.flag("Recurse") and folder:
                left += world.volume.below(one)
            if not (bound.flag("File") and folder) and not (bound.flag("Directory") and not folder):
                found.append(_shown(world, one))
    return found


def new_item(world: World, bound: Bound) -> Iterable[Any]:
    kind = bound.get("ItemType", "File").lower()
    found = []
    for folder in bound.get("Path", []):
        path = ntpath.join(folder, bound.get("Name")) if "Name" in bound else folder
        if _there(world, path) and not (kind == "directory" and bound.flag("Force")):
            what = "DirectoryExist" if kind == "directory" else "NewItemIOError"
            raise _failed(
                bound,
                what,
                "ResourceExists",
                f"An item with the specified name {path} already exists.",
            )
        try:
            if kind == "directory":
                world.volume.make_folder(path)
            elif kind == "file":
                world.volume.put(File(path, text(bound.get("Value", "")).encode()))
            else:
                raise _failed(
                    bound, "Argument", "InvalidArgument", f"The type is not known: {kind}"
                )
        except FileFault as e:
            raise _failed(bound, "CreateItemIOError", "WriteError", str(e)) from e
        found.append(_shown(world, path))
    return found


def remove_item(world: World, bound: Bound) -> Iterable[Any]:
    """A file that a VM has open stays; a folder that is not empty goes with -Recurse only."""
    for path in _paths(world, bound):
        if not _there(world, path):
            bound.call.error(_missing(bound, path).record)
            continue
        folder = world.volume.is_folder(path)
        below = _all(world, path) if folder else [path]
        if folder and below and not bound.flag("Recurse"):
            bound.sure(f"{path} has children and the Recurse parameter was not specified.")
        busy = [p for p in below if _open(world, p)]
        if busy:
            message = (
                f"Cannot remove item {busy[0]}: The process cannot access the"
                f" file '{busy[0]}' because it is being used by another process."
            )
            bound.call.error(
                _failed(bound, "RemoveFileSystemItemIOError", "WriteError", message).record
            )
            continue
        if folder:
            world.volume.remove_folder(path)
        else:
            world.volume.remove(path)
    return []


def _all(world: World, path: str) -> list[str]:
    found = []
    for one in world.volume.below(path):
        found.append(one)
        if world.volume.is_folder(one):
            found += _all(world, one)
    return found


def _open(world: World, path: str) -> bool:
    """Whether a VM that runs has the file, or a disk that stands on it."""
    running = [m for m in world.machines if m.state not in ("Off", "Saved")]
    for machine in running:
        for drive in machine.config.drives:
            if not drive.path:
                continue
            try:
                files = (
                    [drive.path] if drive.dvd else [f.path for f in world.volume.chain(drive.path)]
                )
            except FileFault:
                files = [drive.path]
            if path.lower() in (f.lower() for f in files):
                return True
    return False


CMDLETS = {
    "Test-Path": test_path, "Get-Item": get_item, "Get-ChildItem": get_children,
    "New-Item": new_item, "Remove-Item": remove_item,
}  # fmt: skip
