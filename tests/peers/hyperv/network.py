"""The host's own network: NetAdapter, NetTCPIP and NetLbfo.

With a source: the id and text of what is not found, by cdxml's own rules. Jumbo frames are the
driver's: their property has values of its own, and the NIC is restarted to take them on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.model import Nic, Switch
from tests.peers.hyperv.world import MARKS, World, matches
from tests.peers.powershell.values import EnumValue, PSObject, text

CIM = "Microsoft.Management.Infrastructure.CimInstance#ROOT/StandardCimv2"
JUMBO = {"1514": "Disabled", "4088": "4088 Bytes", "9014": "9014 Bytes"}
COMPONENTS = {
    "ms_tcpip": "Internet Protocol Version 4 (TCP/IPv4)",
    "ms_tcpip6": "Internet Protocol Version 6 (TCP/IPv6)",
    "ms_server": "File and Printer Sharing for Microsoft Networks",
    "vms_pp": "Hyper-V Extensible Virtual Switch",
}


def _enum(name: str, number: int) -> EnumValue:
    return EnumValue("Microsoft.PowerShell.Cmdletization.GeneratedTypes", name, number)


def _missing(bound: Bound, field: str, value: str, kind: str) -> None:
    message = (
        f"No {kind} objects found with property '{field}' equal to"
        f" '{value}'.  Verify the value of the property and retry."
    )
    bound.call.error(
        bound.failed(f"CmdletizationQuery_NotFound_{field}", "ObjectNotFound", message).record
    )


def _nics(world: World, bound: Bound, kind: str = "MSFT_NetAdapter") -> list[Nic]:
    """The physical NICs that a cmdlet is about."""
    given = bound.get("InputObject")
    if given is not None:
        return [n for one in given for n in world.nics if n.name == one.properties["Name"]]
    for field, attribute in (("Name", "name"), ("InterfaceDescription", "description"),
                             ("InterfaceIndex", "index")):  # fmt: skip
        if field in bound:
            found = []
            for asked in bound.get(field):
                some = [n for n in world.nics if matches(text(asked), text(getattr(n, attribute)))]
                if not some and not MARKS & set(text(asked)):
                    _missing(bound, field, text(asked), kind)
                found += some
            return found
    return [*world.nics]


def _own(world: World) -> list[Switch]:
    """The switches on which the host has an adapter of its own."""
    return [s for s in world.switches if s.management]


def _shown(nic: Nic) -> PSObject:
    up = nic.enabled and nic.plugged
    bits = nic.speed_mbit * 10**6
    dashed = "-".join(nic.mac[i : i + 2] for i in range(0, 12, 2))
    speed = (
        f"{nic.speed_mbit / 1000:g} Gbps" if nic.speed_mbit >= 1000 else f"{nic.speed_mbit} Mbps"
    )
    return PSObject({
        "Name": nic.name, "InterfaceAlias": nic.name, "ifAlias": nic.name,
        "InterfaceDescription": nic.description, "ifDesc": nic.description,
        "InterfaceIndex": nic.index, "ifIndex": nic.index,
        "Status": "Up" if up else "Disconnected" if nic.enabled else "Disabled",
        "AdminStatus": _enum("Up" if nic.enabled else "Down", 1 if nic.enabled else 2),
        "MediaConnectionState": _enum("Connected" if up else "Disconnected", 1 if up else 2),
        "LinkSpeed": speed if up else "0 bps", "Speed": bits if up else 0,
        "ReceiveLinkSpeed": bits if up else 0, "TransmitLinkSpeed": bits if up else 0,
        "MacAddress": dashed, "PermanentAddress": nic.mac, "LinkLayerAddress": dashed,
        "MtuSize": nic.jumbo - 14, "ActiveMaximumTransmissionUnit": nic.jumbo - 14,
        "InterfaceGuid": f"{{{str(nic.guid).upper()}}}", "DeviceID": f"{{{str(nic.guid).upper()}}}",
        "DriverName": "\\SystemRoot\\System32\\drivers\\e1r.sys", "DriverVersion": "12.18.9.23",
        "DriverDescription": nic.description, "DriverProvider": "Intel",
        "PnPDeviceID": f"PCI\\VEN_8086&DEV_1533\\{nic.index}", "HardwareInterface": True,
        "Virtual": False, "ConnectorPresent": True,
        "ifOperStatus": _enum("Up" if up else "Down", 1),
        "InstanceID": f"{{{str(nic.guid).upper()}}}", "SystemName": "HV1", "FullDuplex": True,
        "NdisPhysicalMedium": 14, "PhysicalMediaType": "802.3", "MediaType": "802.3",
    }, f"{CIM}/MSFT_NetAdapter")  # fmt: skip


def get_adapter(world: World, bound: Bound) -> Iterable[Any]:
    names: list[str] = bound.get("Name", [])
    own = [] if bound.flag("Physical") else [_virtual(world, s) for s in _own(world)]
    if "InterfaceDescription" in bound or "InterfaceIndex" in bound:
        own = []
    virtual = [v for v in own if not names or any(matches(n, v.properties["Name"]) for n in names)]
    # a name that is the host's own adapter's is none of a physical one's
    rest = [n for n in names if not any(matches(n, v.properties["Name"]) for v in virtual)]
    if virtual and names and not rest:
        return virtual
    asked = replace(bound, values={**bound.values, "Name": rest}) if rest else bound
    return [*(_shown(n) for n in _nics(world, asked)), *virtual]


def _virtual(world: World, switch: Switch) -> PSObject:
    """The host's own adapter on a switch."""
    at = 100 + world.switches.index(switch)
    made = Nic(f"vEthernet ({switch.name})", "Hyper-V Virtual Ethernet Adapter", "00155D0A0B0C", at)
    shown = _shown(made)
    shown.properties["HardwareInterface"], shown.properties["Virtual"] = False, True
    shown.properties["ConnectorPresent"] = False
    return shown


