"""Standard switches of an ESXi host, one for each guest: one uplink, one port group of its name.

Nothing of a switch can bear a mark, so ours are told by their names, which begin with the testbed's
tag, and by a shape that nobody else gives them. vSphere API: HostNetworkSystem.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

from drivers.vsphere.api import Exists, Gone, told, vim
from drivers.vsphere.connect import Session
from drivers.vsphere.hostnet import MBIT, Group, HostNet, Standing
from drivers.vsphere.place import Place
from drivers.vsphere.read import each, get
from provision.errors import DriverError, Foreign, Unsupported
from provision.resources import Switch

FLAVOUR = "vswitch"
LEAST_MTU, MOST_MTU = 1280, 9000
PORTS = 128
SOURCE = "loadbalance_srcid"  # by a VM's port: what a switch does that nobody told otherwise
RECENT_S = 5
_HOST = vim.host


@dataclass(slots=True)
class Switches:
    """Kind ``switch`` of the driver. ``prefix`` begins the testbed's names, ``vms`` its VMs'."""

    session: Session
    place: Place
    net: HostNet
    prefix: str
    vms: str
    #: a host takes one change of its network at a time
    _lock: Lock = field(default_factory=Lock)
    _absent: set[str] = field(default_factory=set)
    _nics: frozenset[str] = frozenset()
    _looking: Lock = field(default_factory=Lock)
    _surveyed_until: float = 0.0
    _surveyed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._nics = frozenset(nic.device for nic in self.place.has["config.network"].pnic)

    def ours(self, name: str) -> bool:
        """Whether a switch of that name could be the testbed's."""
        return name.startswith(self.prefix)

    def read(self, name: str) -> Switch | None:
        """As ``Driver.read``; one that lacks its port group says so in its flavour."""
        with told(f"read switch {name}"):
            found = self.net.standing(name)
        if found is None:
            self._absent.add(name)
        if found is None or found.strange or not self.ours(name):
            return None
        return _as_is(found)

    def put(self, want: Switch) -> None:
        """As ``Driver.put``."""
        self._refuse(want)
        with told(f"put switch {want.name}"):
            self.session.again(lambda: self._put(want))

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the port group, then the switch."""
        with told(f"drop switch {name}"):
            self.session.again(lambda: self._drop(name))

    def _put(self, want: Switch) -> None:
        absent = want.name in self._absent  # when last looked for; the next look is a real one
        self._absent.discard(want.name)
        found = None if absent else self._own(self.net.standing(want.name))
        if found is not None and found.uplink != want.uplink:
            self._remove(found)
            found = None
        if found is None:
            found = self._add(want)
        elif found.mtu != want.mtu or not found.tight:
            self._change("UpdateVirtualSwitch", want.name, switch_spec(want))
        if found is None or found.group is None or found.group.vlan:
            self._put_group(want.name, found)

    def _drop(self, name: str) -> None:
        found, vms = self._with_vms(name)
        found = self._own(found or self.net.standing(name, sure=True))
        if found is not None:
            self._refuse_users(name, vms)
            self._remove(found)

    def look(
        self, names: Collection[str], groups: Collection[str] = ()
    ) -> tuple[dict[str, Switch], dict[str, Group]]:
        """Those of the switches that are the testbed's, and the port groups of that name."""
        with told("read switches"):
            found, there = self.net.look(names, groups)
        self._absent |= {*names} - found.keys()
        return self._ours(found.values()), there

    def all(self) -> dict[str, Switch]:
        """All of the testbed's."""
        with told("read switches"):
            return self._ours(self.net.all()[0])

    def _ours(self, found: Iterable[Standing]) -> dict[str, Switch]:
        return {s.name: _as_is(s) for s in found if self.ours(s.name) and not s.strange}

    def limit(self, group: Group, rate_mbit: int | None) -> None:
        """Hold each port of a port group to a rate of sending, None = to none. Raises faults."""
        if group.rate_mbit != rate_mbit:
            spec = group_spec(group.name, group.switch, rate_mbit)
            self.net.forget(group.name)
            self._change("UpdatePortGroup", group.name, spec)

    def _refuse(self, want: Switch) -> None:
        if want.flavour != FLAVOUR:
            raise Unsupported(
                f"switch {want.name}: vSphere has no switch of type {want.flavour!r}",
                hint=f"switch: {FLAVOUR}",
            )
        if want.address is not None:
            raise Unsupported(f"switch {want.name}: the host itself has no address on it")
        if not LEAST_MTU <= want.mtu <= MOST_MTU:
            raise Unsupported(
                f"switch {want.name}: MTU {want.mtu}; a vSwitch takes {LEAST_MTU} to {MOST_MTU}"
            )
        if not self.ours(want.name):
            raise Foreign(f"switch {want.name}: names of this testbed begin with {self.prefix}")
        if want.uplink is not None and want.uplink not in self._nics:
            raise DriverError(f"switch {want.name}: {self.place.name} has no NIC {want.uplink}")

    def _own(self, found: Standing | None) -> Standing | None:
        if found is not None and (found.strange or not self.ours(found.name)):
            raise Foreign(
                f"switch {found.name} of {self.place.name} is not ours: "
                f"{found.strange or 'it has a name of another testbed'}",
                hint="look at it in the host's networking, and rename or remove it",
            )
        return found

    def _add(self, want: Switch) -> Standing | None:
        """What stood there already, None where the switch was made."""
        try:
            self._change("AddVirtualSwitch", want.name, switch_spec(want))
        except Exists:
            found = self._own(self.net.standing(want.name, sure=True))
            if found is None:
                raise
            self._change("UpdateVirtualSwitch", want.name, switch_spec(want))
            return found
        return None

    def _put_group(self, name: str, found: Standing | None) -> None:
        spec = group_spec(name, name)
        if found is not None and found.group is not None:
            self._change("UpdatePortGroup", name, spec)
            return
        try:
            self._change("AddPortGroup", spec)
            self.net.keep(Group(name, name, 0, None))
        except Exists:
            there = self.net.group(name)
            if there is None:
                raise
            if there.switch != name:
                raise Foreign(
                    f"port group {name} of {self.place.name} is on another switch than ours"
                ) from None

    def _remove(self, found: Standing) -> None:
        """Raises faults; what is gone already is no error."""
        self.net.forget(found.name)
        try:
            for method in ("RemovePortGroup", "RemoveVirtualSwitch"):
                if found.groups or method == "RemoveVirtualSwitch":
                    with suppress(vim.fault.NotFound, Gone):
                        self._change(method, found.name)
        except vim.fault.ResourceInUse:
            self._refuse_users(found.name)
            raise

    def _change(self, method: str, *args: Any) -> None:
        """One call that changes the host's network. Raises faults."""
        with self._lock:
            getattr(self.place.networks, method)(*args)

    def _with_vms(self, name: str) -> tuple[Standing | None, Sequence[Any] | None]:
        """The switch, and the VMs on its network; None where that has to be looked for."""
        if (network := self._network(name)) is not None:
            with suppress(Gone):
                return self.net.to_go(name, network)
        return self.net.standing(name), None

    def _refuse_users(self, name: str, refs: Sequence[Any] | None = None) -> None:
        """Raise where VMs are on its port group: Foreign where they are another's."""
        if refs is None:
            index = self.session.content.searchIndex
            network = index.FindChild(self.place.network_folder, name)
            has = {} if network is None else self.net.together.get(network, "vm")
            refs = has.get("vm", ())
        vms: list[Any] = []
        with suppress(Gone):  # one that goes meanwhile: the server itself knows who is left
            vms = [v.has for v in each(self.session, refs, "name", "runtime.host")]
        here = sorted(v["name"] for v in vms if v.get("runtime.host") == self.place.host)
        if strange := [vm for vm in here if not vm.startswith(self.vms)]:
            raise Foreign(f"switch {name}: on its port group is VM {', '.join(strange)}")
        if here:
            raise DriverError(f"switch {name} is in use by VM {', '.join(here)}")

    def _network(self, name: str) -> Any | None:
        """The network's object, as of when all were last looked for.

        They are found in one go: one by one, that would cost more than to remove what is to go.
        """
        with self._looking:
            if name not in self._surveyed and self._surveyed_until < monotonic():
                refs = get(self.session, self.place.host, "network").get("network", ())
                plain = [ref for ref in refs if type(ref) is vim.Network]
                found = each(self.session, plain, "name")
                self._surveyed = {str(n.has["name"]): n.ref for n in found}
                self._surveyed_until = monotonic() + RECENT_S
            return self._surveyed.pop(name, None)


