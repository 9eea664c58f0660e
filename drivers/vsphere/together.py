"""What several threads ask at once, asked in one call.

A call costs more than what is in it: a thousand guests are put by some threads, each of which asks
after its own task and its own VM. Who comes while calls are under way waits for the next, and who
could ask at once waits a moment for others that are at work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

from drivers.vsphere.api import Fault, Gone
from drivers.vsphere.connect import Session
from drivers.vsphere.read import Part, Properties, many
from provision.errors import ProvisionError

PATIENCE_S = 0.5
GATHER_S = 0.05  # a call costs CPU time at both ends


@dataclass(slots=True, eq=False)
class _Question:
    """``batch`` is what its thread is to ask for all, None = another thread does."""

    parts: Sequence[Part]
    woken: Event = field(default_factory=Event)
    batch: Sequence[_Question] | None = None
    answer: list[Properties] = field(default_factory=list)
    error: BaseException | None = None


@dataclass(slots=True)
class Together:
    """The questions of one session."""

    session: Session
    _waiting: list[_Question] = field(default_factory=list)
    _asking: int = 0
    _at_work: int = 0
    _enough: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def work(self) -> Iterator[None]:
        """What is done in it is likely to ask something."""
        with self._lock:
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1

    def get(self, ref: Any, *paths: str) -> Properties:
        """Those of an object's properties that are set. Raises faults."""
        return self.ask([(ref, paths)])[0]

    def ask(self, parts: Sequence[Part]) -> list[Properties]:
        """As ``get``, of several objects, in their order."""
        mine = _Question(parts)
        with self._lock:
            if self._asking:
                self._waiting.append(mine)
                if 2 * (len(self._waiting) + 1) >= self._at_work:
                    self._enough.set()
            else:
                self._asking, mine.batch = 1, [mine]
        if mine.batch is None and not mine.woken.wait(PATIENCE_S):
            self._overtake(mine)
        if mine.batch is not None:
            self._lead(mine.batch)
        if mine.error is not None:
            raise mine.error
        return mine.answer

    def _overtake(self, mine: _Question) -> None:
        """A call that is under way takes long: ask beside it, unless it has this question."""
        with self._lock:
            if mine in self._waiting:
                self._asking += 1
                mine.batch, self._waiting = self._waiting, []
        if mine.batch is None:
            mine.woken.wait()

    def _lead(self, batch: Sequence[_Question]) -> None:
        """Ask for all of these; then one of those who came meanwhile does so for them."""
        try:
            self._answer(self._gather(batch))
        finally:
            with self._lock:
                heir = self._waiting[0] if self._waiting else None
                if heir is None:
                    self._asking -= 1
                else:
                    heir.batch, self._waiting = self._waiting, []
            if heir is not None:
                heir.woken.set()

    def _gather(self, batch: Sequence[_Question]) -> Sequence[_Question]:
        """These and those that come in a moment, or until half of those at work have asked."""
        with self._lock:
            if 2 * (len(batch) + len(self._waiting)) >= self._at_work:
                return batch
            self._enough.clear()
        self._enough.wait(GATHER_S)
        with self._lock:
            more, self._waiting = self._waiting, []
        return [*batch, *more]

    def _answer(self, batch: Sequence[_Question]) -> None:
        try:
            found = many(self.session, [part for q in batch for part in q.parts])
            for q in batch:
                _share(found, q)
        except (Fault, ProvisionError) as e:
            if len(batch) == 1:
                batch[0].error = e
            else:  # whose question is it that cannot be answered?
                for q in batch:
                    self._answer([q])
        except BaseException as e:
            for q in batch:
                q.error = e
            raise
        finally:
            for q in batch:
                q.woken.set()


def _share(found: Mapping[Any, Properties], question: _Question) -> None:
    """A question's part of what was found; one of an object that is gone has an error."""
    for ref, paths in question.parts:
        if (has := found.get(ref)) is None:
            question.error = Gone(obj=ref, msg="it is gone")
            return
        question.answer.append({path: has[path] for path in paths if path in has})
