"""What boots when a VM is started: a namespace, on the NIC that its switch has.

Who a guest is stands in the image in its VM's DVD drive, what it is in its VM's configuration.
Where any of that is wrong, something boots and nobody reaches it. A VM's disk counts for no more
than that there is one: it is the namespace's folder, the same for as long as the disk is the same.
A restored checkpoint gives back the disk; that memory is kept cannot be had with namespaces, so
the guest boots again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from provision.errors import ProvisionError
from tests.peers.hyperv.model import Adapter, Machine, Nic, Switch
from tests.peers.hyperv.paper import boots, identity, report, seen
from tests.peers.hyperv.peer import WINDOWS, Peer, hyperv_host
from tests.peers.hyperv.world import World
from tests.peers.nsguest import Card, Hardware, NsGuest
from tests.peers.scratch import scratch
from tests.peers.windows.guest import WinGuest, seed_of
from tests.peers.wires import Wires, bridge, subnets, wires

MANAGEMENT = "Management"
_FAULTS = (AssertionError, OSError, ProvisionError, ValueError, KeyError)


@dataclass
class _Running:
    """One VM's namespace; ``disk`` is the id of the disk that it boots of."""

    guest: NsGuest
    disk: object
    work: ThreadPoolExecutor

    def do(self, work: Callable[[], object]) -> Future[object]:
        return self.work.submit(work)


class Spaces:
    """Guests that run, as namespaces on ``wires``' host."""

    def __init__(self, world: World, laid: Wires, folder: Path) -> None:
        self._world, self._wires, self._folder = world, laid, folder
        self._running: dict[object, _Running] = {}
        self._made = 0

    def start(self, machine: Machine) -> None:
        if not boots(machine):
            return
        hardware, found = self._hardware(machine), self._of(machine)
        who, run = None, machine.started_at
        seed: Mapping[str, bytes] = {}
        if isinstance(found.guest, WinGuest):
            seed = self._seed(machine)
        else:
            who = identity(self._world, machine)

        def boot() -> None:
            try:
                if isinstance(found.guest, WinGuest):
                    found.guest.boot(hardware, seed)
                else:
                    found.guest.start(hardware, who)
            except _FAULTS as e:
                self._world.complain(f"{machine.name} does not boot: {e}")
                return
            with self._world.lock:
                report(machine, who, run)

        found.do(boot)

    def stop(self, machine: Machine) -> None:
        if found := self._running.get(machine.id):
            found.do(found.guest.stop).result()

    def rewire(self, machine: Machine) -> None:
        found = self._running.get(machine.id)
        if found is None:
            return
        for number, adapter in enumerate(machine.config.adapters):
            at = self._bridge(adapter)
            found.do(lambda n=number, b=at: found.guest.plug(n, b)).result()  # type: ignore[misc]

    def snapshot(self, machine: Machine, name: str) -> None:
        found = self._of(machine)
        found.do(lambda: found.guest.snapshot(name)).result()

    def revert(self, machine: Machine, name: str) -> None:
        found = self._of(machine)
        found.do(lambda: found.guest.revert(name)).result()

    def forget(self, machine: Machine, name: str) -> None:
        if found := self._running.get(machine.id):
            found.do(lambda: found.guest.forget(name)).result()

    def remove(self, machine: Machine) -> None:
        if found := self._running.pop(machine.id, None):
            found.do(found.guest.remove).result()
            found.work.shutdown()

    def sync(self) -> None:
        by_id = {nic.switch: nic for nic in self._world.nics if nic.switch}
        shown = [
            {
                "name": str(s.id), "groups": (),
                "uplinks": [by_id[s.id].device] if s.id in by_id and by_id[s.id].enabled else [],
                "mtu": by_id[s.id].jumbo - 14 if s.id in by_id else 9000,
            }
            for s in self._world.switches
        ]  # fmt: skip
        self._wires.sync(shown)

    def counters(self, nic: Nic) -> Mapping[str, int]:
        words = ("ip", "-j", "-s", "link", "show", "dev", nic.device)
        (found,) = self._wires.esx.json(*words)
        ways = found["stats64"]
        return {f"{way}_{what}": ways[way][what] for way in ("rx", "tx")
                for what in ("bytes", "packets")}  # fmt: skip

    def end(self) -> None:
        """Kill all guests."""
        for found in self._running.values():
            found.do(found.guest.close).result()
            found.work.shutdown()

    def console(self, machine: Machine) -> str:
        return self._running[machine.id].guest.console.read_text(errors="replace")

    def _of(self, machine: Machine) -> _Running:
        """The VM's namespace, which is another one where its disk is."""
        paths = [d.path for d in machine.config.drives if d.path and not d.dvd]
        disk = self._world.volume.disk(paths[0]) if paths else None
        found = self._running.get(machine.id)
        if found is not None and disk is not None and found.disk != disk.id:
            self.remove(machine)
            found = None
        if found is None:
            self._made += 1
            folder = self._folder / f"{self._made}"
            tag, here = f"hv{self._made}", self._wires.esx
            of_windows = WINDOWS in (
                f.path for f in (self._world.volume.chain(paths[0]) if paths else ())
            )
            guest = (
                WinGuest(tag, folder, here, self._world.complain)
                if of_windows
                else NsGuest(tag, folder, here)
            )
            work = ThreadPoolExecutor(1, thread_name_prefix=machine.name)
            found = self._running[machine.id] = _Running(guest, disk and disk.id, work)
        return found

    def _seed(self, machine: Machine) -> Mapping[str, bytes]:
        """What the DVD has for cloudbase-init."""
        paths = [d.path for d in machine.config.drives if d.path and d.dvd]
        return seed_of(self._world.volume.read(paths[0])) if paths else {}

    def inside(self, name: str) -> WinGuest:
        """The Windows guest that a VM is."""
        (machine,) = [m for m in self._world.machines if m.name == name]
        guest = self._running[machine.id].guest
        assert isinstance(guest, WinGuest)
        return guest

    def _bridge(self, adapter: Adapter) -> str | None:
        return bridge(str(adapter.switch)) if self._world.switch(adapter.switch) else None

    def _hardware(self, one: Machine) -> Hardware:
        cards = [
            Card(
                seen(a.mac), self._bridge(a), "tulip" if a.legacy else "hv_netvsc",
                "1011:0009" if a.legacy else "", a.maximum_bits // 10**6 or None,
            )
            for a in one.config.adapters
        ]  # fmt: skip
        return Hardware(one.config.processors, one.config.memory >> 20, tuple(cards))


