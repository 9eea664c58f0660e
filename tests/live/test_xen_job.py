"""The main job on a real Xen under emulation: the verbs as typed, dom0 as it was afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from drivers.dom0 import xl
from drivers.dom0.look import state
from tests.live.xen_bed import UP_S, Bed
from tests.peers.xen.inside import in_dom0
from tests.peers.xen.machine import reboot

pytestmark = [
    pytest.mark.live,
    pytest.mark.xen,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
EXAMPLES = Path(__file__).parents[2] / "examples/dom0-experiments"
ONE = "vcpus: 1, pin: 0, weight: 512, cap_percent: 80, irq_affinity: 0"


def flows(finding: dict[str, Any], vcpus: int) -> None:
    """Traffic of both guests, dom0's CPU and interrupts over the window, and what they say."""
    assert set(finding["guests_mbit"]) == {"vm1", "vm2"}
    assert all(mbit > 0.1 for mbit in finding["guests_mbit"].values()), finding
    busy, irqs = finding["dom0_percent"], finding["irqs_per_s"]
    assert len(busy) == vcpus
    assert max(busy) > 5
    assert sum(irqs) > 0
    assert ("dom0" in " ".join(finding["warnings"])) == (max(busy) >= 90), finding


def test_the_whole_day(xen: Bed) -> None:
    typed, host = xen.shell, xen.lab.xen.host
    words = ("-f", str(xen.spec("day", dom0=ONE)))
    planned = typed("plan", *words).stdout
    assert "+ guest/vm1" in planned
    assert "restarts the host" in planned
    refused = typed("up", *words, code=None)
    assert refused.returncode not in (0, 1)
    assert "--yes" in refused.stderr
    built = typed.json("up", "--yes", *words, timeout_s=UP_S)
    assert {g["accel"] for g in built["guests"].values()} == {"pv"}
    now = state(host)
    assert [v.hard for v in now.vcpus] == ["0"]
    assert now.share == xl.Share("Domain-0", 0, 512, 80)
    guests = [s for s in now.all_shares if s.domid]
    assert [(s.weight, s.cap_percent) for s in guests] == [(300, 90)] * 2
    assert {v.hard for v in now.all_vcpus if v.domid} == {"1"}
    bridges = xen.links()
    assert bridges["eth1"] != bridges["eth2"]
    ours = {m for n, m in bridges.items() if n.startswith("pv") and n.endswith("n1")}
    assert ours == {bridges["eth1"], bridges["eth2"]}
    assert "nothing to change" in typed("up", *words, timeout_s=UP_S).stdout
    assert "as asked" in typed("verify", "-n", "day", timeout_s=UP_S).stdout
    seen = typed("ssh", "-n", "day", "vm2", "--", "hostname; ethtool -i link1", timeout_s=UP_S)
    assert seen.stdout.split("\n")[0] == "vm2"
    assert "driver: vif" in seen.stdout
    finding, knobs = xen.run("day")
    flows(finding, 1)
    assert knobs["dom0.weight"] == "512"
    typed("ssh", "-n", "day", "vm1", "--", "touch /var/tmp/dirt; sync", timeout_s=UP_S)
    typed("reset", "-n", "day", "--level", "revert", timeout_s=UP_S)
    left = typed("ssh", "-n", "day", "vm1", "--", "ls", "/var/tmp", timeout_s=UP_S).stdout
    assert "dirt" not in left
    assert {s.weight for s in state(host).all_shares if s.domid} == {300}
    assert "--yes" in typed("down", "-n", "day", code=None).stderr
    typed("down", "--yes", "-n", "day", timeout_s=UP_S)
    assert "no testbed" in typed("status").stdout


def test_weights_are_an_experiment_without_a_restart(xen: Bed) -> None:
    typed, spec = xen.shell, xen.here(EXAMPLES / "weight.yml")
    for weight in (256, 512, 1024):
        typed("up", "-f", str(spec), "--set", f"dom0.weight={weight}", timeout_s=UP_S)
        share = state(xen.lab.xen.host).share
        assert share is not None
        assert share.weight == weight
        finding, knobs = xen.run("dom0-weight")
        flows(finding, 1)
        assert knobs["dom0.weight"] == str(weight)
    typed("down", "-n", "dom0-weight", timeout_s=UP_S)


@pytest.mark.parametrize(
    ("name", "dom0", "vcpus", "pinned"),
    [
        ("one-vcpu", {}, 1, True),
        ("half-irqs", {}, 2, True),
        ("all-vcpus", {"vcpus": 2}, 2, False),
    ],
)
def test_dom0s_cpus_are_an_experiment(
    xen: Bed, name: str, dom0: dict[str, Any], vcpus: int, pinned: bool
) -> None:
    """half-irqs serves the uplinks' interrupts on two CPUs, all-vcpus has none pinned."""
    typed, host = xen.shell, xen.lab.xen.host
    spec = xen.here(EXAMPLES / f"{name}.yml", **dom0)
    typed("up", "--yes", "-f", str(spec), timeout_s=UP_S)
    boot = state(host).info.boot
    assert boot["dom0_max_vcpus"] == str(vcpus)
    assert boot.get("dom0_vcpus_pin") == ("true" if pinned else None)
    finding, knobs = xen.run(f"dom0-{name}")
    flows(finding, vcpus)
    assert f"dom0_max_vcpus={vcpus}" in knobs["host.boot"]
    if name == "half-irqs":
        assert [knobs[f"irq/eth{n}"] for n in (1, 2)] == ["0", "1"]
        assert knobs["dom0.pin"] == "0;1"
        assert all(n > 10 for n in finding["irqs_per_s"])
    typed("down", "--yes", "-n", f"dom0-{name}", timeout_s=UP_S)


