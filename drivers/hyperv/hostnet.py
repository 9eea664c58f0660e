"""The host's networking as it is: adapters, switches, and who uses what. All in one request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from drivers.hyperv import words
from drivers.hyperv.ops import Batch, Call, Row
from drivers.hyperv.together import Together

Looks = Together[Batch, list[list[Row]]]

JUMBO, IPV6 = "*JumboPacket", "ms_tcpip6"
SWITCH = (
    "Name", "Id", "Notes", "SwitchType", "AllowManagementOS",
    "NetAdapterInterfaceDescriptions", "NetAdapterInterfaceDescription",
)  # fmt: skip
CARD = (
    "Name", "InterfaceDescription", "MacAddress", "Status", "InterfaceIndex", "HardwareInterface",
    "LinkSpeed",
)  # fmt: skip
PLACE = ("Name", "SegmentNumber", "BusNumber", "DeviceNumber", "FunctionNumber")
DISABLED = "Disabled"
#: what a look at states takes, and what else a look at users takes
LOOK = (
    Call("Get-VMSwitch", select=SWITCH),
    Call("Get-NetAdapter", select=CARD),
    Call(
        "Get-NetAdapterAdvancedProperty", {"RegistryKeyword": JUMBO},
        select=("Name", "RegistryValue", "ValidRegistryValues"), lenient=True,
    ),
    Call(
        "Get-NetAdapterBinding", {"ComponentID": IPV6}, select=("Name", "Enabled"), lenient=True
    ),
    Call("Get-NetAdapterRsc", select=("Name", "IPv4Enabled", "IPv6Enabled"), lenient=True),
)  # fmt: skip
USERS = (
    Call("Get-NetAdapterHardwareInfo", select=PLACE, lenient=True),
    Call("Get-NetIPAddress", select=("InterfaceIndex", "IPAddress", "PrefixLength"), lenient=True),
    Call(
        "Get-NetRoute", {"DestinationPrefix": "0.0.0.0/0"},
        select=("InterfaceIndex", "NextHop"), lenient=True,
    ),
    Call("Get-NetLbfoTeamMember", select=("Name", "Team"), lenient=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """An adapter of the host. ``mtu`` is its jumbo setting's, ``mtus`` those that it can have."""

    name: str
    description: str
    mac: str
    status: str
    index: int
    hardware: bool
    mtu: int
    mtus: tuple[int, ...]
    ipv6: bool
    rsc: bool
    rsc_known: bool

    @property
    def enabled(self) -> bool:
        return self.status != DISABLED


@dataclass(frozen=True, slots=True)
class Standing:
    """A VMSwitch. ``testbed`` is the one whose mark it bears, "" = none; ``cards`` are adapters."""

    name: str
    id: str
    testbed: str
    kind: str
    shared: bool
    cards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Net:
    """What stood there at one moment, by name."""

    cards: Mapping[str, Card]
    switches: Mapping[str, Standing]


def batch() -> Batch:
    """What ``read`` is of."""
    return Batch(ops=[*LOOK])


def look(together: Looks) -> Net:
    """Now. Raises Refused and Unreachable."""
    return read(together.ask(batch()))


def read(rows: Sequence[Sequence[Row]]) -> Net:
    """From the rows of ``LOOK``."""
    switches, cards, jumbo, bound, rsc = rows[: len(LOOK)]
    sizes = {str(r["Name"]): r for r in jumbo}
    six = {str(r["Name"]): bool(r["Enabled"]) for r in bound}
    merged = {str(r["Name"]): bool(r["IPv4Enabled"] or r["IPv6Enabled"]) for r in rsc}
    found: dict[str, Card] = {}
    for row in cards:
        name = str(row["Name"])
        size = sizes.get(name)
        found[name] = Card(
            name=name,
            description=str(row["InterfaceDescription"]),
            mac=words.mac_ours(str(row["MacAddress"] or "")),
            status=str(row["Status"]),
            index=int(row["InterfaceIndex"]),
            hardware=bool(row["HardwareInterface"]),
            mtu=_mtu(size["RegistryValue"]) if size else words.LEAST_MTU,
            mtus=_mtus(size["ValidRegistryValues"]) if size else (words.LEAST_MTU,),
            ipv6=six.get(name, False),
            rsc=merged.get(name, False),
            rsc_known=name in merged,
        )
    by_description = {card.description: card.name for card in found.values()}
    return Net(found, {s.name: s for s in standing(switches, by_description)})


def standing(rows: Sequence[Row], names: Mapping[str, str]) -> Iterator[Standing]:
    for row in rows:
        single = row["NetAdapterInterfaceDescription"]
        several = _several(row["NetAdapterInterfaceDescriptions"] or single)
        yield Standing(
            str(row["Name"]), str(row["Id"]),
            str(words.record(row["Notes"]).get("testbed", "")),
            str(row["SwitchType"]), bool(row["AllowManagementOS"]),
            tuple(names.get(str(d), str(d)) for d in several),
        )  # fmt: skip


def _several(value: object) -> list[object]:
    """A property that has several values: PowerShell tells one alone as itself."""
    return value if isinstance(value, list) else [value] if value else []


def _mtu(value: object) -> int:
    """From a jumbo packet's size, which counts the Ethernet header."""
    try:
        return int(str(_several(value)[0])) - words.HEADER
    except (ValueError, IndexError):
        return words.LEAST_MTU


def _mtus(values: object) -> tuple[int, ...]:
    """Those that an adapter offers; () where it takes any number."""
    return tuple(sorted({_mtu(v) for v in _several(values)}))


def users(net: Net, rows: Sequence[Sequence[Row]], testbed: str, ours: frozenset[str]) -> dict[
    str, list[str]
]:  # fmt: skip
    """By adapter, all who use it, in words. ``rows`` are of ``USERS``.

    ``ours`` are the host's addresses that connections like our own come in by; what only the
    testbed's own switch uses is free.
    """
    _, addresses, routes, teams = rows
    by_index = {card.index: card.name for card in net.cards.values()}
    found: dict[str, list[str]] = {name: [] for name in net.cards}
    for row in addresses:
        name, text = by_index.get(int(row["InterfaceIndex"])), str(row["IPAddress"])
        if name is not None and not _by_itself(text):
            what = "our own connection comes in by its address" if text in ours else "it has"
            found[name].append(f"{what} {text}")
    for row in routes:
        if (name := by_index.get(int(row["InterfaceIndex"]))) is not None:
            found[name].append(f"the default route, by {row['NextHop']}")
    for row in teams:
        found.setdefault(str(row["Name"]), []).append(f"team {row['Team']}")
    for switch in net.switches.values():
        shared = found.get(f"vEthernet ({switch.name})", [])
        more = f" ({'; '.join(shared)})" if shared and switch.shared else ""
        for card in switch.cards if switch.testbed != testbed else ():
            found.setdefault(card, []).append(f"VMSwitch {switch.name}{more}")
    return found


def _by_itself(text: str) -> bool:
    """An address that an adapter gives itself, whoever uses it."""
    try:
        return ip_address(text.partition("%")[0]).is_link_local
    except ValueError:
        return True


def pci(row: Row) -> str:
    """As Linux writes it."""
    bus, device, function = (int(row[n] or 0) for n in PLACE[2:])
    return f"{int(row['SegmentNumber'] or 0):04x}:{bus:02x}:{device:02x}.{function}"
