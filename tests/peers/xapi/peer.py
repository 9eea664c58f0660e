"""The peer as tests use it: to act behind a driver's back, and to compare before with after."""

from __future__ import annotations

import copy
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.xapi.answers import Rooms
from tests.peers.xapi.build import Builder
from tests.peers.xapi.core import World
from tests.peers.xapi.dom0 import Dom0
from tests.peers.xapi.server import Door
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

    def put(self, cls: str, ref: str, **values: Any) -> None:
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
        self.put("PIF_metrics", metrics, carrier=up, **speed)

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
        self.put("SR", self.sr, physical_size=str(used + free))

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
                cls: {ref: _lasting(store.record(cls, ref)) for ref in sorted(table)}
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


def _lasting(record: Record) -> Record:
    found = {name: value for name, value in record.items() if name not in FLEETING}
    if "other_config" in found:
        found["other_config"] = {
            k: v for k, v in found["other_config"].items() if k not in ("boot_time",)
        }
    return found