def test_a_driver_that_names_the_wrong_nic_is_found_out(xen: Bed) -> None:
    """The cables of the two guests are crossed behind the driver's back."""
    spec = xen.spec("wrong", dom0="weight: 400", ports="lg2, lg1", nic="paravirtual")
    done = xen.shell("up", "-f", str(spec), code=7, timeout_s=UP_S)
    assert "does not reach 198.18.1.2 over its link" in done.stderr
    xen.shell("down", "-n", "wrong", timeout_s=UP_S)


def test_killed_in_the_middle_down_puts_all_back(xen: Bed) -> None:
    spec = str(xen.spec("killed", dom0="weight: 700"))
    for phase in ("tuning/dom0.weight", "switch/", "booting"):
        xen.kill(("up", "-f", spec), phase)
    xen.kill(("down", "-n", "killed"), "guest/vm")
    xen.shell("down", "-n", "killed", timeout_s=UP_S)


def test_killed_while_the_host_restarts_down_puts_all_back(xen: Bed) -> None:
    spec = str(xen.spec("killed", dom0="pin: 0, weight: 700", ports="lg1"))
    xen.kill(("up", "--yes", "-f", spec), "restarting the host")
    xen.shell("down", "--yes", "-n", "killed", timeout_s=UP_S)


def test_open_vswitch(xen: Bed) -> None:
    typed, host = xen.shell, xen.lab.xen.host
    host.run("systemctl", "start", "openvswitch-switch", timeout_s=120)
    try:
        spec = xen.spec("ovs", ports="lg1")
        typed("up", "-f", str(spec), "--set", "switch.type=ovs", timeout_s=UP_S)
        (bridge,) = [b for b in host.run("ovs-vsctl", "list-br").split() if b.startswith("pv")]
        ports = host.run("ovs-vsctl", "list-ports", bridge).split()
        assert len(ports) == 2
        assert "eth1" in ports
        finding, _ = xen.run("ovs")
        assert finding["guests_mbit"]["vm1"] > 0.1
        typed("down", "-n", "ovs", timeout_s=UP_S)
        assert not host.run("ovs-vsctl", "list-br").split()
    finally:
        # while there is one that lets go of eth1
        typed("down", "--yes", "-n", "ovs", code=None, timeout_s=UP_S)
        host.run("systemctl", "stop", "openvswitch-switch", timeout_s=120)
        host.run("ip", "link", "del", "ovs-system", check=False)


def test_two_nics_in_one_guest_have_a_bridge_and_a_stream_each(xen: Bed) -> None:
    typed, spec = xen.shell, str(xen.spec("nics", ports="lg1, lg2"))
    typed("up", "-f", spec, "--vms", "1", "--set", "guests.nics_each=2", timeout_s=UP_S)
    assert "as asked" in typed("verify", "-n", "nics", timeout_s=UP_S).stdout
    bridges = xen.links()
    ends = {n: m for n, m in bridges.items() if n.startswith("pv") and n.endswith(("n1", "n2"))}
    assert sorted(filter(None, ends.values())) == sorted(
        b for b in (bridges["eth1"], bridges["eth2"]) if b
    )
    assert len(set(ends.values())) == 2
    finding, _ = xen.run("nics")
    assert sorted(finding["links_mbit"]) == ["vm1.link1", "vm1.link2"]
    assert all(mbit > 0.1 for mbit in finding["links_mbit"].values()), finding
    assert all(mbit > 0.1 for mbit in finding["uplinks_mbit"].values()), finding
    typed("down", "-n", "nics", timeout_s=UP_S)


def test_credit_is_driven_as_credit2_is(xen: Bed) -> None:
    typed, host, own = xen.shell, xen.lab.xen.host, "/etc/default/grub.d/sched.cfg"
    host.write(own, 'GRUB_CMDLINE_XEN="$GRUB_CMDLINE_XEN sched=credit"\n')
    try:
        host.run("update-grub", timeout_s=600)
        reboot(xen.lab.xen)
        spec = xen.spec("credit", dom0="weight: 512, cap_percent: 95", ports="lg1")
        typed("up", "-f", str(spec), timeout_s=UP_S)
        now = state(host)
        assert now.info.scheduler == "credit"
        assert sorted((s.weight, s.cap_percent) for s in now.all_shares) == [(300, 90), (512, 95)]
        typed("down", "-n", "credit", timeout_s=UP_S)
        assert state(host).share == xl.Share("Domain-0", 0, 256, 0)
    finally:
        host.run("rm", "-f", own)
        host.run("update-grub", timeout_s=600)
        reboot(xen.lab.xen)


def test_in_dom0_itself_it_needs_no_ssh(xen: Bed) -> None:
    """The driver as it is, run there: a guest is made, read, pinned and dropped."""
    said = in_dom0(xen.lab)
    assert said.split() == ["made", "changed", "kept", "gone"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"guests": "virt: hvm"}, "guests.virt: hvm: not on xen: the host's CPU has no VT-x"),
        ({"nic": "e1000"}, "e1000 is emulated, and a pv guest has no such devices"),
        ({"dom0": "weight: 70000"}, "dom0.weight"),
        ({"dom0": "weight: 0"}, "dom0.weight"),
        ({"dom0": "pin: 5"}, "dom0.pin: the host xen-host has CPUs 0-1, not 5"),
        ({"dom0": "cap_percent: 300"}, "dom0.cap_percent: 300: Xen takes 0 to 100"),
        ({"dom0": "irq_affinity: 1"}, "dom0.irq_affinity"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything(
    xen: Bed, how: dict[str, str], words: str
) -> None:
    done = xen.shell("plan", "-f", str(xen.spec("bad", **how)), code=2)
    assert words in done.stderr
