"""A guest's switch: the network that its uplink's PIF has, marked as the testbed's meanwhile.

Nothing is created: XAPI makes exactly one network for each physical interface, and a VM on any
other network reaches no cable. https://docs.xenserver.com, "Manage networking".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from drivers.xenserver.api import Record, but, gone_is_fine, told
from drivers.xenserver.connect import Session
from drivers.xenserver.nets import WAS, Nets, Network, Was
from drivers.xenserver.place import BACKENDS, MARK, TAG, Place, flavour
from drivers.xenserver.tasks import Tasks
from drivers.xenserver.uplinks import Pifs, of_network
from provision.errors import DriverError, Foreign, Unsupported
from provision.resources import Switch

LEAST_MTU, MOST_MTU = 1280, 9000


@dataclass(frozen=True, slots=True)
class Switches:
    """Kind ``switch`` of the driver, for one testbed."""

    session: Session
    place: Place
    nets: Nets
    pifs: Pifs
    tasks: Tasks
    carrier_s: float

    def read(self, name: str) -> Switch | None:
        """As ``Driver.read``."""
        return self.look([name])[name]

    def look(self, names: Iterable[str]) -> dict[str, Switch | None]:
        """As ``read``, of many at once."""
        with told("read switches"):
            mine = self._mine(self.nets.all())
            wanted = [n for n in names if n in mine]
            pifs = self.pifs.all() if wanted else {}
            kind = flavour(self.session, self.place.host) if wanted else ""
        found: dict[str, Switch | None] = dict.fromkeys(names)
        for name in wanted:
            pif = of_network(mine[name].ref, pifs)
            uplink = str(pif[1]["device"]) if pif is not None else None
            found[name] = Switch(name, kind, uplink, mine[name].mtu)
        return found

    def owned(self) -> list[str]:
        with told("list switches"):
            return sorted(self._mine(self.nets.all()))

    def put(self, want: Switch) -> None:
        """As ``Driver.put``."""
        self._refuse(want)
        with told(f"put switch {want.name}"):
            self.session.again(lambda: self._put(want))

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the network is as it was before us."""
        with told(f"drop switch {name}"):
            self.session.again(lambda: self._drop(name))

    def _mine(self, nets: Mapping[str, Network]) -> dict[str, Network]:
        return {n.was.switch: n for n in nets.values() if self.nets.ours(n) and n.was is not None}

    def _refuse(self, want: Switch) -> None:
        if want.flavour not in BACKENDS:
            raise Unsupported(
                f"switch {want.name}: XenServer has no switch of type {want.flavour!r}",
                hint=f"switch: {' or '.join(BACKENDS)}",
            )
        if want.uplink is None:
            raise Unsupported(f"switch {want.name}: a network without a NIC reaches nobody")
        if want.address is not None:
            raise Unsupported(f"switch {want.name}: the host itself has no address on it")
        if not LEAST_MTU <= want.mtu <= MOST_MTU:
            raise Unsupported(
                f"switch {want.name}: MTU {want.mtu}; it is {LEAST_MTU} to {MOST_MTU} here"
            )

    def _put(self, want: Switch) -> None:
        now = flavour(self.session, self.place.host)
        if want.flavour != now:
            raise Unsupported(
                f"switch {want.name}: {self.place.name} makes its networks of {now!r} now",
                hint=f"switch: {now}; the other takes SSH to dom0 and a restart",
            )
        nets = self.nets.all()
        self._refuse_foreign(want.name, nets)
        ref, pif = self._uplink(want)
        former = self._mine(nets).get(want.name)
        if former is not None and former.ref != pif["network"]:
            self._restore(former)
        network = nets[pif["network"]]
        if not self.nets.ours(network):
            self._refuse_used(want, network, pif)
        network = self._mark(want, network, attached=bool(pif["currently_attached"]))
        self._set_mtu(network, want.mtu, ref)
        if network.has["name_label"] != want.name:
            self.session.call("network.set_name_label", network.ref, want.name)
        self._plug(want, ref)

    def _refuse_foreign(self, name: str, nets: Mapping[str, Network]) -> None:
        for n in nets.values():
            if n.has["name_label"] == name and not self.nets.ours(n):
                raise Foreign(
                    f"network {name} of {self.place.name} is not ours: it lacks our mark",
                    hint=f"look at it, and rename it: xe network-param-list uuid={n.has['uuid']}",
                )

    def _uplink(self, want: Switch) -> tuple[str, Record]:
        devices = self.pifs.by_device()
        if want.uplink not in devices:
            there = ", ".join(sorted(devices)) or "none"
            raise DriverError(
                f"switch {want.name}: {self.place.name} has no NIC {want.uplink}; it has: {there}"
            )
        return devices[want.uplink]

    def _refuse_used(self, want: Switch, network: Network, pif: Record) -> None:
        riders = self.pifs.riders({network.ref: network})
        if words := ", ".join(self.pifs.users(pif, network, riders)):
            kind = Foreign if network.was is not None else DriverError
            raise kind(
                f"switch {want.name}: {want.uplink} of {self.place.name} is in use: it {words}",
                hint="name a NIC that nothing uses",
            )

    def _mark(self, want: Switch, network: Network, *, attached: bool) -> Network:
        """Note what the network is like, then that it is ours: in this order, and once."""
        call = self.session.call
        if network.was is None or network.was.switch != want.name:
            if network.was is not None:  # ours by another name: the note of what it was stays true
                network = self._restore(network)
            note = Was(
                self.nets.testbed, want.name, network.has["name_label"],
                network.has["name_description"], network.mtu, attached,
            )  # fmt: skip
            call("network.add_to_other_config", network.ref, WAS, note.text())
        if MARK not in network.has["other_config"]:
            call("network.add_to_other_config", network.ref, MARK, self.nets.testbed)
        if (tag := f"{TAG}{self.nets.testbed}") not in network.has["tags"]:
            call("network.add_tags", network.ref, tag)
        return self.nets.one(network.ref)

    def _set_mtu(self, network: Network, mtu: int, pif: str) -> None:
        """A network's MTU comes into force when its interface is plugged: it is unplugged after."""
        if network.mtu == mtu:
            return
        if self.session.call("PIF.get_currently_attached", pif):
            self.tasks.run("PIF.unplug", pif)
        self.session.call("network.set_MTU", network.ref, str(mtu))

    def _plug(self, want: Switch, pif: str) -> None:
        """Until the interface has a carrier: the far end may be just coming up."""
        if not self.session.call("PIF.get_currently_attached", pif):
            self.tasks.run("PIF.plug", pif)
        metrics = self.session.call("PIF.get_metrics", pif)
        if self.session.call("PIF_metrics.get_carrier", metrics):
            return
        for record in self.tasks.watch("pif_metrics", metrics, self.carrier_s):
            if record["carrier"]:
                return
        raise DriverError(
            f"switch {want.name}: {want.uplink} of {self.place.name} has no carrier after "
            f"{self.carrier_s:g} s",
            hint="is its cable in, and the far end up? on the load generator: ip link",
        )

    def _drop(self, name: str) -> None:
        nets = self.nets.all()
        found = self._mine(nets).get(name)
        if found is None:
            self._refuse_foreign(name, nets)
            return
        self._refuse_riders(name, found)
        self._restore(found)

    def _refuse_riders(self, name: str, network: Network) -> None:
        """Raise where VMs are on it: Foreign where they are another's."""
        vms = {
            self.session.call("VIF.get_VM", vif)
            for vif in network.has["VIFs"]
            if self.session.call("VIF.get_currently_attached", vif)
        }
        for vm in vms:
            label = self.session.call("VM.get_name_label", vm)
            ours = self.session.call("VM.get_other_config", vm).get(MARK) == self.nets.testbed
            raise (DriverError if ours else Foreign)(f"switch {name}: VM {label} is on it")

    def _restore(self, network: Network) -> Network:
        """As it was; the note goes last, so that this can be done again."""
        was, call = network.was, self.session.call
        assert was is not None
        pif = of_network(network.ref, self.pifs.all())
        if network.has["name_label"] != was.name_label:
            call("network.set_name_label", network.ref, was.name_label)
        if network.has["name_description"] != was.name_description:
            call("network.set_name_description", network.ref, was.name_description)
        if pif is not None:
            self._set_mtu(network, was.mtu, pif[0])
            attached = self.session.call("PIF.get_currently_attached", pif[0])
            if attached and not was.attached:
                with but("PIF_DOES_NOT_ALLOW_UNPLUG"):
                    self.tasks.run("PIF.unplug", pif[0])
            elif was.attached and not attached:
                self.tasks.run("PIF.plug", pif[0])
        call("network.remove_tags", network.ref, f"{TAG}{self.nets.testbed}")
        with gone_is_fine():
            for key in (MARK, WAS):
                call("network.remove_from_other_config", network.ref, key)
        return self.nets.one(network.ref)
