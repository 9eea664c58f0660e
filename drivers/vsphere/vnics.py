"""What a guest's vNICs are plugged into, found before anything of the guest is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from drivers.vsphere import spec as wording
from drivers.vsphere.hostnet import Group, HostNet
from drivers.vsphere.networks import Networks, on_port_group
from drivers.vsphere.place import Place
from drivers.vsphere.switches import Switches
from provision.errors import DriverError, Unsupported
from provision.resources import Guest, Vnic

FIRST_KEY = -200  # of vNICs to be: the server gives them their own


@dataclass(frozen=True, slots=True)
class Plugs:
    """``groups`` are the testbed's own port groups; ``functions`` PCI addresses, by switch."""

    backings: Mapping[str, Any]
    groups: Mapping[str, Group]
    functions: Mapping[str, str]
    networks: Networks

    def plug(self, cards: Iterable[Any], want: Guest) -> list[Any]:
        """The changes of devices after which the guest has these vNICs, and no others.

        A vNIC's type cannot be changed: such a one is taken out, and another plugged in.
        """
        wanted = {v.mac: v for v in (want.management, *want.nics)}
        changes = []
        for card in cards:
            vnic = wanted.get(str(card.macAddress).lower())
            if vnic is not None and self._is(card, vnic):
                del wanted[vnic.mac]
            else:
                changes.append(wording.remove(card))
        for number, vnic in enumerate(wanted.values()):
            backing, function = self.backings[vnic.switch], self.functions.get(vnic.switch, "")
            changes.append(wording.add(wording.card(vnic, backing, FIRST_KEY - number, function)))
        return changes

    def _is(self, card: Any, vnic: Vnic) -> bool:
        same = wording.model(card) == vnic.model
        return same and self.networks.name(card.backing) == vnic.switch


def plugs(want: Guest, place: Place, net: HostNet, switches: Switches, networks: Networks) -> Plugs:
    """Raises DriverError for a network that is not there, Unsupported, faults."""
    vnics = (want.management, *want.nics)
    groups = net.recent({v.switch for v in vnics if switches.ours(v.switch)})
    backings: dict[str, Any] = {name: on_port_group(name) for name in groups}
    functions: dict[str, str] = {}
    for vnic in vnics:
        name = vnic.switch
        if not switches.ours(name) and (backing := networks.backing(name)) is not None:
            backings[name] = backing
        if name not in backings:
            raise DriverError(
                f"guest {want.name} needs network {name}, which {place.name} has not",
                hint=f"it has: {', '.join(networks.names()) or 'none'}",
            )
        if vnic.model == wording.SRIOV:
            functions[name] = _function(want, name, place, net)
    return Plugs(backings, groups, functions, networks)


def _function(want: Guest, switch: str, place: Place, net: HostNet) -> str:
    """The PCI address of the switch's uplink. Raises Unsupported where it has no functions."""
    from drivers.vsphere.uplinks import virtual_functions

    found = net.standing(switch)
    uplink = found.uplink if found is not None else None
    if uplink not in virtual_functions(place):
        raise Unsupported(
            f"guest {want.name}: guests.nic.model: {uplink or switch} has no virtual functions",
            hint=f"enable SR-IOV on {uplink or 'an uplink'}: Host, Configure, PCI Devices",
        )
    nics = place.has["config.network"].pnic
    return str(next(nic.pci for nic in nics if nic.device == uplink))
