"""The physical NICs of an ESXi host, and what uses each, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from drivers.vsphere.place import Place
from provision.driver import UplinkFacts

PNIC = "key-vim.host.PhysicalNic-"
_VM_PORT = "virtualMachine"


def uplinks(place: Place, prefix: str) -> tuple[UplinkFacts, ...]:
    """All of them. What only a switch uses whose name has the prefix is free: it is the testbed's.

    One that is down may be used: its far end may be to come.
    """
    network = place.has["config.network"]
    switches = [s for s in network.vswitch if not s.name.startswith(prefix)]
    users: dict[str, list[str]] = {}
    groups = _groups(network, _services(place.has.get("config.virtualNicManagerInfo")))
    for switch in switches:
        for key in switch.pnic:
            users.setdefault(key, []).append(_words(switch.name, groups.get(switch.name, ())))
    for switch in network.proxySwitch or ():
        for key in switch.pnic:
            users.setdefault(key, []).append(f"distributed switch {switch.dvsName}")
    passed = {p.id for p in place.has.get("config.pciPassthruInfo", ()) if p.passthruEnabled}
    mtus = {key: s.mtu or 1500 for s in network.vswitch for key in s.pnic}
    return tuple(
        UplinkFacts(
            name=nic.device,
            mac=nic.mac.lower(),
            pci=nic.pci or None,
            up=nic.linkSpeed is not None,
            mtu=mtus.get(nic.key, 1500),
            used_by="; ".join(
                [*users.get(nic.key, ()), *(["passed through to VMs"] if nic.pci in passed else [])]
            ),
        )
        for nic in network.pnic
    )


def speeds(place: Place) -> str:
    """The links' speeds, for people."""
    found = [
        f"{n.device} {n.linkSpeed.speedMb} Mbit/s" if n.linkSpeed else f"{n.device} down"
        for n in place.has["config.network"].pnic
    ]
    return ", ".join(found[:16]) + (f" and {len(found) - 16} more" if len(found) > 16 else "")


def virtual_functions(place: Place) -> Mapping[str, int]:
    """How many virtual functions each NIC that has any gives to VMs, by name.

    vSphere API, HostSriovInfo: what is active now, not what a restart of the host would bring.
    """
    active = {
        p.id: p.numVirtualFunction or 0
        for p in place.has.get("config.pciPassthruInfo", ())
        if getattr(p, "sriovActive", False)
    }
    nics = place.has["config.network"].pnic
    return {nic.device: n for nic in nics if (n := active.get(nic.pci, 0))}


def device(key: str) -> str:
    """A physical NIC's name from its key."""
    return key.removeprefix(PNIC)


def _services(info: Any) -> Mapping[str, list[str]]:
    """What each of the host's own adapters is for, such as management."""
    found: dict[str, list[str]] = {}
    for service in info.netConfig or () if info is not None else ():
        chosen = set(service.selectedVnic or ())
        for adapter in service.candidateVnic or ():
            if adapter.key in chosen:
                found.setdefault(adapter.device, []).append(service.nicType)
    return found


def _groups(network: Any, services: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """By switch, each port group with who is on it."""
    on: dict[str, list[str]] = {}
    for adapter in (*(network.vnic or ()), *(network.consoleVnic or ())):
        what = ", ".join([adapter.device, *services.get(adapter.device, ())])
        on.setdefault(adapter.portgroup, []).append(what)
    found: dict[str, list[str]] = {}
    for group in network.portgroup:
        name = group.spec.name
        users = [*on.get(name, ()), *_vms(group.port or ())]
        text = f"{name} ({'; '.join(users)})" if users else name
        found.setdefault(group.spec.vswitchName, []).append(text)
    return found


def _vms(ports: Iterable[Any]) -> Iterator[str]:
    count = sum(port.type == _VM_PORT for port in ports)
    if count:
        yield "1 VM" if count == 1 else f"{count} VMs"


def _words(switch: str, groups: Iterable[str]) -> str:
    return f"{switch}: {', '.join(groups) or 'without port groups'}"
