"""The emulated lab for real, and the ports of a load generator that is a machine of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.lab.driver import Lab
from drivers.linux.links import staged
from drivers.linux.net import LinuxNet
from provision.errors import DriverError, PreflightError, Unsupported
from provision.host import Host
from provision.resources import Cable, Namespace, Port, Resource, Uplink, key
from tests.root.machines import machine, marks, sh, stream_mbit

pytestmark = marks
HOST, LG, FAR = "pvlt-host", "pvlt-lg", "pvlt-far"
# a machine that sees this one's named namespaces, unlike one that ``ip netns exec`` enters
ENTER = ("nsenter", f"--net=/run/netns/{HOST}")
MACHINE = Host(HOST, ENTER)
# what ssh does with words: joins them by blanks, and a shell on the far side takes them apart
FAR_SHELL = Host(HOST, (*ENTER, "sh", "-c", 'exec sh -c "$*"', "ssh"), far_shell=True)


@pytest.fixture
def host() -> Iterator[Host]:
    with machine(HOST):
        yield MACHINE
        if Path(f"/run/netns/{LG}").exists():
            sh("ip", "netns", "del", LG)


@pytest.fixture
def lab(host: Host) -> Lab:
    return Lab(host, "t1", LG)


def wants(n: int, rate_mbit: int | None = None) -> list[Resource]:
    cables = [Cable(f"u{i}", f"c{i}", LG, rate_mbit) for i in range(1, n + 1)]
    ports = [Port(f"c{i}", f"198.18.{i}.1/24", up=True) for i in range(1, n + 1)]
    return [Namespace(LG), *cables, *ports]


def links(host: Host) -> str:
    return host.run("ip", "-br", "link") + host.run("ip", "netns")


@pytest.mark.parametrize("machine", [MACHINE, FAR_SHELL], ids=["here", "as over ssh"])
def test_a_whole_lab_is_put_read_and_gone(host: Host, machine: Host) -> None:
    lab = Lab(machine, "t1", LG)
    before = links(host)
    assert [lab.read(key(w)) for w in wants(2)] == [None] * 5
    for _ in range(2):
        for want in wants(2):
            lab.put(want)
            assert lab.read(key(want)) == want
    assert set(lab.owned()) == {("namespace", LG), ("cable", "u1"), ("cable", "u2")}
    for _ in range(2):
        for want in reversed(wants(2)):
            if isinstance(want, Port):
                with pytest.raises(DriverError, match="cannot be dropped"):
                    lab.drop(key(want))
            else:
                lab.drop(key(want))
                assert lab.read(key(want)) is None
    assert links(host) == before


def test_nobody_speaks_on_a_new_cable(lab: Lab, host: Host) -> None:
    for want in wants(1):
        lab.put(want)
    LinuxNet(host, "t1").put(Uplink("u1", up=True))
    assert LinuxNet(host, "t1").uplinks()[0].used_by == ""
    assert LinuxNet(host, "t2").uplinks()[0].used_by == "belongs to testbed t1"
    time.sleep(0.5)  # what would be said unasked, is said in the first moments
    assert lab.usage().nics == {"c1": (0, 0, 0, 0)}


def test_a_cable_has_its_speed_in_both_directions(lab: Lab, host: Host) -> None:
    for want in wants(1, rate_mbit=100):
        lab.put(want)
    host.run("ip", "addr", "add", "198.18.1.2/24", "dev", "u1")
    host.run("ip", "link", "set", "u1", "up")
    for sender, receiver, address in (
        (host, lab.machine, "198.18.1.1"),
        (lab.machine, host, "198.18.1.2"),
    ):
        assert 75 < stream_mbit(sender, receiver, address, 1) < 105
    index = host.read("/proc/self/net/dev_mcast")
    for rate in (1000, None, 10):
        lab.put(Cable("u1", "c1", LG, rate))
        assert lab.read(("cable", "u1")) == Cable("u1", "c1", LG, rate)
    assert host.read("/proc/self/net/dev_mcast") == index, "the speed changes under traffic"
    sh("tc", "-n", LG, "qdisc", "del", "dev", "c1", "root")
    assert lab.read(("cable", "u1")) == Cable("u1", "c1", LG, 0), "one direction only"


def test_a_cable_led_elsewhere_is_made_anew(lab: Lab) -> None:
    for want in wants(1):
        lab.put(want)
    lab.put(Cable("u1", "d1", LG))
    assert lab.read(("cable", "u1")) == Cable("u1", "d1", LG)
    assert lab.read(("port", "c1")) is None
    with pytest.raises(Unsupported, match="the load generator is"):
        lab.put(Cable("u2", "d2", "elsewhere"))


def test_what_runs_in_the_namespace_ends_with_it(lab: Lab) -> None:
    lab.put(Namespace(LG))
    stubborn = "trap '' TERM; echo ready; while :; do sleep 600; done"
    argv = lab.machine.argv("setsid", "sh", "-c", stubborn)
    outside = subprocess.Popen(["sleep", "600"])
    inside = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert inside.stdout is not None
    assert inside.stdout.readline() == "ready\n"
    lab.drop(("namespace", LG))
    assert inside.wait(5) == -signal.SIGKILL
    assert outside.poll() is None
    outside.kill()
    outside.wait()
    inside.stdout.close()
    assert LG not in sh("ip", "netns")


def test_what_is_not_ours_is_not_touched(lab: Lab, host: Host) -> None:
    with machine(LG) as foreign:
        host.run("ip", "link", "add", "u1", "type", "veth", "peer", "name", "x1")
        before = links(host), foreign.run("ip", "-d", "link")
        assert [lab.read(key(w)) for w in wants(1)] == [None] * 3
        assert list(lab.owned()) == []
        for want in wants(1)[:2]:
            with pytest.raises(DriverError, match=r"exists on .* without our mark"):
                lab.put(want)
            with pytest.raises(DriverError, match=r"exists on .* without our mark"):
                lab.drop(key(want))
        assert (links(host), foreign.run("ip", "-d", "link")) == before
    assert list(Lab(host, "t2", LG).owned()) == []


def test_another_testbeds_lab_is_not_ours(lab: Lab, host: Host) -> None:
    for want in wants(1):
        lab.put(want)
    other = Lab(host, "t2", LG)
    assert list(other.owned()) == []
    for k in (("namespace", LG), ("cable", "u1")):
        assert other.read(k) is None
        with pytest.raises(DriverError, match="without our mark"):
            other.drop(k)
    assert list(lab.owned())


PUT = """
import sys
from drivers.lab.driver import Lab
from provision.resources import Cable, Namespace, Port
from tests.root.test_lab import MACHINE, wants
lab = Lab(MACHINE, "t1", sys.argv[1])
print("ready", flush=True)
while True:
    for want in wants(2, 100):
        lab.put(want)
    for want in reversed(wants(2, 100)):
        if not isinstance(want, Port):
            lab.drop((want.kind, want.name))
