"""A Linux host's network as iproute2 and Open vSwitch tell it: links, addresses, bridges."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Any

from drivers.linux import vdsm
from provision.errors import HostError
from provision.host import Host

MARK = "provision:testbed="
#: kinds that ride on another link, which is then in use
STACKED = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"})
XEN_BACKEND = "xen-backend"
_TAP = re.compile("pv[0-9a-f]{8}n[0-9]+")  # drivers.libvirt.marks.tap
# how a section of the output begins
_AT = "@@"

# while others make links, the kernel may tell of them only in part, and says so: ask again
_LINKS = f"""
n=0
while out="$(ip -d -json address show 2>&1)"; do
  case $out in *interrupted*) n=$((n + 1)); [ $n -lt 50 ] || exit 1 ;; *) break ;; esac
done
echo {_AT}links; printf '%s\\n' "$out"
"""
_ROUTES = f"""
echo {_AT}route; ip -json -4 route show table all default
echo {_AT}route6; ip -json -6 route show table all default 2>/dev/null || :
echo {_AT}ssh; echo "${{SSH_CONNECTION:-}}"
"""
# exit 1 is a socket that nobody listens on, so there are no bridges; all else is a fault
_OVS = f"""
echo {_AT}ovs
[ ! -S "${{OVS_RUNDIR:-/var/run/openvswitch}}/db.sock" ] || ovs-vsctl --timeout=10 --format=json \\
-- --columns=name,ports,datapath_type,fail_mode,stp_enable,mcast_snooping_enable,external_ids \\
list Bridge -- --columns=_uuid,name,interfaces list Port -- --columns=_uuid,type list Interface \\
2>/dev/null || [ $? -eq 1 ]
"""
_NIC = f"""
cd /proc/sys/net
echo {_AT}ipv6; cat "ipv6/conf/$1/disable_ipv6" 2>/dev/null || echo 1
echo {_AT}arp; cat "ipv4/conf/$1/arp_ignore" "ipv4/conf/$1/arp_announce" 2>/dev/null || :
"""
_VFS = f"""
echo {_AT}vfs; cat "$2/class/net/$1/device/sriov_numvfs" 2>/dev/null || echo 0
"""
# LRO is the one offload that a kernel turns off by itself, when it bridges
_LRO = f"""
echo {_AT}lro; ethtool -k "$1" 2>/dev/null | grep '^large-receive-offload: on' || :
"""


@dataclass(frozen=True, slots=True)
class Address:
    """An address with its prefix. ``link_local`` is the kernel's own IPv6 one."""

    text: str
    label: str = ""
    ipv6: bool = False
    link_local: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """One network device. ``kind`` is "" for real hardware; ``peer`` is a veth's other index.

    ``bus`` is what its device is on, such as ``pci``; "" where it has none, or ip does not tell.
    """

    name: str
    index: int
    kind: str
    ethernet: bool
    mac: str
    mtu: int
    up: bool
    master: str = ""
    master_kind: str = ""
    below: str = ""
    peer: int | None = None
    alias: str = ""
    bus: str = ""
    addresses: tuple[Address, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def backs_vnic(self) -> bool:
        """Whether it is the host's end of a guest's vNIC: a tap, Xen's vif, a container's veth."""
        ours = self.alias.startswith(MARK) and _TAP.fullmatch(self.name)
        return self.kind == "tun" or self.bus == XEN_BACKEND or bool(ours)

    @property
    def ipv4(self) -> tuple[Address, ...]:
        return tuple(a for a in self.addresses if not a.ipv6)


@dataclass(frozen=True, slots=True)
class OvsBridge:
    """A bridge of Open vSwitch; ``ports`` maps each but its own to its type, "" for a device."""

    name: str
    testbed: str
    datapath: str
    standalone: bool
    stp: bool
    snooping: bool
    ports: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """The network of a host at one moment.

    ``default_routes`` are the devices that carry one; ``ssh`` is the address by which we came in.
    ``ipv6``, ``lro``, ``vfs`` and ``arp`` (ignore, announce) are of the one NIC that was asked
    about; ``vdsm`` says what of an oVirt host's own has a NIC.
    """

    links: Mapping[str, Link]
    bridges: Mapping[str, OvsBridge]
    default_routes: frozenset[str] = frozenset()
    ssh: str = ""
    vdsm: Mapping[str, str] = field(default_factory=dict)
    ipv6: bool = False
    lro: bool = False
    vfs: int = 0
    arp: tuple[int, int] = (0, 0)

    def members(self, bridge: str) -> list[Link]:
        """The devices on a bridge of either flavour."""
        if bridge in self.bridges:
            ports = self.bridges[bridge].ports
            return [self.links[p] for p, kind in ports.items() if not kind and p in self.links]
        return [link for link in self.links.values() if link.master == bridge]


def mark(testbed: str) -> str:
    """What stands in the alias of every link that is the testbed's."""
    return f"{MARK}{testbed}"


def staged(testbed: str, name: str) -> str:
    """The name that a link has until it bears our mark: nobody else's by construction."""
    return f"pv~{blake2s(f'{testbed}/{name}'.encode(), digest_size=5).hexdigest()}"


def view(
    host: Host, name: str = "", *, use: bool = False, ovs: bool = False, lro: bool = False
) -> View:
    """Look at the host once. ``name`` asks about one NIC, ``use`` about what uses the NICs."""
    script = _LINKS + (_NIC if name else "") + (_LRO + _VFS if lro else "")
    script += (_ROUTES + vdsm.SCRIPT if use else "") + (_OVS if ovs else "")
    found = sections(host.run("sh", "-c", script, "view", name, host.sysfs))
    arp = found.get("arp", "").split()
    ssh = found.get("ssh", "").split()
    return View(
        links=links(found["links"]),
        bridges=_bridges(found.get("ovs", "").splitlines()),
        default_routes=frozenset(
            hop["dev"]
            for route in _rows(found.get("route", "")) + _rows(found.get("route6", ""))
            for hop in (route, *route.get("nexthops", ()))
            if "dev" in hop
        ),
        ssh=ssh[2] if len(ssh) == 4 else "",
        vdsm=vdsm.owners(found.get(vdsm.SECTION, "")),
        ipv6=found.get("ipv6") == "0",
        lro=bool(found.get("lro")),
        vfs=int(found.get("vfs", "0")),
        arp=(int(arp[0]), int(arp[1])) if len(arp) == 2 else (0, 0),
    )


def sections(text: str) -> dict[str, str]:
    """The parts of a script's output, by the name that stands before each."""
    parts = (part.partition("\n") for part in f"\n{text}".split(f"\n{_AT}")[1:])
    return {name: rest.strip() for name, _, rest in parts}


def _rows(text: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(text or "[]")
    except ValueError as e:
        raise HostError(f"ip -json printed no JSON: {text[:80]!r}") from e
    return [row for row in rows if row]


def links(text: str) -> dict[str, Link]:
    """What ``ip -d -json address show`` printed, by name."""
    return {row["ifname"]: _link(row) for row in _rows(text)}


def _link(row: Mapping[str, Any]) -> Link:
    info = row.get("linkinfo", {})
    return Link(
        name=row["ifname"],
        index=row["ifindex"],
        kind=info.get("info_kind", ""),
        ethernet=row.get("link_type") == "ether",
        mac=row.get("address", ""),
        mtu=row["mtu"],
        up="UP" in row["flags"],
        master=row.get("master", ""),
        master_kind=info.get("info_slave_kind", ""),
        below=row.get("link", "") if info.get("info_kind") in STACKED else "",
        peer=row.get("link_index"),
        alias=row.get("ifalias", ""),
        bus=row.get("parentbus", ""),
        addresses=tuple(_address(a) for a in row.get("addr_info", ()) if "local" in a),
        settings=info.get("info_data", {}),
    )


def _address(info: Mapping[str, Any]) -> Address:
    ipv6 = info["family"] == "inet6"
    text = f"{info['local']}/{info['prefixlen']}"
    return Address(text, info.get("label", ""), ipv6, ipv6 and info.get("scope") == "link")


def _bridges(lines: list[str]) -> dict[str, OvsBridge]:
    """From the three tables that ovs-vsctl printed; none where it did not run."""
    if len(lines) != 3:
        return {}
    bridges, ports, interfaces = (_table(line) for line in lines)
    kinds = {row["_uuid"]: str(row["type"]) for row in interfaces}
    named = {row["_uuid"]: (row["name"], kinds.get(row["interfaces"][0], "")) for row in ports}
    found = {}
    for row in bridges:
        its = dict(named[p] for p in row["ports"] if p in named)
        its.pop(row["name"], None)
        found[row["name"]] = OvsBridge(
            name=row["name"],
            testbed=row["external_ids"].get("provision", ""),
            datapath=row["datapath_type"] or "system",
            standalone=row["fail_mode"] == "standalone",
            stp=row["stp_enable"],
            snooping=row["mcast_snooping_enable"],
            ports=its,
        )
    return found


def _table(line: str) -> list[dict[str, Any]]:
    table = json.loads(line)
    return [
        {h: _value(h, v) for h, v in zip(table["headings"], row, strict=True)}
        for row in table["data"]
    ]


def _value(heading: str, value: Any) -> Any:
    """OVSDB's notation (RFC 7047, 5.1): sets of one are bare, uuids and maps are tagged."""
    if heading in ("ports", "interfaces"):
        items = value[1] if value[0] == "set" else [value]
        return [item[1] for item in items]
    if isinstance(value, list):
        return dict(value[1]) if value[0] == "map" else value[1]
    return value
