"""Killed while the host is restarted for the root partition's CPUs: up goes on, down puts back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from tests.hyperv.day import down, restart
from tests.hyperv.test_killed import CONTEXT, END_S
from tests.peers.hyperv.peer import Peer, hyperv_host
from tests.peers.hyperv.world import Doing

CPUS = "hypervisorrootproc"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setattr("drivers.hyperv.boot.PAUSE_S", 0.1)
    with hyperv_host() as found:
        yield found


def setting(doing: Doing) -> bool:
    return doing.name == "bcdedit" and "/set" in doing.values["words"]


def restarting(doing: Doing) -> bool:
    return doing.name == "Restart-Computer"


@pytest.mark.parametrize("when", [setting, restarting])
def test_up_goes_on_and_down_puts_back(
    peer: Peer, tmp_path: Path, when: Callable[[Doing], bool]
) -> None:
    """What was asked of the host when we died, it does all the same."""
    known = (peer.uri, peer.user, peer.password, tmp_path)
    before, boots = peer.inventory(), peer.world.boots
    child = CONTEXT.Process(target=restart, args=known)
    killed = Event()

    def hold(doing: Doing) -> None:
        if when(doing) and not killed.is_set():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            killed.set()

    peer.world.hold = hold
    child.start()
    child.join(END_S)
    assert (killed.is_set(), child.exitcode) == (True, -signal.SIGKILL)
    asked = int(when is restarting)

    def done() -> bool:
        return peer.world.boot.get(CPUS) == "2" and peer.world.boots == boots + asked

    for _ in range(200):
        if done() and not peer.restarting.is_set():
            break
        Event().wait(0.05)  # the host tells nobody
    assert done()
    restart(*known)
    assert peer.world.booted[CPUS] == "2"
    assert peer.world.boots == boots + 1  # not once more than needed
    down(*known)
    assert CPUS not in peer.world.booted
    assert peer.world.boots == boots + 2
    assert peer.inventory() == before
