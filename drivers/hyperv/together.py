"""What several threads want at once, asked in one request.

A request costs more than what is in it. Who comes while one is under way waits for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Generic, TypeVar

from drivers.hyperv.ops import Batch, Refused
from drivers.hyperv.shell import Answer

Q = TypeVar("Q")
A = TypeVar("A")
GATHER_S = 0.01  # threads that begin together come within this; a request takes many times that


@dataclass(slots=True, eq=False)
class _Question(Generic[Q, A]):
    """``all`` is what its thread is to ask for everybody, None = another thread does."""

    asked: Q
    woken: Event = field(default_factory=Event)
    all: Sequence[_Question[Q, A]] | None = None
    answer: A | Refused | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class Together(Generic[Q, A]):
    """``ask_all`` has an answer, or a refusal, to each of many questions."""

    ask_all: Callable[[Sequence[Q]], Sequence[A | Refused]]
    _waiting: list[_Question[Q, A]] = field(default_factory=list)
    _asking: bool = False
    _lock: Lock = field(default_factory=Lock)
    _pause: Event = field(default_factory=Event)  # never set: only waited for

    def ask(self, question: Q) -> A:
        """What holds at a moment after this call. Raises Refused, and what ``ask_all`` raises."""
        mine: _Question[Q, A] = _Question(question)
        with self._lock:
            first, self._asking = not self._asking, True
            self._waiting.append(mine)
        if first:
            self._pause.wait(GATHER_S)
            with self._lock:
                mine.all, self._waiting = self._waiting, []
        else:
            mine.woken.wait()
        if mine.all is not None:
            self._lead(mine.all)
        if mine.error is not None:
            raise mine.error
        if isinstance(mine.answer, Refused):
            raise mine.answer
        assert mine.answer is not None
        return mine.answer

    def _lead(self, questions: Sequence[_Question[Q, A]]) -> None:
        """Ask for all of these; then one of those who came meanwhile does so for them."""
        try:
            self._answer(questions)
        finally:
            with self._lock:
                heir = self._waiting[0] if self._waiting else None
                if heir is None:
                    self._asking = False
                else:
                    heir.all, self._waiting = self._waiting, []
            if heir is not None:
                heir.woken.set()

    def _answer(self, questions: Sequence[_Question[Q, A]]) -> None:
        """An error of the request is everybody's."""
        try:
            found = self.ask_all([q.asked for q in questions])
            for q, answer in zip(questions, found, strict=True):
                q.answer = answer
        except BaseException as e:  # noqa: BLE001 (it is raised by each who asked)
            for q in questions:
                q.error = e
        finally:
            for q in questions:
                q.woken.set()


def once_each(ask_all: Callable[[Sequence[Batch]], Sequence[Answer]]) -> (
    Callable[[Sequence[Batch]], Sequence[Answer]]
):  # fmt: skip
    """The same, with equal batches asked once."""

    def asked(batches: Sequence[Batch]) -> Sequence[Answer]:
        several: list[Batch] = []
        for batch in batches:
            if batch not in several:
                several.append(batch)
        found = ask_all(several)
        return [found[several.index(batch)] for batch in batches]

    return asked
