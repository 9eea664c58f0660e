"""VBoxManage's subcommands, those that are modelled: what each takes, checks and does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from uuid import UUID, uuid4

from tests.peers.vbox import grammar, life, show
from tests.peers.vbox.grammar import once, options
from tests.peers.vbox.world import (
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
            made.hardware.media[at] = life.difference(made)
    made.save()
    life.write_disks(made)
    if any(uuid == m.uuid for m in world.machines):
        raise VboxError(f"Machine with UUID {{{uuid}}} is registered", "VBOX_E_OBJECT_IN_USE")
    if "--register" in asked:
        world.machines.append(made)
    return f'Machine has been successfully cloned as "{name}"\n'


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
    if any(path in life.media(m) for m in world.machines):
        raise VboxError(f"Cannot close medium '{path}' because it is still attached to 1 virtual "
                        "machines", "VBOX_E_OBJECT_IN_USE")  # fmt: skip
    world.dvds.discard(path)
    return ""


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


COMMANDS: Mapping[str, Callable[[World, Argv], str]] = {
    "list": _list, "showvminfo": _showvminfo, "clonevm": _clonevm, "modifyvm": _modifyvm,
    "bandwidthctl": _bandwidthctl, "storageattach": _storageattach, "closemedium": _closemedium,
    "setextradata": _extradata, "getextradata": _getextradata, "startvm": life.startvm,
    "controlvm": life.controlvm, "discardstate": life.discardstate, "snapshot": life.snapshot,
    "unregistervm": life.unregistervm,
}  # fmt: skip
