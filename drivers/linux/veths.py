"""NICs of OS-level guests: veth pairs from the host into a network namespace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drivers.linux.links import Link, mark, staged
from drivers.linux.script import Script
from provision.errors import Foreign
from provision.resources import Vnic

ARP = {"arp_ignore": 1, "arp_announce": 2, "arp_notify": 1}


@dataclass(frozen=True, slots=True)
class Veth:
    """``tap`` is the host's end, ``name`` the guest's."""

    tap: str
    name: str
    vnic: Vnic


def make(script: Script, testbed: str, namespace: str, veth: Veth) -> None:
    """The host's end gets its name last: under it, it bears our mark, and all inside is so."""
    stage, vnic = staged(testbed, veth.tap), veth.vnic
    script.ip("link", "add", stage, "type", "veth", "peer", "name", veth.name, "netns", namespace)
    script.ip("link", "set", stage, "alias", mark(testbed), "mtu", str(vnic.mtu))
    script.write(f"/proc/sys/net/ipv6/conf/{stage}/disable_ipv6", 1)
    words = ["mtu", str(vnic.mtu), *(["address", vnic.mac] if vnic.mac else [])]
    script.ip("link", "set", veth.name, *words, inside=namespace)
    for setting, value in ARP.items():
        path = f"/proc/sys/net/ipv4/conf/{veth.name}/{setting}"
        script.run_words("ip", "netns", "exec", namespace, "sh", "-c", f"echo {value} > {path}")
    script.ip("addr", "add", vnic.address, "dev", veth.name, inside=namespace)
    script.ip("link", "set", veth.name, "up", inside=namespace)
    script.ip("link", "set", stage, "name", veth.tap)


def remove(
    script: Script, testbed: str, taps: Iterable[str], there: dict[str, Link], host: str
) -> None:
    """Both ends of each, and what was left half made. Raises Foreign for a name without our mark.

    The name is another's before anything is removed.
    """
    taps = list(taps)
    refuse(testbed, taps, there, host)
    for tap in taps:
        for name in (staged(testbed, tap), tap):
            if name in there:
                script.ip("link", "del", name)


def refuse(testbed: str, taps: Iterable[str], there: dict[str, Link], host: str) -> None:
    """Raises Foreign where a link of such a name lacks our mark."""
    for tap in taps:
        if tap in there and there[tap].alias != mark(testbed):
            raise Foreign(f"{tap} exists on {host} without our mark", hint=f"ip -d link show {tap}")
