"""What stands of a host's standard switches and port groups, one at a time where that is possible.

A host's network comes as one long list; asking for one element by its key keeps a thousand switches
from costing a thousand times a thousand. vSphere API: PropertyCollector, HostNetworkInfo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from drivers.vsphere.api import vim, vmodl
from drivers.vsphere.connect import Session
from drivers.vsphere.place import Place
from drivers.vsphere.read import Properties, get
from drivers.vsphere.uplinks import device

VSWITCH, GROUP = "key-vim.host.VirtualSwitch-", "key-vim.host.PortGroup-"
_BOND = vim.host.VirtualSwitch.BondBridge
MBIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Group:
    """A port group; ``rate_mbit`` is what each port of it may send, None = as much as it can."""

    name: str
    switch: str
    vlan: int
    rate_mbit: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A standard switch. ``groups`` are the names of all its port groups, ``group`` its own one.

    ``tight`` says that it lets nothing through but what is meant for a port, and holds no port to
    a rate.
    """

    name: str
    uplinks: tuple[str, ...]
    mtu: int
    groups: frozenset[str]
    group: Group | None
    tight: bool

    @property
    def uplink(self) -> str | None:
        return self.uplinks[0] if self.uplinks else None

    @property
    def strange(self) -> str:
        """Why we cannot have made it, "" = we can."""
        if len(self.uplinks) > 1:
            return f"it has the uplinks {', '.join(self.uplinks)}"
        if others := self.groups - {self.name}:
            return f"it has the port group {', '.join(sorted(others))}"
        return ""


@dataclass(slots=True)
class HostNet:
    """Reads of one host's network."""

    session: Session
    place: Place
    _keyed: bool | None = field(default=None)

    def standing(self, name: str, *, sure: bool = False) -> Standing | None:
        """The switch of that name; ``sure``: looked for in the whole list."""
        if not sure and self._by_key():
            paths = (self._path("vswitch", VSWITCH, name), self._path("portgroup", GROUP, name))
            has = self._get(*paths)
            if has is not None:
                switch, group = (has.get(path) for path in paths)
                return _standing(switch, group) if switch is not None else None
        return next((s for s in self.all()[0] if s.name == name), None)

    def group(self, name: str) -> Group | None:
        """The port group of that name."""
        if self._by_key():
            path = self._path("portgroup", GROUP, name)
            has = self._get(path)
            if has is not None:
                return _group(has.get(path))
        return next((_group(g) for g in self._whole()[1] if g.spec.name == name), None)

    def all(self) -> tuple[list[Standing], dict[str, Group]]:
        """Every standard switch of the host, and every port group by its name."""
        switches, groups = self._whole()
        by_name = {str(g.spec.name): g for g in groups}
        standing = [_standing(s, by_name.get(s.name)) for s in switches]
        return standing, {name: made for name, g in by_name.items() if (made := _group(g))}

    def _whole(self) -> tuple[list[Any], list[Any]]:
        has = get(self.session, self.place.networks, "networkInfo.vswitch", "networkInfo.portgroup")
        return list(has.get("networkInfo.vswitch", ())), list(has.get("networkInfo.portgroup", ()))

    def _path(self, array: str, prefix: str, name: str) -> str:
        return f'networkInfo.{array}["{prefix}{name}"]'

    def _get(self, *paths: str) -> Properties | None:
        """None where the server cannot say."""
        try:
            return get(self.session, self.place.networks, *paths)
        except vmodl.query.InvalidProperty:
            return None

    def _by_key(self) -> bool:
        """Whether the server finds an element by its key, tried once on one that is there."""
        if self._keyed is None:
            known = [s.name for s in self.place.has["config.network"].vswitch if s.key]
            path = self._path("vswitch", VSWITCH, known[0]) if known else ""
            has = self._get(path) if path else None
            self._keyed = has is not None and path in has
        return self._keyed


def _standing(switch: Any, group: Any) -> Standing:
    bridge = switch.spec.bridge if switch.spec is not None else None
    devices = bridge.nicDevice if isinstance(bridge, _BOND) else map(device, switch.pnic or ())
    mine = _group(group)
    return Standing(
        name=str(switch.name),
        uplinks=tuple(devices),
        mtu=int(switch.mtu or 1500),
        groups=frozenset(key.removeprefix(GROUP) for key in switch.portgroup or ()),
        group=mine if mine is not None and mine.switch == switch.name else None,
        tight=_tight(switch.spec.policy if switch.spec is not None else None),
    )


def _tight(policy: Any) -> bool:
    if policy is None or policy.security is None:
        return False
    s, shaping = policy.security, policy.shapingPolicy
    loose = s.allowPromiscuous or s.macChanges or s.forgedTransmits
    return not loose and not (shaping is not None and shaping.enabled)


def _group(group: Any) -> Group | None:
    if group is None:
        return None
    spec = group.spec
    shaping = spec.policy.shapingPolicy if spec.policy is not None else None
    bits = shaping.averageBandwidth if shaping is not None and shaping.enabled else None
    return Group(
        name=str(spec.name),
        switch=str(spec.vswitchName),
        vlan=int(spec.vlanId or 0),
        rate_mbit=round(bits / MBIT) if bits else None,
    )
