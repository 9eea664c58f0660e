"""The journal as a file: older formats, and what is kept beside it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from provision import journal as journals
from provision.errors import JournalError, JournalFull, PreflightError
from provision.journal import FORMAT, Journal
from provision.resources import Switch

FORMAT_1 = """
CREATE TABLE testbeds (name TEXT PRIMARY KEY, hypervisor TEXT NOT NULL,
    uri TEXT NOT NULL, spec TEXT NOT NULL, since REAL NOT NULL);
CREATE TABLE steps (number INTEGER PRIMARY KEY, testbed TEXT NOT NULL,
    kind TEXT NOT NULL, name TEXT NOT NULL, have TEXT NOT NULL, want TEXT NOT NULL,
    state TEXT NOT NULL, at REAL NOT NULL, UNIQUE (testbed, kind, name));
CREATE TABLE facts (testbed TEXT NOT NULL, subject TEXT NOT NULL,
    facts TEXT NOT NULL, PRIMARY KEY (testbed, subject));
INSERT INTO testbeds VALUES ('t', 'fake', '', '{}', 1);
INSERT INTO steps VALUES (1, 't', 'guest', 'vm1', 'null', 'null', 'done', 1);
INSERT INTO steps VALUES (2, 't', 'guest', 'vm2', 'null', 'null', 'begun', 1);
INSERT INTO facts VALUES ('t', 'vm1', '{}'), ('t', 'links', '{}');
PRAGMA user_version=1;
"""


def test_a_journal_of_format_1_goes_on(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        db.executescript(FORMAT_1)
    journal = Journal(tmp_path, "t")
    assert journal.clean() == {"vm1"}, "it was verified: it has most likely a checkpoint"
    assert set(journal.originals()) == {("guest", "vm1"), ("guest", "vm2")}
    journal.close()
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)


def test_looking_writes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "t")
    journal.open_testbed("fake", "", {})
    journal.close()
    before = (tmp_path / "journal.sqlite").read_bytes()
    assert [name for name, _, _ in journals.testbeds(tmp_path)] == ["t"]
    assert Journal(tmp_path, "t").clean() == frozenset()
    assert (tmp_path / "journal.sqlite").read_bytes() == before
    assert not list(tmp_path.glob("*-wal")) or not (tmp_path / "journal.sqlite-wal").stat().st_size


def test_the_reserve_is_there_while_testbeds_are(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, "t"), Journal(tmp_path, "u")
    for journal in (first, second):
        journal.make_room()
        journal.open_testbed("fake", "", {})
    reserve = tmp_path / "journal.reserve"
    assert reserve.stat().st_blocks * 512 >= journals.RESERVE_BYTES
    first.close_testbed()
    assert reserve.exists()
    second.close_testbed()
    assert not reserve.exists()


def test_no_room_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "ROOM_BYTES", 1 << 60)
    with pytest.raises(PreflightError, match="are free") as caught:
        Journal(tmp_path, "t").make_room()
    assert caught.value.hint.startswith(f"df -h {tmp_path}")
    assert caught.value.exit_code == 4


def test_what_was_clean_is_forgotten_with_the_testbed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "t")
    journal.kept_clean("vm1")
    journal.kept_clean("vm1")
    journal.kept_clean("vm2")
    journal.unclean("vm2")
    assert journal.clean() == {"vm1"}
    journal.begin(("switch", "b1"), None, Switch("b1"))
    journal.close_testbed()
    assert journal.clean() == frozenset()


@pytest.mark.parametrize(("free", "kind"), [(4096, JournalFull), (1 << 30, JournalError)])
def test_a_journal_that_another_has_is_told_as_full_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, kind: type[JournalError]
) -> None:
    """Without room for what readers share, the first has it alone: locked is not the reason."""
    held = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    held.execute("PRAGMA locking_mode=EXCLUSIVE")
    held.execute("CREATE TABLE t (x)")
    held.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(journals, "BUSY_MS", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(JournalError) as caught:
        Journal(tmp_path, "t")
    held.close()
    assert type(caught.value) is kind
    assert ("no room to write on its disk" in str(caught.value)) is (kind is JournalFull)
