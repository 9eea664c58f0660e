"""The main job on XenServer: the verbs as typed, a simulated host and dom0, real guests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision import journal
from tests.live.conftest import Shell, a_stranger_is_refused, a_wrong_password_is_told
from tests.live.nics import each_carries_its_stream
from tests.peers.sshd import behind_ssh
from tests.peers.xapi.lab import XapiLab, xapi_lab
from tests.peers.xapi.xen import Xen

pytestmark = pytest.mark.live
EXAMPLE = Path(__file__).parents[2] / "examples" / "xenserver.yml"
SECRET = "the pool's own pa$$word"
SPEC = """
name: {name}
hypervisor:
  type: xenserver
  uri: {uri}
  user: root
  password: {{env: LAB_PASSWORD}}
  tls: {{{tls}}}
guests:
  count: 2
  memory: 512MiB
  image: {image}
  nic: {{model: {nic}, rate: {rate}}}
  cpu: {{weight: 512, cap_percent: 50, pin: 2-3}}
uplinks: [eth1, "{second}"]
load_generator: {{ssh: root@lg7, ports: [lg1, lg2]}}
management: {{bridge: xenbr0, subnet: {subnet}}}
"""
DOM0 = """
dom0: {pin: 0-1, weight: 600, cap_percent: 150, memory: 2GiB, irq_affinity: ["0", "1"]}
"""


@dataclass(frozen=True)
class Bed:
    """A lab, a shell that knows dom0 and the load generator, and the means to write a spec."""

    lab: XapiLab
    shell: Shell

    def spec(
        self, name: str, *, nic: str = "netfront", rate: str = "null", tls: str = "",
        image: str = "debian12", more: str = "",
    ) -> Path:  # fmt: skip
        path = self.shell.folder / f"{name}.yml"
        peer = self.lab.peer
        path.write_text(SPEC.format(
            name=name, uri=peer.uri, tls=tls or f"ca: {peer.ca}", nic=nic, rate=rate, image=image,
            second=peer.get("PIF", peer.pif("eth2"))["MAC"], subnet=self.lab.management,
        ) + more)  # fmt: skip
        return path

    @property
    def xen(self) -> Xen:
        """What is in force of the host."""
        return self.lab.peer.world.xens[self.lab.peer.hosts[0]]

    def irq(self, nic: str) -> set[int]:
        """The vCPUs of dom0 that serve a NIC's interrupts."""
        names = self.xen.irq_names.items()
        return {cpu for irq, name in names if name.startswith(nic) for cpu in self.xen.irqs[irq]}


@pytest.fixture
def bed(shell: Shell) -> Iterator[Bed]:
    """Three free NICs cabled to the load generator; the host is as before at the end."""
    folder = shell.folder / "ssh"
    folder.mkdir(mode=0o700)
    with ExitStack() as stack:
        lab = stack.enter_context(xapi_lab())
        lab.peer.world.password = SECRET
        generator = (lab.wires.generator, lab.wires.generator_address)
        programs = stack.enter_context(behind_ssh(folder, [("lg7", *generator)]))
        config = folder / "config"  # for dom0, the lab's own
        config.write_text(f"Include {lab.programs.parent}/config\n{config.read_text()}")
        shell.env |= {"PATH": f"{programs}:{shell.env['PATH']}", "LAB_PASSWORD": SECRET}
        before = lab.peer.inventory()
        yield Bed(lab, shell)
        for name in {name for name, _, _ in journal.testbeds(shell.folder)}:
            shell("down", "-n", name, "--yes")
        assert lab.dom0.run("ls", "/etc/xensource").split() == ["network.conf"]
        assert lab.peer.inventory() == before
        assert not lab.peer.sessions()
        assert not lab.peer.tasks()


