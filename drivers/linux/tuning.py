"""Knobs of a Linux host: CPUs and weight of its own processes, CPUs of interrupts, sysctls.

``dom0.cpus`` and ``dom0.weight`` are properties of systemd's slices on cgroup v2; elsewhere the
host's processes move into a group ``provision-TESTBED`` and back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from drivers.linux import shield
from drivers.linux import slices as linux_slices
from drivers.linux.links import sections
from provision.errors import DriverError, HostError, PreflightError, Unsupported
from provision.host import Host
from provision.resources import Key, Resource, Tuning, label
from provision.units import cpu_list, cpus

CPUS, WEIGHT, IRQ, SYSCTL = "dom0.cpus", "dom0.weight", "irq/", "sysctl/"
_PROBE = """
echo @@root; id -u
echo @@systemd; [ ! -d "$1" ] || echo yes
echo @@v2; cat "$2/cgroup.controllers" 2>/dev/null || :
echo @@v1; for file in "$3/cpuset.cpus" "$4/cgroup.procs"; do [ ! -e "$file" ] || echo "$file"; done
echo @@irqbalance; grep -lx irqbalance /proc/[0-9]*/comm 2>/dev/null || :
"""
_IRQS = "grep -H . /proc/irq/*/smp_affinity_list || :"
#: what a host must have for each word of a spec's dom0, see ``LinuxTuning.why_not``
NEEDS: Mapping[str, str] = {
    "dom0.vcpus": "root, and a cgroup controller cpuset on the host",
    "dom0.pin": "root, and a cgroup controller cpuset on the host",
    "dom0.weight": "root, and a cgroup controller cpu on the host",
    "dom0.irq_affinity": "root, uplinks with interrupts of their own, and no irqbalance",
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where a host has these things; only tests have them elsewhere."""

    systemd: str = "/run/systemd/system"
    v2: str = "/sys/fs/cgroup"
    cpuset: str = "/sys/fs/cgroup/cpuset"
    cpu: str = "/sys/fs/cgroup/cpu"


@dataclass(frozen=True, slots=True)
class Group:
    """How a knob is kept where systemd does not: a file of a group in the root of a controller."""

    root: str
    file: str


