"""Switches and uplinks for real, in a namespace that stands for the hypervisor's host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.linux.links import staged
from drivers.linux.net import LinuxNet
from provision.errors import DriverError, PreflightError, Unsupported
from provision.host import Host
from provision.resources import Switch, Uplink, key
from tests.root.machines import machine, marks, sh, stream_mbit

pytestmark = marks
HOST, FAR = "pvnt-host", "pvnt-far"
no_ovs = pytest.mark.skipif(
    not shutil.which("ovs-vswitchd") or Path("/run/systemd/system").exists(),
    reason="needs Open vSwitch, and no service manager that minds its daemons",
)
flavours = pytest.mark.parametrize("flavour", ["bridge", pytest.param("ovs", marks=no_ovs)])


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A machine with three NICs, cabled to another, and Open vSwitch's files to itself."""
    names = ("RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR")
    own = ("env", *(f"OVS_{name}={tmp_path}" for name in names))
    with machine(FAR), machine(HOST):
        for i in (1, 2, 3):
            sh("ip", "-n", HOST, "link", "add", f"e{i}", "type", "veth",
               "peer", "name", f"f{i}", "netns", FAR)  # fmt: skip
            sh("ip", "-n", FAR, "addr", "add", f"198.18.{i}.1/24", "dev", f"f{i}")
            sh("ip", "-n", FAR, "link", "set", f"f{i}", "up")
        yield Host(HOST, (*own, "ip", "netns", "exec", HOST))
        assert not list(tmp_path.glob("*.pid")), "a daemon that we started still runs"


@pytest.fixture
def net(host: Host) -> LinuxNet:
    return LinuxNet(host, "t1")


def links(host: Host) -> list[str]:
    """The host's links, as far as a testbed must put them back."""
    rows = host.json("ip", "-d", "-json", "addr")
    return sorted(
        f"{r['ifname']} {r.get('master')} {r['mtu']} {'UP' in r['flags']} {r['promiscuity']} "
        f"{r.get('ifalias')} {[a['local'] for a in r['addr_info']]}"
        for r in rows
        if r
    )


@flavours
def test_put_read_drop(net: LinuxNet, host: Host, flavour: str) -> None:
    before = links(host)
    for want in (
        Switch("b1", flavour, "e1"),
        Switch("b1", flavour, "e1", 1400, "198.18.1.9/24"),
        Switch("b1", flavour, "e2", 1500, "198.18.2.9/24"),
        Switch("b1", flavour),
    ):
        net.put(want)
        assert net.read(key(want)) == want
        net.put(want)
        assert net.read(key(want)) == want
        assert list(net.owned()) == [key(want)]
    assert flavour in net.evidence(("switch", "b1"))["datapath"].replace("Open vSwitch", "ovs")
    for _ in range(2):
        net.drop(("switch", "b1"))
        assert net.read(("switch", "b1")) is None
    assert list(net.owned()) == []
    assert links(host) == before


@flavours
def test_traffic_takes_the_uplink_and_no_other(net: LinuxNet, host: Host, flavour: str) -> None:
    for i in (1, 2):
        net.put(Uplink(f"e{i}", up=True))
        net.put(Switch(f"b{i}", flavour, f"e{i}", address=f"198.18.{i}.9/24"))
    before = net.counters(["e1", "e2"])
    far = Host().inside(FAR)
    assert stream_mbit(far, host, "198.18.1.9", 0.3) > 10
    assert stream_mbit(host, far, "198.18.1.1", 0.3) > 10
    after = net.counters(["e1", "e2"])
    assert min(b - a for a, b in zip(before["e1"][:2], after["e1"][:2], strict=True)) > 10**5
    assert max(b - a for a, b in zip(before["e2"][:2], after["e2"][:2], strict=True)) < 1000
    for i in (1, 2):
        net.drop(("switch", f"b{i}"))


@no_ovs
def test_a_switch_changes_its_flavour_and_uplinks_change_places(net: LinuxNet) -> None:
    for flavours in (("bridge", "ovs"), ("ovs", "bridge"), ("ovs", "ovs")):
        for uplinks in (("e1", "e2"), ("e2", "e1")):
            wants = [Switch(f"b{i}", flavours[i], uplinks[i]) for i in (0, 1)]
            for want in wants:
                net.put(want)
            assert [net.read(key(want)) for want in wants] == wants
    for want in wants:
        net.drop(key(want))


