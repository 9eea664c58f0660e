"""What was there before each change, written down before the change: the one road back.

One SQLite file (WAL, synchronous=FULL: a row that was committed survives a power cut). A step is
``begun`` (its thing may be half made) or ``done``; undoing deletes it. The first ``have`` of each
thing is what undoing goes back to. A reserve of disk space lies beside the file: a full disk must
not keep ``down`` from freeing it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from threading import Lock
from typing import Any

from provision.errors import JournalError, JournalFull, Leased, PreflightError
from provision.resources import Key, Resource, dump, load

FORMAT = 2
RESERVE_BYTES = 1 << 20
BUSY_MS = 10_000  # for another to end its write
LOCKS = "locks"
SHARED_BYTES = 64 << 10  # that the index takes which readers share
SHORT_PAGES = 16  # of the log, before it is written back and used anew: where room is scarce
ROOM_BYTES = 16 << 20  # for keys, consoles and plays of a testbed, and the journal's own growth
SCHEMA = """
CREATE TABLE IF NOT EXISTS testbeds (name TEXT PRIMARY KEY, hypervisor TEXT NOT NULL,
    uri TEXT NOT NULL, spec TEXT NOT NULL, since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS steps (number INTEGER PRIMARY KEY, testbed TEXT NOT NULL,
    kind TEXT NOT NULL, name TEXT NOT NULL, have TEXT NOT NULL, want TEXT NOT NULL,
    state TEXT NOT NULL, at REAL NOT NULL, UNIQUE (testbed, kind, name));
CREATE TABLE IF NOT EXISTS facts (testbed TEXT NOT NULL, subject TEXT NOT NULL,
    facts TEXT NOT NULL, PRIMARY KEY (testbed, subject));
CREATE TABLE IF NOT EXISTS clean (testbed TEXT NOT NULL, guest TEXT NOT NULL,
    PRIMARY KEY (testbed, guest));
"""
#: format 1 knew nothing of checkpoints: a guest that was verified has most likely one
FROM_1 = """
INSERT OR IGNORE INTO clean SELECT s.testbed, s.name FROM steps s JOIN facts f
    ON f.testbed=s.testbed AND f.subject=s.name WHERE s.kind='guest';
"""
#: what SQLite says of a disk without room: for pages, and for the index that readers share
_FULL = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})


Statement = tuple[str, tuple[object, ...]]
Change = tuple[Key, Resource | None, Resource | None]  # of what, from what, to what


@dataclass(slots=True)
class _Row:
    """A change of the journal that waits for its commit."""

    statements: Sequence[Statement]
    written: bool = False
    error: sqlite3.Error | OSError | None = None


class Journal:
    """The steps of one testbed. Safe to use from several threads."""

    def __init__(self, folder: Path, testbed: str) -> None:
        self.testbed = testbed
        self._path = folder / "journal.sqlite"
        self._reserve = folder / "journal.reserve"
        self._last_resort = False
        self._lock = Lock()
        self._gate = Lock()
        self._waiting: list[_Row] = []
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found > FORMAT:
                raise JournalError(
                    f"{self._path} has format {found}; this provision knows {FORMAT}",
                    hint="use the newer provision that wrote it",
                )
            if found < FORMAT:  # else nothing is written: a full disk can still be looked at
                upgrade = FROM_1 if found == 1 else ""
                self._db.executescript(f"{SCHEMA}{upgrade}PRAGMA user_version={FORMAT};")

    def _open(self) -> sqlite3.Connection:
        """A connection that reads; where the disk has no room for the shared index, without it."""
        for sharing in ("NORMAL", "EXCLUSIVE"):
            db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            db.execute(f"PRAGMA locking_mode={sharing}")
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as e:
                db.close()
                if sharing == "EXCLUSIVE" or e.sqlite_errorname not in _FULL:
                    raise
            else:
                return db
        raise AssertionError("unreachable")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as e:
            raise _error(self._path, e) from e

    def _write(self, sql: str, *values: object) -> None:
        self._write_all([(sql, values)])

    def _write_all(self, statements: Sequence[Statement]) -> None:
        """One thread commits for all that wait meanwhile: a commit costs a sync of the disk."""
        mine = _Row(statements)
        with self._gate:
            self._waiting.append(mine)
        with self._lock, self._told():
            if not mine.written and mine.error is None:
                with self._gate:
                    rows, self._waiting = self._waiting, []
                self._commit(rows)
            if mine.error is not None:
                raise mine.error

    def _commit(self, rows: list[_Row]) -> None:
        try:
            try:
                self._transact(rows)
            except sqlite3.OperationalError as e:
                if e.sqlite_errorname not in _FULL or not self._last_resort:
                    raise
                self._reserve.unlink(missing_ok=True)
                self._db.execute(f"PRAGMA wal_autocheckpoint={SHORT_PAGES}")
                self._transact(rows)
        except (sqlite3.Error, OSError) as e:
            for row in rows:
                row.error = e
        else:
            for row in rows:
                row.written = True

    def _transact(self, rows: list[_Row]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for row in rows:
                for sql, values in row.statements:
                    self._db.execute(sql, values)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):  # where SQLite has rolled it back by itself
                self._db.execute("ROLLBACK")
            raise

    def make_room(self) -> None:
        """See that there is room for a testbed's own files, and keep some for ``down``.

        Raises PreflightError where there is not; it costs no time where the reserve is there.
        """
        folder = self._path.parent
        try:
            if shutil.disk_usage(folder).free >= ROOM_BYTES:
                with self._reserve.open("ab") as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                return
        except OSError as e:
            if e.errno != ENOSPC:
                raise JournalError(f"{self._reserve}: {e.strerror}") from e
        raise PreflightError(
            f"{folder}: less than {ROOM_BYTES >> 20} MiB are free on its disk",
            hint=f"df -h {folder}: free some, or set PROVISION_STATE_DIR",
        )

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._told():
            return self._db.execute(sql, values).fetchall()

    def last_resort(self) -> None:
        """From now on, a full disk costs the reserve: for what will free some."""
        self._last_resort = True

    def open_testbed(self, hypervisor: str, uri: str, spec: Mapping[str, Any]) -> None:
        """Note what is about to be built; the first moment of it is kept."""
        self._write(
            "INSERT INTO testbeds VALUES (?,?,?,?,?) ON CONFLICT (name) DO UPDATE SET "
            "hypervisor=excluded.hypervisor, uri=excluded.uri, spec=excluded.spec",
            self.testbed, hypervisor, uri, json.dumps(spec), time.time(),
        )  # fmt: skip

    def spec(self) -> dict[str, Any] | None:
        """The spec of the testbed as it was last put up; None where there is no testbed."""
        rows = self._rows("SELECT spec FROM testbeds WHERE name=?", self.testbed)
        return json.loads(rows[0][0]) if rows else None

    def close_testbed(self) -> None:
        """Forget the testbed once nothing of it is left."""
        self._write("DELETE FROM facts WHERE testbed=?", self.testbed)
        self._write("DELETE FROM clean WHERE testbed=?", self.testbed)
        self._write("DELETE FROM testbeds WHERE name=?", self.testbed)
        if not self._rows("SELECT name FROM testbeds"):
            self._reserve.unlink(missing_ok=True)

    def begin(self, k: Key, have: Resource | None, want: Resource | None) -> None:
        """As ``begin_all``, of one change."""
        self.begin_all([(k, have, want)])

    def begin_all(self, changes: Iterable[Change]) -> None:
        """Before the changes: what was there (kept from the first time) and what is wanted.

        Where it is to go, what was wanted last is kept: its needs say in what order things go.
        All of them are on the disk when this returns, or none is.
        """
        self._write_all([
            (
                "INSERT INTO steps (testbed, kind, name, have, want, state, at) "
                "VALUES (?,?,?,?,?,'begun',?) ON CONFLICT (testbed, kind, name) "
                "DO UPDATE SET want=iif(excluded.want='null', want, excluded.want), "
                "state='begun', at=excluded.at",
                (self.testbed, *k, _text(have), _text(want), time.time()),
            )
            for k, have, want in changes
        ])  # fmt: skip

    def done(self, *keys: Key) -> None:
        """After the changes were read back and are right."""
        self._write_all([
            (
                "UPDATE steps SET state='done', at=? WHERE testbed=? AND kind=? AND name=?",
                (time.time(), self.testbed, *k),
            )
            for k in keys
        ])  # fmt: skip

    def undone(self, *keys: Key) -> None:
        """The things are as they were before us."""
        self._write_all([
            ("DELETE FROM steps WHERE testbed=? AND kind=? AND name=?", (self.testbed, *k))
            for k in keys
        ])  # fmt: skip

    def _column(self, column: str, where: str = "") -> dict[Key, Resource | None]:
        rows = self._rows(
            f"SELECT kind, name, {column} FROM steps WHERE testbed=? {where} ORDER BY number",
            self.testbed,
        )
        try:
            return {(kind, name): load(json.loads(text)) for kind, name, text in rows}
        except (ValueError, KeyError) as e:
            raise JournalError(f"{self._path}: a step of {self.testbed} is damaged: {e}") from e

    def originals(self) -> dict[Key, Resource | None]:
        """What each touched thing was before the first touch, in order of touching."""
        return self._column("have")

    def wants(self) -> dict[Key, Resource]:
        """What was last asked for each touched thing, in order of touching."""
        return {k: r for k, r in self._column("want").items() if r is not None}

    def unfinished(self) -> frozenset[Key]:
        """Things whose last change was begun and never seen to its end."""
        return frozenset(self._column("want", "AND state='begun'"))

    def history(self) -> list[tuple[float, str, str]]:
        """The moment (epoch), thing and state of each step, in order of the moment."""
        rows = self._rows(
            "SELECT at, kind || '/' || name, state FROM steps WHERE testbed=? ORDER BY at",
            self.testbed,
        )
        return [(at, thing, state) for at, thing, state in rows]

    def remember(self, subject: str, facts: Mapping[str, Any]) -> None:
        """Keep verified facts of one subject, such as a guest."""
        self._write(
            "INSERT INTO facts VALUES (?,?,?) ON CONFLICT (testbed, subject) "
            "DO UPDATE SET facts=excluded.facts",
            self.testbed, subject, json.dumps(facts),
        )  # fmt: skip

    def facts(self) -> dict[str, dict[str, Any]]:
        """All facts kept, by subject."""
        rows = self._rows("SELECT subject, facts FROM facts WHERE testbed=?", self.testbed)
        return {subject: json.loads(text) for subject, text in rows}

    def doubt(self, subject: str) -> None:
        """Forget its facts: nothing proves any more that it is as asked."""
        self._write("DELETE FROM facts WHERE testbed=? AND subject=?", self.testbed, subject)

    def kept_clean(self, guest: str) -> None:
        """The guest has a checkpoint of how it is since its last change."""
        self._write("INSERT OR IGNORE INTO clean VALUES (?,?)", self.testbed, guest)

    def unclean(self, guest: str) -> None:
        """The guest is about to be changed: its checkpoint will be none of it."""
        self._write("DELETE FROM clean WHERE testbed=? AND guest=?", self.testbed, guest)

    def clean(self) -> frozenset[str]:
        """The guests that a reset can bring back to their checkpoint."""
        rows = self._rows("SELECT guest FROM clean WHERE testbed=?", self.testbed)
        return frozenset(guest for (guest,) in rows)

    def close(self) -> None:
        self._db.close()


def _error(path: Path, error: sqlite3.Error | OSError) -> JournalError:
    """What went wrong with a file of the state folder, in words and with the mend."""
    folder = path.parent.parent if path.parent.name == LOCKS else path.parent
    name = getattr(error, "sqlite_errorname", "")
    # where there is no room to share the journal, the first to open it has it alone
    crowded = name == "SQLITE_BUSY" and shutil.disk_usage(folder).free < SHARED_BYTES
    if name in _FULL or crowded or getattr(error, "errno", 0) == ENOSPC:
        told = ", and another provision has it open" if crowded else ""
        return JournalFull(
            f"{path}: no room to write on its disk{told}", hint=f"df -h {folder}: free some"
        )
    if isinstance(error, OSError) or name == "SQLITE_CANTOPEN":
        why = error.strerror if isinstance(error, OSError) else str(error)
        return JournalError(
            f"the state folder {folder} cannot be used: {path}: {why}",
            hint="set PROVISION_STATE_DIR to a folder of yours",
        )
    return JournalError(f"{path}: {error}", hint="free space or mend the file")


def _text(resource: Resource | None) -> str:
    return json.dumps(dump(resource))


def testbeds(folder: Path) -> list[tuple[str, str, float]]:
    """Name, hypervisor and moment of making (epoch) of every testbed in the journal."""
    if not (folder / "journal.sqlite").exists():
        return []
    with closing(Journal(folder, "")) as journal:
        return journal._rows("SELECT name, hypervisor, since FROM testbeds ORDER BY name")


@contextmanager
def lease(folder: Path, testbed: str) -> Iterator[None]:
    """Hold the testbed for this process alone; ends with the process, however that ends.

    Raises Leased with who holds it and since when.
    """
    path = folder / LOCKS / f"{testbed}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise _error(path, e) from e
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 500, 0).decode(errors="replace").strip() or "another provision"
            raise Leased(
                f"testbed {testbed!r} is in use by {holder}",
                hint=f"wait for it to end, or use another name: -n {testbed}2",
            ) from None
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(fd, 0)
        holder = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        with suppress(OSError):  # a full disk: the lock holds without words
            os.pwrite(fd, holder.encode(), 0)
        yield
    finally:
        os.close(fd)
