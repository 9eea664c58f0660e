"""The life of machines: on and off, snapshots, and their end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from uuid import uuid4

from tests.peers.vbox import grammar
from tests.peers.vbox.grammar import once
from tests.peers.vbox.world import UNLOCK_S, Machine, SyntaxFault, VboxError, World

Argv = Sequence[str]


def difference(machine: Machine) -> str:
    return str(machine.folder / "Snapshots" / f"{{{uuid4()}}}.vdi")


def write_disks(machine: Machine) -> None:
    for medium in machine.hardware.media.values():
        if medium.startswith(str(machine.folder)) and medium.endswith(".vdi"):
            Path(medium).parent.mkdir(parents=True, exist_ok=True)
            Path(medium).write_text("a difference")


def media(machine: Machine) -> set[str]:
    every = [machine.hardware, *(s.hardware for s in machine.snapshots)]
    return {medium for hw in every for medium in hw.media.values()}


def startvm(world: World, argv: Argv) -> str:
    machine = world.machine(argv[0])
    if once(argv[1:], {"--type": 1}).get("--type") != "headless":
        raise AssertionError(f"startvm {argv[1:]} is not modelled")
    if machine.locked:
        raise VboxError(f"The machine '{machine.name}' is already locked by a session (or being "
                        "locked or unlocked)", "VBOX_E_INVALID_OBJECT_STATE")  # fmt: skip
    hw, there = machine.hardware, world.interfaces()
    for nic in hw.nics:
        name = {"bridged": nic.bridge, "hostonly": nic.hostonly}.get(nic.kind)
        if name is not None and name not in there:
            raise VboxError(f"Nonexistent host networking interface, name '{name}' "
                            "(VERR_INTERNAL_ERROR)", "NS_ERROR_FAILURE")  # fmt: skip
    macs = [n.mac for n in hw.nics if n.kind != "none"]
    assert len(set(macs)) == len(macs), f"{machine.name}: one MAC twice"
    if hw.cpus > 1 and not hw.ioapic:
        raise VboxError("The virtual machine needs an I/O APIC for more than one CPU",
                        "NS_ERROR_FAILURE")  # fmt: skip
    if hw.uart[0] == "file":
        Path(hw.uart[1]).touch()
    machine.state = "starting"
    _inside(world, lambda: world.inside.start(machine) if world.inside else None)
    machine.state = "running"
    machine.save()
    return f'Waiting for VM "{machine.name}" to power on...\nVM "{machine.name}" has been ' \
           "successfully started.\n"  # fmt: skip


def _inside(world: World, work: Callable[[], object]) -> None:
    """Without the world's lock: others may ask meanwhile."""
    world.lock.release()
    try:
        work()
    finally:
        world.lock.acquire()


def controlvm(world: World, argv: Argv) -> str:
    if len(argv) < 2:
        raise SyntaxFault("Not enough parameters")
    machine = world.machine(argv[0])
    if not machine.on:
        raise VboxError(f"Machine '{machine.name}' is not currently running.")
    match argv[1:]:
        case ["poweroff"]:
            off(world, machine)
        case ["pause"]:
            _only(machine, "running")
            machine.state = "paused"
        case ["resume"]:
            _only(machine, "paused")
            machine.state = "running"
        case ["cpuexecutioncap", share]:
            machine.hardware.cap = grammar.within(share, 1, 100, "CPU execution cap value")
        case other:
            raise AssertionError(f"controlvm {other} is not modelled")
    machine.save()
    return ""


def _only(machine: Machine, *states: str) -> None:
    if machine.state not in states:
        raise VboxError(f"Invalid machine state: {machine.state.capitalize()}",
                        "VBOX_E_INVALID_VM_STATE")  # fmt: skip


def off(world: World, machine: Machine) -> None:
    _only(machine, "running", "paused")
    machine.state = "stopping"
    _inside(world, lambda: world.inside.stop(machine) if world.inside else None)
    machine.state, machine.unlocked_at = "poweroff", time.monotonic() + UNLOCK_S


def discardstate(world: World, argv: Argv) -> str:
    machine = world.machine(argv[0])
    machine.lock()
    _only(machine, "saved")
    machine.state = "poweroff"
    machine.save()
    return ""


def snapshot(world: World, argv: Argv) -> str:
    if len(argv) != 3:
        raise AssertionError(f"snapshot {argv} is not modelled")
    machine, verb, name = world.machine(argv[0]), argv[1], argv[2]
    if not machine.on:
        machine.lock()
    if verb == "take":
        taken = machine.keep(name)
        if world.inside:
            inside = world.inside
            _inside(world, lambda: inside.snapshot(machine, taken))
        machine.snapshots.append(taken)
        for at, medium in machine.hardware.media.items():
            if medium.endswith(".vdi"):
                machine.hardware.media[at] = str(
                    machine.folder / "Snapshots" / f"{{{uuid4()}}}.vdi"
                )
        write_disks(machine)
        if taken.online:
            (machine.folder / "Snapshots" / f"{taken.uuid}.sav").write_text("memory")
    elif verb == "delete":
        found = machine.snapshot(name)
        machine.snapshots.remove(found)
        (machine.folder / "Snapshots" / f"{found.uuid}.sav").unlink(missing_ok=True)
    elif verb == "restore":
        if machine.on:
            raise VboxError(
                "Cannot delete the current state of the running machine (machine state: "
                f"{machine.state.capitalize()})", "VBOX_E_INVALID_VM_STATE",
            )  # fmt: skip
        found = machine.snapshot(name)
        machine.hardware = deepcopy(found.hardware)
        machine.state = "saved" if found.online else "poweroff"
        if world.inside:
            inside = world.inside
            _inside(world, lambda: inside.revert(machine, found))
    else:
        raise AssertionError(f"snapshot {verb} is not modelled")
    machine.save()
    return "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%\n"


def unregistervm(world: World, argv: Argv) -> str:
    machine = world.machine(argv[0])
    asked = once(argv[1:], {"--delete": 0})
    if machine.locked:
        raise VboxError(f"Cannot unregister the machine '{machine.name}' while it is locked",
                        "VBOX_E_INVALID_OBJECT_STATE")  # fmt: skip
    world.machines.remove(machine)
    world.dvds -= {d for d in world.dvds if d in media(machine)}
    if world.inside:
        inside = world.inside
        _inside(world, lambda: inside.remove(machine))
    if asked:
        machine.settings.unlink(missing_ok=True)
        shutil.rmtree(machine.folder / "Snapshots", ignore_errors=True)
        if not any(machine.folder.iterdir()):
            machine.folder.rmdir()
    return ""
