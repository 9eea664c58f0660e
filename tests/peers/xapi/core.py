"""What all rooms of the peer share: the database, what Xen has in force, and the complaints."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.peers.xapi.store import Record, Store
from tests.peers.xapi.xen import Xen

Handler = Callable[..., Any]


class Machines(Protocol):
    """What makes guests real: it is told after the database has it, with the lock held."""

    def started(self, vm: str) -> None: ...
    def stopped(self, vm: str) -> None: ...
    def changed(self, vm: str) -> None: ...
    def disk(self, verb: str, vdi: str, other: str = "") -> None: ...


class NoMachines:
    """Guests that have no inside; their agents report what they were handed over."""

    def started(self, vm: str) -> None: ...
    def stopped(self, vm: str) -> None: ...
    def changed(self, vm: str) -> None: ...
    def disk(self, verb: str, vdi: str, other: str = "") -> None: ...


@dataclass
class World:
    """``complaints`` has what no correct client does; ``task_s`` is how long long calls take.

    ``disks`` has what was written to VDIs, ``agent_s`` is when a guest's agent reports after the
    start. ``down`` has the hosts that do not answer now.
    """

    store: Store = field(default_factory=Store)
    user: str = "root"
    password: str = "secret of the peer"
    task_s: float = 0.005
    agent_s: float = 0.02
    goes_s: float = 0.1  # from the call that reboots a host until it is gone
    boot_s: float = 0.2
    idle_s: float = 86400
    xens: dict[str, Xen] = field(default_factory=dict)
    disks: dict[str, bytes] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    booting: set[str] = field(default_factory=set)
    machines: Machines = field(default_factory=NoMachines)
    timers: list[threading.Timer] = field(default_factory=list)
    closed: bool = False
    #: told when a host goes (False) and when it is back (True)
    power: list[Callable[[str, bool], None]] = field(default_factory=list)

    @property
    def pool(self) -> Record:
        (found,) = self.store.tables["pool"].values()
        return found

    def complain(self, why: str) -> None:
        self.complaints.append(why)

    def later(self, after_s: float, act: Callable[[], None]) -> None:
        """Do that with the lock held, unless the peer has ended by then."""

        def run() -> None:
            with self.store.lock:
                if not self.closed:
                    act()

        timer = threading.Timer(after_s, run)
        timer.daemon = True
        self.timers = [one for one in self.timers if one.is_alive()]
        self.timers.append(timer)
        timer.start()

    def end(self) -> None:
        with self.store.lock:
            self.closed = True
            self.store.changed.notify_all()
        for timer in self.timers:
            timer.cancel()


class Room(Protocol):
    """A part of the API whose behaviour is written by hand."""

    def handlers(self) -> Mapping[str, Handler]:
        """What answers each message, by its full name."""
