"""VMs: made, configured, started, stopped, removed.

With a source: the text and id of a VM that is not found, of a wrong state, and that a count of
processors changes while the VM is off only. The rest is plausible.
"""

from __future__ import annotations

import ntpath
import time
from collections.abc import Iterable
from typing import Any

from tests.peers.hyperv import show
from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.model import Adapter, Config, Drive, Machine
from tests.peers.hyperv.world import World
from tests.peers.powershell.errors import PSError
from tests.peers.powershell.host import FileFault
from tests.peers.powershell.values import text

MB = 1 << 20
LEAST_MEMORY = 32 * MB
SERVICES = (
    "Guest Service Interface", "Heartbeat", "Key-Value Pair Exchange", "Shutdown",
    "Time Synchronization", "VSS",
)  # fmt: skip


def wrong_state(bound: Bound, one: Machine, what: str = "") -> PSError:
    return bound.failed(
        "InvalidState", "InvalidOperation",
        f"{what or 'The operation cannot be performed while the object is in its current state.'}"
        f" '{one.name}' (state {one.state})",
    )  # fmt: skip


def bad(bound: Bound, message: str) -> PSError:
    return bound.failed("InvalidParameter", "InvalidArgument", message)


def off(bound: Bound, one: Machine) -> None:
    if one.state != "Off":
        raise wrong_state(bound, one)


def get_vm(world: World, bound: Bound) -> Iterable[Any]:
    if "Id" in bound:
        return [show.machine(world, world.machine(bound.get("Id"), bound))]
    return [show.machine(world, one) for one in world.chosen(bound, "Name")]


def new_vm(world: World, bound: Bound) -> Iterable[Any]:
    name = bound.get("Name", "New Virtual Machine")
    generation = bound.get("Generation", 1)
    memory = bound.get("MemoryStartupBytes", 512 * MB)
    _judge_memory(bound, memory)
    folder = ntpath.join(bound.get("Path", "C:\\ProgramData\\Microsoft\\Windows\\Hyper-V"), name)
    config = Config(memory=memory, services=dict.fromkeys(SERVICES, True))
    config.services["Guest Service Interface"] = False
    one = Machine(name, generation, folder, config)
    adapter = Adapter("Network Adapter")
    if switch := bound.get("SwitchName"):
        adapter.switch = find_switch(world, bound, switch)
    config.adapters.append(adapter)
    kind = "IDE" if generation == 1 else "SCSI"
    if path := bound.get("VHDPath"):
        usable(world, bound, path)
        config.drives.append(Drive(False, kind, 0, 0, path))
    if "NewVHDPath" in bound:
        raise bad(bound, "New-VM -NewVHDPath is not simulated")
    if generation == 1:
        config.drives.append(Drive(True, "IDE", 1, 0))
    try:
        world.volume.make_folder(folder)
    except FileFault as e:
        raise bad(bound, str(e)) from e
    world.machines.append(one)
    return [show.machine(world, one)]


def find_switch(world: World, bound: Bound, name: str) -> Any:
    found = [s for s in world.switches if s.name.lower() == name.lower()]
    if not found:
        raise bad(bound, f'Hyper-V was unable to find a virtual switch with name "{name}".')
    if len(found) > 1:
        raise bad(bound, f'Hyper-V found more than one virtual switch with name "{name}".')
    return found[0].id


def usable(world: World, bound: Bound, path: str) -> None:
    """A virtual disk that is there, with all that it stands on, and in no other VM's drive."""
    try:
        world.volume.chain(path)
    except FileFault as e:
        raise bound.failed("ObjectNotFound", "ObjectNotFound", f"'{path}': {e}") from e
    if others := world.holders(path):
        text = f"the disk '{path}' is already connected to the virtual machine '{others[0].name}'."
        raise bound.failed("OperationFailed", "ResourceBusy", text)


