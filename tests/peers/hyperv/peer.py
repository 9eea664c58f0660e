"""A Hyper-V host for a test: WinRM in front, the simulated host behind it.

    with hyperv_host(nics=3) as peer:
        peer.uri, peer.user, peer.password, peer.ca, peer.fingerprint

``peer.world`` is acted on behind a driver's back, ``peer.inventory()`` is all that there is,
``peer.endpoint`` counts requests and breaks them (``hook``), ``peer.world.troubles`` breaks
cmdlets. At the end nothing may have been complained of.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.peers.hyperv import machine
from tests.peers.hyperv.model import Adapter, Disk, File, Machine, Nic, Switch
from tests.peers.hyperv.paper import Paper
from tests.peers.hyperv.session import Mutexes, powershell
from tests.peers.hyperv.world import Guests, World
from tests.peers.scratch import scratch
from tests.peers.wsman.endpoint import Endpoint, endpoint
from tests.peers.wsman.process import Process
from tests.peers.wsman.shells import Quotas

PARENT = "C:\\Images\\debian12.vhdx"
WINDOWS = "C:\\Images\\windows2025.vhdx"
AWAY_S = 0.3
CARD = "Intel(R) I210 Gigabit Network Connection"
GB = 1 << 30


@dataclass
class Peer:
    """One that runs. ``complaints`` are of the wire, the scripts and the host together."""

    endpoint: Endpoint
    world: World
    user: str
    password: str = field(repr=False)
    away_s: float = AWAY_S
    restarting: threading.Event = field(default_factory=threading.Event)

    @property
    def uri(self) -> str:
        return self.endpoint.uri

    @property
    def ca(self) -> Path | None:
        return self.endpoint.ca

    @property
    def fingerprint(self) -> str:
        return self.endpoint.fingerprint

    @property
    def complaints(self) -> list[str]:
        return [*self.endpoint.complaints, *self.world.complaints]

    def inventory(self) -> dict[str, Any]:
        """All that the host has, to be the same after as before; nothing of it is a moment's."""
        world = self.world
        with world.lock:
            return {
                "vms": sorted(
                    (m.name, str(m.id), m.state, m.notes, repr(_lasting(m)),
                     tuple(str(s.id) for s in m.snapshots))
                    for m in world.machines
                ),
                "switches": sorted(
                    (s.name, str(s.id), s.type, s.nic, s.management, s.notes)
                    for s in world.switches
                ),
                "nics": [
                    (n.name, n.enabled, n.jumbo, n.rsc, n.addresses, str(n.switch),
                     tuple(sorted(n.unbound)))
                    for n in world.nics
                ],
                "files": world.volume.paths(), "boot": dict(world.boot),
                "groups": dict(world.groups or {}), "members": dict(world.group_of),
            }  # fmt: skip

    def foreign_vm(self, name: str, *, switch: str = "", notes: str = "") -> Machine:
        """A VM of somebody else's, off."""
        found = next((s for s in self.world.switches if s.name == switch), None)
        one = Machine(name, 2, f"C:\\Elsewhere\\{name}", notes=notes)
        one.config.adapters.append(Adapter("Network Adapter", switch=found.id if found else None))
        with self.world.lock:
            self.world.machines.append(one)
        return one

    def foreign_switch(self, name: str, nic: str = "", notes: str = "") -> Switch:
        """A switch of somebody else's: external where it has a NIC, else private."""
        one = Switch(name, "External" if nic else "Private", nic, notes=notes)
        with self.world.lock:
            found = self.world.nic(nic) if nic else None
            if found is not None:
                found.switch = one.id
            self.world.switches.append(one)
        return one

    def vm(self, name: str) -> Machine:
        (found,) = [m for m in self.world.machines if m.name == name]
        return found

    def calls(self, *names: str) -> list[Any]:
        """What cmdlets and programs were called with, oldest first; all where none is named."""
        return [c for c in self.world.calls if not names or c.name in names]

    def restart(self) -> None:
        """Restart the host, as who would pull its plug after it has answered."""
        if self.restarting.is_set():
            return
        self.restarting.set()

        def go() -> None:
            # the answer to who asked for it leaves first
            threading.Event().wait(0.05)
            self.endpoint.down()
            threading.Event().wait(self.away_s)
            machine.come_back(self.world)
            self.endpoint.up()
            self.restarting.clear()

        threading.Thread(target=go, name="restart", daemon=True).start()


def _lasting(one: Machine) -> object:
    config = one.config.copy()
    for adapter in config.adapters:
        adapter.addresses = ()
    return config


def _nics(count: int) -> list[Nic]:
    """The first is the host's own; the others are free."""
    found = [
        Nic(f"Ethernet {n}", f"{CARD} #{n}",
            f"A0369F0000{n:02X}", 4 + n, f"vmnic{n - 1}")
        for n in range(1, count + 1)
    ]  # fmt: skip
    found[0].addresses, found[0].gateway = ("192.0.2.10/24",), "192.0.2.1"
    return found


@contextmanager
def hyperv_host(
    *, nics: int = 3, tls: bool = False, processors: int = 8, memory: int = 64 * GB,
    quotas: Quotas | None = None, cpu_groups: bool = False, expired: bool = False,
    user: str = "Administrator", password: str = "a host's own pa$$word",
    guests: Callable[[World], Guests] | None = None, judge: bool = True,
) -> Iterator[Peer]:  # fmt: skip
    """Start one on a free port of loopback.

    The NICs are "Ethernet 1", which carries the host's address, to "Ethernet N"; ``PARENT`` is a
    disk to make others of. ``guests`` makes what boots, None: what only says so. ``judge``: at the
    end nothing may have been complained of.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(scratch("pvx-hyperv-", Path(tempfile.gettempdir())))
        world = World(processors=processors, memory=memory, nics=_nics(nics))
        world.groups = {} if cpu_groups else None
        world.volume.make_folder("C:\\Images")
        for path in (PARENT, WINDOWS):
            world.volume.put(File(path, disk=Disk("Dynamic", 20 * GB), length=2 * GB))
        mutexes = Mutexes()

        def program(process: Process) -> int:
            return powershell(world, mutexes, process)

        wire = stack.enter_context(
            endpoint(program, folder, user, password, tls=tls, quotas=quotas, expired=expired)
        )
        peer = Peer(wire, world, user, password)
        world.restart, world.cut = peer.restart, wire.down
        world.guests = guests(world) if guests is not None else Paper(world)
        yield peer
        if judge:
            assert not peer.complaints, "\n".join(peer.complaints)
