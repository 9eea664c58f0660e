"""A day of one small testbed on a Hyper-V peer, for processes that are killed."""

from __future__ import annotations

import threading
from pathlib import Path

from drivers.hyperv.driver import Hyperv
from provision.driver import Login, Target, Tls
from provision.engine import Engine
from provision.journal import Journal
from provision.plan import backwards, graph, phases, steps, undoing
from provision.progress import Progress, quiet
from provision.resources import BOOT, Guest, Resource, Tuning, key
from tests.contract.peer import who
from tests.hyperv.bed import TESTBED, guest, switch

WANTS: tuple[Resource, ...] = (switch(), guest())
ROOT = Tuning(BOOT[1], "hypervisorrootproc=2")


def _driver(uri: str, user: str, password: str, folder: Path) -> Hyperv:
    return Hyperv(Target(
        TESTBED, folder, uri, identity=who, tag="abcd", login=Login(user, lambda: password),
        tls=Tls(),
    ))  # fmt: skip


def _engine(driver: Hyperv, journal: Journal) -> Engine:
    return Engine(lambda _kind: driver, journal, Progress(quiet), threading.Event())


def up(
    uri: str, user: str, password: str, folder: Path, wants: tuple[Resource, ...] = WANTS
) -> None:
    driver, journal = _driver(uri, user, password, folder), Journal(folder, TESTBED)
    found = steps(
        wants, driver.read, driver.facts.change,
        originals=journal.originals(), unfinished=journal.unfinished(),
    )  # fmt: skip
    goes, comes = phases(found)
    after = graph(wants)
    for some, order in ((goes, backwards(after)), (comes, after)):
        outcome = _engine(driver, journal).apply(some, order)
        assert not outcome.failed, outcome.failed
    for want in wants:
        if isinstance(want, Guest):
            driver.checkpoint(key(want))
    driver.close()


def restart(uri: str, user: str, password: str, folder: Path) -> None:
    """The root partition gets two CPUs."""
    up(uri, user, password, folder, (ROOT,))


def down(uri: str, user: str, password: str, folder: Path) -> None:
    driver, journal = _driver(uri, user, password, folder), Journal(folder, TESTBED)
    found = undoing(journal.originals(), driver.read)
    outcome = _engine(driver, journal).apply(found, backwards(graph(journal.wants().values())))
    assert not outcome.failed, outcome.failed
    assert not list(driver.owned())
    assert not journal.originals()
    driver.close()
