"""What tests of the Hyper-V driver need: a driver on a peer, and things that are another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from drivers.hyperv.driver import Hyperv
from drivers.hyperv.wire import Limits
from provision.driver import Login, Target, Tls
from provision.resources import Guest, Resource, Switch, Vnic
from tests.contract.peer import who
from tests.peers.hyperv.peer import PARENT, Peer

TESTBED, LAN = "bed", "lan"
DISKS = "C:\\Beds"


def target(peer: Peer, **more: Any) -> Target:
    """Where a driver for the testbed works; ``more`` overrides."""
    found = Target(
        TESTBED, Path("/nowhere"), peer.uri, identity=who, tag="abcd",
        login=Login(peer.user, lambda: peer.password), tls=Tls(ca=peer.ca),
    )  # fmt: skip
    return replace(found, **more)


@contextmanager
def driver(peer: Peer, limits: Limits | None = None, **more: Any) -> Iterator[Hyperv]:
    """One that is closed whatever happens."""
    found = Hyperv(target(peer, **more), limits)
    try:
        yield found
    finally:
        found.close()


def switch(number: int = 1, **more: Any) -> Switch:
    """The guest's own of that number, on the free adapter that comes next."""
    return replace(Switch(f"pvabcdb{number}", "vswitch", f"Ethernet {number + 1}"), **more)


def guest(number: int = 1, **more: Any) -> Guest:
    """A guest with a synthetic adapter on its switch."""
    first, second = (f"00:15:5d:00:{number:02x}:0{n}" for n in (0, 1))
    return replace(
        Guest(
            f"vm{number}", vcpus=1, memory_mib=512, image=PARENT, accel="hyperv",
            management=Vnic(LAN, "synthetic", first, f"198.19.250.{number + 9}/24"),
            nics=(Vnic(f"pvabcdb{number}", "synthetic", second, f"198.18.{number}.2/24"),),
        ), **more
    )  # fmt: skip


@contextmanager
def foreign(peer: Peer, testbed: str, thing: Resource) -> Iterator[Callable[[], bool]]:
    """A thing of that name without our mark, for a while; whether it is as it was."""
    world = peer.world
    some: list[Any]
    if isinstance(thing, Guest):
        one: Any = peer.foreign_vm(f"{testbed}-{thing.name}")
        some = world.machines
    else:
        assert isinstance(thing, Switch)
        one, some = peer.foreign_switch(thing.name), world.switches
    before = peer.inventory()
    yield lambda: one in some and peer.inventory() == before
    with world.lock:
        some.remove(one)
