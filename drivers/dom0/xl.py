"""What ``xl`` prints, as values. xl(1), and tools/xl of Xen's own source for the columns.

Names of domains may hold blanks, so that lines are read from the right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from provision.errors import HostError
from provision.units import cpu_list, cpus

DOM0 = 0
ALL = "all"
#: the command that lists and sets weights and caps, by what ``xl info`` calls the scheduler
SCHED = {"credit": "sched-credit", "credit2": "sched-credit2"}
MOST_WEIGHT = 65535
_PAIR = re.compile(r"(\w+)\s*:\s?(.*)")
_VCPU = re.compile(
    r"(?P<name>.*?)\s+(?P<id>\d+)\s+(?P<vcpu>\d+)\s+(?P<cpu>\d+|-)\s+(?P<state>[rbp-]{3})"
    r"\s+(?P<time>\d+\.\d+)\s+(?P<hard>[^/]+?)\s*/\s*(?P<soft>.+)"
)
_SHARE = re.compile(r"(?P<name>.*?)\s+(?P<id>\d+)\s+(?P<weight>\d+)\s+(?P<cap>\d+)")
_DOMAIN = re.compile(
    r"(?P<name>.*?)\s+(?P<id>\d+)\s+(?P<mem>\d+)\s+(?P<vcpus>\d+)\s+(?P<state>[rbpscd-]{6})"
    r"\s+(?P<time>\d+\.\d+)"
)
#: Xen's words for yes: docs/misc/xen-command-line.pandoc, "Boolean"
_YES = frozenset({"", "yes", "on", "true", "enable", "1"})
TRUE, FALSE = "true", "false"


@dataclass(frozen=True, slots=True)
class Info:
    """``xl info``; ``boot`` has the hypervisor's options as it was booted with, by name."""

    version: str
    scheduler: str
    cpus: int
    memory_mib: int
    free_mib: int
    boot: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vcpu:
    """A line of ``xl vcpu-list``; ``cpu`` None = offline. Affinities are CPU lists, or ``all``."""

    domain: str
    domid: int
    number: int
    cpu: int | None
    state: str
    time_s: float
    hard: str
    soft: str


@dataclass(frozen=True, slots=True)
class Share:
    """A domain's line of ``xl sched-credit``; ``cap_percent`` is of one CPU, 0 = no cap."""

    domain: str
    domid: int
    weight: int
    cap_percent: int


@dataclass(frozen=True, slots=True)
class Domain:
    """A line of ``xl list``."""

    name: str
    domid: int
    memory_mib: int
    vcpus: int
    state: str
    time_s: float


def info(text: str) -> Info:
    """From ``xl info``. Raises HostError where it is no such thing."""
    matches = (_PAIR.fullmatch(line.strip()) for line in text.splitlines())
    found = {m[1]: m[2] for m in matches if m is not None}
    try:
        return Info(
            version=found["xen_version"].strip(),
            scheduler=found["xen_scheduler"].strip(),
            cpus=int(found["nr_cpus"]),
            memory_mib=int(found["total_memory"]),
            free_mib=int(found["free_memory"]),
            boot=options(found["xen_commandline"]),
        )
    except (KeyError, ValueError) as e:
        raise HostError(f"xl info printed no {e}: {' '.join(text.split())[:120]!r}") from e


def options(commandline: str) -> dict[str, str]:
    """The hypervisor's options by name, the last of each; a flag is ``true`` or ``false``."""
    found = {}
    for word in commandline.split():
        name, equals, value = word.partition("=")
        if not equals and name.startswith("no-"):
            name, value = name.removeprefix("no-"), FALSE
        found[name] = TRUE if not equals and not value else value
    return found


def flag(value: str | None) -> bool:
    """Whether an option is switched on; one that is not there is not."""
    return value is not None and value.lower() in _YES


def vcpus(text: str) -> tuple[Vcpu, ...]:
    """From ``xl vcpu-list``."""
    return tuple(
        Vcpu(
            m["name"], int(m["id"]), int(m["vcpu"]), None if m["cpu"] == "-" else int(m["cpu"]),
            m["state"], float(m["time"]), affinity(m["hard"]), affinity(m["soft"]),
        )
        for m in _rows(_VCPU, text)
    )  # fmt: skip


def shares(text: str) -> tuple[Share, ...]:
    """From ``xl sched-credit`` or ``xl sched-credit2``."""
    return tuple(
        Share(m["name"], int(m["id"]), int(m["weight"]), int(m["cap"])) for m in _rows(_SHARE, text)
    )


def domains(text: str) -> tuple[Domain, ...]:
    """From ``xl list``."""
    return tuple(
        Domain(
            m["name"], int(m["id"]), int(m["mem"]), int(m["vcpus"]), m["state"], float(m["time"])
        )
        for m in _rows(_DOMAIN, text)
    )  # fmt: skip


def affinity(text: str) -> str:
    """In the shortest form: ``all``, or a CPU list."""
    word = text.strip().replace(" ", "")
    if word in (ALL, "any cpu", "anycpu"):
        return ALL
    try:
        return cpu_list(cpus(word))
    except ValueError as e:
        raise HostError(f"xl vcpu-list: no affinity: {text!r}") from e


def _rows(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for line in text.splitlines():
        if (found := pattern.fullmatch(line.rstrip())) is not None:
            yield found
