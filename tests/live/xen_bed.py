"""The verbs as typed against the emulated Xen host, and what must be there again afterwards."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.dom0.look import state
from tests.live.conftest import Shell
from tests.peers.xen.lab import GENERATOR, XenLab

UP_S = 1200  # several times what it takes where nobody else is at the CPUs
SPEC = """
name: {name}
hypervisor: {{type: xen, uri: "{uri}"}}
guests:
  count: {count}
  memory: 320MiB
  ready: 15min
  nic: {nic}
  cpu: {{weight: 300, cap_percent: 90, pin: "1"}}
  {guests}
uplinks: [{uplinks}]
load_generator: {{ssh: root@{generator}, ports: [{ports}]}}
dom0: {{{dom0}}}
overcommit: true
"""


@dataclass(frozen=True)
class Bed:
    """A lab, and a shell that knows its dom0 and its load generator."""

    lab: XenLab
    shell: Shell

    def spec(self, name: str, *, dom0: str = "", ports: str = "lg1, lg2", nic: str = "netfront",
             guests: str = "user: root") -> Path:  # fmt: skip
        """With a guest for each port."""
        path = self.shell.folder / f"{name}.yml"
        count = ports.count(",") + 1
        uplinks = ("eth1", '"52:54:00:ee:00:02"')[:count]
        path.write_text(SPEC.format(
            name=name, uri=self.lab.uri, dom0=dom0, ports=ports, nic=nic, guests=guests,
            count=count, uplinks=", ".join(uplinks), generator=GENERATOR,
        ))  # fmt: skip
        return path

    def here(self, example: Path, **dom0: Any) -> Path:
        """An example, with this lab in place of its host and load generator."""
        from ruamel.yaml import YAML

        yaml = YAML()
        spec = yaml.load(example)
        spec["hypervisor"]["uri"] = self.lab.uri
        spec["guests"] |= {"memory": "320MiB", "ready": "15min"}
        spec["load_generator"] = {"ssh": f"root@{GENERATOR}", "ports": ["lg1", "lg2"]}
        spec["overcommit"] = True
        spec["dom0"] |= dom0
        path = self.shell.folder / example.name
        yaml.dump(spec, path)
        return path

    def run(
        self, name: str, nic: str = "netfront", accel: str = "pv"
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """One short sample: its finding, and the knobs that the host had meanwhile."""
        words = (
            "run",
            "netperf-send",
            "-n",
            name,
            "--seconds",
            "3",
            "--repeat",
            "1",
            "--redo",
            "0",
        )
        (run,) = self.shell.json(*words, code=None, timeout_s=UP_S)["runs"]
        (sample,) = run["samples"]
        assert (run["subject"]["nic"], run["subject"]["accel"]) == (nic, accel)
        return sample["finding"], run["knobs"]

    def kill(self, words: tuple[str, ...], after: str) -> None:
        """Start it, and kill it as soon as it says that."""
        process = self.shell.start(*words)
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if after in line:
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "".join(said)

    def links(self) -> Mapping[str, str | None]:
        """dom0's links, with the bridge that each is on."""
        found = json.loads(self.lab.xen.host.run("ip", "-j", "link"))
        return {x["ifname"]: x.get("master") for x in found}

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
            "irqs": host.run("sh", "-c", "cut -d' ' -f1 /proc/irq/*/smp_affinity_list | sort -u"),
            "grub": host.run("ls", "/etc/default/grub.d"),
            "testbeds": host.run("ls", str(self.shell.folder / "testbeds")).split(),
        }


@contextmanager
def bed(shell: Shell, lab: XenLab) -> Iterator[Bed]:
    """dom0 is as it was at the end, or the test fails."""
    lab.images_at(shell.folder)
    shell.env |= {"PATH": f"{lab.programs}:{shell.env['PATH']}"}
    found = Bed(lab, shell)
    before = found.dom0()
    yield found
    for name in _there(shell):
        shell("down", "--yes", "-n", name, code=None, timeout_s=UP_S)
    with lab.xen.timed():
        assert found.dom0() == before
    lab.xen.host.run("rm", "-rf", str(shell.folder))


def _there(shell: Shell) -> list[str]:
    from provision.journal import testbeds

    return [name for name, _, _ in testbeds(shell.folder)]
