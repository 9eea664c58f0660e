"""``make bench-streams``: how close together streams start, and what a common window is worth.

Guests are namespaces; netperf and its traffic are real. Both tables set two ways side by side,
taken in turns in one run:

start   first to last start for as many guests, each on a cable of its own: of netperf clients at a
        barrier, as samples are taken, and of a task of Ansible's linear strategy, a fork each.
window  four guests compete for one cable of 200 Mbit/s, and are made to start apart on purpose:
        the sum of what every netperf says of its whole run, and the aggregate over the common
        window, each against the payload that the cable's NIC counted in that window.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from provision.measuring.capture import Capture, load, number
from provision.measuring.counters import Asked
from provision.measuring.verdict import judge
from provision.measuring.window import Window, payload_mbit
from provision.measuring.workload import Options
from provision.measuring.workloads import WORKLOADS
from provision.playing import Player, playbooks
from tests.root.machines import sh
from tests.root.streamlab import Lab, lab, netperf

RECEIVE = WORKLOADS["netperf-receive"]
SCRIPT = playbooks() / "roles" / "streams" / "files" / "streams.py"
SHORT = Options(duration_s=1, ramp_s=0.5)
APART = Options(duration_s=4, ramp_s=2.0)
GAPS_S = (0.0, 0.125, 0.25, 0.5, 1.0)
#: the moment of its start, as a guest's own shell tells it
TOLD = "echo started=$EPOCHREALTIME"
PLAYBOOK = """
- hosts: guests
  gather_facts: false
  strategy: linear
  tasks:
    - name: start
      ansible.builtin.command:
        argv: "{{ argv }}"
"""


@dataclass(frozen=True)
class Taken:
    """One sample of the window's table, as shares of what the NICs counted."""

    skew_s: float
    naive: float
    window: float


