"""Guests that answer: what the pool starts is a namespace, on the bridges of its VIFs' networks.

A VM's disk is a folder by its VDI, which clones, snapshots and reverts copy; its seed is what the
VM was handed over. A guest that is resumed boots anew: there is no memory to come back to.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from provision.errors import ProvisionError
from provision.host import Host
from provision.seed import Identity
from tests.peers.nsguest import Card, Hardware, NsGuest
from tests.peers.xapi import agents
from tests.peers.xapi.core import NoMachines, World
from tests.peers.xapi.store import Record

HERE = Host()
FAULTS = (AssertionError, OSError, ProvisionError)
#: the driver and the PCI ids that a guest sees of each model
SEEN = {
    "netfront": ("vif", ""), "rtl8139": ("8139cp", "10ec:8139"), "e1000": ("e1000", "8086:100e"),
}  # fmt: skip
KBYTES = 8 / 1000  # "kbps" is in kilobytes a second


@dataclass
class _Running:
    guest: NsGuest
    hardware: Hardware
    devices: list[str]  # of its VIFs, in the order of its cards


@dataclass
class Guests(NoMachines):
    """All of one host; ``host`` has the bridges, ``folder`` the disks."""

    world: World
    host: Host
    folder: Path
    running: dict[str, _Running] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    count: int = 0

    def started(self, vm: str) -> None:
        store = self.world.store
        record = store.get("VM", vm)
        disks = [v for _, v in store.each("VBD", VM=vm, type="Disk", bootable=True)]
        if not disks:
            return  # nothing boots
        try:
            who = agents.identity(self.world, vm)
            cards = agents.cards(store, vm)
            hardware = Hardware(
                int(record["VCPUs_at_startup"]), int(record["memory_static_max"]) >> 20,
                tuple(self._card(vm, card) for card in cards),
            )  # fmt: skip
        except (*FAULTS, ValueError, KeyError) as e:
            self.world.complain(f"{record['name_label']}: what it was handed over: {e}")
            return
        self.count += 1
        guest = NsGuest(f"xg{self.count}", self._disk(disks[0]["VDI"]), self.host)
        self.running[vm] = _Running(guest, hardware, [card.device for card in cards])
        agent = all(card.model == "netfront" for card in cards)
        boot = partial(self._boot, vm, guest, hardware, who, agent)
        thread = threading.Thread(target=boot, name=record["name_label"], daemon=True)
        self.threads.append(thread)
        thread.start()

    def _boot(
        self, vm: str, guest: NsGuest, hardware: Hardware, who: Identity | None, agent: bool
    ) -> None:  # fmt: skip
        try:
            guest.start(hardware, who)
        except RuntimeError:
            return  # stopped before it came to that
        except FAULTS as e:
            self.world.complain(f"{guest.console}: {e}")
            return
        addresses = {nic.mac: nic.address.split("/")[0] for nic in who.nics} if who else {}

        def speak() -> None:
            if agent and vm in self.running and self.running[vm].guest is guest:
                agents.report(self.world, vm, addresses)

        self.world.later(self.world.agent_s, speak)

    def _card(self, vm: str, card: agents.Card) -> Card:
        driver, pci = SEEN[card.model]
        vif = next(v for _, v in self.world.store.each("VIF", VM=vm, device=card.device))
        self._bridge(card.bridge, self.world.store.get("network", vif["network"]))
        return Card(card.mac, card.bridge, driver, pci, _rate(vif))

    def _bridge(self, name: str, network: Record) -> None:
        """It is there, with the MTU of its network."""
        there = {link["ifname"]: link for link in self.host.json("ip", "-j", "link")}
        lines = [] if name in there else [f"link add {name} type bridge mcast_snooping 0"]
        ports = [n for n, link in there.items() if link.get("master") == name]
        lines += [f"link set {n} mtu {network['MTU']}" for n in ports if n.startswith("eth")]
        lines.append(f"link set {name} mtu {network['MTU']} up")
        self.host.run("ip", "-batch", "-", input="".join(f"{line}\n" for line in lines))

    def stopped(self, vm: str) -> None:
        if found := self.running.pop(vm, None):
            self._try(found.guest.close)

    def changed(self, vm: str) -> None:
        """Cables of a guest that runs; cards that come and go are not simulated."""
        if (found := self.running.get(vm)) is None:
            return
        bridges = {card.device: card.bridge for card in agents.cards(self.world.store, vm)}
        if strange := bridges.keys() - {*found.devices}:
            self.world.complain(f"VIFs {sorted(strange)} plugged into a guest that runs")
        for number, device in enumerate(found.devices):
            self._try(partial(found.guest.plug, number, bridges.get(device)))

    def disk(self, verb: str, vdi: str, other: str = "") -> None:
        if verb == "destroy":
            shutil.rmtree(self._disk(vdi), ignore_errors=True)
        elif (root := self._disk(vdi) / "root").exists():
            self._disk(other).mkdir(parents=True)
            self._try(lambda: HERE.run("cp", "-a", str(root), str(self._disk(other) / "root")))

    def _disk(self, vdi: str) -> Path:
        return self.folder / vdi.removeprefix("OpaqueRef:")

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except FAULTS as e:
            self.world.complain(f"guest: {e}")

    def end(self) -> None:
        """Stop all, and wait for those that were starting."""
        for vm in [*self.running]:
            self.stopped(vm)
        for thread in self.threads:
            thread.join(60)


def _rate(vif: Record) -> int | None:
    """What the VIF's rate limit comes to; what cannot be read is no limit."""
    if vif["qos_algorithm_type"] != "ratelimit":
        return None
    try:
        return max(1, round(int(vif["qos_algorithm_params"]["kbps"]) * KBYTES))
    except (KeyError, ValueError):
        return None
