"""The peer as tests use it: start it, act behind a driver's back, and compare before with after."""

from __future__ import annotations

import copy
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import certs
from tests.peers.xapi.agents import Imagined
from tests.peers.xapi.answers import Answers, Rooms
from tests.peers.xapi.build import Builder
from tests.peers.xapi.calls import Calls
from tests.peers.xapi.copies import Copies
from tests.peers.xapi.core import World
from tests.peers.xapi.disks import Disks
from tests.peers.xapi.dom0 import Dom0
from tests.peers.xapi.hosts import Hosts
from tests.peers.xapi.nets import Nets
from tests.peers.xapi.power import Power
from tests.peers.xapi.server import Door
from tests.peers.xapi.sessions import Sessions
from tests.peers.xapi.settings import Settings
from tests.peers.xapi.store import Record
from tests.peers.xapi.wire import Wire

#: what comes and goes without anybody's doing
FLEETING = frozenset({
    "allowed_operations", "current_operations", "last_updated", "last_active", "VCPUs_utilisation",
})  # fmt: skip
UNSEEN = ("session", "task", "event")
Inventory = dict[str, dict[str, Any]]


@dataclass
class Peer:
    """A running pool. ``uri`` leads to its first host, the master; ``uris`` to all.

    ``hosts`` and ``sr`` are references; ``networks`` are those of eth0, eth1, …
    """

    uri: str
    uris: Sequence[str]
    ca: Path
    fingerprint: str
    world: World
    wire: Wire
    build: Builder
    rooms: Rooms
    hosts: Sequence[str]
    sr: str
    doors: Sequence[Door] = ()

    @property
    def user(self) -> str:
        return self.world.user

    @property
    def password(self) -> str:
        return self.world.password

    @property
    def complaints(self) -> list[str]:
        """What was sent that no correct client sends; ``xapi`` fails a test that ends with any."""
        return self.world.complaints

    @property
    def networks(self) -> Sequence[str]:
        return self.build.networks

    def connect(self, uri: str = "") -> Any:
        """A session of the real client package, logged in; it ends with ``logout``."""
        from XenAPI import Session

        found = Session(uri or self.uri, transport=self.transport())
        found.login_with_password(self.user, self.password, "1.0", "test")
        return found

    def transport(self) -> Any:
        """For the client package: trusts the peer's CA, and knows a deadline."""
        from xmlrpc.client import SafeTransport

        class Transport(SafeTransport):
            def make_connection(self, host: Any) -> Any:
                made = super().make_connection(host)
                made.timeout = 30
                return made

        return Transport(context=ssl.create_default_context(cafile=str(self.ca)))

    # ---- behind the driver's back

    def get(self, cls: str, ref: str) -> Record:
        """A record as clients would get it."""
        with self.world.store.lock:
            return self.world.store.record(cls, ref)

    def find(self, cls: str, **having: Any) -> list[str]:
        with self.world.store.lock:
            return self.world.store.refs(cls, **having)

    def set(self, cls: str, ref: str, **values: Any) -> None:
        """Change fields, whatever the rules say: as the world does by itself."""
        with self.world.store.lock:
            self.world.store.put(cls, ref, **values)

    def vm(self, name: str) -> str:
        """The VM of that name."""
        with self.world.store.lock:
            return self.world.store.named("VM", name)

    def pif(self, device: str, host: int = 0) -> str:
        """The physical interface of that name."""
        (found,) = self.find("PIF", device=device, host=self.hosts[host], VLAN="-1")
        return found

    def carrier(self, device: str, *, up: bool) -> None:
        """Plug or pull the cable of the first host's NIC."""
        metrics = self.get("PIF", self.pif(device))["metrics"]
        speed = {"speed": "1000" if up else "0", "duplex": up}
        self.set("PIF_metrics", metrics, carrier=up, **speed)

    def bond(self, *devices: str) -> str:
        """Bond NICs of the first host on a network of its own; gives the bond."""
        with self.world.store.lock:
            store = self.world.store
            network = store.new("network", name_label="Bond", bridge="xapi9")
            slaves = [self.pif(device) for device in devices]
            first = store.get("PIF", slaves[0])
            master = store.new(
                "PIF", device="bond0", network=network, host=self.hosts[0], MAC=first["MAC"],
                MTU="1500", VLAN="-1", metrics=first["metrics"], currently_attached=True,
            )  # fmt: skip
            bond = store.new("Bond", master=master, primary_slave=slaves[0], links_up="2")
            for slave in slaves:
                store.put("PIF", slave, bond_slave_of=bond, currently_attached=False)
            return bond

    def vlan(self, device: str, tag: int) -> str:
        """Put a VLAN onto a NIC of the first host; gives its network."""
        with self.world.store.lock:
            network = self.world.store.new("network", name_label=f"VLAN {tag}", bridge=f"xapi{tag}")
            self.rooms.nets.create_vlan(self.pif(device), str(tag), network)
            return network

    def foreign_vm(
        self, name: str, network: str = "", *, running: bool = False, **values: Any
    ) -> str:
        """Somebody else's VM, with a disk, and a VIF where a network is named."""
        with self.world.store.lock:
            vm = self.build.vm(name, **values)
            self.build.disk(vm, self.sr)
            if network:
                self.build.vif(vm, network)
            if running:
                self.rooms.power.start(vm, False, False)
            return vm

    def dom0(self, host: int = 0) -> Dom0:
        """The shell of a host: ``run("xl", ["info"])`` gives code, output and errors."""
        return Dom0(self.world, self.hosts[host], self.rooms.hosts)

    def stop(self, vm: str) -> None:
        """The guest goes off by itself."""
        with self.world.store.lock:
            self.rooms.power.stop(vm)

    def fill(self, free: int = 0) -> None:
        """Let the storage have only so many bytes left."""
        used = int(self.get("SR", self.sr)["physical_utilisation"])
        self.set("SR", self.sr, physical_size=str(used + free))

    def reboot(self, host: int = 0) -> None:
        """As when somebody presses the button."""
        with self.world.store.lock:
            self.rooms.hosts.go_down(self.hosts[host])

    def sessions(self) -> list[Record]:
        with self.world.store.lock:
            return [*self.world.store.tables["session"].values()]

    def tasks(self) -> list[Record]:
        with self.world.store.lock:
            return [*self.world.store.tables["task"].values()]

    def expire(self) -> None:
        """End all sessions, as an idle time or a restart of the toolstack does."""
        with self.world.store.lock:
            self.rooms.sessions.end_all()

    def inventory(self) -> Inventory:
        """All that there is, to be the same after as before: records, and what is in force."""
        store = self.world.store
        with store.lock:
            found: Inventory = {
                cls: {
                    ref: {k: v for k, v in store.record(cls, ref).items() if k not in FLEETING}
                    for ref in sorted(table)
                }
                for cls, table in store.tables.items() if cls not in UNSEEN
            }  # fmt: skip
            found["xen"] = {
                xen.name: {
                    "configured": sorted(xen.configured), "running": sorted(xen.running),
                    "backend": (xen.backend, xen.next_backend),
                    "dom0": copy.deepcopy(xen.domains.get(0)), "irqs": dict(xen.irqs),
                    "irqbalance": (xen.balancing, xen.balances),
                }
                for xen in self.world.xens.values()
            }  # fmt: skip
            found["disks"] = dict(sorted(self.world.disks.items()))
            return found


