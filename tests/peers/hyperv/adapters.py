"""vNICs of VMs. With a source: legacy ones are of generation 1, and a weight needs its mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from tests.peers.hyperv import show
from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.model import NO_MAC, Adapter, Machine
from tests.peers.hyperv.vms import bad, find_switch, off
from tests.peers.hyperv.world import World, matches
from tests.peers.powershell.values import text

_MAC = re.compile(r"([0-9A-Fa-f]{2})([-:]?)([0-9A-Fa-f]{2})(\2[0-9A-Fa-f]{2}){4}")
MOST = {False: 8, True: 4}


def mac(bound: Bound, given: str) -> str:
    """As Hyper-V shows it. Raises where it is none, or a group's."""
    bare = re.sub("[-:]", "", given).upper()
    if not _MAC.fullmatch(given) or int(bare[:2], 16) & 1 or bare == NO_MAC:
        raise bad(bound, f"'{given}' is not a valid static MAC address")
    return bare


def _of(world: World, bound: Bound) -> Iterator[tuple[Machine, Adapter]]:
    """The adapters that a cmdlet is about: as objects, or of VMs by name."""
    given = bound.get("VMNetworkAdapter")
    if given is not None:
        for one in given if isinstance(given, list) else [given]:
            machine = world.machine(one.properties["VMId"], bound)
            for adapter in machine.config.adapters:
                if str(adapter.id) == one.properties["AdapterId"]:
                    yield machine, adapter
        return
    names = bound.get("Name", "*")
    names = names if isinstance(names, list) else [names]
    for machine in world.chosen(bound):
        found = [a for a in machine.config.adapters if any(matches(n, a.name) for n in names)]
        if not found and "Name" in bound and bound.name != "Get-VMNetworkAdapter":
            raise bad(bound, f"'{machine.name}' has no network adapter '{bound.get('Name')}'")
        yield from ((machine, adapter) for adapter in found)


def get(world: World, bound: Bound) -> Iterable[Any]:
    if bound.set == "ManagementOS":
        own = [s for s in world.switches if s.management]
        return [show.adapter(world, None, Adapter(s.name, switch=s.id)) for s in own]
    if bound.set == "VMSnapshot":
        raise bad(bound, "Get-VMNetworkAdapter -VMSnapshot is not simulated")
    if bound.set == "All":
        pairs = [(m, a) for m in world.machines for a in m.config.adapters]
        own = [s for s in world.switches if s.management]
        shown = [show.adapter(world, None, Adapter(s.name, switch=s.id)) for s in own]
        return shown + [show.adapter(world, m, a) for m, a in pairs]
    pairs = [*_of(world, bound)]
    if "IsLegacy" in bound:
        pairs = [(m, a) for m, a in pairs if a.legacy == bound.get("IsLegacy")]
    return [show.adapter(world, m, a) for m, a in pairs]


def add(world: World, bound: Bound) -> Iterable[Any]:
    if bound.set == "ManagementOS":
        raise bad(bound, "Add-VMNetworkAdapter -ManagementOS is not simulated")
    made = []
    for one in world.chosen(bound):
        legacy = bool(bound.get("IsLegacy", False))
        if legacy and one.generation != 1:
            raise bad(
                bound, "Legacy network adapters are not supported on generation 2 virtual machines."
            )
        if legacy or one.generation == 1:
            off(bound, one)
        if sum(a.legacy == legacy for a in one.config.adapters) >= MOST[legacy]:
            raise bad(bound, f"'{one.name}' has as many network adapters of this kind as it can")
        adapter = Adapter(bound.get("Name", "Network Adapter"), legacy)
        if bound.flag("DynamicMacAddress") and "StaticMacAddress" in bound:
            raise bad(bound, "a MAC address is static or dynamic")
        if "StaticMacAddress" in bound:
            adapter.mac, adapter.dynamic = mac(bound, bound.get("StaticMacAddress")), False
        if bound.get("SwitchName"):
            adapter.switch = find_switch(world, bound, bound.get("SwitchName"))
        one.config.adapters.append(adapter)
        _rewired(world, one)
        made.append((one, adapter))
    return [show.adapter(world, m, a) for m, a in made] if bound.flag("Passthru") else []


