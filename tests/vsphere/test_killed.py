"""Killed before and after every call that changes something: down leaves nothing of ours."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drivers.vsphere.connect import HARMLESS
from drivers.vsphere.driver import Vsphere
from drivers.vsphere.wire import Wire, WireType
from provision.driver import Login, Target, Tls
from provision.engine import Engine
from provision.journal import Journal
from provision.plan import backwards, graph, phases, steps, undoing
from provision.progress import Progress, quiet
from provision.resources import Guest, Resource, Switch, Vnic, key
from provision.testbed import tag
from tests.contract.peer import who
from tests.peers import oracle
from tests.peers.vcsim import Vcsim, vcsim
from tests.vsphere import world

TESTBED = "killed"


class Killer:
    """Makes wires on which the process dies, at the Nth call that changes something."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after = at, after
        self.seen: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, *to: Any) -> Wire:
        killer = self

        class Deadly(Wire):
            def InvokeMethod(self, mo: Any, info: Any, args: Any, outer: Any = None) -> Any:  # noqa: N802
                if info.wsdlName in HARMLESS | {"Login", "Logout"}:
                    return super().InvokeMethod(mo, info, args, outer)
                with killer._lock:
                    killer.seen.append(info.wsdlName)
                    mine = len(killer.seen) == killer.at
                if mine and not killer.after:
                    os.kill(os.getpid(), signal.SIGKILL)
                found = super().InvokeMethod(mo, info, args, outer)
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found

        return Deadly(*to)


@dataclass(frozen=True)
class Bed:
    """A simulator with a template, and a testbed of one guest on it."""

    server: Vcsim
    si: Any
    folder: Path
    wants: list[Resource] = field(default_factory=list)

    def driver(self, wire: WireType = Wire) -> Vsphere:
        login = Login(self.server.user, lambda: self.server.password)
        return Vsphere(Target(
            TESTBED, self.folder, self.server.uri, identity=who, tag=tag(TESTBED), login=login,
            tls=Tls(ca=self.server.ca),
        ), wire=wire)  # fmt: skip

    def up(self, wire: WireType = Wire) -> None:
        driver, journal = self.driver(wire), Journal(self.folder, TESTBED)
        found = steps(
            self.wants, driver.read, driver.facts.change,
            originals=journal.originals(), unfinished=journal.unfinished(),
        )  # fmt: skip
        goes, comes = phases(found)
        after = graph(self.wants)
        for some, order in ((goes, backwards(after)), (comes, after)):
            outcome = _engine(driver, journal).apply(some, order)
            assert not outcome.failed, outcome.failed
        for want in self.wants:
            if isinstance(want, Guest):
                driver.checkpoint(key(want))
        driver.close()

    def down(self, wire: WireType = Wire) -> None:
        driver, journal = self.driver(wire), Journal(self.folder, TESTBED)
        found = undoing(journal.originals(), driver.read)
        order = backwards(graph(journal.wants().values()))
        outcome = _engine(driver, journal).apply(found, order)
        assert not outcome.failed, outcome.failed
        assert not list(driver.owned())
        assert not journal.originals()
        driver.close()


def _engine(driver: Vsphere, journal: Journal) -> Engine:
    return Engine(lambda _kind: driver, journal, Progress(quiet), threading.Event())


@pytest.fixture(params=["VPX", "ESX"], scope="module")
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Vcsim, Any]]:
    with vcsim(request.param, pnics=2, vms=0) as server:
        si = server.connect()
        vm = oracle.create(si, "template", with_disk=True)
        oracle.done(vm.CreateSnapshot_Task("base", None, False, False))
        yield server, si


@pytest.fixture
def bed(made: tuple[Vcsim, Any], tmp_path: Path) -> Bed:
    found = Bed(*made, tmp_path)
    name = f"pv{tag(TESTBED)}b1"
    management = Vnic("VM Network", "vmxnet3", "00:50:56:00:00:01", "198.19.7.10/24")
    nic = Vnic(name, "vmxnet3", "00:50:56:00:00:02", "198.18.1.2/24", rate_mbit=100)
    found.wants.append(Switch(name, "vswitch", "vmnic1"))
    found.wants.append(Guest("vm1", 1, 512, "template", management, (nic,), "esxi"))
    return found


def _dies(work: Any, wire: Killer) -> bool:
    """Whether the work, in a process of its own, came to the call at which it is killed."""
    child = multiprocessing.get_context("fork").Process(target=work, args=(wire,))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_at_every_call_of_up(bed: Bed, after: bool) -> None:
    before, number = world.inventory(bed.si), 1
    while _dies(bed.up, Killer(number, after=after)):
        bed.down()
        assert world.inventory(bed.si) == before, number
        number += 1
    bed.down()
    assert world.inventory(bed.si) == before
    assert number > 6


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_at_every_call_of_down(bed: Bed, after: bool) -> None:
    before, number = world.inventory(bed.si), 1
    bed.up()
    while _dies(bed.down, Killer(number, after=after)):
        bed.down()
        assert world.inventory(bed.si) == before, number
        number += 1
        bed.up()
    assert world.inventory(bed.si) == before
    assert number > 4


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_then_up_goes_on(bed: Bed, after: bool) -> None:
    before, number = world.inventory(bed.si), 1
    while _dies(bed.up, Killer(number, after=after)):
        bed.up()
        driver = bed.driver()
        assert [driver.read(key(want)) for want in bed.wants] == bed.wants
        driver.close()
        bed.down()
        number += 1
    bed.down()
    assert world.inventory(bed.si) == before
