"""One testbed's domains in libvirt: found by name and mark, ended, undefined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import libvirt

from drivers.kvm.connect import told
from drivers.kvm.facts import Machine
from drivers.kvm.parse import Seen, parse
from drivers.kvm.xml import domain_name
from provision.errors import DriverError, Foreign

_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT)
_UNDEFINE = libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
_UNDEFINE |= libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE


@dataclass(frozen=True, slots=True)
class Domains:
    """Those of ``testbed`` on the machine behind ``conn``."""

    conn: Any
    testbed: str
    machine: Machine

    def find(self, guest: str) -> tuple[Any | None, Seen | None]:
        """The domain of that name; what is seen of it is None where it is not ours."""
        with told(f"look up guest {guest}"):
            try:
                found = self.conn.lookupByName(domain_name(self.testbed, guest))
                seen = parse(found.XMLDesc(), self.machine.cpus, self.machine.cgroup)
            except libvirt.libvirtError as e:
                if e.get_error_code() in _GONE:
                    return None, None
                raise
        return found, seen if seen is not None and seen.testbed == self.testbed else None

    def own(self, guest: str) -> tuple[Any | None, Seen | None]:
        """As ``find``, but raises DriverError where the domain is another's."""
        found, seen = self.find(guest)
        if found is not None and seen is None:
            name = found.name()
            raise Foreign(
                f"domain {name} exists on {self.machine.name} without our mark",
                hint=f"look at it: virsh dumpxml {name}",
            )
        return found, seen

    def there(self, guest: str) -> tuple[Any, Seen]:
        """As ``own``, but raises DriverError where there is none."""
        found, seen = self.own(guest)
        if found is None or seen is None:
            raise DriverError(f"guest {guest} does not exist, and has no checkpoint")
        return found, seen

    def names(self) -> Iterator[str]:
        """The guests that there are."""
        prefix = domain_name(self.testbed, "")
        with told("list domains"):
            named = [d.name() for d in self.conn.listAllDomains()]
        for name in named:
            if name.startswith(prefix):
                _, seen = self.find(name.removeprefix(prefix))
                if seen is not None:
                    yield seen.guest.name

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


def stop(found: Any) -> None:
    """End it at once; no error where it does not run, or is gone. Raises libvirtError."""
    try:
        found.destroy()
    except libvirt.libvirtError as e:
        if e.get_error_code() not in (*_GONE, libvirt.VIR_ERR_OPERATION_INVALID):
            raise


def vanish(found: Any) -> None:
    """Stop it and undefine it, with all that libvirt keeps of it. Raises libvirtError."""
    stop(found)
    try:
        found.undefineFlags(_UNDEFINE)
    except libvirt.libvirtError as e:
        if e.get_error_code() not in _GONE:
            raise


def snapshot(found: Any, name: str) -> Any | None:
    """The snapshot of that name, None where there is none. Raises libvirtError."""
    try:
        return found.snapshotLookupByName(name)
    except libvirt.libvirtError as e:
        if e.get_error_code() not in _GONE:
            raise
        return None
