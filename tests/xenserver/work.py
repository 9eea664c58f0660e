"""A day's work on a XenServer peer with engine and journal, for processes that are killed."""

from __future__ import annotations

import threading
from pathlib import Path

from drivers.xenserver.driver import XenServer
from provision.driver import Login, Target, Tls
from provision.engine import Engine
from provision.journal import Journal
from provision.plan import backwards, graph, phases, steps, undoing
from provision.progress import Progress, quiet
from provision.resources import Resource, key
from tests.contract.peer import who
from tests.xenserver.day import GUEST, QUICK, SWITCH, TAG, TESTBED

WANTS: tuple[Resource, ...] = (SWITCH, GUEST)


def _driver(uri: str, password: str, ca: Path) -> XenServer:
    return XenServer(Target(
        TESTBED, Path("/nowhere"), uri, identity=who, tag=TAG, tls=Tls(ca=ca), host="xs1",
        login=Login("root", lambda: password), ssh="nobody@127.0.0.1.invalid",
    ), QUICK)  # fmt: skip


def _engine(driver: XenServer, journal: Journal) -> Engine:
    return Engine(lambda _kind: driver, journal, Progress(quiet), threading.Event())


def up(uri: str, password: str, ca: Path, folder: Path) -> None:
    driver, journal = _driver(uri, password, ca), Journal(folder, TESTBED)
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


def down(uri: str, password: str, ca: Path, folder: Path) -> None:
    driver, journal = _driver(uri, password, ca), Journal(folder, TESTBED)
    found = undoing(journal.originals(), driver.read)
    outcome = _engine(driver, journal).apply(found, backwards(graph(journal.wants().values())))
    assert not outcome.failed, outcome.failed
    assert not list(driver.owned())
    assert not journal.originals()
    driver.close()
