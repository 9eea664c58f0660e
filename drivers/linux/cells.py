"""What an OS-level guest may use of its host: its control groups, set and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from drivers.linux import cell
from drivers.linux.slices import cpu_weight
from provision.errors import HostError
from provision.host import Host
from provision.resources import Guest
from provision.units import cpu_list, cpus

#: of a spec, with what a host must have for it
NEEDS: Mapping[str, str] = {
    "guests.cpu.weight": "cgroup controllers cpu, cpuset and memory on the host",
    "guests.cpu.cap_percent": "cgroup controllers cpu, cpuset and memory on the host",
    "guests.cpu.pin": "cgroup controllers cpu, cpuset and memory on the host",
}
LIVE = ("vcpus", "memory_mib", "weight", "cap_percent", "pins")
_LACKS = """
for c in cpu cpuset memory; do
  grep -qE " cgroup ([^ ]*,)?$c[, ]" /proc/mounts ||
    grep -qw "$c" /sys/fs/cgroup/cgroup.controllers 2>/dev/null || echo "$c"
done
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """``weight`` 256 is normal; ``quota_percent`` is of one CPU; ``cpus`` "" = all; None = none."""

    weight: int
    quota_percent: int | None
    cpus: str
    memory_mib: int | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A guest's groups as they are. ``pids`` are its processes, as the host counts them."""

    limits: Limits
    busy_s: float
    pids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Cells:
    """Those of one testbed's guests. Keys are guests' names."""

    host: Host
    testbed: str

    def name(self, guest: str) -> str:
        """Of a guest's groups."""
        return f"provision.{self.testbed}.{guest}"

    def look(self) -> dict[str, Cell]:
        """All that there are."""
        prefix = self.name("")
        found: dict[str, Any] = json.loads(self._run("look", name=prefix))
        return {
            name.removeprefix(prefix): Cell(
                Limits(*(seen[f] for f in ("weight", "quota_percent", "cpus", "memory_mib"))),
                seen["busy_s"],
                frozenset(seen["pids"]),
            )
            for name, seen in found.items()
        }

    def put(self, want: Guest) -> None:
        """The groups, with these limits; what runs in them goes on."""
        self._run("put", name=self.name(want.name), limits=asdict(limits(want)))

    def serve(self, guest: str, **how: object) -> None:
        """See ``cell.serve``."""
        self._run("serve", name=self.name(guest), **how)

    def end(self, guest: str) -> None:
        """Whatever runs in the groups is killed, and they are removed."""
        self._run("end", name=self.name(guest))

    def _run(self, verb: str, **asked: object) -> str:
        source = Path(cell.__file__).read_text()
        try:
            words = ("/usr/bin/python3", "-SE", "-", verb, json.dumps(asked))
            return self.host.run(*words, input=source)
        except HostError as e:
            told = str(e).rpartition("exit 1: ")[2]
            raise HostError(f"{self.host.name}: {asked['name']}: {told}", hint=e.hint) from e


def lacks(host: Host) -> str:
    """Why the host's control groups do not serve; "" = they do."""
    missing = host.run("sh", "-c", _LACKS).split()
    return f"no cgroup controller {', '.join(missing)} is mounted" if missing else ""


def limits(guest: Guest) -> Limits:
    """What a guest's groups are to say. A vCPU is the time of one CPU, wherever it is had."""
    whole = 100 * guest.vcpus
    quota = whole if guest.cap_percent is None else min(whole, guest.cap_percent)
    return Limits(guest.weight, quota, _union(guest.pins), guest.memory_mib)


def check(guest: Guest, *, v2: bool) -> None:
    """Raises Unsupported for a weight that could not be read back as it is."""
    if v2:
        cpu_weight(guest.weight)


def as_is(asked: Guest, found: Limits, every: int) -> Guest:
    """The guest with the limits that are in force; ``every`` is how many CPUs the host has."""
    want = limits(asked)
    guest = replace(asked, weight=found.weight, memory_mib=found.memory_mib or 0)
    if found.quota_percent != want.quota_percent:
        guest = replace(guest, cap_percent=found.quota_percent)
    whole = cpu_list(range(every))
    seen = "" if found.cpus == whole else found.cpus
    if seen != (want.cpus if want.cpus != whole else ""):
        guest = replace(guest, pins=(seen,) * asked.vcpus if seen else ())
    return guest


def _union(pins: tuple[str, ...]) -> str:
    """A group has one set of CPUs for all that is in it."""
    return cpu_list(sorted({cpu for one in pins for cpu in cpus(one)})) if pins else ""
