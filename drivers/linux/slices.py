"""The knobs of a host whose control groups systemd manages: properties of its own slices.

VMs are in ``machine.slice``, beside these. Properties are set for this boot only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.linux.links import sections
from drivers.linux.script import Script
from provision.errors import HostError, Unsupported
from provision.host import Host
from provision.units import cpu_list, cpus

UNITS = ("system.slice", "user.slice", "init.scope")
UNSET = "unset"
NORMAL_WEIGHT, NORMAL_CPU_WEIGHT = 256, 100  # ours, and that of cgroup v2
MAX_CPU_WEIGHT = 10_000
_READ = """
for unit in system.slice user.slice init.scope; do
  echo "@@$unit"; systemctl show "$unit" --property=AllowedCPUs,CPUWeight
  [ -d "$1/$unit" ] || { echo inactive=yes; continue; }
  for file in cpuset.cpus cpu.weight; do
    [ ! -e "$1/$unit/$file" ] || echo "$file=$(cat "$1/$unit/$file")"
  done
done
"""


@dataclass(frozen=True, slots=True)
class Property:
    """One knob: its systemd property, and the kernel's file that shows whether it took effect."""

    name: str
    file: str
    normal: str


CPUS = Property("AllowedCPUs", "cpuset.cpus", UNSET)
WEIGHT = Property("CPUWeight", "cpu.weight", str(NORMAL_WEIGHT))


def cpu_weight(weight: int) -> int:
    """The weight of cgroup v2 for ours; raises Unsupported where its steps are too coarse."""
    found = (weight * NORMAL_CPU_WEIGHT + NORMAL_WEIGHT // 2) // NORMAL_WEIGHT
    if 1 <= found <= MAX_CPU_WEIGHT and from_cpu_weight(found) == weight:
        return found
    steps = {from_cpu_weight(min(max(n, 1), MAX_CPU_WEIGHT)) for n in (found - 1, found, found + 1)}
    near = sorted(steps, key=lambda w: (abs(w - weight), w))[:2]
    raise Unsupported(
        f"dom0.weight {weight}: cgroup v2 has no such step",
        hint=f"use {' or '.join(map(str, sorted(near)))}",
    )


def from_cpu_weight(weight: int) -> int:
    """Our weight for cgroup v2's: 256 for 100."""
    return (weight * NORMAL_WEIGHT + NORMAL_CPU_WEIGHT // 2) // NORMAL_CPU_WEIGHT


def read(host: Host, knob: Property, root: str) -> str:
    """One value where all units agree, else ``UNIT=VALUE;…``, which ``put`` takes back.

    Where the kernel shows something else than systemd was told, the value says so.
    """
    found = sections(host.run("sh", "-ec", _READ, "slices", root))
    values = {unit: _value(knob, _pairs(found[unit])) for unit in UNITS}
    if len(set(values.values())) == 1:
        return values[UNITS[0]]
    return ";".join(f"{unit}={value}" for unit, value in values.items())


def put(host: Host, knob: Property, value: str, runtime: str) -> None:
    """Set it on each unit; a value of ``unset``, or a normal weight, leaves no trace.

    ``runtime`` is systemd's folder, beside which it keeps what was set for this boot.
    """
    parts = dict(part.split("=", 1) for part in value.split(";") if "=" in part)
    script = Script()
    for unit in UNITS:
        mine = parts.get(unit, value)
        script.run_words("systemctl", "set-property", "--runtime", unit,
                         f"{knob.name}={_told(knob, mine)}")  # fmt: skip
        if mine == knob.normal:
            folder = f"{runtime}.control/{unit}.d"
            script.run_words("rm", "-f", f"{folder}/50-{knob.name}.conf")
            script.sh(f"rmdir {folder} 2>/dev/null || :")
    script.run(host)


def _told(knob: Property, value: str) -> str:
    if value == knob.normal:
        return ""
    return value if knob is CPUS else str(cpu_weight(int(value)))


def _pairs(text: str) -> Mapping[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _value(knob: Property, found: Mapping[str, str]) -> str:
    told = _normalised(knob, found.get(knob.name, ""))
    # a unit that is not active has its value when it comes; a file that is not there is normal
    kernel = told if "inactive" in found else _normalised(knob, found.get(knob.file, ""))
    return told if kernel == told else f"{told} (kernel: {kernel})"


def _normalised(knob: Property, text: str) -> str:
    if text in ("", "[not set]"):
        return knob.normal
    try:
        if knob is CPUS:
            return cpu_list(cpus(text.replace(" ", ",")))
        return str(from_cpu_weight(int(text)))
    except ValueError as e:
        raise HostError(f"{knob.name} is {text!r}, which could not be put back") from e
