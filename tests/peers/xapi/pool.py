"""Starting the peer: rooms, hosts, their certificate, and their doors."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.peers import certs
from tests.peers.xapi.agents import Imagined
from tests.peers.xapi.answers import Answers, Rooms
from tests.peers.xapi.build import Builder
from tests.peers.xapi.calls import Calls
from tests.peers.xapi.copies import Copies
from tests.peers.xapi.core import NoMachines, World
from tests.peers.xapi.disks import Disks
from tests.peers.xapi.hosts import Hosts
from tests.peers.xapi.nets import Nets
from tests.peers.xapi.peer import Peer
from tests.peers.xapi.power import Power
from tests.peers.xapi.server import Door, Where
from tests.peers.xapi.sessions import Sessions
from tests.peers.xapi.settings import Settings
from tests.peers.xapi.wire import Wire

Inside = Callable[[Callable[[], Any]], Any]


@contextmanager
def xapi(
    addresses: Sequence[str] = ("127.0.0.1",), *, port: int = 0, inside: Inside = lambda w: w(),
    expired: bool = False, checked: bool = True, world: World | None = None,
    before: Callable[[Builder], None] = lambda _builder: None, **host: Any,
) -> Iterator[Peer]:  # fmt: skip
    """A pool with a host at each of these loopback addresses, all on one port; the first is master.

    ``port`` 0 is a free one; ``inside`` calls things in the namespace that has the addresses;
    ``before`` adds to the pool before anybody is let in. ``host``: cpus, memory_mib, pnics, hvm,
    licence (premium, free), sr_gib, sr_kind. ``expired``: its certificate is. Ends with an
    AssertionError where there were complaints, unless not ``checked``.
    """
    world = world or World()
    peer = _peer(world, addresses, before, host)
    with tempfile.TemporaryDirectory(prefix="pvxapi-") as name:
        made = certs.make(Path(name), addresses[0], expired=expired, also=addresses[1:])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.cert, made.key)
        peer.ca, peer.fingerprint = made.ca, made.fingerprint
        doors = _doors(peer, [Where(one, port, inside) for one in addresses], context)
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
    if type(world.machines) is NoMachines:
        world.machines = Imagined(world)
    rooms = Rooms(sessions, disks, nets, power, hosts, calls)
    return Peer("", (), Path(), "", world, Wire(), build, rooms, refs, sr)


def _doors(peer: Peer, places: Sequence[Where], context: ssl.SSLContext) -> list[Door]:
    """One for each host, all on the port that the first gets."""
    found: list[Door] = []
    for host, place in zip(peer.hosts, places, strict=True):
        answers = Answers(peer.world, host, places[0].address, peer.rooms, peer.wire)
        where = replace(place, port=found[0].address[1]) if found else place
        found.append(Door(where, context, answers.dispatch, answers.upload))
    return found
