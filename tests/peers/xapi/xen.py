"""What is in force on one host: Xen's domains, their scheduling, and its boot options.

XenAPI's database says what was asked for; this is what came of it. ``xl`` shows it.
"""

from __future__ import annotations

import re
import time
import uuid as uuid_of
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

DEFAULT_WEIGHT = 256
FIRST_DOMID = 1
#: the boot options of a fresh host, as installers write them
OPTIONS = (
    "dom0_mem=4096M,max:4096M", "watchdog", "ucode=scan", "dom0_max_vcpus=1-4",
    "crashkernel=256M,below=4G", "console=vga", "vga=mode-0x0311",
)  # fmt: skip
_NUMBER = re.compile(r"-?(0[xX][0-9a-fA-F][0-9a-fA-F_]*|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*)")
_FALSE = ("no", "off", "false", "disable", "0")


def ocaml_int(text: str) -> int:
    """As OCaml's int_of_string reads it: no blanks. Raises ValueError."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text, 10) if text.lstrip("-").isdigit() else int(text.rstrip("_"), 0)


@dataclass
class Domain:
    """``hard`` has one set of physical CPUs a vCPU, None = all; ``memory_mib`` is what it has."""

    domid: int
    name: str
    uuid: str
    vcpus: int
    memory_mib: int
    hard: list[frozenset[int] | None]
    soft: list[frozenset[int] | None]
    weight: int = DEFAULT_WEIGHT
    cap: int = 0
    paused: bool = False
    online: int = 0  # vCPUs that are on; 0 = all


@dataclass
class Xen:
    """``configured`` is for the next boot, ``running`` is what Xen was booted with."""

    name: str
    cpus: int
    memory_mib: int
    dom0_uuid: str
    configured: list[str] = field(default_factory=lambda: [*OPTIONS])
    running: list[str] = field(default_factory=list)
    backend: str = "openvswitch"
    next_backend: str = "openvswitch"
    domains: dict[int, Domain] = field(default_factory=dict)
    boots: int = 0
    booted_at: float = 0.0
    boot_id: str = ""
    #: dom0's interrupts by number: the vCPUs of dom0 that may serve each
    irqs: dict[int, frozenset[int]] = field(default_factory=dict)
    irq_names: dict[int, str] = field(default_factory=dict)
    balancing: bool = True  # irqbalance runs
    balances: bool = True  # and will after a boot
    next_domid: int = FIRST_DOMID

    def boot(self) -> None:
        """All that was only in force is gone; what is configured comes into force."""
        self.running = [*self.configured]
        self.backend = self.next_backend
        self.next_domid = FIRST_DOMID
        self.boots += 1
        self.booted_at, self.boot_id = time.time(), str(uuid_of.uuid4())
        vcpus = self._dom0_vcpus()
        pinned = flag(self.running, "dom0_vcpus_pin")
        hard = [frozenset({n}) if pinned else None for n in range(vcpus)]
        self.domains = {
            0: Domain(0, "Domain-0", self.dom0_uuid, vcpus, self.dom0_memory_mib, hard,
                      [None] * vcpus)
        }  # fmt: skip
        self.balancing = self.balances
        self.irqs = dict.fromkeys(self.irq_names, frozenset(range(vcpus)))
        self.rebalance()

    def rebalance(self) -> None:
        """What irqbalance makes of it while it runs: one vCPU for each interrupt, in turn."""
        if self.balancing:
            vcpus = self.domains[0].vcpus
            self.irqs = {irq: frozenset({n % vcpus}) for n, irq in enumerate(sorted(self.irqs))}

    @property
    def scheduler(self) -> str:
        return value(self.running, "sched") or "credit"

    @property
    def dom0_memory_mib(self) -> int:
        text = (value(self.running, "dom0_mem") or "4096M").split(",")[0]
        match = re.fullmatch(r"(?:min:|max:)?(\d+)([KMGkmg]?)", text)
        if not match:
            return 4096
        shift = {"": -20 + 10, "k": -10, "m": 0, "g": 10}[match[2].lower()]
        number = int(match[1])
        return number << shift if shift >= 0 else number >> -shift

    def _dom0_vcpus(self) -> int:
        """``dom0_max_vcpus=N`` or ``MIN-MAX`` (Xen's command line reference)."""
        text = value(self.running, "dom0_max_vcpus") or str(self.cpus)
        match = re.fullmatch(r"(\d+)(-(\d*))?", text)
        if not match:
            return self.cpus
        if match[2] is None:
            return max(1, int(match[1]))
        top = int(match[3] or self.cpus)
        return max(1, int(match[1]), min(self.cpus, top))

    @property
    def free_mib(self) -> int:
        return self.memory_mib - sum(d.memory_mib for d in self.domains.values())

    def build(
        self, name: str, uuid: str, vcpus: int, memory_mib: int, params: Mapping[str, str],
        host_params: Mapping[str, str],
    ) -> int:  # fmt: skip
        """Start a domain as a VM's VCPUs_params say, so far as they can be read."""
        masks = affinity(params, host_params, self.cpus)
        hard = [masks[n] if n < len(masks) else masks[0] for n in range(vcpus)] if masks else []
        domid, self.next_domid = self.next_domid, self.next_domid + 1
        self.domains[domid] = Domain(
            domid, name, uuid, vcpus, memory_mib, [*(hard or [None] * vcpus)], [None] * vcpus,
            weight=_read(params, "weight", DEFAULT_WEIGHT, 1, 65535),
            cap=_read(params, "cap", 0, 0, 100 * vcpus),
        )  # fmt: skip
        return domid

    def find(self, word: str) -> Domain | None:
        """By number or name, as xl takes them."""
        for domain in self.domains.values():
            if word in (str(domain.domid), domain.name):
                return domain
        return None


def affinity(
    params: Mapping[str, str], host: Mapping[str, str], cpus: int
) -> list[frozenset[int] | None]:
    """A mask a vCPU, the first for those that have none; [] = all of them run anywhere.

    What cannot be read is as if it were not there; the host's own mask is cut with each.
    """
    masks = _masks(params.get("mask"))
    if limits := _masks(host.get("mask")):
        limit = limits[0]
        masks = [[cpu for cpu in mask if cpu in limit] for mask in masks] or [limit]
    found: list[frozenset[int] | None] = []
    for mask in masks:
        real = frozenset(cpu for cpu in mask if 0 <= cpu < cpus)
        found.append(real if real and len(real) < cpus else None)
    return found


def _masks(text: str | None) -> list[list[int]]:
    try:
        return [[ocaml_int(w) for w in part.split(",")] for part in (text or "").split(";")]
    except ValueError:
        return []


def _read(params: Mapping[str, str], name: str, otherwise: int, least: int, most: int) -> int:
    try:
        found = ocaml_int(params[name])
    except (KeyError, ValueError):
        return otherwise
    return found if least <= found <= most else otherwise


def value(options: Sequence[str], name: str) -> str | None:
    """What the last such option says; None where there is none."""
    found = None
    for option in options:
        key, _, text = option.partition("=")
        if key == name:
            found = text
    return found


def flag(options: Sequence[str], name: str) -> bool:
    text = value(options, name)
    return text is not None and text.lower() not in _FALSE