def _judge_memory(bound: Bound, memory: int) -> None:
    if memory < LEAST_MEMORY or memory % (2 * MB):
        raise bad(bound, f"'{memory}' is no amount of memory: 32 MB at least, by 2 MB")


_SET_VM = {
    "Notes": "notes", "CheckpointType": "checkpoint_type",
    "AutomaticCheckpointsEnabled": "auto_checkpoints", "AutomaticStopAction": "stop_action",
    "AutomaticStartAction": "start_action",
}  # fmt: skip


def set_vm(world: World, bound: Bound) -> Iterable[Any]:
    found = world.chosen(bound, "Name")
    for one in found:
        hard = {"ProcessorCount", "StaticMemory", "DynamicMemory"} & bound.values.keys()
        if hard or ("MemoryStartupBytes" in bound and one.config.dynamic_memory):
            off(bound, one)
        if "ProcessorCount" in bound:
            _set_count(world, bound, one, bound.get("ProcessorCount"))
        if bound.flag("StaticMemory") and bound.flag("DynamicMemory"):
            raise bad(bound, "StaticMemory and DynamicMemory exclude each other")
        if "StaticMemory" in bound:
            one.config.dynamic_memory = not bound.flag("StaticMemory")
        if "DynamicMemory" in bound:
            one.config.dynamic_memory = bound.flag("DynamicMemory")
        if "MemoryStartupBytes" in bound:
            off(bound, one)
            _judge_memory(bound, bound.get("MemoryStartupBytes"))
            one.config.memory = bound.get("MemoryStartupBytes")
        for parameter, attribute in _SET_VM.items():
            if parameter in bound:
                value = bound.get(parameter)
                setattr(one, attribute, value if isinstance(value, bool) else text(value))
        if "NewVMName" in bound:
            one.name = bound.get("NewVMName")
        known = {*_SET_VM, "Name", "VM", "NewVMName", "ProcessorCount", "StaticMemory",
                 "DynamicMemory", "MemoryStartupBytes", "Passthru", "Confirm"}  # fmt: skip
        for parameter in bound.values.keys() - known:
            one.config.settings[parameter] = bound.get(parameter)
    return [show.machine(world, one) for one in found] if bound.flag("Passthru") else []


def remove_vm(world: World, bound: Bound) -> Iterable[Any]:
    """Its disks stay, and so do those that checkpoints made."""
    bound.sure("Remove-VM will remove virtual machine")
    for one in world.chosen(bound, "Name"):
        if one.state not in ("Off", "Saved"):
            raise wrong_state(bound, one, "Failed to remove the virtual machine.")
        world.machines.remove(one)
        world.volume.remove_folder(one.path)
        if world.guests is not None:
            world.guests.remove(one)
    return []


def rename_vm(world: World, bound: Bound) -> Iterable[Any]:
    for one in world.chosen(bound, "Name"):
        one.name = bound.get("NewName")
    return []


def start_vm(world: World, bound: Bound) -> Iterable[Any]:
    for one in world.chosen(bound, "Name"):
        if one.state in ("Running",):
            continue  # with a warning
        if one.state not in ("Off", "Saved", "Paused"):
            raise wrong_state(bound, one, "Failed to start.")
        _judge_start(world, bound, one)
        one.state, one.started_at, one.ready = "Running", time.monotonic(), False
        for adapter in one.config.adapters:
            if adapter.dynamic and adapter.mac == "0" * 12:
                adapter.mac = f"00155D{len(world.calls) & 0xFFFFFF:06X}"
        if world.guests is not None:
            world.guests.start(one)
        else:
            one.ready = True
    return []