"""


def test_killed_at_any_moment_a_drop_cleans_up(lab: Lab, host: Host) -> None:
    """The whole process group is killed, tools and all, as a terminal or a power cut would."""
    before = links(host)
    dice = random.Random(1)
    for _ in range(12):
        victim = subprocess.Popen(
            [sys.executable, "-c", PUT, LG], stdout=subprocess.PIPE, text=True,
            start_new_session=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        with victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == "ready\n"
            time.sleep(dice.uniform(0, 0.3))
            os.killpg(victim.pid, signal.SIGKILL)
        for want in reversed(wants(2)):
            if not isinstance(want, Port):
                lab.drop(key(want))
                assert lab.read(key(want)) is None
        assert links(host) == before


def test_half_a_namespace_is_none_and_goes(lab: Lab, host: Host) -> None:
    stub = Path("/run/netns") / LG
    stub.touch()
    assert lab.read(("namespace", LG)) is None
    assert lab.read(("cable", "u1")) is None
    lab.put(Namespace(LG))
    assert lab.read(("namespace", LG)) == Namespace(LG)
    lab.drop(("namespace", LG))
    stub.touch()
    lab.drop(("namespace", LG))
    assert not stub.exists()


def test_half_a_cable_goes(lab: Lab, host: Host) -> None:
    before = links(host)
    lab.put(Namespace(LG))
    half = ("ip", "link", "add", staged("t1", "u1"), "type", "veth", "peer", "name", "c1",
            "netns", LG)  # fmt: skip
    host.run(*half)
    lab.put(Cable("u1", "c1", LG))
    assert lab.read(("cable", "u1")) == Cable("u1", "c1", LG)
    lab.drop(("cable", "u1"))
    host.run(*half)
    lab.drop(("cable", "u1"))
    lab.drop(("namespace", LG))
    assert links(host) == before


@pytest.fixture(params=["here", "as over ssh"])
def real(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A load generator that is a machine of its own, with two NICs."""
    with machine(FAR), machine(HOST) as here:
        host = here if request.param == "here" else FAR_SHELL
        for i in (1, 2):
            sh("ip", "-n", HOST, "link", "add", f"e{i}", "type", "veth",
               "peer", "name", f"f{i}", "netns", FAR)  # fmt: skip
        yield Lab(host, "t1", None)


