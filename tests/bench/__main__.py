"""``make bench``: how long provision takes, side by side with the floor, in one run.

Ratios of medians over ``--rounds``, taken in turns so that a drifting machine hits both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from provision import image, state
from tests.bench import bare

NAME = "bench"


def provision(*words: str) -> float:
    """Seconds that the command took; it must succeed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "provision", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return time.monotonic() - began


def help_cpu_s() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    provision("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_round(guests: int, start: str, figures: dict[str, list[float]]) -> None:
    """The testbed through its whole day, each verb timed."""
    up = ["up", "--hv", "kvm", "--vms", str(guests), "-n", NAME, "-q"]
    chosen = ["--set", f"guests.start={start}"]
    for what, words in {
        f"up, {start}": [*up, *chosen],
        "up again (no-op)": [*up, *chosen],
        "plan": ["plan", "-n", NAME],
        "status": ["status", "-n", NAME],
        f"reset --level revert ({start})": ["reset", "-n", NAME, "--level", "revert", "-q"],
        f"down ({start})": ["down", "-n", NAME, "-q"],
    }.items():
        figures.setdefault(what, []).append(provision(*words))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--guests", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    built = image.find(state.default().images)
    if built is None:
        raise SystemExit("the guest image is not built: provision image build")
    figures: dict[str, list[float]] = {}
    flags = Path("/proc/cpuinfo").read_text().split()
    accel = "kvm" if {"vmx", "svm"} & set(flags) else "tcg"
    one_round(asked.guests, "auto", {})  # warm-up: whatever is made once is made now
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory(dir=state.default().root) as folder:
            floor = bare.boot(built, asked.guests, Path(folder), accel)
        figures.setdefault("bare QEMU, to SSH", []).append(floor)
        one_round(asked.guests, "boot", figures)
        one_round(asked.guests, "auto", figures)
        figures.setdefault("--help, CPU", []).append(help_cpu_s())
    medians = {what: statistics.median(v) for what, v in figures.items()}
    ratios = {
        "up, boot / bare QEMU": medians["up, boot"] / medians["bare QEMU, to SSH"],
        "up, auto / bare QEMU": medians["up, auto"] / medians["bare QEMU, to SSH"],
        "reset --level revert / up, boot":
            medians["reset --level revert (auto)"] / medians["up, boot"],
    }  # fmt: skip
    if asked.json:
        print(json.dumps({"seconds": figures, "ratios": ratios}, indent=1))
        return
    print(f"{asked.guests} guests, {accel}, {os.cpu_count()} CPUs, {asked.rounds} rounds")
    for what, seconds in figures.items():
        low, high = min(seconds), max(seconds)
        print(f"{what:<36} {medians[what]:7.2f} s   ({low:.2f} to {high:.2f})")
    for what, ratio in ratios.items():
        print(f"{what:<36} {ratio:7.2f}")


if __name__ == "__main__":
    main()
