"""One testbed's domains in libvirt: found by name and mark, ended, undefined."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import libvirt

from drivers.libvirt.connect import Connection, told
from drivers.libvirt.marks import domain_name
from provision.errors import DriverError, Foreign
from provision.resources import Guest

GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT)
SNAPSHOTS = libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
SAVED = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE


class Marked(Protocol):
    """What is seen of a domain of ours."""

    @property
    def testbed(self) -> str: ...

    @property
    def guest(self) -> Guest: ...

    @property
    def functions(self) -> Mapping[str, str]: ...


S = TypeVar("S", bound=Marked)


@dataclass(frozen=True, slots=True)
class Domains(Generic[S]):
    """Those of ``testbed`` on the machine behind ``link``."""

    link: Connection
    testbed: str

    @property
    def conn(self) -> Any:
        return self.link.conn

    @property
    @abstractmethod
    def where(self) -> str:
        """The host's name."""

    @abstractmethod
    def parse(self, text: str) -> S | None:
        """What a domain's XML says; None where it has no mark of ours."""

    def find(self, guest: str) -> tuple[Any | None, S | None]:
        """The domain of that name; what is seen of it is None where it is not ours."""
        with told(f"look up guest {guest}"):
            try:
                found = self.conn.lookupByName(domain_name(self.testbed, guest))
                seen = self.parse(found.XMLDesc())
            except libvirt.libvirtError as e:
                if e.get_error_code() in GONE:
                    return None, None
                raise
        return found, seen if seen is not None and seen.testbed == self.testbed else None

    def own(self, guest: str) -> tuple[Any | None, S | None]:
        """As ``find``, but raises DriverError where the domain is another's."""
        found, seen = self.find(guest)
        if found is not None and seen is None:
            name = found.name()
            raise Foreign(
                f"domain {name} exists on {self.where} without our mark",
                hint=f"look at it: virsh dumpxml {name}",
            )
        return found, seen

    def there(self, guest: str) -> tuple[Any, S]:
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
                guest = name.removeprefix(prefix)
                if self.find(guest)[1] is not None:
                    yield guest

    def held(self) -> Iterator[tuple[Guest, Mapping[str, str]]]:
        """The guests that there are, each with the PCI addresses of what its NICs gave it."""
        for name in self.names():
            if (seen := self.find(name)[1]) is not None:
                yield seen.guest, seen.functions


def stop(found: Any) -> None:
    """End it at once; no error where it does not run, or is gone. Raises libvirtError."""
    try:
        found.destroy()
    except libvirt.libvirtError as e:
        if e.get_error_code() not in (*GONE, libvirt.VIR_ERR_OPERATION_INVALID):
            raise


def vanish(found: Any, keeps: int = SNAPSHOTS | SAVED) -> None:
    """Stop it and undefine it, with all that libvirt ``keeps`` of it. Raises libvirtError."""
    stop(found)
    try:
        found.undefineFlags(keeps)
    except libvirt.libvirtError as e:
        if e.get_error_code() not in GONE:
            raise
