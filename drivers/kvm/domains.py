"""One testbed's domains in KVM's libvirt: what they are, their CPU time, their snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import libvirt

from drivers.kvm.facts import Machine
from drivers.kvm.parse import Seen, parse
from drivers.libvirt import domains
from drivers.libvirt.connect import told
from drivers.libvirt.marks import domain_name


@dataclass(frozen=True, slots=True)
class Domains(domains.Domains[Seen]):
    """Those of ``testbed`` on ``machine``."""

    machine: Machine

    @property
    def where(self) -> str:
        return self.machine.name

    def parse(self, text: str) -> Seen | None:
        return parse(text, self.machine.cpus, self.machine.cgroup)

    def busy_s(self) -> dict[str, float]:
        """CPU time of each guest so far, all its threads together."""
        prefix = domain_name(self.testbed, "")
        with told("CPU time of guests"):
            ours = [d for d in self.conn.listAllDomains() if d.name().startswith(prefix)]
            # only ours: a foreign domain that is just being saved would hold up the answer
            what = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
            stats = self.conn.domainListGetStats(ours, what) if ours else []
        return {
            found.name().removeprefix(prefix): figures.get("cpu.time", 0) / 1e9
            for found, figures in stats
        }


def snapshot(found: Any, name: str) -> Any | None:
    """The snapshot of that name, None where there is none. Raises libvirtError."""
    try:
        return found.snapshotLookupByName(name)
    except libvirt.libvirtError as e:
        if e.get_error_code() not in domains.GONE:
            raise
        return None
