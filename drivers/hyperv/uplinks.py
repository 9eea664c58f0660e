"""The host's physical adapters: what each is and who uses it, and the state that a testbed sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from drivers.hyperv import hostnet, words
from drivers.hyperv.api import told
from drivers.hyperv.hostnet import IPV6, JUMBO, Card, Looks, Net
from drivers.hyperv.ops import Batch, Call, Row, Value, lock
from drivers.hyperv.pool import Pool
from provision.driver import UplinkFacts
from provision.errors import DriverError
from provision.resources import Uplink

NEVER = {"Confirm": False}


def facts(
    net: Net, users: Mapping[str, Sequence[str]], places: Iterable[Row], addresses: Iterable[Row]
) -> tuple[UplinkFacts, ...]:
    """All physical adapters; one that is down may be used: its far end may be to come."""
    pci = {str(row["Name"]): hostnet.pci(row) for row in places}
    at: dict[int, list[str]] = {}
    for row in addresses:
        at.setdefault(int(row["InterfaceIndex"]), []).append(
            f"{row['IPAddress']}/{row['PrefixLength']}"
        )
    return tuple(
        UplinkFacts(
            name=card.name,
            mac=card.mac,
            pci=pci.get(card.name),
            up=card.status == "Up",
            mtu=card.mtu,
            addresses=tuple(at.get(card.index, ())),
            used_by="; ".join(users.get(card.name, ())),
        )
        for card in net.cards.values()
        if card.hardware
    )


@dataclass(frozen=True, slots=True)
class Uplinks:
    """Kind ``uplink`` of the driver: states, never made and never dropped."""

    pool: Pool
    looks: Looks
    changes: Looks
    refused: Mapping[str, str]
    #: as last seen; what is put once by that is looked at anew the next time
    _seen: dict[str, Card] = field(default_factory=dict)

    def look(self, names: Iterable[str], net: Net | None = None) -> dict[str, Uplink | None]:
        """As ``Driver.read``, of many at once; None = the host has no such adapter."""
        net = net or self._net()
        self._seen.update(net.cards)
        return {n: _as_is(card) if (card := net.cards.get(n)) else None for n in names}

    def put(self, want: Uplink) -> None:
        """As ``Driver.put``. Raises DriverError for one that is in use, or cannot be so."""
        if why := self.refused.get(want.name):
            raise DriverError(f"uplink {want.name} is in use: {why}")
        with told(f"put uplink {want.name}"):
            self.pool.again(lambda: self._put(want), _lock(want.name))

    def _put(self, want: Uplink) -> None:
        card = self._seen.pop(want.name, None) or self._net().cards.get(want.name)
        if card is None:
            raise DriverError(f"uplink {want.name}: the host has no such adapter")
        batch = Batch(_lock(want.name))
        for call in _changes(card, want):
            batch.add(call)
        if batch.ops:
            self.changes.ask(batch)

    def _net(self) -> Net:
        with told("read adapters"):
            return hostnet.look(self.looks)


def _lock(name: str) -> str:
    return lock("uplink", name)


def _as_is(card: Card) -> Uplink:
    return Uplink(card.name, card.mtu, card.enabled, card.ipv6, card.rsc)


def _changes(card: Card, want: Uplink) -> Iterable[Call]:
    """Up comes first and down last: an adapter that is disabled takes no settings."""
    name: dict[str, Value] = {"Name": card.name}
    if want.up and not card.enabled:
        yield Call("Enable-NetAdapter", {**name, **NEVER})
    if want.mtu != card.mtu:
        if card.mtus and want.mtu not in card.mtus:
            can = ", ".join(map(str, card.mtus))
            raise DriverError(f"uplink {card.name}: MTU {want.mtu}; the adapter has {can}")
        size: dict[str, Value] = {
            "RegistryKeyword": JUMBO,
            "RegistryValue": [str(want.mtu + words.HEADER)],
        }
        yield Call("Set-NetAdapterAdvancedProperty", {**name, **size, **NEVER})
    if want.ipv6 != card.ipv6:
        verb = "Enable" if want.ipv6 else "Disable"
        yield Call(f"{verb}-NetAdapterBinding", {**name, "ComponentID": IPV6, **NEVER})
    if want.lro != card.rsc and card.rsc_known:
        verb = "Enable" if want.lro else "Disable"
        yield Call(f"{verb}-NetAdapterRsc", {**name, **NEVER})
    if not want.up and card.enabled:
        yield Call("Disable-NetAdapter", {**name, **NEVER})
