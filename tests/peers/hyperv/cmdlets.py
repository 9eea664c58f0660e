"""All cmdlets of the host by name: bound by the tables, then done under the host's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from tests.peers.hyperv import (
    adapters,
    binding,
    drives,
    items,
    machine,
    network,
    parts,
    snapshots,
    switches,
    vms,
)  # fmt: skip
from tests.peers.hyperv.world import Doing, World
from tests.peers.powershell.errors import Unsupported
from tests.peers.powershell.host import Call, Cmdlet

Work = Callable[[World, binding.Bound], Iterable[Any]]


@cache
def known() -> Mapping[str, Work]:
    """By names in lower case."""
    found: dict[str, Work] = {}
    for room in (adapters, drives, items, machine, network, parts, snapshots, switches, vms):
        for name, work in room.CMDLETS.items():
            found[name.lower()] = work
    return found


def find(world: World, name: str) -> Cmdlet | None:
    """None where the host has no such cmdlet, as far as we are told."""
    bare = name.lower().rpartition("\\")[2]
    bare = binding.ALIASES.get(bare, bare).lower()
    if bare not in known():
        if bare in binding.tables():
            raise Unsupported(f"{name} is in the tables, and nothing does it")
        return None

    def run(call: Call) -> Iterable[Any]:
        call.name = bare
        bound = binding.bind(call)
        with world.doing(Doing(bound.name, bound.values)):
            return [*known()[bare](world, bound)]

    return run
