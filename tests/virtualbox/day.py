"""A day of one small testbed on a VirtualBox peer, for processes that are killed."""

from __future__ import annotations

import threading
from pathlib import Path

from drivers.virtualbox.driver import Virtualbox
from provision.driver import Target
from provision.engine import Engine
from provision.host import Host
from provision.journal import Journal
from provision.plan import backwards, graph, phases, steps, undoing
from provision.progress import Progress, quiet
from provision.resources import Resource, Uplink, key
from tests.contract.peer import who
from tests.virtualbox.bed import TESTBED, guest

GUEST = guest()
WANTS: tuple[Resource, ...] = (Uplink("eth1", up=True), GUEST)


def _driver(host: Host, folder: Path) -> Virtualbox:
    return Virtualbox(Target(TESTBED, folder, identity=who), host)


def _engine(driver: Virtualbox, journal: Journal) -> Engine:
    return Engine(lambda _kind: driver, journal, Progress(quiet), threading.Event())


def up(host: Host, folder: Path) -> None:
    driver, journal = _driver(host, folder), Journal(folder, TESTBED)
    found = steps(
        WANTS, driver.read, driver.facts.change,
        originals=journal.originals(), unfinished=journal.unfinished(),
    )  # fmt: skip
    goes, comes = phases(found)
    after = graph(WANTS)
    for some, order in ((goes, backwards(after)), (comes, after)):
        outcome = _engine(driver, journal).apply(some, order)
        assert not outcome.failed, outcome.failed
    driver.checkpoint(key(GUEST))
    driver.close()


def down(host: Host, folder: Path) -> None:
    driver, journal = _driver(host, folder), Journal(folder, TESTBED)
    found = undoing(journal.originals(), driver.read)
    outcome = _engine(driver, journal).apply(found, backwards(graph(journal.wants().values())))
    assert not outcome.failed, outcome.failed
    assert not list(driver.owned())
    assert not journal.originals()
    driver.close()