@dataclass
class HyperVLab:
    """A host whose guests boot; its switch "Management" leads here, to ``wires.controller``."""

    peer: Peer
    wires: Wires
    management: IPv4Network
    spaces: Spaces


@contextmanager
def hyperv_lab(
    *, nics: int = 4, management: str = "", between: str = "", **more: Any
) -> Iterator[HyperVLab]:
    """Start one; ``more`` as in ``hyperv_host``. Needs root. Nothing that runs outlives us.

    "Ethernet 1" leads here, "Ethernet N" to lgN-1 of the namespace ``wires.generator``, whose own
    NIC "mgmt" has the second address of ``between``. Subnets that are not given are free ones.
    """
    with ExitStack() as stack:
        free = stack.enter_context(subnets())
        nets = IPv4Network(management or free[0]), IPv4Network(between or free[1])
        laid = stack.enter_context(wires(nics, *nets))
        folder = stack.enter_context(scratch("pvx-hv-", Path("/var/tmp")))
        peer = stack.enter_context(
            hyperv_host(nics=nics, guests=lambda world: Spaces(world, laid, folder), **more)
        )
        spaces = peer.world.guests
        assert isinstance(spaces, Spaces)
        stack.callback(spaces.end)
        own = peer.world.nics[0]
        switch = Switch(MANAGEMENT, "External", own.name, management=True)
        switch.addresses, own.addresses, own.switch = own.addresses, (), switch.id
        peer.world.switches.append(switch)
        spaces.sync()
        yield HyperVLab(peer, laid, nets[0], spaces)
