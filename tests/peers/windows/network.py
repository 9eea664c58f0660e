"""NetAdapter, NetTCPIP and NetSecurity of a Windows guest."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_interface
from typing import Any

from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.network import _enum, _filtered, _missing, _none
from tests.peers.hyperv.world import MARKS, matches
from tests.peers.powershell.errors import PSError
from tests.peers.powershell.values import PSObject, text
from tests.peers.windows.machine import Machine
from tests.peers.windows.state import HEADER, JUMBO, Card, Rule

CIM = "Microsoft.Management.Infrastructure.CimInstance#ROOT/StandardCimv2"
SPEED_BIT = 10 * 10**9


def _cards(here: Machine, bound: Bound, field: str = "Name") -> list[Card]:
    """Those that a cmdlet names, all where it names none; one that is not there is an error."""
    if field not in bound:
        return here.state.present
    asked = bound.get(field)
    found = []
    for name in asked if isinstance(asked, list) else [asked]:
        some = [c for c in here.state.present if matches(text(name), c.name)]
        if not some and not MARKS & set(text(name)):
            _missing(bound, field, text(name), "MSFT_NetAdapter")
        found += some
    return found


def adapters(here: Machine, bound: Bound) -> Iterable[Any]:
    return [PSObject({
        "Name": c.name, "InterfaceAlias": c.name, "ifAlias": c.name, "ifIndex": c.index,
        "InterfaceIndex": c.index, "InterfaceDescription": c.description, "Status": "Up",
        "MacAddress": c.mac.replace(":", "-").upper(), "Speed": SPEED_BIT,
        "LinkSpeed": "10 Gbps", "DriverFileName": c.driver, "PnPDeviceID": c.pnp,
        "MtuSize": c.mtu,
    }, f"{CIM}/MSFT_NetAdapter") for c in _cards(here, bound)]  # fmt: skip


def rename(here: Machine, bound: Bound) -> Iterable[Any]:
    new = bound.get("NewName")
    for card in _cards(here, bound):
        if any(c.name.lower() == new.lower() for c in here.state.present if c is not card):
            raise bound.failed("Windows System Error 183", "ResourceExists",
                               "Cannot create a file when that file already exists.")  # fmt: skip
        card.name = new
    return []


def jumbo(here: Machine, bound: Bound) -> Iterable[Any]:
    (word,) = bound.get("RegistryKeyword", [""])
    (value,) = bound.get("RegistryValue", [""])
    for card in _cards(here, bound):
        if word != "*JumboPacket" or card.driver != "netvsc.sys":
            _missing(bound, "RegistryKeyword", word, "MSFT_NetAdapterAdvancedPropertySettingData")
        elif value not in JUMBO:
            raise bound.failed("Windows System Error 87", "InvalidArgument",
                               f"The value {value} is not valid.")  # fmt: skip
        else:
            card.jumbo = int(value)
    return []


def unbind(here: Machine, bound: Bound) -> Iterable[Any]:
    for card in _cards(here, bound):
        card.unbound |= {c.lower() for c in bound.get("ComponentID", [])}
    _apply(here)
    return []


def offloads(here: Machine, bound: Bound) -> Iterable[Any]:
    """Get-NetAdapterLso, -Rsc and -ChecksumOffload: what a synthetic adapter usually has."""
    kind = bound.name.removeprefix("Get-NetAdapter")
    found = []
    for card in _cards(here, bound):
        if card.driver != "netvsc.sys":
            _missing(bound, "Name", card.name, f"MSFT_NetAdapter{kind}SettingData")
            continue
        both = _enum("RxTxEnabled", 3)
        every: dict[str, dict[str, Any]] = {
            "ChecksumOffload": {"IpIPv4Enabled": both, "TcpIPv4Enabled": both,
                                "UdpIPv4Enabled": both},
            "Lso": {"IPv4Enabled": True, "IPv6Enabled": True},
            "Rsc": {"IPv4Enabled": False, "IPv6Enabled": False},
        }  # fmt: skip
        found.append(PSObject({"Name": card.name, **every[kind]}, f"{CIM}/MSFT_NetAdapter{kind}"))
    return found


def interfaces(here: Machine, bound: Bound) -> Iterable[Any]:
    return [PSObject({
        "InterfaceAlias": c.name, "ifIndex": c.index, "InterfaceIndex": c.index,
        "AddressFamily": _enum("IPv4", 2), "NlMtu": c.mtu, "NlMtuBytes": c.mtu,
        "Dhcp": _enum("Enabled" if c.dhcp else "Disabled", int(c.dhcp)),
    }, f"{CIM}/MSFT_NetIPInterface") for c in _cards(here, bound, "InterfaceAlias")]  # fmt: skip


def set_interface(here: Machine, bound: Bound) -> Iterable[Any]:
    for card in _cards(here, bound, "InterfaceAlias"):
        mtu = bound.get("NlMtuBytes", card.mtu)
        if not 576 <= mtu <= card.jumbo - HEADER:
            raise _wrong(bound)
        card.mtu = mtu
        if "Dhcp" in bound:
            card.dhcp = text(bound.get("Dhcp")) == "Enabled"
    _apply(here)
    return []


def addresses(here: Machine, bound: Bound) -> Iterable[Any]:
    found = []
    for card in _cards(here, bound, "InterfaceAlias"):
        for address in card.addresses:
            at = ip_interface(address)
            shown = PSObject({
                "IPAddress": str(at.ip), "PrefixLength": at.network.prefixlen,
                "InterfaceAlias": card.name, "InterfaceIndex": card.index,
                "AddressFamily": _enum("IPv4", 2), "AddressState": _enum("Preferred", 4),
            }, f"{CIM}/MSFT_NetIPAddress")  # fmt: skip
            if _filtered(bound, shown):
                found.append(shown)
    _none(bound, found, "MSFT_NetIPAddress")
    return found


def new_address(here: Machine, bound: Bound) -> Iterable[Any]:
    asked = f"{bound.get('IPAddress')}/{bound.get('PrefixLength', 32)}"
    try:
        at = ip_interface(asked)
    except ValueError as e:
        raise _wrong(bound) from e
    cards = _cards(here, bound, "InterfaceAlias")
    if any(str(at.ip) == one for c in here.state.present for one in here.state.bare(c.name)):
        raise bound.failed("Windows System Error 5010", "ResourceExists",
                           "The object already exists.")  # fmt: skip
    for card in cards:
        card.addresses.append(str(at))
        card.dhcp = False
    _apply(here)
    named = {"IPAddress": str(at.ip), "PrefixLength": at.network.prefixlen}
    return [PSObject({**named, "InterfaceAlias": c.name}, f"{CIM}/MSFT_NetIPAddress")
            for c in cards]  # fmt: skip


def remove_address(here: Machine, bound: Bound) -> Iterable[Any]:
    bound.sure("Remove-NetIPAddress")
    had = [c for c in _cards(here, bound, "InterfaceAlias") if c.addresses]
    if not had:
        _missing(bound, "InterfaceAlias", text(bound.get("InterfaceAlias")), "MSFT_NetIPAddress")
    for card in had:
        card.addresses.clear()
    _apply(here)
    return []


def new_rule(here: Machine, bound: Bound) -> Iterable[Any]:
    name = bound.get("Name") or f"{{{len(here.state.rules)}}}"
    said = [text(bound.get(w, d)) for w, d in (("Direction", "Inbound"), ("Action", "Allow"),
                                              ("Enabled", "True"), ("Profile", "Any"))]  # fmt: skip
    if any(rule.name.lower() == name.lower() for rule in here.state.rules):
        raise bound.failed("Windows System Error 183", "ResourceExists",
                           "Cannot create a file when that file already exists.")  # fmt: skip
    protocol = bound.get("Protocol", "Any")
    ports, icmp = bound.get("LocalPort", []), bound.get("IcmpType", [])
    if (ports and protocol.upper() not in ("TCP", "UDP")) or (
        icmp and not protocol.upper().startswith("ICMP")
    ):
        raise _wrong(bound)
    program = bound.get("Program", "")
    if program and not here.drives.is_file(program):
        here.complain(f"a rule for {program}, which is not there")
    if said != ["Inbound", "Allow", "True", "Any"]:
        here.complain(f"the rule {name} is not simulated: {said}")
    local, remote = bound.get("LocalAddress", []), bound.get("RemoteAddress", [])
    here.state.rules.append(
        Rule(name, protocol, tuple(local), tuple(remote), tuple(ports), tuple(icmp), program)
    )
    here.state.apply_rules(here.inside)
    return [PSObject({"Name": name, "InstanceID": name}, f"{CIM}/MSFT_NetFirewallRule")]


def remove_rule(here: Machine, bound: Bound) -> Iterable[Any]:
    for asked in bound.get("Name", ["*"]):
        found = [r for r in here.state.rules if matches(asked, r.name)]
        if not found and not MARKS & set(asked):
            _missing(bound, "InstanceID", asked, "MSFT_NetFirewallRule")
        here.state.rules = [r for r in here.state.rules if r not in found]
    here.state.apply_rules(here.inside)
    return []


def connections(here: Machine, bound: Bound) -> Iterable[Any]:
    found = [PSObject({
        "LocalAddress": address, "LocalPort": port, "RemoteAddress": "0.0.0.0", "RemotePort": 0,
        "State": _enum("Listen", 2),
    }, f"{CIM}/MSFT_NetTCPConnection") for address, port in here.listening()]  # fmt: skip
    found = [one for one in found if _filtered(bound, one)]
    _none(bound, found, "MSFT_NetTCPConnection")
    return found


def _wrong(bound: Bound) -> PSError:
    text = "The parameter is incorrect."
    return bound.failed("Windows System Error 87", "InvalidArgument", text)


def _apply(here: Machine) -> None:
    here.state.apply_links(here.inside, here.host)


CMDLETS = {
    "Get-NetAdapter": adapters, "Rename-NetAdapter": rename,
    "Set-NetAdapterAdvancedProperty": jumbo, "Disable-NetAdapterBinding": unbind,
    "Get-NetAdapterLso": offloads, "Get-NetAdapterRsc": offloads,
    "Get-NetAdapterChecksumOffload": offloads, "Get-NetIPInterface": interfaces,
    "Set-NetIPInterface": set_interface, "Get-NetIPAddress": addresses,
    "New-NetIPAddress": new_address, "Remove-NetIPAddress": remove_address,
    "New-NetFirewallRule": new_rule, "Remove-NetFirewallRule": remove_rule,
    "Get-NetTCPConnection": connections,
}  # fmt: skip