@no_ovs
def test_only_daemons_that_we_started_are_stopped(net: LinuxNet, host: Host) -> None:
    said: list[str] = []
    net.say = lambda _key, phase: said.append(phase)
    net.put(Switch("b1", "ovs", "e1"))
    assert said == ["started ovs-vswitchd and ovsdb-server"]
    host.run("ovs-vsctl", "add-br", "foreign", "--", "set", "Bridge", "foreign",
             "datapath_type=netdev")  # fmt: skip
    net.drop(("switch", "b1"))
    assert host.run("ovs-vsctl", "list-br").split() == ["foreign"], "still in use by others"
    net.put(Switch("b1", "ovs", "e1"))
    assert len(said) == 1
    host.run("ovs-vsctl", "del-br", "foreign")
    net.drop(("switch", "b1"))


STEADY = Switch("b1", "bridge", "e1", address="198.18.1.9/24")


@pytest.mark.parametrize(
    ("words", "reads"),
    [
        ("link set b1 down", replace(STEADY, flavour="bridge (down)")),
        (
            "link set b1 type bridge stp_state 1",
            replace(STEADY, flavour="bridge (STP on, forward delay)"),
        ),
        (
            "link set b1 type bridge mcast_snooping 1",
            replace(STEADY, flavour="bridge (multicast snooping)"),
        ),
        ("link set e2 master b1", replace(STEADY, uplink="e1+e2")),
        ("link set e1 nomaster", replace(STEADY, uplink=None)),
        ("addr add 10.0.0.1/24 dev b1", replace(STEADY, address="198.18.1.9/24+10.0.0.1/24")),
        ("link set b1 mtu 1280", replace(STEADY, mtu=1280)),
    ],
)
def test_drift_is_seen_and_mended(net: LinuxNet, host: Host, words: str, reads: Switch) -> None:
    net.put(STEADY)
    host.run("ip", *words.split())
    assert net.read(key(STEADY)) == reads
    net.put(STEADY)
    assert net.read(key(STEADY)) == STEADY


def test_ipv6_turned_on_is_seen_and_mended(net: LinuxNet, host: Host) -> None:
    want = Switch("b1", "bridge", "e1")
    net.put(want)
    host.run("sysctl", "-qw", "net.ipv6.conf.b1.disable_ipv6=0")
    assert net.read(key(want)) == replace(want, flavour="bridge (IPv6 on)")
    net.put(want)
    assert net.read(key(want)) == want


@flavours
def test_the_taps_of_vms_are_no_uplinks(net: LinuxNet, host: Host, flavour: str) -> None:
    want = Switch("b1", flavour, "e1")
    net.put(want)
    host.run("ip", "tuntap", "add", "vnet7", "mode", "tap")
    if flavour == "ovs":
        host.run("ovs-vsctl", "add-port", "b1", "vnet7")
    else:
        host.run("ip", "link", "set", "vnet7", "master", "b1")
    assert net.read(key(want)) == want
    net.put(replace(want, uplink="e2"))
    assert net.read(key(want)) == replace(want, uplink="e2")
    taps = [r["ifname"] for r in host.json("ip", "-json", "link", "show", "vnet7")]
    net.drop(key(want))
    assert taps == ["vnet7"]


@pytest.mark.parametrize("alias", ["", "provision:testbed=t2", "the office"])
def test_what_is_not_ours_is_not_touched(net: LinuxNet, host: Host, alias: str) -> None:
    host.run("ip", "link", "add", "b1", "type", "bridge")
    host.run("ip", "link", "set", "b1", "alias", alias)
    host.run("ip", "link", "set", "e1", "master", "b1")
    before = links(host)
    assert net.read(("switch", "b1")) is None
    assert list(net.owned()) == []
    for want in (Switch("b1"), Switch("b1", uplink="e2")):
        with pytest.raises(DriverError, match=r"b1 exists on .* without our mark"):
            net.put(want)
    with pytest.raises(DriverError, match="without our mark"):
        net.drop(("switch", "b1"))
    with pytest.raises(PreflightError, match="is a port of bridge b1"):
        net.put(Switch("b2", uplink="e1"))
    with pytest.raises(PreflightError, match="is a port of bridge b1"):
        net.put(Uplink("e1", 9000, up=True))
    assert links(host) == before


