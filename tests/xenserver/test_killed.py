"""Killed before and after calls that change something: down leaves nothing, and up goes on."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.xapi.wire import When
from tests.xenserver import day
from tests.xenserver.day import Bed
from tests.xenserver.work import WANTS, down, up

END_S = 120
#: a process of its own, without the threads of ours
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.xenserver.work"])


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """With somebody else's VM beside ours, on a NIC of its own."""
    with day.bed() as found:
        found.peer.foreign_vm("theirs", found.peer.networks[3], running=True)
        store = found.peer.world.store
        with store.lock:  # until its agent has reported
            assert store.changed.wait_for(lambda: found.peer.find("VM_guest_metrics"), 20)
        found.before = found.peer.inventory()
        yield found


Known = tuple[str, str, Path, Path]


@pytest.fixture
def known(bed: Bed, tmp_path: Path) -> Known:
    return bed.peer.uri, bed.peer.password, bed.peer.ca, tmp_path


def changing(bed: Bed, work: Callable[..., None], known: Known) -> int:
    """How many calls that change something the work takes, where nothing disturbs it."""
    bed.peer.wire.calm()
    work(*known)
    return len([call for call in bed.peer.wire.log if call.changes])


def dies(bed: Bed, work: Callable[..., None], known: Known, nth: int, when: When) -> bool:
    """Whether the work came to its Nth such call, at which it is killed."""
    child = CONTEXT.Process(target=work, args=known)
    trouble = bed.peer.wire.arm("changes", when=when, nth=nth, pid=1 << 22)
    child.start()  # it has to log in and to look before it changes anything
    assert child.pid is not None
    trouble.pid = child.pid
    child.join(END_S)
    bed.peer.wire.calm()
    assert child.exitcode in (0, -signal.SIGKILL), f"{nth}: {child.exitcode}"
    return child.exitcode != 0


def whole(bed: Bed) -> bool:
    return [bed.sees(want) for want in WANTS] == [*WANTS]


@pytest.mark.parametrize("when", ["kill before", "kill after"])
def test_at_calls_of_up(bed: Bed, known: Known, when: When) -> None:
    """Sampled: every second one, as what is done before a call is done after the last.

    In half of the cases up goes on first, and all is as asked.
    """
    count = changing(bed, up, known)
    assert whole(bed)
    down(*known)
    assert count > 15
    for nth in range(1, count + 1, 2):
        assert dies(bed, up, known, nth, when), nth
        if nth % 4 == 1:
            up(*known)
            assert whole(bed), nth
        down(*known)
        assert not bed.left(), nth
        bed.peer.expire()
        bed.tasks_left()  # nobody is there to know them; the server ends them in an hour


@pytest.mark.parametrize("when", ["kill before", "kill after"])
def test_at_calls_of_down(bed: Bed, known: Known, when: When) -> None:
    """Sampled as in up."""
    up(*known)
    count = changing(bed, down, known)
    assert count > 8
    for nth in range(1, count + 1, 2):
        up(*known)
        assert dies(bed, down, known, nth, when), nth
        down(*known)
        assert not bed.left(), nth
        bed.peer.expire()
        bed.tasks_left()