def test_the_whole_day(bed: Bed) -> None:
    typed = bed.shell
    words = ("-f", str(bed.spec("day", rate="80mbit", more=DOM0)), "--vms", "2")
    planned = typed("plan", *words).stdout
    assert "+ guest/vm1" in planned
    assert "restarts the host" in planned
    boots = bed.xen.boots
    built = typed.json("up", "--hv", "xenserver", "--yes", *words)
    assert {g["accel"] for g in built["guests"].values()} == {"xen"}
    scheduled = "by credit; weight 512, cap 50, hard affinity 2-3"
    assert {g["scheduled"] for g in built["guests"].values()} == {scheduled}
    assert {g["disks"] for g in built["guests"].values()} == {
        "cloned on write from template debian12"
    }
    assert bed.xen.boots == boots + 1
    dom0 = bed.xen.domains[0]
    assert dom0.hard == [frozenset({0}), frozenset({1})]
    assert (dom0.weight, dom0.cap, dom0.memory_mib) == (600, 150, 2048)
    assert [bed.irq(nic) for nic in ("eth1", "eth2")] == [{0}, {1}]
    assert "nothing to change" in typed("up", *words).stdout
    assert bed.xen.boots == boots + 1
    assert "as asked" in typed("verify", "-n", "day").stdout
    assert typed("ssh", "-n", "day", "vm2", "--", "hostname").stdout == "vm2\n"
    typed("reset", "-n", "day", "--level", "process")
    result = typed.json("run", "netperf-send", "netperf-receive", "-n", "day", "--seconds", "2",
                        "--repeat", "1", "--redo", "0", code=None)  # fmt: skip
    (run,) = result["runs"]
    assert (run["subject"]["nic"], run["subject"]["accel"]) == ("netfront", "xen")
    assert [sample["workload"] for sample in run["samples"]] == ["netperf-send", "netperf-receive"]
    for sample in run["samples"]:
        finding = sample["finding"]
        # this load generator is no machine of its own, so its CPUs may be the limit
        less = [r for r in finding["reasons"] if "of the load generator" not in r]
        assert not less, less
        assert set(finding["guests_mbit"]) == {"vm1", "vm2"}
        low, high = (55, 82) if sample["workload"] == "netperf-send" else (1, 100_000)
        assert all(low < mbit < high for mbit in finding["guests_mbit"].values()), finding
        assert len(finding["dom0_percent"]) == 2
    assert "netperf-send" in typed("report", "-n", "day").stdout
    for level in ("revert", "recreate"):
        typed("ssh", "-n", "day", "vm1", "--", "touch", "/var/tmp/dirt")
        typed("reset", "-n", "day", "--level", level)
        assert "dirt" not in typed("ssh", "-n", "day", "vm1", "--", "ls", "/var/tmp").stdout
    typed("down", "-n", "day", "--yes")
    assert bed.xen.boots == boots + 2
    assert "no testbed" in typed("status").stdout
    kept = [p.read_bytes() for p in typed.folder.rglob("*") if p.is_file() and not p.is_symlink()]
    assert not any(SECRET.encode() in content for content in kept)


def test_emulated_nics_and_cables_that_are_crossed(bed: Bed) -> None:
    """The guests see what their VMs were given, and a wrong uplink is found out from inside."""
    spec = bed.spec("emulated", nic="rtl8139")
    built = bed.shell.json("up", "-f", str(spec), "--vms", "1", "--set", "guests.nics_each=2")
    nics = built["guests"]["vm1"]["nics"]
    assert {nic["driver"] for nic in nics} == {"8139cp"}
    assert {nic["pci_id"] for nic in nics} == {"10ec:8139"}
    assert built["guests"]["vm1"]["pv_drivers"] == "no agent has reported"
    each_carries_its_stream(bed.shell, "emulated", 2)
    bed.shell("down", "-n", "emulated")
    text = spec.read_text()
    spec.write_text(text.replace("ports: [lg1, lg2]", "ports: [lg2, lg1]"))
    done = bed.shell("up", "-f", str(spec), "--set", "guests.ready=60s", code=7)
    assert "does not reach 198.18.1.2 over its link" in done.stderr


def test_the_example_is_planned(bed: Bed) -> None:
    """As it stands, but for where the host and the load generator are."""
    peer = bed.lab.peer
    here = {
        "hypervisor.uri": peer.uri, "hypervisor.tls.fingerprint": peer.fingerprint,
        "hypervisor.password": "{env: LAB_PASSWORD}", "hypervisor.ssh": f"root@{bed.lab.address}",
        "load_generator.ssh": "root@lg7", "load_generator.ports": "[lg1, lg2]",
        "management.subnet": str(bed.lab.management),
    }  # fmt: skip
    words = [word for path, value in here.items() for word in ("--set", f"{path}={value}")]
    planned = bed.shell("plan", "-f", str(EXAMPLE), *words).stdout
    assert "+ guest/vm2" in planned
    assert "restarts the host" in planned
    assert peer.wire.done() == []


def test_a_server_that_is_another(bed: Bed) -> None:
    pinned = a_stranger_is_refused(bed.shell, bed.spec, bed.lab.peer.fingerprint)
    found = bed.shell.json("doctor", "-f", str(pinned), code=None)
    good = {line["what"] for line in found if line["ok"]}
    assert {"rights", "templates", "SSH to dom0", "clock", "storage Local storage"} <= good
    a_wrong_password_is_told(bed.shell, pinned)
