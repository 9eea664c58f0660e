"""A bed for jobs on Hyper-V: a simulated host whose guests are real, and a shell to type in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.conftest import Shell
from tests.peers.hyperv.guests import MANAGEMENT, HyperVLab, hyperv_lab
from tests.peers.hyperv.peer import PARENT
from tests.peers.sshd import behind_ssh

SECRET = "a host's own pa$$word"
DISKS = "C:\\Beds"
SPEC = """
name: {name}
hypervisor:
  type: hyperv
  uri: {uri}
  user: Administrator
  password: {{env: LAB_PASSWORD}}
  storage: {disks}
  tls: {{{tls}}}
guests:
  count: 2
  memory: 512MiB
  image: {image}
  nic: {{model: {nic}, rate: {rate}}}
  cpu: {{weight: 512, cap_percent: 50}}
uplinks: [Ethernet 2, "{second}"]
load_generator: {{ssh: root@lghv, ports: [lg1, lg2]}}
management: {{bridge: {management}, subnet: {subnet}}}
"""


@dataclass(frozen=True)
class Bed:
    """A lab, a shell that knows its load generator, and the means to write a spec for both."""

    lab: HyperVLab
    shell: Shell

    def spec(
        self, name: str, *, nic: str = "synthetic", rate: str = "null", tls: str | None = None
    ) -> Path:
        path = self.shell.folder / f"{name}.yml"
        peer = self.lab.peer
        if tls is None:
            tls = f"ca: {peer.ca}" if peer.ca else ""
        second = peer.world.nics[2].mac
        path.write_text(SPEC.format(
            name=name, uri=peer.uri, tls=tls, nic=nic, rate=rate, disks=DISKS, image=PARENT,
            second="-".join(second[n : n + 2] for n in range(0, 12, 2)),
            management=MANAGEMENT, subnet=self.lab.management,
        ))  # fmt: skip
        return path


@pytest.fixture(params=[False], ids=["http"])
def bed(request: pytest.FixtureRequest, shell: Shell) -> Iterator[Bed]:
    """Two free adapters cabled to the load generator; a parent disk; nothing is left at the end."""
    folder = shell.folder / "ssh"
    folder.mkdir(mode=0o700)
    with ExitStack() as stack:
        lab = stack.enter_context(hyperv_lab(nics=3, tls=request.param, password=SECRET))
        lab.peer.world.volume.make_folder(DISKS)
        generator = (lab.wires.generator, lab.wires.generator_address)
        programs = stack.enter_context(behind_ssh(folder, [("lghv", *generator)]))
        shell.env |= {"PATH": f"{programs}:{shell.env['PATH']}", "LAB_PASSWORD": SECRET}
        before = lab.peer.inventory()
        yield Bed(lab, shell)
        for name in ("day", "wrong", "minroot"):
            shell("down", "-n", name, "--yes", code=None)
        assert lab.peer.inventory() == before
        assert not lab.peer.complaints, "\n".join(lab.peer.complaints)
