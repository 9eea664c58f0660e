"""What may have influenced a run's figures, on every machine that commands reach.

"Record all influences" (Schlosser, Duelli, Goll 2011): versions, firmware, CPU frequency, what
the NICs do for the kernel, and what else ran. Before and after a run; a difference is told.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources as files
from pathlib import Path
from typing import Any

from provision.errors import WorldError
from provision.host import Host

BEFORE, AFTER = "influences", "influences-after"
MOVING = "moving"
BUSY_S = 1.0  # of CPU that another program used during a run, to be told of
MOST = 5
#: what a run itself keeps busy: guests, load, the kernel's part in both, and what tends to them
OURS = re.compile(
    r"qemu-system-.*|netperf|netserver|haproxy|tcpreplay|stress.*|kpktgend_.*|ksoftirqd/.*"
    r"|vhost-.*|ansible-playboo|sshd|ssh"
)
COMM = 15  # characters of a program's name that the kernel tells

Machines = Mapping[str, tuple[Host, Sequence[str]]]
Influences = Mapping[str, Mapping[str, Any]]


def look(machines: Machines) -> dict[str, dict[str, Any]]:
    """What each machine, with these NICs, says of itself now, or why it does not (``lacks``)."""
    script = files.files("provision").joinpath("inspect_host.py").read_text()

    def one(host: Host, nics: Sequence[str]) -> dict[str, Any]:
        try:
            said = host.run("python3", "-SE", "-", *nics, input=script)
            found: dict[str, Any] = json.loads(said)
        except (WorldError, ValueError) as e:
            return {"lacks": str(e)}
        if found["boot_id"] == ours:  # this process is no influence from outside
            own = f"{os.getpid()} "
            rows = found[MOVING]["processes"].items()
            found[MOVING]["processes"] = {k: v for k, v in rows if not k.startswith(own)}
        return found

    ours = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with ThreadPoolExecutor(max(len(machines), 1)) as pool:
        futures = {name: pool.submit(one, *where) for name, where in machines.items()}
    return {name: future.result() for name, future in futures.items()}


def remarks(
    before: Influences, after: Influences, programs: Iterable[str] = (), testbed: str = ""
) -> Iterator[str]:
    """What a reader of the figures must know: what changed during the run, and what else ran.

    ``programs`` are the workloads' own; neither they nor guests of ``testbed`` are anything else.
    """
    ours = {name[:COMM] for name in programs}
    told: set[str] = set()  # a load generator may be a namespace of the host
    for name, was in before.items():
        now = after.get(name, {})
        if "lacks" in was:
            yield f"{name} does not tell what may influence figures: {was['lacks']}"
        if "lacks" in was or "lacks" in now or not now:
            continue
        yield from (f"{name}: {words} during the run" for words in _changed(was, now))
        if was["boot_id"] not in told:
            yield from _ran(
                name,
                was,
                now,
                lambda program: (
                    program in ours
                    or (program.partition(" in ")[2].startswith(f"provision.{testbed}."))
                ),
            )
            told.add(was["boot_id"])


def _changed(was: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key in was.keys() | now.keys():
        if key == MOVING:
            continue
        here, first, last = f"{path}{key}", was.get(key), now.get(key)
        if isinstance(first, Mapping) and isinstance(last, Mapping):
            yield from _changed(first, last, f"{here}.")
        elif isinstance(first, Mapping) or isinstance(last, Mapping):
            yield f"{here} {'came' if first is None else 'went'}"
        elif first != last:
            yield f"{here} went from {first or 'nothing'} to {last or 'nothing'}"


def _ran(
    name: str, was: Mapping[str, Any], now: Mapping[str, Any], ours: Callable[[str], bool]
) -> Iterator[str]:
    first, last = was[MOVING], now[MOVING]
    stolen_s = last["steal_s"] - first["steal_s"]
    if stolen_s >= BUSY_S:
        yield f"{stolen_s:.1f} s of CPU were taken from {name} by what it runs on itself"
    used: dict[str, float] = {}
    for process, cpu_s in last["processes"].items():
        program = process.split(" ", 1)[1]
        if not OURS.fullmatch(program) and not ours(program):
            grown_s = cpu_s - first["processes"].get(process, 0.0)
            used[program] = used.get(program, 0.0) + grown_s
    most = sorted(used.items(), key=lambda row: -row[1])[:MOST]
    if told := [f"{program} {cpu_s:.0f} s" for program, cpu_s in most if cpu_s >= BUSY_S]:
        yield f"what else ran on {name}: {', '.join(told)} of CPU"
