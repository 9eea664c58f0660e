"""One testbed's domains, and what Xen itself holds of each: affinity, weight, cap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import libvirt

from drivers.dom0 import xl
from drivers.dom0.look import State
from drivers.libvirt import domains
from drivers.libvirt.connect import told
from drivers.libvirt.marks import domain_name
from drivers.xen.xml import Seen, parse
from provision.host import Host
from provision.resources import Guest
from provision.units import cpu_list


@dataclass(frozen=True, slots=True)
class Domains(domains.Domains[Seen]):
    """Those of ``testbed`` on ``host``, a machine with so many CPUs."""

    host: Host
    name: str
    cpus: int

    @property
    def where(self) -> str:
        return self.name

    def parse(self, text: str) -> Seen | None:
        return parse(text, self.cpus)

    def by_id(self) -> dict[int, str]:
        """The guests that run, by their domains' ids."""
        prefix = domain_name(self.testbed, "")
        with told("list domains"):
            active = self.conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            named = {d.ID(): d.name() for d in active}
        return {
            n: name.removeprefix(prefix) for n, name in named.items() if name.startswith(prefix)
        }

    def tune(self, domid: int, want: Guest, now: State, *, pins: bool) -> None:
        """Weight and cap, and ``pins`` as well, of a domain that is there. Raises HostError.

        Neither is kept in libvirt's definition: both are set again after each start.
        """
        command = xl.SCHED.get(now.info.scheduler)
        if command is not None:
            words = ("-w", str(want.weight), "-c", str(want.cap_percent or 0))
            self.host.run("xl", command, "-d", str(domid), *words)
        if pins:
            # libvirt-python's pinVcpu asks for the node's CPU map, which its Xen driver has not
            each = want.pins or (xl.ALL,) * want.vcpus
            for vcpu, cpuset in enumerate(each):
                self.host.run("xl", "vcpu-pin", str(domid), str(vcpu), cpuset)


def effective(guest: Guest, domid: int, now: State, cpu_count: int) -> Guest:
    """The guest with what Xen holds in place of what libvirt was told.

    Those of an unpinned guest are the host's own affair.
    """
    if (share := next((s for s in now.all_shares if s.domid == domid), None)) is not None:
        cap = share.cap_percent or None
        guest = replace(guest, weight=share.weight, cap_percent=cap)
    hard = [v.hard for v in now.all_vcpus if v.domid == domid]
    if guest.pins and len(hard) == guest.vcpus:
        every = cpu_list(range(cpu_count))
        guest = replace(guest, pins=tuple(every if h == xl.ALL else h for h in hard))
    return guest
