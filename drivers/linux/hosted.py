"""What drivers share whose guests are on a Linux host's own networks: those, knobs, counters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from drivers.linux.cells import Cells
from drivers.linux.kept import Kept
from drivers.linux.machine import Machine
from drivers.linux.namespaces import Namespaces
from drivers.linux.net import LinuxNet
from drivers.linux.tuning import LinuxTuning
from drivers.linux.uplinks import count
from provision.driver import LOOKS_AT_ONCE, Target, Usage
from provision.errors import DriverError, Unsupported
from provision.host import Host
from provision.resources import Guest, Key, Resource, label


class Room(Protocol):
    """Kind ``guest`` of such a driver, for one testbed. Keys are guests' names."""

    def look(self, names: Iterable[str]) -> dict[str, Guest | None]: ...

    def names(self) -> list[str]: ...

    def put(self, want: Guest) -> None: ...

    def drop(self, name: str) -> None: ...

    def busy_s(self) -> dict[str, float]: ...

    def evidence(self, name: str) -> Mapping[str, str]: ...

    def console(self, name: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Housed(ABC):
    """Such guests that are of the host's own kernel: where they run, and what is kept of them.

    ``store`` is the folder of what is kept, in the testbed's own.
    """

    host: Host
    target: Target
    machine: Machine
    store: ClassVar[str]

    @property
    def cells(self) -> Cells:
        return Cells(self.host, self.target.testbed)

    @property
    def namespaces(self) -> Namespaces:
        return Namespaces(self.host, self.target.testbed)

    @property
    def kept(self) -> Kept:
        return Kept(self.host, self.target.folder / self.store)

    def namespace(self, name: str) -> str:
        return f"pv-{self.target.testbed}-{name}"

    @abstractmethod
    def look(self, names: Iterable[str]) -> dict[str, Guest | None]:
        """As they are, of whom the host is asked once."""

    def names(self) -> list[str]:
        """The guests that there are."""
        return [name for name, guest in self.look(self.kept.look()).items() if guest is not None]

    def busy_s(self) -> dict[str, float]:
        """CPU time of each guest so far."""
        return {name: cell.busy_s for name, cell in self.cells.look().items()}

    def console(self, name: str) -> str:
        """The last that the guest said."""
        return self.kept.console(name)


G = TypeVar("G", bound=Room)


class Hosted(Generic[G]):
    """All of a driver but its facts, and what its guests alone can do."""

    def __init__(self, host: Host, target: Target, guests: G) -> None:
        self.host = host
        self.net = LinuxNet(host, target.testbed, target.say)
        self.tuning = LinuxTuning(host, target.testbed)
        self.guests = guests

    def read(self, key: Key) -> Resource | None:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.look([name])[name]
        return self._room(kind).read(key)

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once."""
        keys = list(keys)
        guests = self.guests.look(name for kind, name in keys if kind == Guest.kind)
        others = [key for key in keys if key[0] != Guest.kind]
        with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="read") as pool:
            found = dict(zip(others, pool.map(self.read, others), strict=True))
        return found | {(Guest.kind, name): guest for name, guest in guests.items()}

    def put(self, want: Resource) -> None:
        if isinstance(want, Guest):
            self.guests.put(want)
        else:
            self._room(want.kind).put(want)

    def drop(self, key: Key) -> None:
        kind, name = key
        if kind == Guest.kind:
            self.guests.drop(name)
        else:
            self._room(kind).drop(key)

    def owned(self) -> Iterable[Key]:
        return [*self.net.owned(), *((Guest.kind, name) for name in self.guests.names())]

    def usage(self) -> Usage:
        counts = count(self.host)
        busy_s = self.guests.busy_s()
        return Usage(counts.at_s, counts.busy_s, busy_s, counts.nics, irqs=counts.irqs)

    def evidence(self, key: Key) -> Mapping[str, str]:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.evidence(name)
        return self.net.evidence(key) if kind in self.net.kinds else {}

    def console(self, key: Key) -> str:
        return self.guests.console(guest(key))

    def close(self) -> None:
        """Nothing is held open."""

    def _room(self, kind: str) -> LinuxNet | LinuxTuning:
        if kind in self.net.kinds:
            return self.net
        if kind in self.tuning.kinds:
            return self.tuning
        raise DriverError(f"{self.host.name}: a driver of Linux hosts has no {kind}")


def guest(key: Key) -> str:
    """The guest's name; raises Unsupported where the key is another thing's."""
    kind, name = key
    if kind != Guest.kind:
        raise Unsupported(f"{label(key)} is no guest")
    return name
