"""The physical interfaces (PIFs) of a host, and what uses each, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from drivers.xenserver.api import Record, null
from drivers.xenserver.connect import Session
from drivers.xenserver.nets import Nets, Network
from provision.driver import UplinkFacts

Irqs = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Pifs:
    """Of one host. All raise failures."""

    session: Session
    host: str
    nets: Nets

    def all(self) -> dict[str, Record]:
        """Those on the host, by reference."""
        found = self.session.call("PIF.get_all_records")
        return {ref: pif for ref, pif in found.items() if pif["host"] == self.host}

    def by_device(self) -> dict[str, tuple[str, Record]]:
        """The physical ones by their names in dom0, each with its reference."""
        return {p["device"]: (ref, p) for ref, p in self.all().items() if p["physical"]}

    def facts(self, irqs: Irqs) -> tuple[UplinkFacts, ...]:
        """What of the host's NICs could be uplinks. One without a carrier may be used."""
        pifs, nets = self.all(), self.nets.all()
        metrics = self.session.call("PIF_metrics.get_all_records")
        riders = self.riders(nets)
        found = []
        for pif in sorted(pifs.values(), key=lambda p: str(p["device"])):
            if not pif["physical"]:
                continue
            of = metrics.get(pif["metrics"], {})
            address = pif["IP"]
            found.append(
                UplinkFacts(
                    name=pif["device"], mac=pif["MAC"].lower(), up=bool(of.get("carrier")),
                    pci=str(of.get("pci_bus_path", "")).lower() or None, mtu=int(pif["MTU"]),
                    addresses=(address,) if address else (),
                    used_by=", ".join(self.users(pif, nets.get(pif["network"]), riders)),
                    irqs=irqs.get(pif["device"], ()),
                )
            )  # fmt: skip
        return tuple(found)

    def riders(self, nets: Mapping[str, Network]) -> dict[str, list[str]]:
        """The VMs that have a running VIF on each network that is no testbed's, by reference."""
        found: dict[str, list[str]] = {}
        for vif in self.session.call("VIF.get_all_records").values():
            network = nets.get(vif["network"])
            if vif["currently_attached"] and network is not None and not self.nets.ours(network):
                found.setdefault(vif["network"], []).append(vif["VM"])
        return found

    def users(
        self, pif: Record, network: Network | None, riders: Mapping[str, Iterable[str]]
    ) -> Iterator[str]:
        """What uses it, in words; nothing where it is free or the testbed's own."""
        if pif["management"]:
            yield "is the host's management interface"
        elif pif["ip_configuration_mode"] != "None":
            yield f"has an address of the host ({pif['IP'] or pif['ip_configuration_mode']})"
        if not null(pif["bond_slave_of"]):
            yield "is a member of a bond"
        if not pif.get("managed", True):
            yield "is not managed by XenAPI"
        if pif["VLAN_slave_of"]:
            yield f"carries {len(pif['VLAN_slave_of'])} VLAN(s)"
        for word, what in (
            ("tunnel_transport_PIF_of", "a tunnel"), ("sriov_physical_PIF_of", "SR-IOV"),
        ):  # fmt: skip
            if pif.get(word):
                yield f"carries {what}"
        if network is None:
            return
        if network.was is not None and not self.nets.ours(network):
            yield f"belongs to testbed {network.was.testbed}"
        if vms := list(riders.get(network.ref, ())):
            names = sorted(self.session.call("VM.get_name_label", vm) for vm in vms)
            yield f"carries VM {', '.join(names)}"


def of_network(network: str, pifs: Mapping[str, Record]) -> tuple[str, Record] | None:
    """The host's own physical interface on a network."""
    hits = [(ref, p) for ref, p in pifs.items() if p["network"] == network and p["physical"]]
    return hits[0] if hits else None
