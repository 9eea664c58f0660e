"""Up, down, and a fault or a crash at every point between, on the fake host."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.fake import Fake
from provision.driver import Target
from provision.engine import Engine, Outcome
from provision.errors import DriverError, Interrupted, JournalError, Leased
from provision.journal import Journal, lease
from provision.plan import backwards, graph, phases, steps, undoing
from provision.progress import Progress, quiet
from provision.resources import (
    Cable,
    Guest,
    Key,
    Namespace,
    Port,
    Resource,
    Switch,
    Tuning,
    Uplink,
    Vnic,
)


def lab(n: int) -> list[Resource]:
    """A lab of n guests, handed over in an order that must be sorted out."""
    found: list[Resource] = [Tuning("dom0.cpus", "0"), Namespace("pv-lg"), Switch("m")]
    for i in range(1, n + 1):
        management = Vnic("m", "virtio", f"52:54:00:00:00:{i:02x}", f"198.19.0.{i + 9}/24")
        nic = Vnic(f"b{i}", "virtio", f"52:54:00:00:01:{i:02x}", f"198.18.{i}.2/24")
        found += [
            Guest(f"vm{i}", 1, 512, "img", management, (nic,), "none"),
            Switch(f"b{i}", uplink=f"u{i}"),
            Uplink(f"u{i}", up=True),
            Port(f"c{i}", f"198.18.{i}.1/24", up=True),
            Cable(f"u{i}", f"c{i}", "pv-lg"),
        ]
    return found


def engine(driver: Fake, journal: Journal) -> Engine:
    return Engine(lambda _kind: driver, journal, Progress(quiet), threading.Event())


def up(wants: Iterable[Resource], driver: Fake, journal: Journal) -> Outcome:
    wants = list(wants)
    found = steps(wants, driver.read, driver.facts.change,
                  originals=journal.originals(), unfinished=journal.unfinished())  # fmt: skip
    goes, comes = phases(found)
    after = graph({**journal.wants(), **{(w.kind, w.name): w for w in wants}}.values())
    first = engine(driver, journal).apply(goes, backwards(after))
    if first.failed:
        return first
    second = engine(driver, journal).apply(comes, after)
    second.done = first.done + second.done
    return second


def down(driver: Fake, journal: Journal) -> Outcome:
    found = undoing(journal.originals(), driver.read)
    return engine(driver, journal).apply(found, backwards(graph(journal.wants().values())))


@pytest.fixture
def driver(tmp_path: Path) -> Fake:
    return Fake(Target("t", tmp_path))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state", "t")


def test_up_again_changes_nothing(driver: Fake, journal: Journal) -> None:
    wants = lab(4)
    assert len(up(wants, driver, journal).done) == len(wants)
    assert up(wants, driver, journal).done == []


def test_down_gives_the_host_back(driver: Fake, journal: Journal) -> None:
    before = dict(driver.world)
    up(lab(4), driver, journal)
    assert driver.world[("tuning", "dom0.cpus")] == Tuning("dom0.cpus", "0")
    assert not down(driver, journal).failed
    assert driver.world == before
    assert journal.originals() == {}


def test_many_ups_then_down_goes_back_to_before_the_first(driver: Fake, journal: Journal) -> None:
    before = dict(driver.world)
    for value in ("0", "0-1", "0-3"):
        up([Tuning("dom0.cpus", value)], driver, journal)
    down(driver, journal)
    assert driver.world == before


def test_fewer_guests_puts_the_rest_back(driver: Fake, journal: Journal) -> None:
    up(lab(2), driver, journal)
    two = dict(driver.world)
    up(lab(4), driver, journal)
    up(lab(2), driver, journal)
    assert driver.world == two
    assert ("guest", "vm4") not in journal.originals()


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("fail", range(1, 27))
def test_a_fault_anywhere_then_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: int, after: int
) -> None:
    """Calls 1 to 13 are the puts of up, the others the undoing of down."""
    journal = Journal(tmp_path / "state", "t")
    monkeypatch.setenv("PROVISION_FAKE", f"fail={fail}&after={after}")
    driver = Fake(Target("t", tmp_path))
    before = dict(driver.world)
    failed = len(up(lab(2), driver, journal).failed)
    failed += len(down(driver, journal).failed)
    assert failed <= 1
    assert not down(driver, journal).failed
    assert driver.world == before
    assert journal.originals() == {}


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("die", range(1, 10))
def test_killed_anywhere_in_down_then_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die: int, after: int
) -> None:
    target = Target("t", tmp_path, f"fake://{tmp_path}/world.json")
    before = dict(Fake(target).world)
    up(lab(2), Fake(target), Journal(tmp_path / "state", "t"))
    monkeypatch.setenv("PROVISION_FAKE", f"die={die}&after={after}")

    def victim() -> None:
        down(Fake(target), Journal(tmp_path / "state", "t"))

    child = multiprocessing.get_context("fork").Process(target=victim)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.delenv("PROVISION_FAKE")
    journal = Journal(tmp_path / "state", "t")
    assert not down(Fake(target), journal).failed
    assert Fake(target).world == before
    assert journal.originals() == {}


def test_a_fault_skips_what_depends_on_it_and_no_more(tmp_path: Path, journal: Journal) -> None:
    class NoSecondBridge(Fake):
        broken = True

        def put(self, want: Resource) -> None:
            if self.broken and want == Switch("b2", uplink="u2"):
                raise DriverError("no bridge today")
            super().put(want)

    driver = NoSecondBridge(Target("t", tmp_path))
    outcome = up(lab(3), driver, journal)
    assert list(outcome.failed) == [("switch", "b2")]
    assert outcome.skipped == {("guest", "vm2"): ("switch", "b2")}
    assert ("guest", "vm3") in outcome.done
    driver.broken = False
    assert set(up(lab(3), driver, journal).done) == {("switch", "b2"), ("guest", "vm2")}


def test_a_put_cut_short_is_made_anew(driver: Fake, journal: Journal) -> None:
    wants = lab(1)
    up(wants, driver, journal)
    journal.begin(("guest", "vm1"), None, wants[3])
    found = steps(wants, driver.read, driver.facts.change,
                  originals=journal.originals(), unfinished=journal.unfinished())  # fmt: skip
    assert [(s.key, s.sign, s.reason) for s in found] == [
        (("guest", "vm1"), "!", "an earlier put was cut short")
    ]


def test_what_is_ours_and_in_no_journal_is_made_anew_and_dropped(
    driver: Fake, tmp_path: Path
) -> None:
    before = dict(driver.world)
    up(lab(1), driver, Journal(tmp_path / "lost", "t"))
    driver.put(Tuning("dom0.cpus", "0-7"))
    journal = Journal(tmp_path / "state", "t")
    found = steps(lab(1), driver.read, driver.facts.change, originals={})
    assert {s.sign for s in found if s.key[0] in ("guest", "switch")} == {"!"}
    assert not up(lab(1), driver, journal).failed
    assert not down(driver, journal).failed
    assert driver.world == before


def test_a_foreign_thing_in_the_way_stays_and_down_ends(driver: Fake, journal: Journal) -> None:
    driver.world[("switch", "b1")] = Switch("b1")
    driver.marks[("switch", "b1")] = "somebody"
    assert list(up(lab(1), driver, journal).failed) == [("switch", "b1")]
    assert not down(driver, journal).failed
    assert journal.originals() == {}
    assert driver.world[("switch", "b1")] == Switch("b1")


def test_a_switch_made_anew_takes_its_guest_along(driver: Fake, journal: Journal) -> None:
    wants = lab(2)
    up(wants, driver, journal)
    other = [replace(w, flavour="ovs") if w == Switch("b1", uplink="u1") else w for w in wants]
    assert set(up(other, driver, journal).done) == {("switch", "b1"), ("guest", "vm1")}
    assert up(other, driver, journal).done == []


def test_a_nic_pulled_out_does_not_hold_up_down(driver: Fake, journal: Journal) -> None:
    up([Uplink("eth1", up=True)], driver, journal)
    del driver.world[("uplink", "eth1")]
    assert not down(driver, journal).failed
    assert journal.originals() == {}


def test_stop_begins_no_further_step(driver: Fake, journal: Journal) -> None:
    stop = threading.Event()
    stop.set()
    wants = lab(1)
    found = steps(wants, driver.read, {}, originals={})
    with pytest.raises(Interrupted):
        Engine(lambda _k: driver, journal, Progress(quiet), stop).apply(found, graph(wants))
    assert journal.originals() == {}


def test_parallel_puts_obey_the_cap(tmp_path: Path, journal: Journal) -> None:
    class Crowded(Fake):
        inside = 0
        most = 0
        gate = threading.Barrier(4)

        def put(self, want: Resource) -> None:
            if isinstance(want, Guest):
                self.inside += 1
                self.most = max(self.most, self.inside)
                self.gate.wait(10)  # passes only when as many as the cap are inside at once
                self.inside -= 1
            super().put(want)

    driver = Crowded(Target("t", tmp_path))
    assert not up(lab(8), driver, journal).failed
    assert driver.most == 4


def test_the_journal_survives_its_process(tmp_path: Path, driver: Fake) -> None:
    journal = Journal(tmp_path / "state", "t")
    journal.open_testbed("fake", "", {"name": "t"})
    up(lab(2), driver, journal)
    again = Journal(tmp_path / "state", "t")
    assert again.originals() == journal.originals()
    assert again.wants() == journal.wants()
    assert again.spec() == {"name": "t"}


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "t")
    journal._db.execute("PRAGMA user_version=99")
    with pytest.raises(JournalError, match="format 99"):
        Journal(tmp_path, "t")


def test_a_damaged_journal_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"this is not a database, " * 100)
    with pytest.raises(JournalError, match="not a database"):
        Journal(tmp_path, "t")


def test_a_second_controller_is_told_who_holds_the_testbed(tmp_path: Path) -> None:
    held = pytest.raises(Leased, match=r"process \d+ on .* since")
    with lease(tmp_path, "t"), held, lease(tmp_path, "t"):
        pass
    with lease(tmp_path, "t"), lease(tmp_path, "other"):
        pass


def test_keys_are_what_the_journal_keeps(journal: Journal) -> None:
    k: Key = ("switch", "b1")
    journal.begin(k, None, Switch("b1"))
    journal.begin(k, Switch("b1"), Switch("b1", mtu=9000))
    assert journal.originals() == {k: None}
    assert journal.unfinished() == {k}
    journal.done(k)
    assert journal.unfinished() == frozenset()
