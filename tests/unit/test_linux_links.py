"""What iproute2 and Open vSwitch print, and what uses a NIC, in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drivers.linux.links import Link, OvsBridge, View, links, staged, view
from drivers.linux.uplinks import (
    NAME_MAX,
    address_label,
    count,
    refuse_used,
    uplinks,
    used_by,
)
from provision.errors import DriverError, HostError, PreflightError
from provision.host import Host


def printed(name: str, index: int, **more: Any) -> dict[str, Any]:
    """A link as ``ip -d -json address show`` prints it (iproute2 6.1)."""
    return {
        "ifindex": index, "ifname": name, "flags": ["BROADCAST", "UP"], "mtu": 1500,
        "link_type": "ether", "address": "02:00:00:00:00:01", "addr_info": [], **more,
    }  # fmt: skip


def says(*text: str) -> Host:
    """A host on which every command prints this."""
    return Host("h", ("sh", "-c", 'printf "%s\\n" "$0"', "\n".join(text)))


ETH0 = printed("eth0", 2)
BOND = printed("bond0", 3, linkinfo={"info_kind": "bond"})


def seen(*rows: dict[str, Any], **more: Any) -> View:
    return View(links(json.dumps(rows)), **{"bridges": {}, **more})


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([], {}, ""),
        ([printed("br0", 5, linkinfo={"info_kind": "bridge"})], {}, ""),
        ([printed("eth0.5", 5, link="eth0", linkinfo={"info_kind": "vlan"})], {},
         "carries the vlan eth0.5"),
        ([printed("mv0", 5, link="eth0", linkinfo={"info_kind": "macvtap"})], {},
         "carries the macvtap mv0"),
        ([printed("veth0", 5, link="eth0", linkinfo={"info_kind": "veth"})], {}, ""),
        ([], {"default_routes": frozenset({"eth0"})}, "carries the default route"),
        ([], {"bridges": {"o": OvsBridge("o", "t2", "system", True, False, False, {"eth0": ""})}},
         "is a port of Open vSwitch bridge o"),
        ([], {"bridges": {"o": OvsBridge("o", "t1", "system", True, False, False, {"eth0": ""})}},
         ""),
        ([printed("eth0.5", 5, link="eth0", linkinfo={"info_kind": "vlan"},
                  addr_info=[{"family": "inet", "local": "192.0.2.9", "prefixlen": 24}])],
         {"ssh": "192.0.2.9"}, "carries the SSH connection we came in by, carries the vlan eth0.5"),
    ],
)  # fmt: skip
def test_what_uses_a_nic(rows: list[dict[str, Any]], more: dict[str, Any], words: str) -> None:
    found = seen(ETH0, *rows, **more)
    assert used_by(found.links["eth0"], found, "t1") == words


@pytest.mark.parametrize("kind", ["bond", "team", "vrf"])
def test_a_member_of_something_is_in_use(kind: str) -> None:
    row = printed("eth0", 2, master="m0", linkinfo={"info_slave_kind": kind})
    found = seen(row, printed("m0", 3, linkinfo={"info_kind": kind}))
    assert used_by(found.links["eth0"], found, "t1") == "is a member of m0"


def test_the_way_in_over_a_bridge() -> None:
    row = printed("eth0", 2, master="br0", linkinfo={"info_slave_kind": "bridge"})
    address = {"family": "inet", "local": "192.0.2.9", "prefixlen": 24}
    bridge = printed("br0", 3, linkinfo={"info_kind": "bridge"}, addr_info=[address])
    found = seen(row, bridge, ssh="192.0.2.9")
    assert used_by(found.links["eth0"], found, "t1") == (
        "carries the SSH connection we came in by, is a port of bridge br0"
    )
    with pytest.raises(PreflightError, match="eth0 of h is in use: it carries the SSH"):
        refuse_used(Host("h"), found.links["eth0"], found, "t1")


def test_the_kernels_own_address_is_no_use() -> None:
    own = {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"}
    found = seen(printed("eth0", 2, addr_info=[own]))
    assert used_by(found.links["eth0"], found, "t1") == ""


@pytest.mark.parametrize("nic", ["e1", "enp129s0f0np0", "enP2p129s0f0np"])
def test_a_label_fits_and_says_whose(nic: str) -> None:
    label = address_label("t1", nic)
    assert label.startswith(nic)
    assert nic != label
    assert len(label) <= NAME_MAX
    assert address_label("t1", "e1") != address_label("t2", "e1")


def test_staged_names_fit_and_differ() -> None:
    names = {staged(t, n) for t in ("t1", "t2") for n in ("b1", "b2")}
    assert len(names) == 4
    assert max(map(len, names)) <= NAME_MAX


def test_a_view_of_all_sections() -> None:
    bridges = {
        "headings": ["name", "ports", "datapath_type", "fail_mode", "stp_enable",
                     "mcast_snooping_enable", "external_ids"],
        "data": [["o1", ["set", [["uuid", "p1"], ["uuid", "p2"]]], "netdev", "standalone", False,
                  False, ["map", [["provision", "t1"]]]],
                 ["o2", ["uuid", "p3"], "", ["set", []], True, True, ["map", []]]],
    }  # fmt: skip
    ports = {
        "headings": ["_uuid", "name", "interfaces"],
        "data": [[["uuid", "p1"], "o1", ["uuid", "i1"]], [["uuid", "p2"], "eth0", ["uuid", "i2"]],
                 [["uuid", "p3"], "o2", ["uuid", "i3"]]],
    }  # fmt: skip
    interfaces = {
        "headings": ["_uuid", "type"],
        "data": [[["uuid", "i1"], "internal"], [["uuid", "i2"], ""], [["uuid", "i3"], "internal"]],
    }
    route = [{"dst": "default", "nexthops": [{"dev": "eth0"}, {"dev": "eth1"}]}, {"dev": "eth2"}]
    found = view(
        says("@@links", json.dumps([ETH0, {}]), "@@ipv6", "0", "@@arp", "1", "2",
             "@@lro", "large-receive-offload: on", "@@route", json.dumps(route), "@@route6", "",
             "@@ssh", "198.51.100.1 50000 192.0.2.9 22",
             "@@ovs", *map(json.dumps, (bridges, ports, interfaces)))
    )  # fmt: skip
    assert found.links == {
        "eth0": Link("eth0", 2, "", True, "02:00:00:00:00:01", 1500, True),
    }
    assert found.bridges == {
        "o1": OvsBridge("o1", "t1", "netdev", True, False, False, {"eth0": ""}),
        "o2": OvsBridge("o2", "", "system", False, True, True, {}),
    }
    assert found.default_routes == {"eth0", "eth1", "eth2"}
    assert (found.ssh, found.ipv6, found.lro, found.arp) == ("192.0.2.9", True, True, (1, 2))


def test_what_is_no_json_is_told_with_its_words() -> None:
    with pytest.raises(HostError, match="Netlink says no"):
        view(says("@@links", "Netlink says no"))


def test_hardware_of_uplinks() -> None:
    """A PCI address and interrupts are those of real NICs; a USB one has neither."""
    rows = [ETH0, printed("eth1", 3), BOND, printed("tap0", 6, linkinfo={"info_kind": "tun"}),
            printed("p1", 7, linkinfo={"info_kind": "veth"})]  # fmt: skip
    found = uplinks(
        says("eth0 0000:00:03.0 39 37", "eth1 1-1 0", "p1 0000:00:09.0 5",
             "@@links", json.dumps(rows)), "t1",
    )  # fmt: skip
    assert [(u.name, u.pci, u.irqs) for u in found] == [
        ("eth0", "0000:00:03.0", (37, 39)),
        ("eth1", None, ()),
        ("p1", None, ()),
    ]


def test_counters_of_one_moment() -> None:
    stats = {"rx": {"bytes": 1, "packets": 2}, "tx": {"bytes": 3, "packets": 4}}
    host = says("@@at", "12.5", "@@cpu", "cpu0 10 20 30 40 50 60 70 80 90 100",
                "@@links", json.dumps([{**ETH0, "stats64": stats}]))  # fmt: skip
    found = count(host, ["eth0"])
    assert found.at_s == 12.5
    assert found.busy_s == ((10 + 20 + 30 + 60 + 70 + 80) / 100,)
    assert found.nics == {"eth0": (1, 3, 2, 4)}
    with pytest.raises(DriverError, match="no NIC eth7"):
        count(host, ["eth0", "eth7"])