def enable(world: World, bound: Bound) -> Iterable[Any]:
    """Enable- and Disable-NetAdapter."""
    on = bound.name.startswith("Enable")
    if not on:
        bound.sure("Disable-NetAdapter")
    for nic in _nics(world, bound):
        if not on and nic.addresses:
            world.complain(f"{nic.name}: disabled, and it has the host's addresses")
            world.cut()
        nic.enabled = on
    _changed(world)
    return []


def hardware(world: World, bound: Bound) -> Iterable[Any]:
    return [PSObject({
        "Name": n.name, "InterfaceDescription": n.description, "Bus": n.index, "Device": 0,
        "Function": 0, "Segment": 0, "Slot": n.index, "NumaNode": 0,
        "BusNumber": n.index, "DeviceNumber": 0, "FunctionNumber": 0, "SegmentNumber": 0,
        "PciExpressLinkSpeed": "5.0 GT/s",
        "PcieLinkWidth": 4, "Version": "1.1", "LocationInformationString":
            f"PCI Slot {n.index} : Bus {n.index} : Device 0 : Function 0",
    }, f"{CIM}/MSFT_NetAdapterHardwareInfoSettingData") for n in _nics(world, bound)]  # fmt: skip


def statistics(world: World, bound: Bound) -> Iterable[Any]:
    found = []
    for nic in _nics(world, bound):
        if not nic.enabled:
            continue
        c = world.guests.counters(nic) if world.guests is not None else {}
        found.append(PSObject({
            "Name": nic.name, "InterfaceDescription": nic.description,
            "ReceivedBytes": c.get("rx_bytes", 0), "SentBytes": c.get("tx_bytes", 0),
            "ReceivedUnicastPackets": c.get("rx_packets", 0),
            "SentUnicastPackets": c.get("tx_packets", 0),
            "ReceivedUnicastBytes": c.get("rx_bytes", 0), "SentUnicastBytes": c.get("tx_bytes", 0),
            "ReceivedMulticastPackets": 0, "SentMulticastPackets": 0,
            "ReceivedBroadcastPackets": 0, "SentBroadcastPackets": 0,
            "ReceivedDiscardedPackets": 0, "OutboundDiscardedPackets": 0,
            "ReceivedPacketErrors": 0, "OutboundPacketErrors": 0,
        }, f"{CIM}/MSFT_NetAdapterStatisticsSettingData"))  # fmt: skip
    return found


