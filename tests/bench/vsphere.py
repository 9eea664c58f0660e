"""``make bench-vsphere``: guests up and down on govmomi's simulator, ours beside bare pyvmomi.

Both make the same changes, each in a process of its own against a fresh simulator, in turns;
ratios are of medians. Ours also plans, keeps its journal on the disk and reads each thing back.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping

from tests.bench.vsphere_work import TEMPLATE, WORKERS
from tests.peers import oracle
from tests.peers.vcsim import vcsim
from tests.vsphere import world

Figures = Mapping[str, float]


def measure(who: str, guests: int) -> Figures:
    """Seconds up and down, CPU seconds and MiB of the process, against a simulator of its own."""
    with vcsim("VPX", pnics=guests + 1, vms=1, cpus=64, memory_mib=1 << 22) as server:
        si = server.connect()
        before = world.inventory(si)
        oracle.done(world.named(si, TEMPLATE).CreateSnapshot_Task("base", "", False, False))
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.vsphere_work", who, str(guests), server.uri,
             str(server.ca), server.user],
            env=os.environ | {"BENCH_PASSWORD": server.password},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{who}, {guests} guests: exit {done.returncode}\n{done.stderr}")
        if world.inventory(si) != before:
            raise SystemExit(f"{who}, {guests} guests: something was left behind")
    found: Figures = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-vsphere", description=__doc__)
    parser.add_argument("--guests", type=int, nargs="+", default=[64, 256, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measure(WORKERS[0], 4)  # warm-up: the simulator is built
    found: dict[int, dict[str, list[Figures]]] = {}
    for guests in asked.guests:
        rows = found.setdefault(guests, {who: [] for who in WORKERS})
        for _ in range(asked.rounds):
            for who in WORKERS:
                rows[who].append(measure(who, guests))
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{os.cpu_count()} CPUs, {asked.rounds} rounds, medians (lowest to highest)")
    print(f"{'guests':>6}  {'':<5} {'up s':>18} {'down s':>18} {'ms a guest':>11} {'MiB':>6}")
    for guests, rows in found.items():
        for who, each in rows.items():
            spans = "".join(f" {_span([f[w] for f in each]):>18}" for w in ("up_s", "down_s"))
            cost = _middle(each, "up_s") + _middle(each, "down_s")
            mib = max(f["rss_mib"] for f in each)
            print(f"{guests:>6}  {who:<5}{spans} {1000 * cost / guests:>11.1f} {mib:>6.0f}")
        ratios = [_middle(rows["ours"], w) / _middle(rows["bare"], w) for w in ("up_s", "down_s")]
        print(f"{guests:>6}  {'ratio':<5} {ratios[0]:>18.2f} {ratios[1]:>18.2f}")


def _middle(each: list[Figures], what: str) -> float:
    return statistics.median(f[what] for f in each)


def _span(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