def take(made: Lab, options: Options, folder: Path, delays_s: Sequence[float] = ()) -> Capture:
    """One sample by the load generator's own script; streams may be held back on purpose."""
    order = RECEIVE.plan(made.pairs, options)
    if delays_s:
        order["programs"]["sh"] = []
        for stream, delay_s in zip(order["streams"], delays_s, strict=True):
            words = " ".join(stream["argv"])
            stream["argv"] = ["sh", "-c", f"sleep {delay_s}; exec {words}"]
    order |= {"folder": str(folder), "path": str(folder / "bin")}
    coded = base64.b64encode(json.dumps(order).encode()).decode()
    words_ = ["ip", "netns", "exec", made.generator, "python3", str(SCRIPT), coded]
    done = subprocess.run(words_, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise SystemExit(f"{done.stderr}")
    return load(folder / "streams.json", RECEIVE.read)


def barrier_ms(made: Lab, folder: Path) -> float:
    """First to last start at the barrier."""
    starts = [s.started_s for s in take(made, SHORT, folder).streams if s.started_s]
    assert len(starts) == len(made.pairs), starts
    return 1000 * (max(starts) - min(starts))


def linear_ms(made: Lab, folder: Path) -> float:
    """First to last start as one Ansible task on all guests, each client in its guest."""
    (folder / "play.yml").write_text(PLAYBOOK)
    hosts: dict[str, Any] = {}
    for n, pair in enumerate(made.pairs, 1):
        words = ["ip", "netns", "exec", made.guest(n), "bash", "-c", TOLD]
        hosts[pair.guest] = {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable,
            "argv": words,
        }  # fmt: skip
    (folder / "hosts.json").write_text(json.dumps({"guests": {"hosts": hosts}}))
    env = os.environ | {"ANSIBLE_STDOUT_CALLBACK": "minimal", "ANSIBLE_FORKS": str(len(hosts))}
    program = Path(sys.executable).parent / "ansible-playbook"
    done = subprocess.run(
        [program, "-i", folder / "hosts.json", "-v", folder / "play.yml"],
        env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    starts = [
        float(line.removeprefix("started="))
        for line in done.stdout.splitlines()
        if line.startswith("started=")
    ]
    if len(starts) != len(hosts):
        raise SystemExit(f"Ansible told {len(starts)} of {len(hosts)} starts:\n{done.stdout}")
    return 1000 * (max(starts) - min(starts))


def apart(made: Lab, gap_s: float, folder: Path) -> Taken:
    """Streams that start up to ``gap_s`` apart, evenly."""
    steps = len(made.pairs) - 1
    delays = [gap_s * n / steps for n in range(steps + 1)]
    capture = take(made, APART, folder, delays)
    found = judge(capture, Asked(RECEIVE, APART, made.pairs, apart=False))
    begin_s = max(s.output.interims[0].begin_s for s in capture.streams) + APART.ramp_s
    window = Window(begin_s, begin_s + APART.duration_s)
    counted = payload_mbit(capture.links[made.pairs[0].port_nic], window, received=False)
    assert counted, "the cable's NIC was not watched"
    naive = sum(number(s.output, "THROUGHPUT") or 0.0 for s in capture.streams)
    return Taken(found.skew_ms / 1000, naive / counted, found.aggregate_mbit / counted)


@contextmanager
def serving(guests: int) -> Iterator[Lab]:
    """A lab whose netservers serve."""
    with tempfile.TemporaryDirectory(prefix="provision-bench-") as name:
        folder = Path(name)
        before = os.environ["PATH"]
        (folder / "tools").mkdir()
        os.environ["PATH"] = f"{netperf(folder / 'tools')}:{before}"
        try:
            with lab("pvbn", guests, folder) as made:
                Player(folder / "ready", made.inventory()).play("install.yml", "install", {})
                yield made
        finally:
            os.environ["PATH"] = before


def share(made: Lab) -> None:
    """Put all guests on the first one's cable, for which they then compete."""
    first, generator = made.pairs[0], made.generator
    for n, pair in enumerate(made.pairs[1:], 2):
        sh("ip", "link", "set", f"{made.prefix}t{n}", "master", f"{made.prefix}b1")
        sh("ip", "-n", generator, "link", "set", pair.port_nic, "down")
        sh("ip", "-n", generator, "addr", "flush", "dev", pair.port_nic)
        sh("ip", "-n", generator, "addr", "add", f"{pair.client}/24", "dev", first.port_nic)
    made.pairs = tuple(replace(p, port_nic=first.port_nic, uplink=first.uplink) for p in made.pairs)


def spread(values: Sequence[float], form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def starts(guests: int, rounds: int) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {"barrier": [], "Ansible, linear": []}
    with serving(guests) as made:
        for _ in range(rounds):
            for name, way in (("barrier", barrier_ms), ("Ansible, linear", linear_ms)):
                with tempfile.TemporaryDirectory(prefix="provision-bench-") as folder:
                    found[name].append(way(made, Path(folder)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-streams", description=__doc__)
    parser.add_argument("--guests", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, {asked.rounds} rounds; median (least to most)")
    print(f"\n{'streams':>7}  {'start ms: barrier':>24} {'Ansible, linear':>26}")
    for guests in asked.guests:
        found = starts(guests, asked.rounds)
        cells = [spread(v, ".1f") for v in found.values()]
        print(f"{guests:>7}  {cells[0]:>24} {cells[1]:>26}", flush=True)
    print(f"\n{'gap s':>7}  {'skew s':>20} {'sum / NICs':>24} {'window / NICs':>28}")
    with serving(4) as made:
        share(made)
        for gap_s in GAPS_S:
            taken = []
            for _ in range(asked.rounds):
                with tempfile.TemporaryDirectory(prefix="provision-bench-") as folder:
                    taken.append(apart(made, gap_s, Path(folder)))
            print(
                f"{gap_s:>7}  {spread([t.skew_s for t in taken], '.2f'):>20}"
                f" {spread([t.naive for t in taken], '.3f'):>24}"
                f" {spread([t.window for t in taken], '.4f'):>28}",
                flush=True,
            )


if __name__ == "__main__":
    main()