@contextmanager
def xapi(
    addresses: Sequence[str] = ("127.0.0.1",), *, expired: bool = False,
    checked: bool = True, world: World | None = None,
    before: Callable[[Builder], None] = lambda _builder: None, **host: Any,
) -> Iterator[Peer]:  # fmt: skip
    """A pool with a host at each of these loopback addresses, all on one port; the first is master.

    ``host``: cpus, memory_mib, pnics, hvm, licence (premium, free), sr_gib. ``expired``: its
    certificate is. Ends with an AssertionError where there were complaints, unless not ``checked``.
    """
    world = world or World()
    peer = _peer(world, addresses, before, host)
    with tempfile.TemporaryDirectory(prefix="pvxapi-") as name:
        made = certs.make(Path(name), addresses[0], expired=expired, also=addresses[1:])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.cert, made.key)
        peer.ca, peer.fingerprint = made.ca, made.fingerprint
        doors = _doors(peer, addresses, context)
        port = doors[0].address[1]
        peer.doors, peer.uris = doors, [f"https://{address}:{port}" for address in addresses]
        peer.uri = peer.uris[0]
        by_host = dict(zip(peer.hosts, doors, strict=True))
        world.power.append(lambda ref, on: by_host[ref].open() if on else by_host[ref].shut())
        for door in doors:
            door.open()
        try:
            yield peer
        finally:
            peer.wire.calm()
            world.end()
            for door in doors:
                door.close()
    assert not (checked and world.complaints), "\n".join(world.complaints)


def _peer(
    world: World, addresses: Sequence[str], before: Callable[[Builder], None], host: dict[str, Any]
) -> Peer:  # fmt: skip
    sessions, disks, nets = Sessions(world), Disks(world), Nets(world)
    power = Power(world, disks, nets)
    hosts = Hosts(world, power, sessions)
    copies, settings = Copies(world, disks, power), Settings(world)
    calls = Calls(world, sessions, (sessions, disks, nets, power, hosts, copies, settings))
    build = Builder(world, hosts)
    with world.store.lock:
        refs = build.pool(addresses, **host)
        sr = world.pool["default_SR"]
        build.templates(sr)
        before(build)
    if type(world.machines).__name__ == "NoMachines":
        world.machines = Imagined(world)
    rooms = Rooms(sessions, disks, nets, power, hosts, calls)
    return Peer("", (), Path(), "", world, Wire(), build, rooms, refs, sr)


def _doors(peer: Peer, addresses: Sequence[str], context: ssl.SSLContext) -> list[Door]:
    """One for each host, all on the port that the first gets."""
    found: list[Door] = []
    for host, address in zip(peer.hosts, addresses, strict=True):
        answers = Answers(peer.world, host, addresses[0], peer.rooms, peer.wire)
        port = found[0].address[1] if found else 0
        found.append(Door(address, port, context, answers.dispatch, answers.upload))
    return found
