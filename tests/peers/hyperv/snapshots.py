"""Checkpoints.

With a source: a Standard one of a running VM keeps its memory, a Production one does not and is
restored to off; each one puts a differencing disk on the VM's disks, which is merged when it is
removed. Plausible: that a VM restored with memory is Saved (``World.restores_to``), and that what
it stands on when it is removed as a whole stays on disk. Merging takes no time here.
"""

from __future__ import annotations

import ntpath
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from tests.peers.hyperv import show
from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.model import Config, Disk, File, Machine, Snapshot, normal
from tests.peers.hyperv.vms import bad, turn_off, wrong_state
from tests.peers.hyperv.world import World, matches
from tests.peers.powershell.host import FileFault

MB = 1 << 20


def checkpoint(world: World, bound: Bound) -> Iterable[Any]:
    made = []
    for one in world.chosen(bound, "Name"):
        if one.checkpoint_type == "Disabled":
            raise bad(bound, f"checkpoints have been disabled for '{one.name}'.")
        if one.state not in ("Running", "Off", "Saved", "Paused"):
            raise wrong_state(bound, one, "Checkpoint operation failed.")
        name = bound.get("SnapshotName") or f"{one.name} - ({time.strftime('%m/%d/%Y - %H:%M:%S')})"
        memory = one.state == "Running" and one.checkpoint_type == "Standard"
        found = Snapshot(name, one.config.copy(), memory, one.current)
        try:
            _branch(world, one)
        except FileFault as e:
            raise bound.failed("OperationFailed", "InvalidOperation", str(e)) from e
        one.snapshots.append(found)
        one.current = found.id
        if world.guests is not None:
            world.guests.snapshot(one, str(found.id))
        made.append(show.snapshot(world, one, found))
    return made if bound.flag("Passthru") else []


def _branch(world: World, one: Machine) -> None:
    """A new layer on each of the disks."""
    for drive in one.config.drives:
        if drive.dvd or not drive.path:
            continue
        below = world.volume[drive.path]
        assert below.disk is not None
        stem = ntpath.splitext(below.path)[0].partition("_")[0]
        path = f"{stem}_{str(uuid.uuid4()).upper()}.avhdx"
        disk = Disk("Differencing", below.disk.size, below.path, id=below.disk.id)
        world.volume.put(File(path, disk=disk, length=4 * MB))
        drive.path = path


def _chosen(world: World, bound: Bound) -> Iterator[tuple[Machine, Snapshot]]:
    given = bound.get("VMSnapshot")
    if given is not None:
        for one in given if isinstance(given, list) else [given]:
            machine = world.machine(one.properties["VMId"], bound)
            found = [s for s in machine.snapshots if s.id == one.properties["Id"]]
            if not found:
                raise bad(bound, "Hyper-V was unable to find the checkpoint")
            yield machine, found[0]
        return
    names = bound.get("Name", "*")
    for machine in world.chosen(bound):
        for name in names if isinstance(names, list) else [names]:
            some = [s for s in machine.snapshots if matches(name, s.name)]
            if not some and bound.name != "Get-VMSnapshot":
                text = f'Hyper-V was unable to find a checkpoint "{name}" of "{machine.name}".'
                raise bad(bound, text)
            yield from ((machine, s) for s in some)


def get(world: World, bound: Bound) -> Iterable[Any]:
    if bound.set in ("Id", "Parent", "Child"):
        raise bad(bound, f"Get-VMSnapshot by {bound.set} is not simulated")
    found = [*_chosen(world, bound)]
    if not found and "Name" in bound and not set(bound.get("Name")) & set("*?["):
        text = f'Hyper-V was unable to find a checkpoint with name "{bound.get("Name")}".'
        bound.call.error(bad(bound, text).record)
    return [show.snapshot(world, m, s) for m, s in found]


def restore(world: World, bound: Bound) -> Iterable[Any]:
    """The VM is as it was: what ran is turned off, and its disks' layers since are thrown away."""
    bound.sure("Restore-VMSnapshot will restore the checkpoint")
    found = [*_chosen(world, bound)]
    if len(found) != 1:
        raise bad(bound, "one checkpoint can be restored at a time")
    ((one, snapshot),) = found
    turn_off(world, one)
    before = one.config
    one.config = snapshot.config.copy()
    _throw_away(world, one, before)
    _branch(world, one)
    one.current = snapshot.id
    if world.guests is not None:
        world.guests.revert(one, str(snapshot.id))
    if snapshot.memory:
        one.state, one.resumes = "Saved", snapshot.id
        if world.restores_to == "Running":
            one.state, one.started_at = "Running", time.monotonic()
            if world.guests is not None:
                world.guests.start(one)
    return []


def _throw_away(world: World, one: Machine, config: Config) -> None:
    """The topmost layers of a state that no checkpoint keeps."""
    kept = {normal(d.path) for s in one.snapshots for d in s.config.drives if d.path}
    for drive in config.drives:
        layer = not drive.dvd and drive.path.lower().endswith(".avhdx")
        if layer and normal(drive.path) not in kept:
            world.volume.remove(drive.path)


def remove(world: World, bound: Bound) -> Iterable[Any]:
    """The layers below and above it become one."""
    for one, snapshot in [*_chosen(world, bound)]:
        if bound.flag("IncludeAllChildSnapshots"):
            raise bad(bound, "Remove-VMSnapshot -IncludeAllChildSnapshots is not simulated")
        one.snapshots.remove(snapshot)
        for other in one.snapshots:
            if other.parent == snapshot.id:
                other.parent = snapshot.parent
        if one.current == snapshot.id:
            one.current = snapshot.parent
        if one.resumes == snapshot.id:
            one.resumes = None
        _merge(world, one)
        if world.guests is not None:
            world.guests.forget(one, str(snapshot.id))
    return []


def _merge(world: World, one: Machine) -> None:
    """Where no checkpoint needs the layer below, the topmost goes into it."""
    kept = {normal(d.path) for s in one.snapshots for d in s.config.drives if d.path}
    for drive in one.config.drives:
        while not drive.dvd and drive.path.lower().endswith(".avhdx"):
            top = world.volume[drive.path]
            assert top.disk is not None
            below = top.disk.parent
            disks = [world.volume.disk(path) for path in world.volume.paths()]
            others = [
                d for d in disks
                if d is not None and d is not top.disk and d.parent
                and normal(d.parent) == normal(below)
            ]  # fmt: skip
            if normal(below) in kept or others:
                break
            world.volume.remove(drive.path)
            drive.path = below


CMDLETS = {
    "Checkpoint-VM": checkpoint, "Get-VMSnapshot": get, "Restore-VMSnapshot": restore,
    "Remove-VMSnapshot": remove,
}  # fmt: skip
