"""A peer has a driver, and ways to act behind its back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from provision.driver import Driver
from provision.host import Host
from provision.resources import Guest, Resource, Switch, Uplink, Vnic
from provision.seed import Identity, identity

TESTBED = "contract"


@dataclass(frozen=True)
class Peer:
    """A running peer. ``switches`` has what the guest needs, the data switch last; () = no switch.

    ``uplink`` is None where uplinks have no state of their own; ``other_mtu`` is one that it takes.
    ``second`` is what another NIC of the guest stands on, by default the first of the switches.
    """

    driver: Driver
    uplink: Uplink | None
    switches: tuple[Switch, ...]
    guest: Guest
    other_guests: tuple[Guest, ...]
    stop: Callable[[Guest], None]
    foreign: Callable[[Resource], AbstractContextManager[Callable[[], bool]]]
    other_mtu: int = 1400
    second: str = ""


@dataclass(frozen=True)
class PeerType:
    """How a peer is started; ``marks`` are pytest's."""

    name: str
    start: Callable[[Path], AbstractContextManager[Peer]]
    marks: tuple[pytest.MarkDecorator, ...] = ()


def resources(uplink: str, **guest: object) -> tuple[Uplink, tuple[Switch, ...], Guest]:
    """An uplink, the two switches and a guest of the least size; ``guest`` overrides its fields."""
    switches = (Switch("pvcontractm"), Switch("pvcontractb", uplink=uplink))
    small = Guest(
        "vm1", vcpus=1, memory_mib=512, image="", accel="none",
        management=Vnic("pvcontractm", "virtio", "52:54:00:aa:00:01", "198.19.250.10/24"),
        nics=(Vnic("pvcontractb", "virtio", "52:54:00:aa:00:02", "198.18.250.2/24"),),
    )  # fmt: skip
    return Uplink(uplink), switches, replace(small, **guest)  # type: ignore[arg-type]


def variants(guest: Guest) -> tuple[Guest, ...]:
    """The guest with one thing changed, live or by a restart."""
    nic = guest.nics[0]
    return (
        replace(guest, weight=512),
        replace(guest, cap_percent=50),
        replace(guest, pins=("0",)),
        replace(guest, vcpus=2),
        replace(guest, nics=(replace(nic, model="e1000"),)),
    )


def who(guest: Guest) -> Identity:
    """An identity that nobody logs in with."""
    pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    return identity(guest, "ssh-ed25519 AAAA", pem)


@contextmanager
def cabled(host: Host, *names: str) -> Iterator[None]:
    """Uplinks on the host: each one end of a veth pair."""
    names = names or ("pvcontractu",)
    for name in names:
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}f")
    try:
        yield
    finally:
        for name in names:
            host.run("ip", "link", "del", name, check=False)