def advanced(world: World, bound: Bound) -> Iterable[Any]:
    """Get- and Set-NetAdapterAdvancedProperty, of jumbo frames."""
    found = []
    for nic in _nics(world, bound):
        words = bound.get("RegistryKeyword", ["*"])
        shown = bound.get("DisplayName", ["*"])
        fits = any(matches(w.replace("*Jumbo", "`*Jumbo"), "*JumboPacket") for w in words)
        if not fits or not any(matches(s, "Jumbo Packet") for s in shown):
            for word in words:
                _missing(
                    bound, "RegistryKeyword", word, "MSFT_NetAdapterAdvancedPropertySettingData"
                )
            continue
        if bound.name.startswith("Set"):
            _set_jumbo(world, bound, nic)
            continue
        found.append(PSObject({
            "Name": nic.name, "InterfaceDescription": nic.description,
            "DisplayName": "Jumbo Packet", "DisplayValue": JUMBO[str(nic.jumbo)],
            "RegistryKeyword": "*JumboPacket", "RegistryValue": [str(nic.jumbo)],
            "ValidRegistryValues": [*JUMBO], "ValidDisplayValues": [*JUMBO.values()],
            "DefaultRegistryValue": "1514", "DefaultDisplayValue": "Disabled",
        }, f"{CIM}/MSFT_NetAdapterAdvancedPropertySettingData"))  # fmt: skip
    return found


def _set_jumbo(world: World, bound: Bound, nic: Nic) -> None:
    if "RegistryValue" in bound:
        (value,) = bound.get("RegistryValue")
    else:
        shown = {name.lower(): number for number, name in JUMBO.items()}
        value = shown.get(bound.get("DisplayValue", "").lower(), bound.get("DisplayValue", ""))
    if value not in JUMBO:
        raise bound.failed(
            "Windows System Error 87", "InvalidArgument", f"The value {value} is not valid."
        )
    nic.jumbo = int(value)
    _changed(world)


def rsc(world: World, bound: Bound) -> Iterable[Any]:
    """Get-, Enable- and Disable-NetAdapterRsc."""
    found = []
    for nic in _nics(world, bound):
        if bound.name.startswith("Get"):
            found.append(PSObject({
                "Name": nic.name, "InterfaceDescription": nic.description,
                "IPv4Enabled": nic.rsc, "IPv6Enabled": nic.rsc, "IPv4Supported": True,
                "IPv6Supported": True, "IPv4OperationalState": nic.rsc,
                "IPv6OperationalState": nic.rsc,
            }, f"{CIM}/MSFT_NetAdapterRscSettingData"))  # fmt: skip
        else:
            nic.rsc = bound.name.startswith("Enable")
    return found


def binding(world: World, bound: Bound) -> Iterable[Any]:
    """Get-, Enable- and Disable-NetAdapterBinding; a NIC of a switch has no other one."""
    found = []
    wanted = [w.lower() for w in bound.get("ComponentID", [*COMPONENTS])]
    for nic in _nics(world, bound):
        for component, name in COMPONENTS.items():
            if not any(matches(w, component) for w in wanted):
                continue
            on = component not in nic.unbound
            on = component == "vms_pp" if nic.switch else on and component != "vms_pp"
            if bound.name.startswith("Get"):
                found.append(PSObject({
                    "Name": nic.name, "InterfaceAlias": nic.name, "DisplayName": name,
                    "ComponentID": component, "Enabled": on,
                    "InterfaceDescription": nic.description,
                }, f"{CIM}/MSFT_NetAdapterBindingSettingData"))  # fmt: skip
            elif bound.name.startswith("Enable"):
                nic.unbound.discard(component)
            else:
                nic.unbound.add(component)
    return found


def addresses(world: World, bound: Bound) -> Iterable[Any]:
    rows = [(n.name, n.index, a) for n in world.nics if n.enabled for a in n.addresses]
    rows += [
        (f"vEthernet ({s.name})", 100 + world.switches.index(s), a)
        for s in _own(world) for a in s.addresses
    ]  # fmt: skip
    rows.append(("Loopback Pseudo-Interface 1", 1, "127.0.0.1/8"))
    found = []
    for name, index, address in rows:
        at = ip_interface(address)
        shown = PSObject({
            "IPAddress": str(at.ip), "IPv4Address": str(at.ip),
            "PrefixLength": at.network.prefixlen,
            "InterfaceAlias": name, "InterfaceIndex": index, "ifIndex": index,
            "AddressFamily": _enum("IPv4", 2), "AddressState": _enum("Preferred", 4),
            "PrefixOrigin": _enum("Manual", 1), "SuffixOrigin": _enum("Manual", 1),
            "Type": _enum("Unicast", 1), "SkipAsSource": False, "PolicyStore": "ActiveStore",
        }, f"{CIM}/MSFT_NetIPAddress")  # fmt: skip
        if _filtered(bound, shown):
            found.append(shown)
    _none(bound, found, "MSFT_NetIPAddress")
    return found


