"""The main job on VirtualBox: the verbs as typed, its host behind SSH, and guests that are real."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.conftest import Shell
from tests.live.nics import each_carries_its_stream
from tests.peers.sshd import prepare, serving
from tests.peers.vbox.spaces import VboxLab, vbox_lab

pytestmark = pytest.mark.live
BASE = "debian-base"
SPEC = """
name: vbday
hypervisor: {{type: virtualbox, uri: "ssh://root@vb7"}}
guests:
  count: 2
  memory: 512MiB
  image: {base}
  nic: {{model: virtio, rate: 80mbit}}
  cpu: {{cap_percent: 50}}
uplinks: [vmnic1, vmnic2]
load_generator: {{ssh: root@vblg, ports: [lg1, lg2]}}
management: {{bridge: vmnic0, subnet: {subnet}}}
"""


@dataclass(frozen=True)
class Bed:
    lab: VboxLab
    shell: Shell

    def spec(self) -> Path:
        path = self.shell.folder / "vbday.yml"
        path.write_text(SPEC.format(base=BASE, subnet=self.lab.management))
        return path


@pytest.fixture
def bed(shell: Shell) -> Iterator[Bed]:
    """VBoxManage is on the far host alone; nothing is left at the end."""
    assert not shutil.which("VBoxManage", path=shell.env["PATH"])
    folder = shell.folder / "ssh"
    folder.mkdir(mode=0o700)
    with ExitStack() as stack:
        lab = stack.enter_context(vbox_lab(BASE))
        machines = [("vblg", lab.wires.generator, lab.wires.generator_address),
                    ("vb7", lab.wires.esx, lab.address)]  # fmt: skip
        programs = prepare(folder, machines)
        conf = folder / "vb7.conf"
        conf.write_text(
            f"{conf.read_text()}SetEnv PATH={lab.service.programs}:/usr/sbin:/usr/bin\n"
        )
        for name, host, _ in machines:
            stack.enter_context(serving(host, folder / f"{name}.conf"))
        shell.env["PATH"] = f"{programs}:{shell.env['PATH']}"
        before = lab.service.world.inventory()
        yield Bed(lab, shell)
        shell("down", "-n", "vbday", "--yes", code=None)
        assert lab.service.world.inventory() == before
        assert not lab.service.complaints


def test_the_whole_day(bed: Bed) -> None:
    typed, words = bed.shell, ("-f", str(bed.spec()))
    planned = typed("plan", *words).stdout
    assert "+ guest/vm1" in planned and "switch" not in planned.replace("load", ""), planned
    built = typed.json("up", *words)
    assert {g["accel"] for g in built["guests"].values()} == {"virtualbox"}
    assert "nothing to change" in typed("up", *words).stdout
    assert "as asked" in typed("verify", "-n", "vbday").stdout
    assert typed("ssh", "-n", "vbday", "vm2", "--", "hostname").stdout == "vm2\n"
    result = typed.json("run", "netperf-send", "-n", "vbday", "--seconds", "2", "--repeat", "1",
                        "--redo", "0", code=None)  # fmt: skip
    (run,) = result["runs"]
    assert run["subject"]["nic"] == "virtio"
    (sample,) = run["samples"]
    # this load generator is no machine of its own, so its CPUs may be the limit, nothing else
    busy = [r for r in sample["finding"]["reasons"] if "of the load generator was" in r]
    assert sample["finding"]["reasons"] == busy
    rates = sample["finding"]["guests_mbit"]
    assert set(rates) == {"vm1", "vm2"} and all(50 < mbit < 82 for mbit in rates.values()), rates
    typed("ssh", "-n", "vbday", "vm1", "--", "touch", "/var/tmp/dirt")
    typed("reset", "-n", "vbday", "--level", "revert")
    assert "dirt" not in typed("ssh", "-n", "vbday", "vm1", "--", "ls", "/var/tmp").stdout
    typed("up", *words, "--vms", "1", "--set", "guests.nics_each=2")
    each_carries_its_stream(typed, "vbday", 2, 80)
    typed("down", "-n", "vbday")
    assert "no testbed" in typed("status").stdout