@no_ovs
def test_open_vswitch_bridges_of_others_are_not_touched(net: LinuxNet, host: Host) -> None:
    net.put(Switch("b1", "ovs"))
    host.run("ovs-vsctl", "add-br", "b2", "--", "set", "Bridge", "b2", "datapath_type=netdev",
             "--", "add-port", "b2", "e2")  # fmt: skip
    before = links(host)
    assert net.read(("switch", "b2")) is None
    for flavour in ("ovs", "bridge"):
        with pytest.raises(DriverError, match=r"b2 exists on .* without our mark"):
            net.put(Switch("b2", flavour))
    with pytest.raises(DriverError, match="without our mark"):
        net.drop(("switch", "b2"))
    with pytest.raises(PreflightError, match="is a port of Open vSwitch bridge b2"):
        net.put(Switch("b1", "ovs", "e2"))
    assert links(host) == before
    host.run("ovs-vsctl", "del-br", "b2")
    net.drop(("switch", "b1"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["addr add 10.9.0.1/24 dev e1"], "has address 10.9.0.1/24"),
        (["addr add 10.9.0.1/24 dev e1 label e1:1"], "has address 10.9.0.1/24"),
        (["addr add 2001:db8::1/64 dev e1 nodad"], "has address 2001:db8::1/64"),
        (["link set e1 up", "route add default dev e1"], "carries the default route"),
        (["link set e1 alias provision:testbed=t2"], "belongs to testbed t2"),
    ],
)
def test_an_uplink_in_use_is_refused(net: LinuxNet, host: Host, words: list[str], why: str) -> None:
    for line in words:
        host.run("ip", *line.split())
    before = links(host)
    assert {u.name: u.used_by for u in net.uplinks()} == {"e1": why, "e2": "", "e3": ""}
    for want in (Uplink("e1", 9000, up=True), Switch("b1", uplink="e1")):
        with pytest.raises(PreflightError, match=why):
            net.put(want)
    assert links(host) == before


def test_our_own_switch_does_not_make_an_uplink_used(net: LinuxNet) -> None:
    net.put(Uplink("e1", 1400, up=True))
    net.put(Switch("b1", uplink="e1"))
    first = net.uplinks()[0]
    assert (first.name, first.used_by, first.up, first.mtu) == ("e1", "", True, 1400)
    assert first.mac


def test_an_uplink_is_state_and_is_put_back(net: LinuxNet, host: Host) -> None:
    host.run("ip", "link", "set", "e1", "mtu", "1450", "up")
    before = net.read(("uplink", "e1"))
    assert before == Uplink("e1", 1450, up=True, ipv6=True)
    net.put(Uplink("e1", 9000, up=True))
    assert net.read(("uplink", "e1")) == Uplink("e1", 9000, up=True)
    assert host.run("ip", "-6", "addr", "show", "dev", "e1") == "", "it has nothing to say"
    net.put(before)
    assert net.read(("uplink", "e1")) == before
    with pytest.raises(DriverError, match="cannot be dropped"):
        net.drop(("uplink", "e1"))
    assert net.read(("uplink", "e9")) is None
    with pytest.raises(DriverError, match="no NIC 'e9'; there are: e1, e2, e3"):
        net.put(Uplink("e9"))


def test_what_a_killed_put_left_half_made_goes(net: LinuxNet, host: Host) -> None:
    before = links(host)
    host.run("ip", "link", "add", staged("t1", "b1"), "type", "bridge")
    assert net.read(("switch", "b1")) is None
    net.put(Switch("b1", uplink="e1"))
    host.run("ip", "link", "add", staged("t1", "b1"), "type", "bridge")
    net.drop(("switch", "b1"))
    assert links(host) == before


def test_an_unknown_flavour_and_an_absent_uplink(net: LinuxNet, host: Host) -> None:
    before = links(host)
    with pytest.raises(Unsupported, match="'hub'"):
        net.put(Switch("b1", "hub"))
    with pytest.raises(DriverError, match="no NIC 'e9'"):
        net.put(Switch("b1", uplink="e9"))
    assert links(host) == before


def test_many_at_once(net: LinuxNet, host: Host) -> None:
    """The kernel tells of links only in part while others are made: no reading may be wrong."""
    before = links(host)

    def round_trip(n: int) -> None:
        want = Switch(f"b{n}", address=f"10.{n}.0.1/24")
        for _ in range(5):
            net.put(want)
            assert net.read(key(want)) == want
            net.drop(key(want))
            assert net.read(key(want)) is None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(round_trip, range(8)))
    assert links(host) == before