def _filtered(bound: Bound, shown: PSObject) -> bool:
    """By all that was asked for, patterns included."""
    for name, wanted in bound.values.items():
        if name in shown.properties and isinstance(wanted, list):
            has = text(shown.properties[name])
            if not any(matches(text(w), has) for w in wanted):
                return False
    return True


def _none(bound: Bound, found: list[Any], kind: str) -> None:
    for field, wanted in bound.values.items():
        if not found and isinstance(wanted, list):
            return _missing(bound, field, text(wanted[0]), kind)
    return None


def routes(world: World, bound: Bound) -> Iterable[Any]:
    found = []
    for nic in world.nics:
        rows = [("0.0.0.0/0", nic.gateway)] if nic.gateway and nic.addresses else []
        rows += [(str(ip_interface(a).network), "0.0.0.0") for a in nic.addresses]
        for prefix, hop in rows if nic.enabled else []:
            shown = PSObject({
                "DestinationPrefix": prefix, "NextHop": hop, "InterfaceAlias": nic.name,
                "InterfaceIndex": nic.index, "ifIndex": nic.index, "RouteMetric": 256,
                "InterfaceMetric": 25, "AddressFamily": _enum("IPv4", 2),
                "Protocol": _enum("NetMgmt", 3), "State": _enum("Alive", 0), "Store": "ActiveStore",
            }, f"{CIM}/MSFT_NetRoute")  # fmt: skip
            if _filtered(bound, shown):
                found.append(shown)
    _none(bound, found, "MSFT_NetRoute")
    return found


def team_members(world: World, bound: Bound) -> Iterable[Any]:
    return [
        PSObject({"Name": n.name, "Team": n.team, "InterfaceDescription": n.description},
                 f"{CIM}/MSFT_NetLbfoTeamMember")
        for n in world.nics if n.team and any(matches(p, n.name) for p in bound.get("Name", ["*"]))
    ]  # fmt: skip


def connections(world: World, bound: Bound) -> Iterable[Any]:
    """Ours, at the port that WinRM has on a real host."""
    address = next((a for n in world.nics for a in n.addresses), None)
    switched = next((a for s in _own(world) for a in s.addresses), None)
    at = address or switched
    found = [] if at is None else [PSObject({
        "LocalAddress": str(ip_interface(at).ip), "LocalPort": 5985,
        "RemoteAddress": str(ip_interface(at).network[1]), "RemotePort": 51515,
        "State": _enum("Established", 5), "OwningProcess": 4,
    }, f"{CIM}/MSFT_NetTCPConnection")]  # fmt: skip
    found = [one for one in found if _filtered(bound, one)]
    _none(bound, found, "MSFT_NetTCPConnection")
    return found


def _changed(world: World) -> None:
    if world.guests is not None:
        world.guests.sync()


CMDLETS = {
    "Get-NetAdapter": get_adapter, "Enable-NetAdapter": enable, "Disable-NetAdapter": enable,
    "Get-NetAdapterHardwareInfo": hardware, "Get-NetAdapterStatistics": statistics,
    "Get-NetAdapterAdvancedProperty": advanced, "Set-NetAdapterAdvancedProperty": advanced,
    "Get-NetAdapterRsc": rsc, "Enable-NetAdapterRsc": rsc, "Disable-NetAdapterRsc": rsc,
    "Get-NetAdapterBinding": binding, "Enable-NetAdapterBinding": binding,
    "Disable-NetAdapterBinding": binding, "Get-NetIPAddress": addresses, "Get-NetRoute": routes,
    "Get-NetLbfoTeamMember": team_members, "Get-NetTCPConnection": connections,
}  # fmt: skip
