"""The main job on a real Xen under emulation: the verbs as typed, dom0 as it was afterwards."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers.dom0 import xl
from drivers.dom0.look import state
from tests.live.conftest import Shell
from tests.peers.xen.lab import GENERATOR, XenLab, shared

pytestmark = [
    pytest.mark.live,
    pytest.mark.xen,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
SPEC = """
name: {name}
hypervisor: {{type: xen, uri: "{uri}"}}
guests:
  count: 2
  memory: 320MiB
  ready: 10min
  nic: {nic}
  cpu: {{weight: 300, cap_percent: 90, pin: "1"}}
  {guests}
uplinks: [eth1, "52:54:00:ee:00:02"]
load_generator: {{ssh: root@{generator}, ports: [{ports}]}}
dom0: {{{dom0}}}
overcommit: true
"""
PINNED = "vcpus: 1, pin: 0, weight: 512, cap_percent: 80, irq_affinity: 0"
LIVE = "weight: 400, irq_affinity: 1"
UP_S = 900  # four times what it takes where nobody else is at the CPUs


@dataclass(frozen=True)
class Bed:
    """A lab, and a shell that knows its dom0 and its load generator."""

    lab: XenLab
    shell: Shell

    def spec(self, name: str, *, dom0: str = "", ports: str = "lg1, lg2", nic: str = "netfront",
             guests: str = "user: root") -> Path:  # fmt: skip
        path = self.shell.folder / f"{name}.yml"
        path.write_text(SPEC.format(
            name=name, uri=self.lab.uri, dom0=dom0, ports=ports, nic=nic, guests=guests,
            generator=GENERATOR,
        ))  # fmt: skip
        return path

    def dom0(self) -> dict[str, Any]:
        """All that a testbed could leave behind there."""
        host, now = self.lab.xen.host, state(self.lab.xen.host)
        links = json.loads(host.run("ip", "-j", "link"))
        return {
            "options": {k: v for k, v in now.info.boot.items() if k.startswith("dom0")},
            "vcpus": [(v.number, v.hard) for v in now.vcpus],
            "share": now.share,
            "domains": [d.name for d in now.domains],
            "defined": host.run("virsh", "list", "--all", "--name").split(),
            "links": sorted((x["ifname"], x["mtu"], x.get("master")) for x in links),
            "irqs": host.run("sh", "-c", "grep -H . /proc/irq/*/smp_affinity_list"),
            "grub": host.run("ls", "/etc/default/grub.d"),
            "testbeds": host.run("ls", str(self.shell.folder / "testbeds")).split(),
        }


@pytest.fixture
def bed(shell: Shell) -> Iterator[Bed]:
    lab = shared()
    lab.images_at(shell.folder)
    shell.env |= {"PATH": f"{lab.programs}:{shell.env['PATH']}"}
    found = Bed(lab, shell)
    before = found.dom0()
    yield found
    for name in ("day", "wrong", "killed"):
        shell("down", "--yes", "-n", name, code=None, timeout_s=UP_S)
    after = found.dom0()
    # interrupts' numbers are dom0's to give, and a restart gives others
    assert {k: v for k, v in after.items() if k != "irqs"} == {
        k: v for k, v in before.items() if k != "irqs"
    }
    lab.xen.host.run("rm", "-rf", str(shell.folder))


def test_the_whole_day(bed: Bed) -> None:
    typed, host = bed.shell, bed.lab.xen.host
    words = ("-f", str(bed.spec("day", dom0=PINNED)))
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
    bridges = {x["ifname"]: x.get("master") for x in json.loads(host.run("ip", "-j", "link"))}
    assert bridges["eth1"] != bridges["eth2"]
    ours = sorted(m for n, m in bridges.items() if n.startswith("pv") and n.endswith("n1"))
    assert ours == sorted([bridges["eth1"], bridges["eth2"]])
    assert "nothing to change" in typed("up", *words, timeout_s=UP_S).stdout
    assert "as asked" in typed("verify", "-n", "day", timeout_s=UP_S).stdout
    seen = typed("ssh", "-n", "day", "vm2", "--", "hostname; ethtool -i link1", timeout_s=UP_S)
    assert seen.stdout.split("\n")[0] == "vm2"
    assert "driver: vif" in seen.stdout
    result = typed.json("run", "netperf-send", "-n", "day", "--seconds", "3", "--repeat", "1",
                        "--redo", "0", code=None, timeout_s=UP_S)  # fmt: skip
    (run,) = result["runs"]
    assert (run["subject"]["nic"], run["subject"]["accel"]) == ("netfront", "pv")
    (sample,) = run["samples"]
    finding = sample["finding"]
    assert set(finding["guests_mbit"]) == {"vm1", "vm2"}
    assert all(mbit > 1 for mbit in finding["guests_mbit"].values()), finding
    assert len(finding["dom0_percent"]) == 1
    assert finding["dom0_percent"][0] > 5
    assert sum(finding["irqs_per_s"]) > 0
    assert ("dom0" in " ".join(finding["warnings"])) == (finding["dom0_percent"][0] >= 90)
    typed("ssh", "-n", "day", "vm1", "--", "touch /var/tmp/dirt; sync", timeout_s=UP_S)
    typed("reset", "-n", "day", "--level", "revert", timeout_s=UP_S)
    left = typed("ssh", "-n", "day", "vm1", "--", "ls", "/var/tmp", timeout_s=UP_S).stdout
    assert "dirt" not in left
    weights = {s.weight for s in state(host).all_shares if s.domid}
    assert weights == {300}
    assert "--yes" in typed("down", "-n", "day", code=None).stderr
    typed("down", "--yes", "-n", "day", timeout_s=UP_S)
    assert "no testbed" in typed("status").stdout


def test_a_driver_that_names_the_wrong_nic_is_found_out(bed: Bed) -> None:
    """The cables of the two guests are crossed behind the driver's back."""
    spec = bed.spec("wrong", dom0=LIVE, ports="lg2, lg1", nic="paravirtual")
    done = bed.shell("up", "-f", str(spec), code=7, timeout_s=UP_S)
    assert "does not reach 198.18.1.2 over its link" in done.stderr
    irqs = bed.lab.xen.host.run("sh", "-c", "cat /proc/irq/*/smp_affinity_list").split()
    assert "1" in irqs
    bed.shell("down", "-n", "wrong", timeout_s=UP_S)


