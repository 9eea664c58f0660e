"""Memory, firmware, BIOS and integration services of VMs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.peers.hyperv import show
from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.model import Drive, Machine, enum
from tests.peers.hyperv.show import TYPE
from tests.peers.hyperv.vms import bad, off
from tests.peers.hyperv.world import World, matches
from tests.peers.powershell.values import PSObject, text


def get_memory(world: World, bound: Bound) -> Iterable[Any]:
    return [show.memory(one) for one in world.chosen(bound)]


def set_memory(world: World, bound: Bound) -> Iterable[Any]:
    for one in world.chosen(bound):
        config = one.config
        if "DynamicMemoryEnabled" in bound:
            off(bound, one)
            config.dynamic_memory = bound.get("DynamicMemoryEnabled")
        if "StartupBytes" in bound:
            off(bound, one)
            config.memory = bound.get("StartupBytes")
        for name in bound.values.keys() - {"VMName", "VM", "DynamicMemoryEnabled", "StartupBytes"}:
            config.settings[name] = bound.get(name)
    return []


def _second(bound: Bound, one: Machine) -> None:
    if one.generation != 2:
        raise bad(bound, f"'{one.name}': firmware is of generation 2 virtual machines")


def get_firmware(world: World, bound: Bound) -> Iterable[Any]:
    found = []
    for one in world.chosen(bound):
        _second(bound, one)
        found.append(PSObject({
            "VMName": one.name, "VMId": one.id,
            "SecureBoot": enum("OnOffState", "On" if one.config.secure_boot else "Off"),
            "BootOrder": [], "ConsoleMode": enum("ConsoleModeType", "Default"),
        }, f"{TYPE}.VMFirmware"))  # fmt: skip
    return found


def set_firmware(world: World, bound: Bound) -> Iterable[Any]:
    for one in world.chosen(bound):
        _second(bound, one)
        off(bound, one)
        if "EnableSecureBoot" in bound:
            one.config.secure_boot = text(bound.get("EnableSecureBoot")) == "On"
        first = bound.get("FirstBootDevice")
        if first is not None:
            ids = [f"Microsoft:{one.id}\\{part.id}" for part in _parts(one)]
            if text(first.properties["Id"]) not in ids:
                raise bad(bound, f"'{one.name}': the first boot device is none of its own")
            one.config.boot = (text(first.properties["Id"]),)
        for name in bound.values.keys() - {"VMName", "VM", "EnableSecureBoot", "FirstBootDevice"}:
            one.config.settings[name] = bound.get(name)
    return []


def _parts(one: Machine) -> list[Any]:
    parts: list[Any] = [*one.config.drives]
    return parts + one.config.adapters


def bios(world: World, bound: Bound) -> Iterable[Any]:
    """Get-VMBios and Set-VMBios."""
    found = []
    for one in world.chosen(bound):
        if one.generation != 1:
            raise bad(bound, f"'{one.name}': a BIOS is of generation 1 virtual machines")
        if bound.name == "Set-VMBios":
            off(bound, one)
            if "StartupOrder" in bound:
                one.config.boot = tuple(text(v) for v in bound.get("StartupOrder"))
        else:
            order = one.config.boot or ("CD", "IDE", "LegacyNetworkAdapter", "Floppy")
            devices = [enum("BootDevice", name) for name in order]
            found.append(PSObject({
                "VMName": one.name, "VMId": one.id, "StartupOrder": devices,
                "NumLockEnabled": False,
            }, f"{TYPE}.VMBios"))  # fmt: skip
    return found


def services(world: World, bound: Bound) -> Iterable[Any]:
    """Get-, Enable- and Disable-VMIntegrationService."""
    found = []
    names = bound.get("Name") or ["*"]
    for one in world.chosen(bound):
        known = one.config.services
        for asked in names:
            some = [name for name in known if matches(asked, name)]
            if not some:
                raise bad(bound, f"'{one.name}' has no integration service '{asked}'")
            for name in some:
                if bound.name != "Get-VMIntegrationService":
                    known[name] = bound.name.startswith("Enable")
                    continue
                beats = one.state == "Running" and one.ready and known[name]
                found.append(PSObject({
                    "VMName": one.name, "VMId": one.id, "Name": name, "Enabled": known[name],
                    "PrimaryOperationalStatus": enum(
                        "VMIntegrationComponentOperationalStatus", "Ok" if beats else "NoContact"
                    ),
                    "PrimaryStatusDescription": "OK" if beats else "No Contact",
                    "SecondaryOperationalStatus": None, "SecondaryStatusDescription": "",
                    "Id": f"Microsoft:{one.id}\\{name}",
                }, f"{TYPE}.VMIntegrationComponent"))  # fmt: skip
    return found


def free_place(bound: Bound, one: Machine, dvd: bool) -> tuple[str, int, int]:
    """Where a drive goes: as asked, or the first free place of the generation's controllers."""
    kind = text(bound.get("ControllerType", "")) or ("IDE" if one.generation == 1 else "SCSI")
    number, at = bound.get("ControllerNumber"), bound.get("ControllerLocation")
    if kind == "IDE" and one.generation == 2:
        raise bad(bound, f"'{one.name}': generation 2 virtual machines have no IDE controllers")
    if kind == "SCSI" and one.generation == 1 and dvd:
        raise bad(bound, f"'{one.name}': a DVD drive of generation 1 is on an IDE controller")
    if kind == "IDE" and one.state != "Off":
        off(bound, one)
    taken = {(d.controller, d.number, d.location) for d in one.config.drives}
    numbers = [number] if number is not None else [0, 1] if kind == "IDE" else [0]
    places = range(2) if kind == "IDE" else range(64)
    if any(n not in (0, 1) for n in numbers) and kind == "IDE":
        raise bad(bound, f"'{one.name}' has no IDE controller {number}")
    for n in numbers:
        for p in [at] if at is not None else places:
            if p not in places:
                raise bad(bound, f"no location {p} on a controller of kind {kind}")
            if (kind, n, p) not in taken:
                return kind, n, p
    raise bad(bound, f"'{one.name}': no free location on its {kind} controllers")


def place(bound: Bound, one: Machine, *, dvd: bool) -> Drive:
    kind, number, at = free_place(bound, one, dvd)
    return Drive(dvd, kind, number, at)


CMDLETS = {
    "Get-VMMemory": get_memory, "Set-VMMemory": set_memory, "Get-VMFirmware": get_firmware,
    "Set-VMFirmware": set_firmware, "Get-VMBios": bios, "Set-VMBios": bios,
    "Get-VMIntegrationService": services, "Enable-VMIntegrationService": services,
    "Disable-VMIntegrationService": services,
}  # fmt: skip