def test_a_real_port_is_put_back_exactly(real: Lab) -> None:
    sh("ip", "-n", HOST, "link", "set", "e1", "mtu", "1450", "up")
    real.machine.run("sysctl", "-qw", "net.ipv4.conf.e1.arp_ignore=2")
    before = real.read(("port", "e1"))
    assert before == Port("e1", None, 1450, True, True, arp_ignore=2, arp_announce=0)
    seen = real.machine.run("ip", "-4", "addr")
    for address in ("198.18.1.1/24", "198.18.3.1/24"):
        want = Port("e1", address, 1500, up=True)
        for _ in range(2):
            real.put(want)
            assert real.read(key(want)) == want
    assert real.ports()[0].used_by == "", "our own address does not count"
    real.put(before)
    assert real.read(("port", "e1")) == before
    assert real.machine.run("ip", "-4", "addr") == seen
    assert list(real.owned()) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["addr add 10.9.0.1/24 dev e1"], "has address 10.9.0.1/24"),
        (["addr add 2001:db8::1/64 dev e1 nodad"], "has address 2001:db8::1/64"),
        (["link set e1 up", "route add default dev e1"], "carries the default route"),
    ],
)
def test_a_real_port_in_use_is_refused(real: Lab, words: list[str], why: str) -> None:
    for line in words:
        real.machine.run("ip", *line.split())
    before = real.machine.run("ip", "addr")
    assert [p.used_by for p in real.ports()] == [why, ""]
    with pytest.raises(PreflightError, match=why):
        real.put(Port("e1", "198.18.1.1/24", up=True))
    assert real.machine.run("ip", "addr") == before


def test_the_address_that_is_there_already_stays(real: Lab) -> None:
    """Someone set the load generator up by hand, just as it is asked for."""
    real.machine.run("ip", "addr", "add", "198.18.1.1/24", "dev", "e1")
    before = real.read(("port", "e1"))
    assert isinstance(before, Port)
    want = Port("e1", "198.18.1.1/24", up=True)
    real.put(want)
    assert real.read(key(want)) == want
    real.put(before)
    assert real.read(key(want)) == before


def test_a_real_load_generator_has_ports_only(real: Lab) -> None:
    assert real.facts.kinds == {"port"}
    assert real.facts.cpus > 0
    for want in (Namespace("n"), Cable("u1", "c1", "n")):
        with pytest.raises(DriverError, match="a real machine"):
            real.put(want)
    assert real.read(("port", "e9")) is None
    with pytest.raises(DriverError, match="no NIC 'e9'; there are: e1, e2"):
        real.put(Port("e9"))
    for ask in (real.checkpoint, real.revert):
        with pytest.raises(Unsupported):
            ask(("port", "e1"))


def test_counters_and_cpu_only_grow(lab: Lab, host: Host) -> None:
    for want in wants(1):
        lab.put(want)
    first = lab.usage()
    host.run("ip", "addr", "add", "198.18.1.2/24", "dev", "u1")
    host.run("ip", "link", "set", "u1", "up")
    stream_mbit(host, lab.machine, "198.18.1.1", 0.2)
    second = lab.usage()
    assert second.at_s > first.at_s
    assert len(first.host_busy_s) == lab.facts.cpus
    assert all(b >= a for a, b in zip(first.host_busy_s, second.host_busy_s, strict=True))
    assert all(b > a for a, b in zip(first.nics["c1"], second.nics["c1"], strict=True))


def test_a_name_that_leaves_no_room_for_a_mark(real: Lab) -> None:
    name = "enp129s0f0np0x1"
    real.machine.run("ip", "link", "set", "e1", "name", name)
    with pytest.raises(PreflightError, match="no room for our mark"):
        real.put(Port(name, "198.18.1.1/24", up=True))
    real.put(Port(name, None, up=True))
    assert real.read(("port", name)) == replace(Port(name), up=True)
