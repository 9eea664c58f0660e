"""Killed before and after every call of VBoxManage that changes something: down leaves nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from provision.host import Host
from tests.peers.vbox.service import Call, Trouble
from tests.root import machines
from tests.virtualbox.bed import Bed, bed
from tests.virtualbox.day import down, up

pytestmark = machines.marks
END_S = 60
LOOKS = {"list", "showvminfo", "getextradata", "--version"}
#: a process of its own, without the threads of ours
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.virtualbox.day"])


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Bed]:
    with bed(tmp_path) as found:
        yield found


def dies(found: Bed, work: Callable[[Host, Path], None], number: int, *, after: bool) -> str:
    """The Nth call that changes something, at which the work is killed; "" = it has fewer."""
    child = CONTEXT.Process(target=work, args=(found.host, found.folder))
    at: list[str] = []
    changes = 0

    def kill() -> None:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        # not by joining, as another thread does at the same time: only one of them reads the end
        wait([child.sentinel], END_S)

    def hook(call: Call) -> Trouble | None:
        nonlocal changes
        if call.argv[0] in LOOKS:
            return None
        changes += 1
        if changes != number:
            return None
        at.append(" ".join(call.argv[:3]))
        if not after:
            kill()
        return Trouble(acts=after, then=kill if after else None)

    found.service.calm()
    found.service.hook = hook
    child.start()
    child.join(END_S)
    found.service.calm()
    assert child.exitcode in (0, -signal.SIGKILL), f"{number}: {child.exitcode}"
    return at[0] if at else ""


def now(found: Bed) -> tuple[object, str]:
    return found.world.inventory(), found.host.run("ip", "-br", "link", "show", "eth1")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("work", [up, down], ids=["up", "down"])
def test_at_every_change(host: Bed, work: Callable[[Host, Path], None], after: bool) -> None:
    before, number = now(host), 1
    while True:
        if work is down:
            up(host.host, host.folder)
        at = dies(host, work, number, after=after)
        if not at:
            break
        down(host.host, host.folder)
        assert now(host) == before, (number, at)
        number += 1
    if work is up:
        down(host.host, host.folder)
    assert now(host) == before
    assert number > (6 if work is up else 3)
    assert not host.service.complaints