def _judge_start(world: World, bound: Bound, one: Machine) -> None:
    used = sum(m.config.memory for m in world.machines if m.state == "Running")
    if used + one.config.memory > world.memory * 9 // 10:
        text = (
            f"'{one.name}' could not initialize. Not enough memory in the"
            " system to start the virtual machine"
        )
        raise bound.failed("OutOfMemory", "ResourceUnavailable", text)
    if one.config.processors > world.processors:
        raise bad(bound, f"'{one.name}' has more virtual processors than the host has logical ones")
    for drive in one.config.drives:
        try:
            if drive.path and drive.dvd:
                world.volume[drive.path]
            elif drive.path:
                world.volume.chain(drive.path)
        except FileFault as e:
            text = f"'{one.name}' failed to start. Attachment '{drive.path}' not found: {e}"
            raise bound.failed("OperationFailed", "ObjectNotFound", text) from e
    macs = [a.mac for m in world.machines if m.state == "Running" for a in m.config.adapters]
    for adapter in one.config.adapters:
        if adapter.mac in macs and not adapter.dynamic:
            world.complain(f"{one.name}: MAC {adapter.mac} is another running VM's too")


def stop_vm(world: World, bound: Bound) -> Iterable[Any]:
    """Without -TurnOff it asks the guest, which has to have the means to hear that."""
    for one in world.chosen(bound, "Name"):
        if one.state == "Off":
            continue  # with a warning
        if bound.flag("Save"):
            raise bad(bound, "Stop-VM -Save is not simulated")
        if not bound.flag("TurnOff"):
            if one.state != "Running":
                raise wrong_state(bound, one, "Failed to stop.")
            if not (one.ready and one.config.services.get("Shutdown")):
                text = f"'{one.name}' cannot be shut down: the device is not ready for use."
                raise bound.failed("OperationFailed", "InvalidOperation", text)
        turn_off(world, one)
    return []


def remove_saved_state(world: World, bound: Bound) -> Iterable[Any]:
    for one in world.chosen(bound):
        if one.state != "Saved":
            raise wrong_state(bound, one)
        turn_off(world, one)
    return []


def turn_off(world: World, one: Machine) -> None:
    one.state, one.ready, one.resumes = "Off", False, None
    for adapter in one.config.adapters:
        adapter.addresses = ()
    if world.guests is not None:
        world.guests.stop(one)


def get_processor(world: World, bound: Bound) -> Iterable[Any]:
    return [show.processor(one) for one in world.chosen(bound)]


def _set_count(world: World, bound: Bound, one: Machine, count: int) -> None:
    off(bound, one)
    if not 1 <= count <= min(world.processors, 64 if one.generation == 1 else 2048):
        raise bad(bound, f"'{count}' is no number of processors for '{one.name}'")
    one.config.processors = count


def set_processor(world: World, bound: Bound) -> Iterable[Any]:
    ranges = {"RelativeWeight": (1, 10000), "Maximum": (0, 100), "Reserve": (0, 100)}
    for name, (low, high) in ranges.items():
        if name in bound and not low <= bound.get(name) <= high:
            raise bad(bound, f"'{bound.get(name)}' is out of range for {name}: {low} to {high}")
    for one in world.chosen(bound):
        if "Count" in bound:
            _set_count(world, bound, one, bound.get("Count"))
        config = one.config
        config.weight = bound.get("RelativeWeight", config.weight)
        maximum = bound.get("Maximum", config.maximum)
        reserve = bound.get("Reserve", config.reserve)
        if reserve > maximum:
            raise bad(bound, f"the reserve of '{one.name}' cannot be more than its maximum")
        if reserve != config.reserve:
            off(bound, one)
        config.maximum, config.reserve = maximum, reserve
        known = {"VMName", "VM", "Count", *ranges, "Passthru", "Confirm"}
        for name in bound.values.keys() - known:
            off(bound, one)
            config.settings[name] = bound.get(name)
    return []


CMDLETS = {
    "Get-VM": get_vm, "New-VM": new_vm, "Set-VM": set_vm, "Remove-VM": remove_vm,
    "Remove-VMSavedState": remove_saved_state, "Rename-VM": rename_vm, "Start-VM": start_vm,
    "Stop-VM": stop_vm,
    "Get-VMProcessor": get_processor, "Set-VMProcessor": set_processor,
}  # fmt: skip
