"""What stands of a host's standard switches and port groups, one at a time where that is possible.

A host's network comes as one long list; asking for one element by its key keeps a thousand switches
from costing a thousand times a thousand. vSphere API: PropertyCollector, HostNetworkInfo.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from drivers.vsphere.api import vim, vmodl
from drivers.vsphere.connect import Session
from drivers.vsphere.place import Place
from drivers.vsphere.read import Part, Properties, get
from drivers.vsphere.together import Together
from drivers.vsphere.uplinks import device

VSWITCH, GROUP = "key-vim.host.VirtualSwitch-", "key-vim.host.PortGroup-"
_BOND = vim.host.VirtualSwitch.BondBridge
MBIT = 1_000_000
RECENT_S = 60
KEYED = 100  # elements at most in one call by their keys; of more, the whole list is less
_GROUPS = "networkInfo.portgroup["


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
    groups: frozenset[str]
    mtu: int = 0
    group: Group | None = None
    tight: bool = False

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
    together: Together
    place: Place
    _keyed: bool | None = field(default=None)
    _last: dict[str, tuple[float, Group]] = field(default_factory=dict)

    def standing(self, name: str, *, sure: bool = False) -> Standing | None:
        """The switch of that name; ``sure``: looked for in the whole list."""
        if sure:
            return next((s for s in self.all()[0] if s.name == name), None)
        found = self.look([name], ())[0].get(name)
        if found is not None and found.group is not None:
            self.keep(found.group)
        return found

    def to_go(self, name: str, network: Any) -> tuple[Standing | None, Sequence[Any]]:
        """Of the switch, what tells whether it is ours; and the VMs on a network.

        Raises Gone where there is no such network.
        """
        if not self._by_key():
            return self.standing(name), self.together.get(network, "vm").get("vm", ())
        pnics, groups = (f"{_switch_path(name)}.{part}" for part in ("pnic", "portgroup"))
        has, on = self.together.ask([(self.place.networks, (pnics, groups)), (network, ("vm",))])
        found = None
        if has:
            keys, nics = _names(has.get(groups)), tuple(map(device, has.get(pnics, ())))
            found = Standing(name, nics, groups=keys)
        return found, on.get("vm", ())

    def group(self, name: str) -> Group | None:
        """The port group of that name."""
        return self.groups([name]).get(name)

    def groups(self, names: Collection[str]) -> dict[str, Group]:
        """Those of the port groups that there are."""
        if self._by_key():
            has = self._get(*map(_group_path, names))
            if has is not None:
                return self.told(has)
        found = [_group(g.spec) for g in self._whole()[1] if g.spec.name in names]
        return {g.name: g for g in found}

    def recent(self, names: Collection[str]) -> dict[str, Group]:
        """As ``groups``, or as they were seen moments ago: to be read back after what follows."""
        now = monotonic()
        known = {n: g for n in names if (at := self._last.get(n)) and (g := at[1]) and at[0] > now}
        return known if len(known) == len(names) else self.groups(names)

    def keep(self, *groups: Group) -> None:
        """These were just seen, or made."""
        until = monotonic() + RECENT_S
        for group in groups:
            self._last[group.name] = (until, group)

    def forget(self, name: str) -> None:
        """That port group is no more, or another."""
        self._last.pop(name, None)

    def question(self, names: Collection[str]) -> list[Part]:
        """What to ask besides something else, for ``told``; [] where that cannot be."""
        if not names or not self._by_key():
            return []
        return [(self.place.networks, tuple(map(_group_path, names)))]

    def look(
        self, switches: Collection[str], groups: Collection[str]
    ) -> tuple[dict[str, Standing], dict[str, Group]]:
        """Those of these switches and port groups that there are, by name."""
        groups = {*groups, *switches}
        if len(groups) <= KEYED and self._by_key():
            has = self._get(*map(_switch_path, switches), *map(_group_path, groups))
            if has is not None:
                found = self.told(has)
                there = [
                    _standing(has[path], has.get(_group_path(name)))
                    for name in switches
                    if (path := _switch_path(name)) in has
                ]
                return {s.name: s for s in there}, found
        every, found = self.all()
        return {s.name: s for s in every if s.name in switches}, found

    def told(self, has: Properties) -> dict[str, Group]:
        """The port groups in such an answer."""
        found = [_group(value) for path, value in has.items() if path.startswith(_GROUPS)]
        return {g.name: g for g in found}

    def all(self) -> tuple[list[Standing], dict[str, Group]]:
        """Every standard switch of the host, and every port group by its name."""
        switches, groups = self._whole()
        by_name = {str(g.spec.name): g.spec for g in groups}
        standing = [_standing(s, by_name.get(s.name)) for s in switches]
        return standing, {name: _group(g) for name, g in by_name.items()}

    def _whole(self) -> tuple[list[Any], list[Any]]:
        has = get(self.session, self.place.networks, "networkInfo.vswitch", "networkInfo.portgroup")
        return list(has.get("networkInfo.vswitch", ())), list(has.get("networkInfo.portgroup", ()))

    def _get(self, *paths: str) -> Properties | None:
        """None where the server cannot say."""
        try:
            return self.together.get(self.place.networks, *paths)
        except vmodl.query.InvalidProperty:
            return None

    def _by_key(self) -> bool:
        """Whether the server finds an element by its key, tried once on one that is there."""
        if self._keyed is None:
            network = self.place.has["config.network"]
            paths = [_switch_path(s.name) for s in network.vswitch if s.key][:1]
            paths += [_group_path(g.spec.name) for g in network.portgroup if g.key][:1]
            has = self._get(*paths) if len(paths) == 2 else None
            self._keyed = has is not None and len(has) == 2
        return self._keyed


def _switch_path(name: str) -> str:
    return f'networkInfo.vswitch["{VSWITCH}{name}"]'


def _group_path(name: str) -> str:
    """All but what follows from its switch."""
    return f'networkInfo.portgroup["{GROUP}{name}"].spec'


def _standing(switch: Any, group: Any) -> Standing:
    bridge = switch.spec.bridge if switch.spec is not None else None
    devices = bridge.nicDevice if isinstance(bridge, _BOND) else map(device, switch.pnic or ())
    mine = _group(group) if group is not None else None
    return Standing(
        name=str(switch.name),
        uplinks=tuple(devices),
        mtu=int(switch.mtu or 1500),
        groups=_names(switch.portgroup),
        group=mine if mine is not None and mine.switch == switch.name else None,
        tight=_tight(switch.spec.policy if switch.spec is not None else None),
    )


def _names(keys: Iterable[str] | None) -> frozenset[str]:
    """Of port groups, by their keys."""
    return frozenset(key.removeprefix(GROUP) for key in keys or ())


def _tight(policy: Any) -> bool:
    if policy is None or policy.security is None:
        return False
    s, shaping = policy.security, policy.shapingPolicy
    loose = s.allowPromiscuous or s.macChanges or s.forgedTransmits
    return not loose and not (shaping is not None and shaping.enabled)


def _group(spec: Any) -> Group:
    shaping = spec.policy.shapingPolicy if spec.policy is not None else None
    bits = shaping.averageBandwidth if shaping is not None and shaping.enabled else None
    return Group(
        name=str(spec.name),
        switch=str(spec.vswitchName),
        vlan=int(spec.vlanId or 0),
        rate_mbit=round(bits / MBIT) if bits else None,
    )
