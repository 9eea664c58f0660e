"""A testbed without guests' kernels: a namespace for each guest and one as the load generator.

Each guest has a bridge of its own whose uplink is a cable to the load generator, like the real
thing, and netperf's traffic is real.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from provision.driver import Usage
from provision.image_mirror import find
from provision.measuring.capture import load
from provision.measuring.counters import Asked
from provision.measuring.verdict import Finding, judge
from provision.measuring.workload import Options, Pair, Workload
from provision.playing import playbooks
from tests.root.machines import machine, sh

RATE_MBIT = 200  # slow enough that no CPU is short, whatever else the machine does
BYTES_PER_S = RATE_MBIT * 1_000_000 // 8  # of a stream's link
SCRIPT = playbooks() / "roles" / "streams" / "files" / "streams.py"
OPTIONS = Options(duration_s=2, ramp_s=0.5)


@dataclass(slots=True)
class Lab:
    """Guests g1, g2, … and the load generator, all on this kernel's clock."""

    prefix: str
    folder: Path
    pairs: tuple[Pair, ...] = ()

    def guest(self, number: int) -> str:
        return f"{self.prefix}g{number}"

    @property
    def generator(self) -> str:
        return f"{self.prefix}lg"

    def inventory(self, **generator: Any) -> dict[str, Any]:
        """Guests are reached by entering their namespace, the load generator by its Python."""
        guests = {
            name: {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                **{
                    f"{role}_shell": f"ip netns exec {self.guest(n)} sh"
                    for role in ("netperf", "forwarding", "neighbour")
                },
                "netperf_endpoints": [
                    {"address": p.server, "port": p.control_port}
                    for p in self.pairs
                    if p.guest == name
                ],
                "provision_links": [
                    {
                        "address": p.server,
                        "client_address": p.client,
                        "control_port": p.control_port,
                        "number": 1,
                    }
                    for p in self.pairs
                    if p.guest == name
                ],
                "provision_folder": str(self.folder / name),
            }
            for n, name in enumerate(dict.fromkeys(p.guest for p in self.pairs), 1)
        }
        mine = {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(self.folder / "python"),
            "provision_folder": str(self.folder / "lg"),
        }
        groups = {
            "guests": {"hosts": guests},
            "loadgenerators": {"hosts": {"lg": mine | generator}},
        }
        return {"all": {"children": groups}}

    def usage(self) -> Usage:
        """What a driver would read of the hypervisor: here, of this machine."""
        nics = {}
        for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
            name, _, figures = line.partition(":")
            n = [int(word) for word in figures.split()]
            nics[name.strip()] = (n[0], n[8], n[1], n[9])
        rows = [
            line.split() for line in Path("/proc/stat").read_text().splitlines() if "cpu" in line
        ]
        busy = tuple(sum(int(r[i]) for i in (1, 2, 3, 6, 7)) / 100 for r in rows[1:])
        return Usage(time.time(), busy, {p.guest: 0.0 for p in self.pairs}, nics)

    def start(self, order: dict[str, Any], folder: Path, **popen: Any) -> subprocess.Popen[str]:
        """The load generator's own script, without Ansible."""
        order |= {"folder": str(folder), "path": str(folder / "bin")}
        words = ["ip", "netns", "exec", self.generator, "python3", str(SCRIPT),
                 base64.b64encode(json.dumps(order).encode()).decode()]  # fmt: skip
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True,
                                **({"stdout": subprocess.PIPE} | popen))  # fmt: skip

    def take(
        self,
        workload: Workload,
        options: Options,
        folder: Path,
        spoil: Callable[[dict[str, Any]], None] = lambda _order: None,
    ) -> Finding:
        """One sample without Ansible, its plan changed before by ``spoil``."""
        order = workload.plan(self.pairs, options)
        spoil(order)
        _, said = (process := self.start(order, folder)).communicate(timeout=60)
        assert process.returncode == 0, said
        capture = load(folder / "streams.json", workload.read)
        return judge(capture, Asked(workload, options, self.pairs, apart=False))

    def carried(self) -> dict[str, int]:
        """Bytes that the load generator's NICs sent and received so far."""
        links = json.loads(sh("ip", "-n", self.generator, "-j", "-s", "link"))
        both = {x["ifname"]: x["stats64"]["rx"]["bytes"] + x["stats64"]["tx"]["bytes"]
                for x in links}  # fmt: skip
        return {p.port_nic: both[p.port_nic] for p in self.pairs}

    def once_carried(self, octets: int, act: Callable[[], None]) -> Thread:
        """Do it, beside the test, as soon as each link has carried so much more than now."""
        before = self.carried()

        def wait() -> None:
            deadline = time.monotonic() + 20
            while any(n - before[nic] < octets for nic, n in self.carried().items()):
                assert time.monotonic() < deadline, "no traffic"
            act()

        thread = Thread(target=wait)
        thread.start()
        return thread

    def running(self, number: int, what: str) -> list[int]:
        """A guest's processes of that name."""
        return _running(self.guest(number), what)

    def netservers(self, number: int) -> list[int]:
        """The processes of a guest's netserver."""
        return _running(self.guest(number), "netserver")

    def clients(self, what: str = "") -> list[int]:
        """What runs on the load generator."""
        return _running(self.generator, what)

    def kill_netservers(self, *numbers: int) -> None:
        """Those of all guests, or of some."""
        for number in numbers or range(1, len({p.guest for p in self.pairs}) + 1):
            for pid in self.netservers(number):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _running(namespace: str, what: str) -> list[int]:
    pids = [int(pid) for pid in sh("ip", "netns", "pids", namespace).split()]
    return [pid for pid in pids if (words := _cmdline(pid)) and what in words]


