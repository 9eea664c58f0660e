"""Carries out steps: each after what it needs, the rest in parallel, all of it in the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event as Flag
from time import monotonic
from typing import Any

from provision.driver import Bulk, Driver, look
from provision.errors import Foreign, Interrupted, JournalFull, Mismatch, ProvisionError
from provision.journal import Journal
from provision.plan import Step
from provision.progress import Progress
from provision.resources import STATES, Key, Resource, changed, label

Route = Callable[[str], Driver]
AT_ONCE = 16
GATHER_S = 0.05  # what is changed waits so long for more to be looked at in one go


@dataclass(slots=True)
class Outcome:
    """What became of each step; ``failed`` keeps the error, ``skipped`` what it waited for."""

    done: list[Key] = field(default_factory=list)
    failed: dict[Key, ProvisionError] = field(default_factory=dict)
    skipped: dict[Key, Key] = field(default_factory=dict)


class _Queue:
    """Which step may begin: its needs have ended well, and its kind has room under its cap."""

    def __init__(
        self, keys: Iterable[Key], after: Mapping[Key, frozenset[Key]], caps: Mapping[str, int]
    ) -> None:
        keys = list(keys)
        among = frozenset(keys)
        self._missing = {k: set(after.get(k, frozenset()) & among) for k in keys}
        self._behind: dict[Key, list[Key]] = {}
        for k, needed in self._missing.items():
            for n in needed:
                self._behind.setdefault(n, []).append(k)
        self._room = {k[0]: caps.get(k[0], len(keys)) for k in keys}
        self._ready: dict[str, deque[Key]] = {kind: deque() for kind in self._room}
        for k, needed in self._missing.items():
            if not needed:
                self._ready[k[0]].append(k)

    def take(self, most: int) -> list[Key]:
        """Those that may begin now, no more than so many.

        A kind that lacks room goes on before the next begins: others wait for it.
        """
        taken: list[Key] = []
        for kind, ready in self._ready.items():
            while ready and self._room[kind] and len(taken) < most:
                self._room[kind] -= 1
                taken.append(ready.popleft())
            if ready:
                break
        return taken

    def changed(self, k: Key) -> None:
        """Its change is made, or never was: there is room for another."""
        self._room[k[0]] += 1

    def ended(self, k: Key, *, well: bool) -> list[tuple[Key, Key]]:
        """Take note; what can no longer begin is returned, each with what it needed."""
        lost: list[tuple[Key, Key]] = []
        bad = [] if well else [k]
        while bad:
            needed = bad.pop()
            for n in self._behind.get(needed, ()):
                if self._missing.pop(n, None) is not None:
                    lost.append((n, needed))
                    bad.append(n)
        for n in self._behind.get(k, ()) if well else ():
            if n in self._missing:
                self._missing[n].discard(k)
                if not self._missing[n]:
                    self._ready[n[0]].append(n)
        return lost


@dataclass(frozen=True, slots=True)
class _News:
    """What a thread has come to: steps that ended, each with its error; one left to be looked at.

    ``look`` says that it was the thread that looks.
    """

    ended: Sequence[tuple[Step, ProvisionError | None]] = ()
    unseen: Step | None = None
    look: bool = False


class Engine:
    """Puts and drops for one testbed; ``stop`` set means that no further step begins."""

    def __init__(self, route: Route, journal: Journal, progress: Progress, stop: Flag) -> None:
        self.route = route
        self.journal = journal
        self.progress = progress
        self.stop = stop

    def apply(self, found: Iterable[Step], after: Mapping[Key, frozenset[Key]]) -> Outcome:
        """Carry out the steps; ``after`` says what each must wait for.

        What follows a failed step is skipped, the rest goes on. Raises Interrupted once the
        calls in flight have ended, when ``stop`` was set and steps are left.
        """
        todo = {step.key: step for step in found}
        caps = self._caps({k[0] for k in todo})
        most = max(AT_ONCE, sum(caps.values()))
        with ThreadPoolExecutor(most + 1, thread_name_prefix="step") as pool:
            outcome = _Walk(self, todo, _Queue(todo, after, caps), pool, most).go()
        left = len(todo) - len(outcome.done) - len(outcome.failed) - len(outcome.skipped)
        if left:
            raise Interrupted(f"stopped: {left} of {len(todo)} steps were not begun")
        return outcome

    def _caps(self, kinds: Iterable[str]) -> dict[str, int]:
        limits = {kind: self.route(kind).facts.parallel.get(kind) for kind in kinds}
        return {kind: limit for kind, limit in limits.items() if limit}


class _Walk:
    """One walk along the steps: threads make the changes, and one more looks at what they made.

    What comes up at about the same moment is one commit of the journal, and one look at a
    hypervisor that shows many things at once.
    """

    def __init__(
        self, engine: Engine, todo: Mapping[Key, Step], queue: _Queue, pool: ThreadPoolExecutor,
        most: int,
    ) -> None:  # fmt: skip
        self._engine, self._todo, self._queue = engine, todo, queue
        self._pool, self._most = pool, most
        self._outcome = Outcome()
        self._news: SimpleQueue[Future[_News]] = SimpleQueue()
        self._changing = 0
        self._looking = False
        self._unseen: list[Step] = []
        self._look_at = 0.0

    def go(self) -> Outcome:
        """Until nothing may begin any more, and nothing is in flight."""
        while True:
            self._begin()
            if not self._changing and not self._looking and not self._unseen:
                return self._outcome
            if self._unseen and not self._looking:
                left_s = self._look_at - monotonic() if self._changing else 0
                if left_s > 0:
                    self._hear(left_s)
                    continue
                self._looking = True
                self._start(self._look, self._unseen)
                self._unseen = []
            self._hear()

    def _begin(self) -> None:
        """Start all that may begin now, once it is written down."""
        while not self._engine.stop.is_set():
            steps = [self._todo[k] for k in self._queue.take(self._most - self._changing)]
            if not steps:
                return
            for step in steps:
                self._engine.progress(label(step.key), "start")
            error = self._write_down(steps)
            for step in steps:
                if error is None or (isinstance(error, JournalFull) and step.undo):
                    self._changing += 1  # undoing goes on where the disk is full: it frees some
                    self._start(self._change, step)
                else:
                    self._queue.changed(step.key)
                    self._end(step, error)

    def _write_down(self, steps: Sequence[Step]) -> ProvisionError | None:
        try:
            # a thing that bears our mark already is of an up whose journal was lost: not somebody's
            self._engine.journal.begin_all(
                (s.key, s.have if s.key[0] in STATES else None, s.want) for s in steps
            )
        except ProvisionError as e:
            return e
        return None

    def _start(self, work: Callable[..., _News], *about: Any) -> None:
        self._pool.submit(work, *about).add_done_callback(self._news.put)

    def _change(self, step: Step) -> _News:
        """A thread's part: the change, and the reading back where that is for one at a time."""
        k, want = step.key, step.want
        try:
            driver = self._engine.route(k[0])
            if want is not None:
                driver.put(want)
            elif k[0] not in STATES:
                self._drop(driver, step)
            else:  # a state that was not there before goes with what bears it
                return _News([(step, None)])
            if isinstance(driver, Bulk):
                return _News(unseen=step)
            _check(k, driver.read(k), want)
        except ProvisionError as e:
            return _News([(step, e)])
        return _News([(step, None)])

    def _drop(self, driver: Driver, step: Step) -> None:
        try:
            driver.drop(step.key)
        except Foreign as e:
            if not step.undo:
                raise
            self._engine.progress(label(step.key), "note", f"left alone: {e}")

    def _look(self, steps: Sequence[Step]) -> _News:
        """A thread's part: look at all of these; what is not as asked is read once more, alone."""
        have: dict[Key, Resource | None] = {}
        by_driver: dict[int, list[Key]] = {}
        for k in (step.key for step in steps):
            by_driver.setdefault(id(self._engine.route(k[0])), []).append(k)
        for keys in by_driver.values():
            if len(keys) > 1:
                with suppress(ProvisionError):
                    have |= look(self._engine.route(keys[0][0]), keys)
        return _News([(s, self._wrong(s, have)) for s in steps], look=True)

    def _wrong(self, step: Step, have: Mapping[Key, Resource | None]) -> ProvisionError | None:
        k = step.key
        try:
            with suppress(Mismatch, KeyError):
                _check(k, have[k], step.want)
                return None
            _check(k, self._engine.route(k[0]).read(k), step.want)
        except ProvisionError as e:
            return e
        return None

    def _hear(self, limit_s: float | None = None) -> None:
        """Wait for news, and take in all that there are."""
        ended: list[tuple[Step, ProvisionError | None]] = []
        news: list[Future[_News]] = []
        with suppress(Empty):
            news.append(self._news.get(timeout=limit_s))
            while True:
                news.append(self._news.get_nowait())
        for future in news:
            one = future.result()  # raises what is no error of a step, but of ours
            ended += one.ended
            if one.look:
                self._looking = False
                continue
            self._changing -= 1
            if one.unseen is not None:
                if not self._unseen:
                    self._look_at = monotonic() + GATHER_S
                self._unseen.append(one.unseen)
            self._queue.changed((one.unseen or one.ended[0][0]).key)
        lost = self._write_off([step for step, error in ended if error is None])
        for step, error in ended:
            self._end(step, error or lost)

    def _write_off(self, steps: Sequence[Step]) -> ProvisionError | None:
        """In the journal they are done, or forgotten."""
        try:
            if undone := [s.key for s in steps if s.undo]:
                self._engine.journal.undone(*undone)
            if done := [s.key for s in steps if not s.undo]:
                self._engine.journal.done(*done)
        except ProvisionError as e:
            return e
        return None

    def _end(self, step: Step, error: ProvisionError | None) -> None:
        k, outcome, progress = step.key, self._outcome, self._engine.progress
        if error is None:
            outcome.done.append(k)
            verb = "gone" if step.want is None else "as before" if step.undo else ""
            progress(label(k), "done", verb)
        else:
            outcome.failed[k] = error
            progress(label(k), "failed", str(error))
        for skipped, bad in self._queue.ended(k, well=error is None):
            outcome.skipped[skipped] = bad
            progress(label(skipped), "skipped", f"needs {label(bad)}, which failed")


def _check(k: Key, have: Resource | None, want: Resource | None) -> None:
    if want is None:
        if have is not None:
            raise Mismatch(f"{label(k)} was dropped and is still there")
        return
    if fields := changed(have, want):
        got = "nothing" if have is None else ", ".join(f"{f}={getattr(have, f)}" for f in fields)
        asked = ", ".join(f"{f}={getattr(want, f)}" for f in fields)
        raise Mismatch(f"{label(k)}: asked for {asked}; read back {got}")
