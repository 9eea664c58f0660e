"""The cables of an ESXi host that stands on a test's desk, in two namespaces of no name.

A namespace lives as long as the process that holds it, so a test that is killed leaves none.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2s
from ipaddress import IPv4Interface, IPv4Network
from threading import RLock
from typing import Any

from provision.host import DIE_WITH_US, Host

HERE = Host()
#: sysfs and /run/netns are those of the namespace itself, as on a machine of its own
HOLD = (
    "mount -t sysfs sysfs /sys && mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns"
    " && ip link set lo up && echo ready && exec cat"
)
Switches = Sequence[Mapping[str, Any]]  # as in govcsim/events.go


@contextmanager
def machine(name: str) -> Iterator[Host]:
    """Network and mounts of a machine of its own; the thread that makes it must outlive it."""
    with subprocess.Popen(
        [*DIE_WITH_US, "unshare", "--net", "--mount", "sh", "-c", HOLD],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "ready\n", f"{name}: no namespace (needs root)"
            yield Host(name, ("nsenter", "-t", str(holder.pid), "-n", "-m", "--"))
        finally:
            holder.kill()


@dataclass(frozen=True)
class Wires:
    """The host's NICs vmnic0… are in ``esx``, what they are plugged into in ``generator``.

    vmnic0's far end is here, with the address ``controller``; vmnicN's is lgN there.
    """

    esx: Host
    generator: Host
    controller: IPv4Interface
    generator_address: str
    lock: RLock = field(default_factory=RLock, repr=False)

    def sync(self, switches: Switches) -> None:
        """Make the bridges as the host's vSwitches are, each with its uplinks and no other."""
        with self.lock:
            links = self.esx.json("ip", "-j", "link")
            wanted = {bridge(switch["name"]): switch for switch in switches}
            lines = []
            for link in links:
                name = link["ifname"]
                if name.startswith("b-") and name not in wanted:
                    lines.append(f"link del {name}")
                if name.startswith("vmnic"):
                    lines.append(f"link set {name} nomaster up")
            there = {link["ifname"] for link in links}
            for name, switch in wanted.items():
                if name not in there:
                    lines.append(f"link add {name} type bridge mcast_snooping 0")
                for uplink in switch["uplinks"]:
                    lines.append(f"link set {uplink} mtu {switch['mtu']} master {name}")
                lines += [
                    f"link set {link['ifname']} mtu {switch['mtu']}"
                    for link in links
                    if link.get("master") == name and link["ifname"].startswith("t")
                ]
                lines.append(f"link set {name} mtu {switch['mtu']} up")
            self.batch(lines)

    def plug(self, tap: str, group: str, switches: Switches) -> None:
        """Make a vNIC's tap on the switch that its port group is on, shaped as the group says."""
        with self.lock:
            self.batch([f"tuntap add {tap} mode tap", f"link set {tap} up"])
            self.move(tap, group, switches)

    def move(self, tap: str, group: str, switches: Switches) -> None:
        """Put a tap that is there on a port group's switch, or on none."""
        with self.lock:
            self._remove(f"{tap}s")
            self.batch([f"link set {tap} nomaster"])
            for switch in switches:
                for found in switch["groups"]:
                    if found["name"] == group:
                        assert found["vlan"] == 0, f"{group}: VLANs are not simulated"
                        self._join(tap, bridge(switch["name"]), switch["mtu"], found["bits"])

    def _join(self, tap: str, switch: str, mtu: int, bits: int) -> None:
        """A standard vSwitch shapes what a guest sends and nothing else, so a cable stands between.

        Its end at the guest has the queue; a guest's frames leave there.
        """
        lines = [f"link set {tap} mtu {mtu}"]
        if not bits:
            self.batch([*lines, f"link set {tap} master {switch}"])
            return
        small, near, far = (f"{tap}s{end}" for end in "bnf")
        self.batch([
            *lines,
            f"link add {small} type bridge mcast_snooping 0",
            f"link add {near} mtu {mtu} type veth peer name {far} mtu {mtu}",
            f"link set {near} master {small} up", f"link set {far} master {switch} up",
            f"link set {tap} master {small}", f"link set {small} mtu {mtu} up",
        ])  # fmt: skip
        rate = ("rate", f"{bits}bit", "burst", "64k", "latency", "50ms")
        self.esx.run("tc", "qdisc", "add", "dev", near, "root", "tbf", *rate)

    def unplug(self, prefix: str) -> None:
        """Remove all taps whose names begin so, and what shaped them."""
        with self.lock:
            self._remove(prefix)

    def _remove(self, prefix: str) -> None:
        names = [link["ifname"] for link in self.esx.json("ip", "-j", "link")]
        # a cable's far end goes with its near one
        gone = [n for n in names if n.startswith(prefix) and not n.endswith("sf")]
        self.batch([f"link del {name}" for name in gone])

    def batch(self, lines: Sequence[str]) -> None:
        if lines:
            self.esx.run("ip", "-batch", "-", input="".join(f"{line}\n" for line in lines))


def bridge(switch: str) -> str:
    """The name of the bridge that is that vSwitch."""
    return f"b-{blake2s(switch.encode(), digest_size=5).hexdigest()}"


@contextmanager
def subnets() -> Iterator[tuple[IPv4Network, IPv4Network]]:
    """Two that no other lab of this machine has: a /24 and a /30."""
    for third in range(200, 240, 2):
        with socket.socket(socket.AF_UNIX) as mark:
            try:
                mark.bind(f"\0pvx-198.19.{third}")  # a name that ends with the process
            except OSError:
                continue
            yield IPv4Network(f"198.19.{third}.0/24"), IPv4Network(f"198.19.{third + 1}.0/30")
            return
    raise AssertionError("no subnet is free for another lab")


@contextmanager
def wires(pnics: int, management: IPv4Network, between: IPv4Network) -> Iterator[Wires]:
    """Lay them; ``management`` is vmnic0's net, ``between`` leads to the generator's own NIC."""
    tag = f"pvx{secrets.token_hex(3)}"
    with machine("esx") as esx, machine("generator") as generator:
        try:
            cable((HERE, f"{tag}c"), (esx, "vmnic0"))
            controller = IPv4Interface((next(management.hosts()), management.prefixlen))
            give_address(HERE, f"{tag}c", controller)
            cable((HERE, f"{tag}g"), (generator, "mgmt"))
            near, far = (IPv4Interface((a, between.prefixlen)) for a in [*between.hosts()][:2])
            give_address(HERE, f"{tag}g", near)
            give_address(generator, "mgmt", far)
            for number in range(1, pnics):
                cable((generator, f"lg{number}"), (esx, f"vmnic{number}"))
            yield Wires(esx, generator, controller, str(far.ip))
        finally:
            # its other end would go too, but only some time after the namespace
            for end in ("c", "g"):
                HERE.run("ip", "link", "del", f"{tag}{end}", check=False)


def cable(here: tuple[Host, str], there: tuple[Host, str]) -> None:
    pid = there[0].prefix[2]
    words = ["ip", "link", "add", here[1], "type", "veth", "peer", "name", there[1], "netns", pid]
    here[0].run(*words)
    for host, nic in (here, there):
        host.run("sysctl", "-qw", f"net.ipv6.conf.{nic}.disable_ipv6=1")


def give_address(host: Host, nic: str, address: IPv4Interface) -> None:
    host.run("ip", "addr", "add", str(address), "dev", nic)
    host.run("ip", "link", "set", nic, "up")