def _cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@contextmanager
def lab(prefix: str, guests: int, folder: Path, nics_each: int = 1) -> Iterator[Lab]:
    """Make it, and leave nothing behind; ``prefix`` has six characters at most."""
    made = Lab(prefix, folder)
    with ExitStack() as stack:
        stack.enter_context(machine(made.generator))
        sh("ip", "-n", made.generator, "link", "set", "lo", "up")
        for n in range(1, guests + 1):
            stack.enter_context(machine(made.guest(n)))
            for nic in range(1, nics_each + 1):
                number = (n - 1) * nics_each + nic
                pair = _link(made, number, n, nic, stack)
                made.pairs += (replace(pair, nic=nic if nics_each > 1 else 0),)
        python = folder / "python"
        python.write_text(f'#!/bin/sh\nexec ip netns exec {made.generator} python3 "$@"\n')
        python.chmod(0o755)
        try:
            yield made
        finally:
            for name in (made.generator, *(made.guest(n) for n in range(1, guests + 1))):
                for pid in sh("ip", "netns", "pids", name).split():
                    os.kill(int(pid), signal.SIGKILL)


def _link(made: Lab, n: int, of: int, nic: int, stack: ExitStack) -> Pair:
    """Link ``n`` of all, of the guest of this number its NIC ``nic``, from 1."""
    prefix, generator, guest, inner = made.prefix, made.generator, made.guest(of), f"eth{nic - 1}"
    bridge, uplink, tap, far = f"{prefix}b{n}", f"{prefix}u{n}", f"{prefix}t{n}", f"c{n}"
    sh("ip", "link", "add", bridge, "type", "bridge")
    stack.callback(sh, "ip", "link", "del", bridge)
    for here, there, where in ((uplink, far, generator), (tap, inner, guest)):
        sh("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", where)
        sh("ip", "link", "set", here, "master", bridge, "up")
    server, client = f"198.18.{n}.2", f"198.18.{n}.1"
    for namespace, end, address in ((generator, far, client), (guest, inner, server)):
        sh("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", end)
        sh("ip", "-n", namespace, "link", "set", end, "up")
    sh("ip", "link", "set", bridge, "up")
    shape = f"root tbf rate {RATE_MBIT}mbit burst 64kb latency 50ms".split()
    sh("tc", "qdisc", "add", "dev", uplink, *shape)
    sh("tc", "-n", generator, "qdisc", "add", "dev", far, *shape)
    return Pair(f"vm{of}", server, client, 14000 + 2 * n, 14001 + 2 * n, far, uplink)


def netperf(folder: Path) -> Path:
    """A folder with netperf and netserver: this machine's, or Debian's package unpacked."""
    if (found := shutil.which("netperf")) and shutil.which("netserver"):
        return Path(found).parent
    places = {"Etc::SourceList": "/dev/null", "Etc::SourceParts": f"{folder}/parts",
              "State::Lists": f"{folder}/lists"}  # fmt: skip
    options = [word for key, value in places.items() for word in ("-o", f"Dir::{key}={value}")]
    for name in ("parts", "lists/partial"):
        (folder / name).mkdir(parents=True)
    trusted = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    sources = [s.replace("deb", trusted, 1) for s in find().sources]
    (folder / "parts" / "all.list").write_text("\n".join(sources) + "\n")
    for words in (["update"], ["download", "netperf"]):
        done = subprocess.run(
            ["apt-get", *options, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
    subprocess.run(["dpkg", "-x", *(str(p) for p in folder.glob("*.deb")), folder], check=True)
    return folder / "usr" / "bin"