class LinuxTuning:
    """Kind ``tuning``. A knob that cannot be read back is not offered; ``why_not`` says why."""

    kinds = frozenset({Tuning.kind})

    def __init__(self, host: Host, testbed: str, places: Places | None = None) -> None:
        self.host = host
        self.testbed = testbed
        self.places = places or Places()

    def knobs(self) -> Mapping[str, str]:
        """The knobs there are, and their values now."""
        found = {n: self._read(n) for n in (CPUS, WEIGHT) if not self.why_not(n)}
        if not self.why_not(IRQ):
            for line in self.host.run("sh", "-c", _IRQS).splitlines():
                path, _, value = line.partition(":")
                found[f"{IRQ}{path.split('/')[3]}"] = value.strip()
        return found

    def why_not(self, name: str) -> str:
        """Why this host has no such knob; "" where it has."""
        has = self._host_has
        if has["root"] != "0":
            return f"{self.host.name}: only root may tune a host"
        if name.startswith((SYSCTL, IRQ)):
            balanced = "irqbalance runs and would move it again: systemctl stop irqbalance"
            return balanced if has["irqbalance"] and name.startswith(IRQ) else ""
        if name not in (CPUS, WEIGHT):
            return f"there is no knob {name!r}"
        controller = "cpuset" if name == CPUS else "cpu"
        if has["systemd"] and controller == "cpu" and not has["v2"]:
            return "systemd shares out CPU time by cgroup v1 here, too coarsely to be put back"
        if self._slices(controller) or self._group(name):
            return ""
        return f"no cgroup controller {controller!r} is mounted"

    def knobless(self) -> dict[str, str]:
        """The spec's words for knobs that this host does not have, each with why."""
        words = {"dom0.vcpus": CPUS, "dom0.pin": CPUS, "dom0.weight": WEIGHT}
        words["dom0.irq_affinity"] = IRQ
        return {w: why for w, knob in words.items() if (why := self.why_not(knob))}

    def read(self, key: Key) -> Tuning | None:
        """None where this host has no such knob."""
        name = key[1]
        if self.why_not(name):
            return None
        if (file := _file(name)) and not self._exists(file):
            return None
        return Tuning(name, self._read(name))

    def put(self, want: Resource) -> None:
        """As ``Driver.put``. Raises PreflightError or Unsupported before anything changes."""
        if not isinstance(want, Tuning):
            raise DriverError(f"{want.kind} is no knob of a host")
        if reason := self.why_not(want.name):
            raise PreflightError(f"{self.host.name}: {want.name}: {reason}")
        _check(want)
        if want.name.startswith(SYSCTL):
            self.host.write(_file(want.name), want.value)
        elif want.name.startswith(IRQ):
            self._put_irq(want)
        elif self._slices("cpuset" if want.name == CPUS else "cpu"):
            linux_slices.put(self.host, _property(want.name), want.value, self.places.systemd)
        elif (group := self._group(want.name)) is not None:
            value = _to_group(group, want.value)
            self._shield("put", group, group.file, value)

    def drop(self, key: Key) -> None:
        raise DriverError(f"{label(key)} cannot be dropped, only put back as it was")

    @cached_property
    def _host_has(self) -> Mapping[str, str]:
        p = self.places
        return sections(
            self.host.run("sh", "-c", _PROBE, "probe", p.systemd, p.v2, p.cpuset, p.cpu)
        )

    def _slices(self, controller: str) -> bool:
        return bool(self._host_has["systemd"]) and controller in self._host_has["v2"].split()

    def _group(self, name: str) -> Group | None:
        """Where the host's own processes would move; None where they cannot."""
        has, places = self._host_has, self.places
        root, controller = (places.cpuset, "cpuset") if name == CPUS else (places.cpu, "cpu")
        if controller in has["v2"].split():
            return Group(places.v2, "cpuset.cpus" if name == CPUS else "cpu.weight")
        if any(line.startswith(f"{root}/") for line in has["v1"].splitlines()):
            return Group(root, "cpuset.cpus" if name == CPUS else "cpu.shares")
        return None

    def _read(self, name: str) -> str:
        if file := _file(name):
            return self.host.read(file)
        if self._slices("cpuset" if name == CPUS else "cpu"):
            return linux_slices.read(self.host, _property(name), self.places.v2)
        group = self._group(name)
        if group is None:
            raise HostError(f"{self.host.name}: {name}: {self.why_not(name)}")
        file = f"{group.root}/provision-{self.testbed}/{group.file}"
        text = self.host.run("sh", "-c", '[ ! -e "$1" ] || cat "$1"', "read", file).strip()
        value = _from_group(group, text)
        if value == _NORMAL[name]:
            return value
        outside = self._shield("read", group)
        return f"{value} ({len(outside)} processes outside)" if outside else value

    def _shield(self, verb: str, group: Group, *words: str) -> list[int]:
        """Run the mover on the host; returns the processes left outside the group."""
        source = Path(shield.__file__).read_text()
        name = f"provision-{self.testbed}"
        printed = self.host.run("python3", "-", verb, group.root, name, *words, input=source)
        outside: list[int] = json.loads(printed)["outside"]
        return outside

    def _exists(self, file: str) -> bool:
        return bool(self.host.run("sh", "-c", '[ ! -e "$1" ] || echo yes', "knob", file))

    def _put_irq(self, want: Tuning) -> None:
        try:
            self.host.write(_file(want.name), want.value)
        except HostError as e:
            if "Input/output error" not in str(e):
                raise
            raise Unsupported(
                f"{want.name} of {self.host.name}: the kernel itself places this interrupt"
            ) from e


_NORMAL = {CPUS: linux_slices.UNSET, WEIGHT: str(linux_slices.NORMAL_WEIGHT)}


def _property(name: str) -> linux_slices.Property:
    return linux_slices.CPUS if name == CPUS else linux_slices.WEIGHT


def _file(name: str) -> str:
    """Where the kernel has a knob of its own; "" = it is no such."""
    if name.startswith(IRQ):
        return f"/proc/irq/{name.removeprefix(IRQ)}/smp_affinity_list"
    return f"/proc/sys/{name.removeprefix(SYSCTL)}" if name.startswith(SYSCTL) else ""


def _check(want: Tuning) -> None:
    """Raise Unsupported for a value that could not be read back as it is."""
    if want.value == _NORMAL.get(want.name) or ";" in want.value or want.name.startswith(SYSCTL):
        return
    try:
        same = str(int(want.value)) if want.name == WEIGHT else cpu_list(cpus(want.value))
    except ValueError as e:
        raise Unsupported(f"{want.name}: {want.value!r}: {e}") from e
    if same != want.value:
        raise Unsupported(f"{want.name}: {want.value!r} is written {same!r}")


def _to_group(group: Group, value: str) -> str:
    """A knob's value as the group's file has it: cgroup v1 counts a weight in quarters."""
    if group.file == "cpuset.cpus":
        return "" if value == linux_slices.UNSET else value
    if group.file == "cpu.shares":
        return str(int(value) * 4)
    return str(linux_slices.cpu_weight(int(value)))


def _from_group(group: Group, text: str) -> str:
    if group.file == "cpuset.cpus":
        return text or linux_slices.UNSET
    if not text:
        return str(linux_slices.NORMAL_WEIGHT)
    weight = int(text)
    return str(weight // 4 if group.file == "cpu.shares" else linux_slices.from_cpu_weight(weight))