def _as_is(found: Standing) -> Switch:
    flavour = FLAVOUR if found.group is not None else f"{FLAVOUR} without its port group"
    return Switch(found.name, flavour, found.uplink, found.mtu)


def switch_spec(want: Switch) -> Any:
    """One uplink or none, and nothing let through that is not for the port."""
    bridge = order = None
    if want.uplink is not None:
        bridge = _HOST.VirtualSwitch.BondBridge(nicDevice=[want.uplink])
        active = _HOST.NetworkPolicy.NicOrderPolicy(activeNic=[want.uplink], standbyNic=[])
        order = _HOST.NetworkPolicy.NicTeamingPolicy(policy=SOURCE, nicOrder=active)
    return _HOST.VirtualSwitch.Specification(
        numPorts=PORTS,
        bridge=bridge,
        mtu=want.mtu,
        policy=_HOST.NetworkPolicy(
            security=_HOST.NetworkPolicy.SecurityPolicy(
                allowPromiscuous=False, macChanges=False, forgedTransmits=False
            ),
            nicTeaming=order,
            shapingPolicy=_HOST.NetworkPolicy.TrafficShapingPolicy(enabled=False),
        ),
    )


def group_spec(name: str, switch: str, rate_mbit: int | None = None) -> Any:
    """Peak and average are one, so that a burst is no faster."""
    policy = _HOST.NetworkPolicy()
    if rate_mbit is not None:
        bits = rate_mbit * MBIT
        policy.shapingPolicy = _HOST.NetworkPolicy.TrafficShapingPolicy(
            enabled=True, averageBandwidth=bits, peakBandwidth=bits, burstSize=bits // 80
        )
    return _HOST.PortGroup.Specification(name=name, vlanId=0, vswitchName=switch, policy=policy)
