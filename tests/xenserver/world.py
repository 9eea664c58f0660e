"""What a test of the driver does of a XenServer peer behind the driver's back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provision.resources import Guest, Resource
from tests.peers.xapi import Peer


@contextmanager
def foreign(peer: Peer, testbed: str, thing: Resource) -> Iterator[Callable[[], bool]]:
    """Something of somebody else's that has the thing's name; asks whether it is untouched."""
    if isinstance(thing, Guest):
        cls, ref = "VM", peer.foreign_vm(f"{testbed}-{thing.name}")
    else:
        cls, ref = "network", peer.find("network", bridge="xenbr4")[0]
    name = peer.get(cls, ref)["name_label"]
    if cls == "network":
        peer.put(cls, ref, name_label=thing.name)
    before = peer.get(cls, ref)
    yield lambda: peer.get(cls, ref) == before
    if cls == "VM":
        client = peer.connect()
        client.xenapi.VM.destroy(ref)
        client.xenapi.session.logout()
    else:
        peer.put(cls, ref, name_label=name)
