"""Carries out steps: each after what it needs, the rest in parallel, all of it in the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Semaphore

from provision.driver import Driver
from provision.errors import Foreign, Interrupted, Mismatch, ProvisionError
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
        calls in flight have ended, when ``stop`` was set.
        """
        todo = {step.key: step for step in found}
        outcome = Outcome()
        caps = self._caps({k[0] for k in todo})
        running: dict[Future[None], Key] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="step") as pool:
            waiting = dict(todo)
            while waiting or running:
                self._skip(waiting, after, outcome)
                busy = {*waiting, *running.values()}
                for k in [k for k in waiting if not (after.get(k, frozenset()) & busy)]:
                    if self.stop.is_set():
                        break
                    running[pool.submit(self._one, waiting.pop(k), caps.get(k[0]))] = k
                if not running:
                    break
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    self._note(running.pop(future), future, outcome)
        if self.stop.is_set():
            raise Interrupted(f"stopped with {len(waiting)} steps not begun; the journal is whole")
        return outcome

    def _caps(self, kinds: Iterable[str]) -> dict[str, Semaphore]:
        limits = {kind: self.route(kind).facts.parallel.get(kind) for kind in kinds}
        return {kind: Semaphore(limit) for kind, limit in limits.items() if limit}

    def _skip(
        self, waiting: dict[Key, Step], after: Mapping[Key, frozenset[Key]], outcome: Outcome
    ) -> None:
        lost = {*outcome.failed, *outcome.skipped}
        while hit := [(k, bad) for k in waiting for bad in after.get(k, frozenset()) & lost]:
            for k, bad in hit:
                if waiting.pop(k, None):
                    outcome.skipped[k] = bad
                    lost.add(k)
                    self.progress(label(k), "skipped", f"needs {label(bad)}, which failed")

    def _note(self, k: Key, future: Future[None], outcome: Outcome) -> None:
        error = future.exception()
        if error is None:
            outcome.done.append(k)
        elif isinstance(error, ProvisionError):
            outcome.failed[k] = error
            self.progress(label(k), "failed", str(error))
        else:
            raise error

    def _one(self, step: Step, cap: Semaphore | None) -> None:
        if cap is None:
            self._carry_out(step)
            return
        with cap:
            if not self.stop.is_set():
                self._carry_out(step)

    def _carry_out(self, step: Step) -> None:
        k, want = step.key, step.want
        driver = self.route(k[0])
        self.progress(label(k), "start")
        # a thing that bears our mark already is of an up whose journal was lost: not somebody's
        self.journal.begin(k, step.have if k[0] in STATES else None, want)
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
