"""One host, for many sessions at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.files import Volume
from tests.peers.hyperv.model import Adapter, Machine, Nic, Switch, normal
from tests.peers.powershell.errors import ErrorRecord, PSError
from tests.peers.powershell.operators import like

MARKS = frozenset("*?[")


class Guests(Protocol):
    """What boots when a VM is started. None of it takes long: what does goes on by itself."""

    def start(self, machine: Machine) -> None: ...

    def stop(self, machine: Machine) -> None: ...

    def rewire(self, machine: Machine) -> None:
        """The VM's NICs are on other switches."""

    def snapshot(self, machine: Machine, name: str) -> None: ...

    def revert(self, machine: Machine, name: str) -> None: ...

    def forget(self, machine: Machine, name: str) -> None: ...

    def remove(self, machine: Machine) -> None: ...

    def sync(self) -> None:
        """The switches are others."""

    def counters(self, nic: Nic) -> Mapping[str, int]:
        """rx_bytes, tx_bytes, rx_packets and tx_packets of a physical NIC."""


@dataclass(frozen=True)
class Doing:
    """A cmdlet or program that was called, with what it was given."""

    name: str
    values: Mapping[str, Any]


@dataclass
class CmdletTrouble:
    """The ``nth`` call of a cmdlet from now on fails; "after": when its work is done."""

    name: str
    record: ErrorRecord
    when: Literal["instead", "after"] = "instead"
    nth: int = 1
    struck: bool = False


@dataclass
class World:
    """``lock`` is held for each cmdlet. ``complaints`` is what no sound driver does.

    ``calls`` has all cmdlets and programs, oldest first; ``hold`` is called before each, outside of
    the lock, so that a test can make one wait.
    """

    name: str = "HV1"
    processors: int = 8
    memory: int = 64 << 30
    nics: list[Nic] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    machines: list[Machine] = field(default_factory=list)
    volume: Volume = field(default_factory=Volume)
    boot: dict[str, str] = field(default_factory=lambda: {"hypervisorlaunchtype": "Auto"})
    booted: dict[str, str] = field(default_factory=dict)
    boots: int = 1
    booted_at: float = field(default_factory=time.time)
    groups: dict[str, dict[str, Any]] | None = None
    group_of: dict[str, str] = field(default_factory=dict)
    restores_to: Literal["Saved", "Running"] = "Saved"
    guests: Guests | None = None
    restart: Callable[[], None] = lambda: None
    cut: Callable[[], None] = lambda: None
    hold: Callable[[Doing], None] = lambda _doing: None
    complaints: list[str] = field(default_factory=list)
    calls: list[Doing] = field(default_factory=list)
    troubles: list[CmdletTrouble] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.booted = dict(self.boot)

    @contextmanager
    def doing(self, doing: Doing) -> Iterator[None]:
        """Around each call: what tests arm strikes here."""
        self.hold(doing)
        with self.lock:
            self.calls.append(doing)
            trouble = self._due(doing.name)
            if trouble is not None and trouble.when == "instead":
                raise PSError(trouble.record)
            yield
            if trouble is not None:
                raise PSError(trouble.record)

    def _due(self, name: str) -> CmdletTrouble | None:
        for trouble in self.troubles:
            if trouble.name == name and not trouble.struck:
                trouble.nth -= 1
                if trouble.nth <= 0:
                    trouble.struck = True
                    return trouble
        return None

    def complain(self, text: str) -> None:
        self.complaints.append(text)

    # what there is

    def named(self, bound: Bound, names: Iterable[str]) -> list[Machine]:
        """VMs by names, which may be patterns; one that is not there is an error of the cmdlet."""
        found: list[Machine] = []
        for name in names:
            some = [m for m in self.machines if matches(name, m.name)]
            found += some
            if not some and not MARKS & set(name):
                text = f'Hyper-V was unable to find a virtual machine with name "{name}".'
                bound.call.error(bound.failed("InvalidParameter", "InvalidArgument", text).record)
        return found

    def chosen(self, bound: Bound, names: str = "VMName", objects: str = "VM") -> list[Machine]:
        """The VMs that a cmdlet is about, by name or as objects."""
        given = bound.get(objects)
        if given is not None:
            several = given if isinstance(given, list) else [given]
            return [self.machine(one.properties["Id"], bound) for one in several]
        asked = bound.get(names)
        if asked is None:
            return [*self.machines]
        return self.named(bound, asked if isinstance(asked, list) else [asked])

    def machine(self, id: Any, bound: Bound) -> Machine:
        for one in self.machines:
            if str(one.id) == str(id):
                return one
        text = f'Hyper-V was unable to find a virtual machine with id "{id}".'
        raise bound.failed("InvalidParameter", "InvalidArgument", text)

    def switch(self, id: Any) -> Switch | None:
        return next((s for s in self.switches if s.id == id), None)

    def users(self, switch: Switch) -> list[tuple[Machine, Adapter]]:
        """The VMs' adapters that are on a switch."""
        return [
            (machine, adapter) for machine in self.machines
            for adapter in machine.config.adapters if adapter.switch == switch.id
        ]  # fmt: skip

    def nic(self, name: str) -> Nic | None:
        return next((n for n in self.nics if n.name.lower() == name.lower()), None)

    def holders(self, path: str) -> list[Machine]:
        """The VMs whose drives, or checkpoints' drives, have a file."""
        key, found = normal(path), []
        for machine in self.machines:
            configs = [machine.config, *(s.config for s in machine.snapshots)]
            if any(normal(d.path) == key for c in configs for d in c.drives if d.path):
                found.append(machine)
        return found


def matches(pattern: str, name: str) -> bool:
    """By PowerShell's wildcards, without regard to case."""
    return like(pattern).match(name) is not None
