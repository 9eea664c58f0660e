"""What boots when a VM starts: a namespace, on the very NICs that its adapters are bridged to.

Who a guest is stands in the image in its DVD drive, what it is in its hardware. Where any of that
is wrong, something boots and nobody reaches it. As with VirtualBox's own filter, nothing of it
shows on the host: a bridged adapter is a macvlan whose NIC alone is there. That memory is kept
cannot be had with namespaces, so a guest whose state was saved boots again.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from threading import Lock
from typing import Any

from provision.host import DIE_WITH_US, Host
from provision.seed import Identity
from tests.peers.nsguest import Card, Hardware, NsGuest, identity_of
from tests.peers.scratch import scratch
from tests.peers.vbox.service import Service, served
from tests.peers.vbox.world import Machine, Nic, Snapshot, World
from tests.peers.wires import Wires, give_address, subnets, wires

#: what each adapter is inside, as its emulation in VirtualBox's sources has it
SEEN = {
    "virtio": ("virtio_net", "1af4:1041"), "82540EM": ("e1000", "8086:100e"),
    "82543GC": ("e1000", "8086:1004"), "82545EM": ("e1000", "8086:100f"),
    "Am79C970A": ("pcnet32", "1022:2000"), "Am79C973": ("pcnet32", "1022:2000"),
}  # fmt: skip


class BridgedGuest(NsGuest):
    """A guest each of whose cards rides on a NIC of the host."""

    def _cable(self, inside: Host, number: int, card: Card, who: Identity | None) -> None:
        nic = next((n for n in (who.nics if who else ()) if n.mac == card.mac), None)
        name, pid = nic.name if nic else f"eth{number}", inside.prefix[2]
        assert card.bridge, "a card that rides on nothing"
        self._host.run(
            "ip", "link", "add", "link", card.bridge, "name", name, "address", card.mac,
            "netns", pid, "type", "macvlan", "mode", "bridge",
        )  # fmt: skip
        inside.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1",
                   f"net.ipv4.conf.{name}.arp_ignore=1",
                   f"net.ipv4.conf.{name}.arp_announce=2")  # fmt: skip
        if nic:
            lines = [f"addr add {nic.address} dev {name}", f"link set {name} mtu {nic.mtu} up"]
            inside.run("ip", "-batch", "-", input="".join(f"{line}\n" for line in lines))
        if card.rate_mbit:
            rate = ("rate", f"{card.rate_mbit}mbit", "burst", "64k", "latency", "50ms")
            inside.run("tc", "qdisc", "add", "dev", name, "root", "tbf", *rate)


@dataclass
class _Running:
    guest: BridgedGuest
    process: subprocess.Popen[bytes] | None = None


class Spaces:
    """Guests that run, on ``host``; each has a process whose command line is VirtualBox's."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host, self._folder = host, folder
        self._running: dict[str, _Running] = {}
        self._made, self._lock = 0, Lock()

    def start(self, machine: Machine) -> None:
        found = self._of(machine)
        found.guest.start(_hardware(machine), _identity(machine))
        found.process = subprocess.Popen(
            [*DIE_WITH_US, "bash", "-c", 'exec -a VBoxHeadless sh -c "read x" "$@"', "sh", "sh",
             "--comment", machine.name, "--startvm", machine.uuid],
            stdin=subprocess.PIPE, process_group=0,
        )  # fmt: skip

    def stop(self, machine: Machine) -> None:
        self._end(self._of(machine))

    def snapshot(self, machine: Machine, snapshot: Snapshot) -> None:
        self._of(machine).guest.snapshot(snapshot.uuid)

    def revert(self, machine: Machine, snapshot: Snapshot) -> None:
        self._of(machine).guest.revert(snapshot.uuid)

    def remove(self, machine: Machine) -> None:
        with self._lock:
            found = self._running.pop(machine.uuid, None)
        if found:
            self._end(found)
            found.guest.remove()

    def end(self) -> None:
        """Kill all guests."""
        for found in self._running.values():
            self._end(found)
            found.guest.close()

    def _end(self, found: _Running) -> None:
        found.guest.stop()
        if found.process is not None:
            found.process.communicate()  # its input ends
            found.process = None

    def _of(self, machine: Machine) -> _Running:
        with self._lock:
            if machine.uuid not in self._running:
                self._made += 1
                folder = self._folder / f"{self._made}"
                self._running[machine.uuid] = _Running(
                    BridgedGuest(f"vb{self._made}", folder, self._host)
                )
            return self._running[machine.uuid]


def _hardware(machine: Machine) -> Hardware:
    hw = machine.hardware
    cards = [_card(nic, hw.limits) for nic in hw.nics if nic.kind != "none"]
    return Hardware(hw.cpus, hw.memory, tuple(cards))


def _card(nic: Nic, limits: dict[str, tuple[str, int]]) -> Card:
    mac = ":".join(nic.mac[n : n + 2] for n in range(0, 12, 2)).lower()
    driver, pci_id = SEEN[nic.type]
    rate = limits[nic.limit][1] * 8 // 10**6 if nic.limit != "none" else None
    return Card(mac, nic.bridge if nic.kind == "bridged" else nic.hostonly, driver, pci_id, rate)


def _identity(machine: Machine) -> Identity | None:
    """Of the image in a DVD drive, if there is one."""
    for medium in machine.hardware.media.values():
        if medium.endswith(".iso"):
            return identity_of(Path(medium).read_bytes())
    return None


@dataclass
class VboxLab:
    """A host "vb7" whose guests boot; its NIC vmnic0 leads here, with the host's ``address``."""

    service: Service
    wires: Wires
    management: IPv4Network
    address: str
    spaces: Spaces


@contextmanager
def vbox_lab(base: str, nics: int = 3, **more: Any) -> Iterator[VboxLab]:
    """Start one; ``base`` is a VM with a snapshot. Needs root. Nothing that runs outlives us.

    vmnicN leads to lgN of the namespace ``wires.generator``.
    """
    with ExitStack() as stack:
        management, between = stack.enter_context(subnets())
        laid = stack.enter_context(wires(nics, management, between))
        host_at = IPv4Interface((management[2], management.prefixlen))
        give_address(laid.esx, "vmnic0", host_at)
        folder = stack.enter_context(scratch("pvx-vb-", Path("/var/tmp")))
        spaces = Spaces(laid.esx, folder / "guests")

        def interfaces() -> list[str]:
            return [link["ifname"] for link in laid.esx.json("ip", "-j", "link")]

        root = folder / "VirtualBox VMs"
        root.mkdir()
        world = World(root, interfaces, inside=spaces, **more)
        world.base(base)
        service = stack.enter_context(served(world, folder / "svc"))
        stack.callback(spaces.end)
        yield VboxLab(service, laid, management, str(host_at.ip), spaces)