def remove(world: World, bound: Bound) -> Iterable[Any]:
    for one, adapter in [*_of(world, bound)]:
        if adapter.legacy or one.generation == 1:
            off(bound, one)
        one.config.adapters.remove(adapter)
        _rewired(world, one)
    return []


_RESERVED = {"MinimumBandwidthWeight": "Weight", "MinimumBandwidthAbsolute": "Absolute"}
_FIELDS = {
    "MaximumBandwidth": "maximum_bits", "MinimumBandwidthWeight": "minimum_weight",
    "MinimumBandwidthAbsolute": "minimum_bits",
}  # fmt: skip
#: about whom, not what
_WHOM = {"VMName", "VM", "Name", "VMNetworkAdapter", "Passthru", "Confirm", "ManagementOS"}


def set_(world: World, bound: Bound) -> Iterable[Any]:
    if bound.set == "ManagementOS":
        raise bad(bound, "Set-VMNetworkAdapter -ManagementOS is not simulated")
    for one, adapter in [*_of(world, bound)]:
        switch = world.switch(adapter.switch)
        for name, mode in _RESERVED.items():
            if bound.get(name) and switch is not None and switch.bandwidth != mode:
                raise bad(
                    bound, f"{name} needs a virtual switch whose minimum bandwidth mode is {mode}"
                )
        if (
            "MinimumBandwidthWeight" in bound
            and not 0 <= bound.get("MinimumBandwidthWeight") <= 100
        ):
            raise bad(bound, "MinimumBandwidthWeight is from 0 to 100")
        if "StaticMacAddress" in bound or bound.flag("DynamicMacAddress"):
            off(bound, one)
            adapter.dynamic = bound.flag("DynamicMacAddress")
            adapter.mac = NO_MAC if adapter.dynamic else mac(bound, bound.get("StaticMacAddress"))
        _judge_bits(bound)
        for name, attribute in _FIELDS.items():
            if name in bound:
                setattr(adapter, attribute, bound.get(name))
        synthetic = {"VmqWeight", "VrssEnabled", "IovWeight", "VmmqEnabled"} & bound.values.keys()
        if adapter.legacy and synthetic:
            raise bad(bound, f"a legacy network adapter has no {', '.join(sorted(synthetic))}")
        for name in bound.values.keys() - _WHOM - _FIELDS.keys():
            if name not in ("StaticMacAddress", "DynamicMacAddress"):
                adapter.settings[name] = bound.get(name)
        _rewired(world, one)
    return []


def _judge_bits(bound: Bound) -> None:
    """Hyper-V rounds to bytes and takes no less than 100 kbit/s [plausible]."""
    bits = bound.get("MaximumBandwidth", 0)
    if bits and bits < 100_000:
        raise bad(bound, f"MaximumBandwidth {bits} is less than 100000 bits per second")


def connect(world: World, bound: Bound) -> Iterable[Any]:
    if "SwitchName" not in bound and "VMSwitch" not in bound:
        raise bad(bound, "Connect-VMNetworkAdapter without -SwitchName is not simulated")
    for one, adapter in [*_of(world, bound)]:
        asked = bound.get("VMSwitch")
        if asked is not None:
            adapter.switch = asked.properties["Id"]
        else:
            adapter.switch = find_switch(world, bound, bound.get("SwitchName"))
        _rewired(world, one)
    return []


def disconnect(world: World, bound: Bound) -> Iterable[Any]:
    for one, adapter in [*_of(world, bound)]:
        adapter.switch = None
        _rewired(world, one)
    return []


def rename(world: World, bound: Bound) -> Iterable[Any]:
    for _, adapter in [*_of(world, bound)]:
        adapter.name = text(bound.get("NewName"))
    return []


def _rewired(world: World, one: Machine) -> None:
    if world.guests is not None and one.state == "Running":
        world.guests.rewire(one)


CMDLETS = {
    "Get-VMNetworkAdapter": get, "Add-VMNetworkAdapter": add, "Remove-VMNetworkAdapter": remove,
    "Set-VMNetworkAdapter": set_, "Connect-VMNetworkAdapter": connect,
    "Disconnect-VMNetworkAdapter": disconnect, "Rename-VMNetworkAdapter": rename,
}  # fmt: skip
