"""What a test of the driver sees and does of a vSphere peer behind the driver's back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from provision.resources import Guest, Resource
from tests.peers import oracle
from tests.peers.vcsim import vim


def named(si: Any, name: str) -> Any:
    """The VM of that name."""
    return oracle.all_of(si, vim.VirtualMachine)[name]


def network(si: Any) -> Any:
    return oracle.host(si).configManager.networkSystem


def switches(si: Any) -> dict[str, Any]:
    return {s.name: s for s in network(si).networkInfo.vswitch}


def inventory(si: Any) -> tuple[object, ...]:
    """All that there is, to be the same after as before."""
    info = network(si).networkInfo
    return (
        sorted((name, vm._moId) for name, vm in oracle.all_of(si, vim.VirtualMachine).items()),
        sorted((s.name, tuple(s.pnic), tuple(s.portgroup)) for s in info.vswitch),
        sorted(g.spec.name for g in info.portgroup),
        sorted(oracle.all_of(si, vim.Network)),
    )


@contextmanager
def foreign(si: Any, testbed: str, thing: Resource) -> Iterator[Callable[[], bool]]:
    """Something of somebody else's that has the thing's name; asks whether it is untouched."""
    if isinstance(thing, Guest):
        vm = oracle.create(si, f"{testbed}-{thing.name}")
        before = (vm._moId, str(vm.config.modified))

        def still() -> bool:
            found = named(si, f"{testbed}-{thing.name}")
            return (found._moId, str(found.config.modified)) == before

        yield still
        oracle.done(vm.Destroy_Task())
    else:
        net = network(si)
        net.AddVirtualSwitch(thing.name, oracle.bond())
        net.AddPortGroup(oracle.group("somebody's", thing.name))
        yield lambda: [*switches(si)[thing.name].portgroup] == ["key-vim.host.PortGroup-somebody's"]
        net.RemovePortGroup("somebody's")
        net.RemoveVirtualSwitch(thing.name)
