"""Killed before and after every request to the host: down leaves nothing of ours, up goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hyperv.bed import LAN
from tests.hyperv.day import down, up
from tests.peers.hyperv.peer import Peer, hyperv_host
from tests.peers.wsman.endpoint import Request, Trouble

END_S = 120
#: a process of its own, without the threads of ours
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.hyperv.day"])


def dies(peer: Peer, work: Callable[..., None], folder: Path, number: int, *, after: bool) -> bool:
    """Whether the work came to its Nth request, at which it is killed."""
    child = CONTEXT.Process(target=work, args=(peer.uri, peer.user, peer.password, folder))

    def kill() -> None:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    def hook(request: Request) -> Trouble | None:
        if request.number != number:
            return None
        if not after:
            kill()
        return Trouble(acts=after, answer="drop", then=kill if after else None)

    peer.endpoint.calm()
    peer.endpoint.hook = hook
    child.start()
    child.join(END_S)
    peer.endpoint.calm()
    assert child.exitcode in (0, -signal.SIGKILL), f"{number}: {child.exitcode}"
    return child.exitcode != 0


@pytest.fixture
def peer() -> Iterator[Peer]:
    with hyperv_host() as found:
        found.foreign_switch(LAN)
        yield found


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_at_every_request_of_up(peer: Peer, tmp_path: Path, after: bool) -> None:
    known, before, number = (peer.uri, peer.user, peer.password, tmp_path), peer.inventory(), 1
    while dies(peer, up, tmp_path, number, after=after):
        if number % 4 == after:  # at some here, at others with the other parameter
            up(*known)
            assert [m.name for m in peer.world.machines] == ["bed-vm1"], number
            assert peer.vm("bed-vm1").state == "Running"
        down(*known)
        assert _lasting(peer) == _of(before), number
        number += 1
    down(*known)
    assert _lasting(peer) == _of(before)
    assert number > 6


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_at_every_request_of_down(peer: Peer, tmp_path: Path, after: bool) -> None:
    known, before, number = (peer.uri, peer.user, peer.password, tmp_path), peer.inventory(), 1
    up(*known)
    while dies(peer, down, tmp_path, number, after=after):
        down(*known)
        assert _lasting(peer) == _of(before), number
        number += 1
        up(*known)
    assert _lasting(peer) == _of(before)
    assert number > 4


def _lasting(peer: Peer) -> dict[str, object]:
    return _of(peer.inventory())


def _of(inventory: dict[str, object]) -> dict[str, object]:
    """All but folders that Windows and the driver keep for whoever comes next."""
    files = inventory["files"]
    assert isinstance(files, list)
    kept = [f for f in files if "." in f.rpartition("\\")[2]]
    return {**inventory, "files": kept}
