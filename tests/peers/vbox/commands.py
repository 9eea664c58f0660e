"""VBoxManage's subcommands, those that are modelled: what each takes, checks and does."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from uuid import UUID, uuid4

from tests.peers.vbox import grammar, show
from tests.peers.vbox.grammar import once, options
from tests.peers.vbox.world import (
    UNLOCK_S,
    Hardware,
    Machine,
    Nic,
    SyntaxFault,
    VboxError,
    World,
)

VERSION = "7.0.20r163906"
Argv = Sequence[str]


def run(world: World, argv: Argv) -> str:
    """What the command prints. Raises VboxError."""
    if argv and argv[0] in ("--version", "-V"):
        return f"{VERSION}\n"
    if not argv or argv[0] not in COMMANDS:
        raise SyntaxFault(f"Invalid command '{argv[0] if argv else ''}'")
    return COMMANDS[argv[0]](world, argv[1:])


def _list(world: World, argv: Argv) -> str:
    if len(argv) != 1:
        raise SyntaxFault("Missing or invalid list subcommand")
    match argv[0]:
        case "vms":
            found = world.machines
        case "runningvms":
            found = [m for m in world.machines if m.on]
        case "systemproperties":
            return (
                "API version:                     7_0\n"
                f"Default machine folder:          {world.root}\n"
            )
        case "bridgedifs":
            names = [n for n in world.interfaces() if n not in (*world.hostonly, "lo")]
            return "".join(_interface(n, "HostInterfaceNetworking") for n in names)
        case "hostonlyifs":
            return "".join(_interface(n, "HostInterfaceNetworking") for n in world.hostonly)
        case other:
            raise SyntaxFault(f"Invalid list subcommand '{other}'")
    return "".join(f'"{m.name}" {{{m.uuid}}}\n' for m in found)


def _interface(name: str, network: str) -> str:
    return (
        f"Name:            {name}\nGUID:            {uuid4()}\nDHCP:            Disabled\n"
        f"MediumType:      Ethernet\nStatus:          Up\nVBoxNetworkName: {network}-{name}\n\n"
    )


def _showvminfo(world: World, argv: Argv) -> str:
    names = [w for w in argv if not w.startswith("-")]
    flags = [w for w in argv if w.startswith("-")]
    if len(names) != 1 or set(flags) - {"--machinereadable"}:
        raise SyntaxFault("VM name or UUID required")
    machine = world.machine(names[0])
    return show.machinereadable(machine) if flags else show.human(machine)


def _clonevm(world: World, argv: Argv) -> str:
    if not argv:
        raise SyntaxFault("VM name required")
    source = world.machine(argv[0])
    known = ("--basefolder", "--groups", "--mode", "--name", "--options", "--snapshot", "--uuid")
    asked = once(argv[1:], {**dict.fromkeys(known, 1), "--register": 0})
    linked = "link" in asked.get("--options", "").lower().split(",")
    if not linked or "--snapshot" not in asked:
        raise VboxError("Linked clone can only be created from a snapshot", "E_INVALIDARG")
    snapshot = source.snapshot(asked["--snapshot"])
    uuid = str(UUID(asked.get("--uuid", str(uuid4()))))
    groups = tuple(asked.get("--groups", "/").split(","))
    if not all(re.fullmatch(r"/([^/]+(/[^/]+)*)?", g) for g in groups):
        raise VboxError(f"Invalid group '{groups}'", "E_INVALIDARG")
    name = asked.get("--name", f"{source.name} Clone")
    base = Path(asked.get("--basefolder", str(world.root)))
    made = Machine(name, uuid, groups, base / groups[0].strip("/") / name)
    if made.settings.exists():
        raise VboxError(f"Machine settings file '{made.settings}' already exists",
                        "VBOX_E_FILE_ERROR")  # fmt: skip
    made.hardware = deepcopy(snapshot.hardware)
    made.state = "saved" if snapshot.online else "poweroff"
    for nic in made.hardware.nics:
        nic.mac = f"080027{uuid4().hex[:6].upper()}" if nic.kind != "none" else nic.mac
    for at, medium in made.hardware.media.items():
        if medium.endswith(".vdi"):
            made.hardware.media[at] = _difference(made)
    made.save()
    _write_disks(made)
    if any(uuid == m.uuid for m in world.machines):
        raise VboxError(f"Machine with UUID {{{uuid}}} is registered", "VBOX_E_OBJECT_IN_USE")
    if "--register" in asked:
        world.machines.append(made)
    return f'Machine has been successfully cloned as "{name}"\n'


def _difference(machine: Machine) -> str:
    return str(machine.folder / "Snapshots" / f"{{{uuid4()}}}.vdi")


def _write_disks(machine: Machine) -> None:
    for medium in machine.hardware.media.values():
        if medium.startswith(str(machine.folder)) and medium.endswith(".vdi"):
            Path(medium).parent.mkdir(parents=True, exist_ok=True)
            Path(medium).write_text("a difference")


def _modifyvm(world: World, argv: Argv) -> str:
    machine = world.machine(argv[0])
    machine.lock()
    machine.mutable()
    draft = deepcopy(machine.hardware)  # all of it is saved, or nothing
    for name, number, values in options(argv[1:], grammar.MODIFY):
        if name in ("--name", "--groups", "--description"):
            raise AssertionError(f"modifyvm {name} is not modelled")
        if name.startswith("--uart"):
            _uart(draft, name, number, values)
        elif number:
            _nic(draft, draft.nics[grammar.adapter(number)], name, number, values[0])
        else:
            _processor(draft, name, values[0])
    machine.hardware = draft
    machine.save()
    return ""


def _processor(hw: Hardware, name: str, value: str) -> None:
    if name == "--cpus":
        hw.cpus = grammar.within(value, 1, 64, "virtual CPU count")
    elif name == "--memory":
        hw.memory = grammar.within(value, 4, 2097152, "RAM size")
    elif name == "--cpuexecutioncap":
        hw.cap = grammar.within(value, 1, 100, "CPU execution cap value")
    else:
        hw.ioapic = grammar.on_off(value)


def _uart(hw: Hardware, name: str, number: int, values: list[str]) -> None:
    if number != 1:
        raise AssertionError("one UART is modelled")
    if name == "--uartN":
        hw.uart = ("", "") if values == ["off"] else (hw.uart[0] or "disconnected", hw.uart[1])
    else:
        hw.uart = (values[0], values[1] if len(values) > 1 else "")


def _nic(hw: Hardware, nic: Nic, name: str, number: int, value: str) -> None:
    match name:
        case "--nicN":
            if value not in grammar.NIC_KINDS:
                raise SyntaxFault(f"Invalid type '{value}' specfied for NIC {number}")
            nic.kind = value
        case "--nictypeN":
            if value not in grammar.NIC_TYPES:
                raise SyntaxFault(f"Invalid NIC type '{value}' specified for NIC {number}")
            nic.type = value
        case "--macaddressN":
            if not re.fullmatch(r"[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{10}", value):
                raise VboxError("Invalid MAC address format", "E_INVALIDARG")
            nic.mac = value.upper()
        case "--cableconnectedN":
            nic.connected = grammar.on_off(value)
        case "--bridgeadapterN":
            nic.bridge = "" if value == "none" else value
        case "--hostonlyadapterN":
            nic.hostonly = "" if value == "none" else value
        case "--nicbandwidthgroupN":
            if value != "none" and value not in hw.limits:
                raise VboxError(f"Could not find a bandwidth group named '{value}'",
                                "VBOX_E_OBJECT_NOT_FOUND")  # fmt: skip
            nic.limit = value


def _bandwidthctl(world: World, argv: Argv) -> str:
    if len(argv) < 3:
        raise SyntaxFault("Too few parameters")
    machine, verb, name = world.machine(argv[0]), argv[1], argv[2]
    limits = machine.hardware.limits
    if verb == "add":
        if machine.on:
            raise SyntaxFault("Bandwidth groups cannot be created while the VM is running")
        machine.lock()
        asked = once(argv[3:], {"--type": 1, "--limit": 1})
        if asked.get("--type") not in ("disk", "network"):
            raise SyntaxFault("Invalid bandwidth group type")
        if name in limits:
            raise VboxError(f"Bandwidth group named '{name}' already exists",
                            "VBOX_E_OBJECT_IN_USE")  # fmt: skip
        limits[name] = (asked["--type"], grammar.limit(asked["--limit"]))
    elif verb == "set":
        if not machine.on:
            machine.lock()
        if name not in limits:
            raise VboxError(f"Could not find a bandwidth group named '{name}'",
                            "VBOX_E_OBJECT_NOT_FOUND")  # fmt: skip
        limits[name] = (limits[name][0], grammar.limit(once(argv[3:], {"--limit": 1})["--limit"]))
    else:
        raise AssertionError(f"bandwidthctl {verb} is not modelled")
    machine.save()
    return ""


def _storageattach(world: World, argv: Argv) -> str:
    machine = world.machine(argv[0])
    known = ("--storagectl", "--port", "--device", "--type", "--medium")
    asked = once(argv[1:], dict.fromkeys(known, 1))
    if set(asked) != set(known) or asked["--type"] != "dvddrive":
        raise AssertionError(f"storageattach {argv[1:]} is not modelled")
    machine.lock()
    machine.mutable()
    controller, port, device = asked["--storagectl"], int(asked["--port"]), int(asked["--device"])
    if controller not in machine.hardware.controllers:
        raise VboxError(f"Could not find a storage controller named '{controller}'",
                        "VBOX_E_OBJECT_NOT_FOUND")  # fmt: skip
    if port >= machine.hardware.controllers[controller] or device > 1:
        raise VboxError("Invalid port or device", "E_INVALIDARG")
    medium = asked["--medium"]
    if medium not in ("none", "emptydrive"):
        if not Path(medium).exists():
            raise VboxError(f"Could not find file for the medium '{medium}' (VERR_FILE_NOT_FOUND)",
                            "VBOX_E_FILE_ERROR")  # fmt: skip
        world.dvds.add(medium)
    at = (controller, port, device)
    if medium == "none":
        machine.hardware.media.pop(at, None)
    else:
        machine.hardware.media[at] = medium
    machine.save()
    return ""


def _closemedium(world: World, argv: Argv) -> str:
    if len(argv) != 2 or argv[0] not in ("disk", "dvd", "floppy"):
        raise SyntaxFault("Invalid parameters")
    path = argv[1]
    if not Path(path).exists() and path not in world.dvds:
        raise VboxError(f"Could not find file for the medium '{path}'", "VBOX_E_FILE_ERROR")
    if any(path in _media(m) for m in world.machines):
        raise VboxError(f"Cannot close medium '{path}' because it is still attached to 1 virtual "
                        "machines", "VBOX_E_OBJECT_IN_USE")  # fmt: skip
    world.dvds.discard(path)
    return ""


def _media(machine: Machine) -> set[str]:
    every = [machine.hardware, *(s.hardware for s in machine.snapshots)]
    return {medium for hw in every for medium in hw.media.values()}


def _extradata(world: World, argv: Argv) -> str:
    if len(argv) not in (2, 3):
        raise SyntaxFault("Incorrect number of parameters")
    machine = world.machine(argv[0])
    if len(argv) == 3:
        machine.extra[argv[1]] = argv[2]
        machine.save()
    return ""


def _getextradata(world: World, argv: Argv) -> str:
    if len(argv) != 2:
        raise SyntaxFault("Incorrect number of parameters")
    value = world.machine(argv[0]).extra.get(argv[1])
    return "No value set!\n" if value is None else f"Value: {value}\n"


def _startvm(world: World, argv: Argv) -> str:
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


def _controlvm(world: World, argv: Argv) -> str:
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


def _discardstate(world: World, argv: Argv) -> str:
    machine = world.machine(argv[0])
    machine.lock()
    _only(machine, "saved")
    machine.state = "poweroff"
    machine.save()
    return ""


def _snapshot(world: World, argv: Argv) -> str:
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
        _write_disks(machine)
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


def _unregistervm(world: World, argv: Argv) -> str:
    machine = world.machine(argv[0])
    asked = once(argv[1:], {"--delete": 0})
    if machine.locked:
        raise VboxError(f"Cannot unregister the machine '{machine.name}' while it is locked",
                        "VBOX_E_INVALID_OBJECT_STATE")  # fmt: skip
    world.machines.remove(machine)
    world.dvds -= {d for d in world.dvds if d in _media(machine)}
    if world.inside:
        inside = world.inside
        _inside(world, lambda: inside.remove(machine))
    if asked:
        machine.settings.unlink(missing_ok=True)
        shutil.rmtree(machine.folder / "Snapshots", ignore_errors=True)
        if not any(machine.folder.iterdir()):
            machine.folder.rmdir()
    return ""


COMMANDS: Mapping[str, Callable[[World, Argv], str]] = {
    "list": _list, "showvminfo": _showvminfo, "clonevm": _clonevm, "modifyvm": _modifyvm,
    "bandwidthctl": _bandwidthctl, "storageattach": _storageattach, "closemedium": _closemedium,
    "setextradata": _extradata, "getextradata": _getextradata, "startvm": _startvm,
    "controlvm": _controlvm, "discardstate": _discardstate, "snapshot": _snapshot,
    "unregistervm": _unregistervm,
}  # fmt: skip
