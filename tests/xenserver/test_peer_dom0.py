"""The peer's dom0 over a real ssh: its tools, strict as the real ones, and what a boot changes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from provision.errors import HostError, Unreachable
from provision.host import Host, hang_up, ssh
from tests.peers.xapi.lab import XapiLab, xapi_lab
from tests.root import machines

pytestmark = machines.marks
CMDLINE = "/opt/xensource/libexec/xen-cmdline"
AFFINITY = "/proc/irq/66/smp_affinity_list"


@pytest.fixture(scope="module")
def lab() -> Iterator[XapiLab]:
    with xapi_lab(guests=False) as found:
        yield found


@pytest.fixture(scope="module")
def dom0(lab: XapiLab) -> Iterator[Host]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{lab.programs}:{os.environ['PATH']}")
        host = ssh(f"root@{lab.address}", control=lab.folder)
        yield host
        hang_up(host)


def test_what_xen_says(dom0: Host) -> None:
    info = dict(line.split(":", 1) for line in dom0.run("xl", "info").splitlines())
    told = {name.strip(): text.strip() for name, text in info.items()}
    assert (told["nr_cpus"], told["xen_scheduler"]) == ("8", "credit")
    assert "dom0_max_vcpus=1-4" in told["xen_commandline"].split()
    assert dom0.run("xl", "info", "nr_cpus") == "8\n"
    head, *lines = dom0.run("xl", "vcpu-list", "Domain-0").splitlines()
    assert head.endswith("Affinity (Hard / Soft)")
    assert [line.split()[:3] for line in lines] == [["Domain-0", "0", str(n)] for n in range(4)]
    assert all(line.endswith("  all / all") for line in lines)


def test_weights_and_pins_come_into_force_at_once(dom0: Host) -> None:
    dom0.run("xl", "sched-credit", "-d", "Domain-0", "-w", "512")
    assert dom0.run("xl", "sched-credit").splitlines() == [
        "Cpupool Pool-0: tslice=30ms ratelimit=1000us migration-delay=0us",
        "Name                                ID Weight  Cap",
        "Domain-0                             0    512    0",
    ]
    dom0.run("xl", "vcpu-pin", "0", "1", "2-3")
    lines = dom0.run("xl", "vcpu-list", "0").splitlines()
    assert lines[2].endswith("  2-3 / all")
    dom0.run("xl", "vcpu-pin", "Domain-0", "all", "all")
    dom0.run("xl", "sched-credit", "-d", "0", "-w", "256")
    assert dom0.run("xl", "sched-credit2") == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("xl", 1),
        ("xl no-such", 1),
        ("xl vcpu-pin 0 0", 2),
        ("xl vcpu-pin 0 0 x", 1),
        ("xl vcpu-pin 0 9 1", 1),
        ("xl vcpu-pin 0 0 99", 1),
        ("xl vcpu-list nobody", 1),
        ("xl sched-credit -d 0 -w 0", 1),
        ("xl sched-credit -d 0 -w 70000", 1),
        ("xl sched-credit -d 0 -c 401", 1),
        ("xl sched-credit -d 0 --wieght 5", 2),
        ("xl sched-credit -w 5", 1),
        ("xl sched-credit2 -d 0 -w 5", 1),
        (f"{CMDLINE} --set-xen", 1),
        (f"{CMDLINE} --put-xen a=b", 1),
        ("xe-switch-network-backend", 1),
        ("xe-switch-network-backend vde", 1),
        ("systemctl stop nobody", 5),
        ("systemctl --now", 1),
        ("systemctl is-active irqbalance", 0),
        ("xen-cmdline --get-xen sched", 127),
        ("xe host-list", 127),
    ],
)
def test_what_a_tool_does_not_know(dom0: Host, words: str, code: int) -> None:
    before = dom0.run("xl", "vcpu-list")
    if code:
        with pytest.raises(HostError, match=f"exit {code}"):
            dom0.run(*words.split())
    else:
        dom0.run(*words.split())
    assert dom0.run("xl", "vcpu-list") == before


def test_interrupts_stay_where_they_are_put_unless_balanced(lab: XapiLab, dom0: Host) -> None:
    balanced = dom0.read(AFFINITY)
    dom0.write(AFFINITY, "3")
    assert dom0.read(AFFINITY) == balanced
    dom0.run("systemctl", "stop", "irqbalance")
    with pytest.raises(HostError, match="exit 1"):
        dom0.run("pidof", "irqbalance")
    dom0.write(AFFINITY, "3,1,2")
    assert dom0.read(AFFINITY) == "1-3"
    assert dom0.read("/proc/irq/66/smp_affinity") == "e"
    for wrong in ("8", "x", "0-"):
        with pytest.raises(HostError):
            dom0.write(AFFINITY, wrong)
    assert dom0.read(AFFINITY) == "1-3"
    (line,) = [text for text in dom0.read("/proc/interrupts").splitlines() if "eth1-TxRx-0" in text]
    assert line.split()[:3] == ["66:", "0", "1000"]
    assert dom0.run("ls", "/sys/class/net/eth1/device/msi_irqs").split() == ["66", "67"]
    dom0.run("systemctl", "start", "irqbalance")
    assert dom0.read(AFFINITY) == balanced


def test_options_come_into_force_at_a_boot_only(lab: XapiLab, dom0: Host) -> None:
    assert dom0.run(CMDLINE, "--get-xen", "dom0_max_vcpus") == "dom0_max_vcpus=1-4\n"
    assert dom0.run(CMDLINE, "--get-xen", "dom0_vcpus_pin") == ""
    dom0.run(CMDLINE, "--set-xen", "dom0_max_vcpus=2", "dom0_vcpus_pin")
    dom0.run("xe-switch-network-backend", "bridge")
    dom0.run("xl", "sched-credit", "-d", "0", "-w", "512")
    assert len(dom0.run("xl", "vcpu-list", "0").splitlines()) == 5
    boot = dom0.read("/proc/sys/kernel/random/boot_id")
    session = lab.peer.connect()
    host = lab.peer.hosts[0]
    session.xenapi.host.disable(host)
    session.xenapi.host.reboot(host)
    _gone(dom0)
    assert _back(lab)
    assert dom0.read("/proc/sys/kernel/random/boot_id") != boot
    lines = dom0.run("xl", "vcpu-list", "0").splitlines()[1:]
    assert [line.split()[6] for line in lines] == ["0", "1"]
    assert " 256 " in dom0.run("xl", "sched-credit")
    record = lab.peer.get("host", host)
    assert record["software_version"]["network_backend"] == "bridge"
    assert lab.peer.get("VM", record["control_domain"])["VCPUs_max"] == "2"
    dom0.run(CMDLINE, "--delete-xen", "dom0_vcpus_pin")
    assert dom0.run(CMDLINE, "--get-xen", "dom0_vcpus_pin") == ""


def _gone(dom0: Host) -> None:
    """Whoever asks on and on is cut off, or let in no more."""
    with pytest.raises(Unreachable):
        while True:
            dom0.run("true")


def _back(lab: XapiLab) -> bool:
    with lab.peer.world.store.lock:
        return lab.peer.world.store.changed.wait_for(
            lambda: (
                lab.peer.get("host", lab.peer.hosts[0])["enabled"] is True
                and not lab.peer.world.booting
            ),
            30,
        )
