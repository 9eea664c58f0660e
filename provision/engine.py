"""Carries out steps: each after what it needs, the rest in parallel, all of it in the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event as Flag

from provision.driver import Driver
from provision.errors import Foreign, Interrupted, JournalFull, Mismatch, ProvisionError
from provision.journal import Journal
from provision.plan import Step
from provision.progress import Progress
from provision.resources import STATES, Key, Resource, changed, label

Route = Callable[[str], Driver]
AT_ONCE = 16


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

    def take(self) -> Key | None:
        """One that may begin now; None where there is none."""
        for kind, ready in self._ready.items():
            if ready and self._room[kind]:
                self._room[kind] -= 1
                return ready.popleft()
        return None

    def ended(self, k: Key, *, well: bool) -> list[tuple[Key, Key]]:
        """Take note; what can no longer begin is returned, each with what it needed."""
        self._room[k[0]] += 1
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
        queue = _Queue(todo, after, self._caps({k[0] for k in todo}))
        outcome = Outcome()
        running: dict[Future[None], Key] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="step") as pool:
            while True:
                while len(running) < AT_ONCE and not self.stop.is_set() and (k := queue.take()):
                    running[pool.submit(self._carry_out, todo[k])] = k
                if not running:
                    break
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    k = running.pop(future)
                    self._note(k, future, outcome)
                    for skipped, bad in queue.ended(k, well=k not in outcome.failed):
                        outcome.skipped[skipped] = bad
                        self.progress(
                            label(skipped), "skipped", f"needs {label(bad)}, which failed"
                        )
        left = len(todo) - len(outcome.done) - len(outcome.failed) - len(outcome.skipped)
        if left:
            raise Interrupted(f"stopped: {left} of {len(todo)} steps were not begun")
        return outcome

    def _caps(self, kinds: Iterable[str]) -> dict[str, int]:
        limits = {kind: self.route(kind).facts.parallel.get(kind) for kind in kinds}
        return {kind: limit for kind, limit in limits.items() if limit}

    def _note(self, k: Key, future: Future[None], outcome: Outcome) -> None:
        error = future.exception()
        if error is None:
            outcome.done.append(k)
        elif isinstance(error, ProvisionError):
            outcome.failed[k] = error
            self.progress(label(k), "failed", str(error))
        else:
            raise error

    def _carry_out(self, step: Step) -> None:
        k, want = step.key, step.want
        driver = self.route(k[0])
        self.progress(label(k), "start")
        self._begin(step)
        if want is not None:
            driver.put(want)
            _check(k, driver.read(k), want)
        elif k[0] not in STATES:  # a state that was not there before goes with what bears it
            self._drop(driver, step)
        if step.undo:
            self.journal.undone(k)
        else:
            self.journal.done(k)
        verb = "gone" if want is None else "as before" if step.undo else ""
        self.progress(label(k), "done", verb)

    def _begin(self, step: Step) -> None:
        """Write it down first; undoing goes on without, where the disk is full: it frees some."""
        try:
            # a thing that bears our mark already is of an up whose journal was lost: not somebody's
            have = step.have if step.key[0] in STATES else None
            self.journal.begin(step.key, have, step.want)
        except JournalFull:
            if not step.undo:
                raise

    def _drop(self, driver: Driver, step: Step) -> None:
        try:
            driver.drop(step.key)
        except Foreign as e:
            if not step.undo:
                raise
            self.progress(label(step.key), "note", f"left alone: {e}")
        _check(step.key, driver.read(step.key), None)


def _check(k: Key, have: Resource | None, want: Resource | None) -> None:
    if want is None:
        if have is not None:
            raise Mismatch(f"{label(k)} was dropped and is still there")
        return
    if fields := changed(have, want):
        got = "nothing" if have is None else ", ".join(f"{f}={getattr(have, f)}" for f in fields)
        asked = ", ".join(f"{f}={getattr(want, f)}" for f in fields)
        raise Mismatch(f"{label(k)}: asked for {asked}; read back {got}")