def test_killed_in_the_middle_down_puts_all_back(bed: Bed) -> None:
    spec = str(bed.spec("killed", dom0="weight: 700"))
    _kill(bed, ("up", "-f", spec), "booting")
    _kill(bed, ("down", "-n", "killed"), "guest/vm")
    bed.shell("down", "-n", "killed", timeout_s=UP_S)


def _kill(bed: Bed, words: tuple[str, ...], after: str) -> None:
    """Start it, and kill it as soon as it says that."""
    process = bed.shell.start(*words)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if after in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "".join(said)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"guests": "virt: hvm"}, "guests.virt: hvm: not on xen: the host's CPU has no VT-x"),
        ({"nic": "e1000"}, "e1000 is emulated, and a pv guest has no such devices"),
        ({"dom0": "weight: 70000"}, "dom0.weight"),
        ({"dom0": "weight: 0"}, "dom0.weight"),
        ({"dom0": "pin: 5"}, "dom0.pin: the host xen-host has CPUs 0-1, not 5"),
        ({"dom0": "cap_percent: 300"}, "dom0.cap_percent: 300: Xen takes 0 to 200"),
        ({"dom0": "irq_affinity: 7"}, "dom0.irq_affinity"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything(
    bed: Bed, how: dict[str, str], words: str
) -> None:
    done = bed.shell("plan", "-f", str(bed.spec("bad", **how)), code=2)
    assert words in done.stderr
