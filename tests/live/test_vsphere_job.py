"""The main job on vSphere: the verbs as typed, a simulated host, and guests that are real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Shell, a_stranger_is_refused, a_wrong_password_is_told
from tests.live.nics import streams
from tests.peers.esx_guests import MANAGEMENT, EsxLab, esx_lab
from tests.peers.sshd import behind_ssh
from tests.vsphere import world

pytestmark = pytest.mark.live
SECRET = "vcsim's own"
SPEC = """
name: {name}
hypervisor:
  type: vsphere
  uri: {uri}
  user: root
  password: {{env: LAB_PASSWORD}}
  tls: {{{tls}}}
guests: {{count: 2, memory: 512MiB, image: debian12, nic: {{model: {nic}, rate: {rate}}}}}
uplinks: [vmnic1, "{second}"]
load_generator: {{ssh: root@lgvs, ports: [lg1, lg2]}}
management: {{bridge: {management}, subnet: {subnet}}}
"""


@dataclass(frozen=True)
class Bed:
    """A lab, a shell that knows its load generator, and the means to write a spec for both."""

    lab: EsxLab
    shell: Shell
    si: Any

    def spec(self, name: str, *, nic: str = "vmxnet3", rate: str = "null", tls: str = "") -> Path:
        path = self.shell.folder / f"{name}.yml"
        second = next(
            p.pci for p in world.network(self.si).networkInfo.pnic if p.device == "vmnic2"
        )
        path.write_text(SPEC.format(
            name=name, uri=self.lab.peer.uri, tls=tls or f"ca: {self.lab.peer.ca}", nic=nic,
            rate=rate, second=second, management=MANAGEMENT, subnet=self.lab.management,
        ))  # fmt: skip
        return path


@pytest.fixture(params=["VPX", "ESX"], ids=["vcenter", "esxi"])
def bed(request: pytest.FixtureRequest, shell: Shell) -> Iterator[Bed]:
    """Two free NICs cabled to the load generator; a VM "debian12" with a snapshot to clone."""
    folder = shell.folder / "ssh"
    folder.mkdir(mode=0o700)
    with ExitStack() as stack:
        lab = stack.enter_context(esx_lab(request.param, vms=0))
        lab.template()
        wires = lab.wires
        programs = stack.enter_context(
            behind_ssh(folder, [("lgvs", wires.generator, wires.generator_address)])
        )
        shell.env |= {"PATH": f"{programs}:{shell.env['PATH']}", "LAB_PASSWORD": SECRET}
        si = lab.peer.connect()
        before = world.inventory(si)
        yield Bed(lab, shell, si)
        for name in ("day", "wrong"):
            shell("down", "-n", name, code=None)
        assert world.inventory(si) == before
        assert not lab.complaints


def test_the_whole_day(bed: Bed) -> None:
    esxi, typed = bed.si.content.about.apiType == "HostAgent", bed.shell
    spec = bed.spec("day", nic="e1000" if esxi else "vmxnet3", rate="null" if esxi else "80mbit")
    # both NICs are one guest's, or two guests have one each
    shape = ("--vms", "1", "--set", "guests.nics_each=2") if esxi else ("--vms", "2")
    guests = ["vm1"] if esxi else ["vm1", "vm2"]
    words = ("-f", str(spec), *shape)
    assert "+ guest/vm1" in typed("plan", *words).stdout
    built = typed.json("up", "--hv", "vsphere", *words)
    assert {g["accel"] for g in built["guests"].values()} == {"esxi"}
    assert all("guestToolsRunning" in g["tools"] for g in built["guests"].values()), built
    assert "nothing to change" in typed("up", *words).stdout
    assert "as asked" in typed("verify", "-n", "day").stdout
    last = guests[-1]
    assert typed("ssh", "-n", "day", last, "--", "hostname").stdout == f"{last}\n"
    typed("reset", "-n", "day", "--level", "process")
    result = typed.json("run", "netperf-send", "netperf-receive", "-n", "day", "--seconds", "2",
                        "--repeat", "1", "--redo", "0", code=None)  # fmt: skip
    (run,) = result["runs"]
    assert run["subject"]["nic"] == ("e1000" if esxi else "vmxnet3")
    assert run["subject"]["cpu_ratio"] == len(guests) / 4
    assert len(run["samples"]) == 2
    for sample in run["samples"]:
        # this load generator is no machine of its own, so its CPUs may be the limit, nothing else
        busy = [r for r in sample["finding"]["reasons"] if "of the load generator was" in r]
        assert sample["finding"]["reasons"] == busy
        rates = sample["finding"]["guests_mbit"]
        assert list(rates) == guests
        if esxi:
            streams(sample["finding"], 2)
        if not esxi and sample["workload"] == "netperf-send":
            assert all(55 < mbit < 82 for mbit in rates.values()), rates
    typed("ssh", "-n", "day", "vm1", "--", "touch", "/var/tmp/dirt")
    typed("reset", "-n", "day", "--level", "revert")
    left = typed("ssh", "-n", "day", "vm1", "--", "ls", "/var/tmp").stdout
    assert "dirt" not in left
    typed("down", "-n", "day")
    assert "no testbed" in typed("status").stdout
    kept = [p.read_bytes() for p in typed.folder.rglob("*") if p.is_file() and not p.is_symlink()]
    assert not any(SECRET.encode() in content for content in kept)


def test_a_driver_that_names_the_wrong_vmnic_is_found_out(bed: Bed) -> None:
    """The cables of the two guests are crossed behind the load generator's back."""
    spec = bed.spec("wrong")
    text = spec.read_text()
    spec.write_text(text.replace("ports: [lg1, lg2]", "ports: [lg2, lg1]"))
    done = bed.shell("up", "-f", str(spec), "--set", "guests.ready=60s", code=7)
    assert "does not reach 198.18.1.2 over its link" in done.stderr


def test_a_server_that_is_another(bed: Bed) -> None:
    pinned = a_stranger_is_refused(bed.shell, bed.spec, bed.lab.peer.fingerprint)
    assert "+ guest/vm1" in bed.shell("plan", "-f", str(pinned)).stdout
    trusting = bed.spec("trusting", tls="verify: false")
    found = bed.shell.json("doctor", "-f", str(trusting), code=None)
    assert any("not verified" in json.dumps(line) for line in found)
    a_wrong_password_is_told(bed.shell, pinned)
