"""What several threads want at once, asked in one request.

A request costs more than what is in it. Who comes while one is under way waits for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock

from drivers.hyperv.ops import Batch, Row
from drivers.hyperv.pool import whole
from drivers.hyperv.shell import Answer


@dataclass(slots=True, eq=False)
class _Question:
    """``all`` is what its thread is to ask for everybody, None = another thread does."""

    batch: Batch
    woken: Event = field(default_factory=Event)
    all: Sequence[_Question] | None = None
    answer: Answer | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class Together:
    """``ask_all`` asks for many batches; those that are equal are asked once where ``alike``."""

    ask_all: Callable[[Sequence[Batch]], list[Answer]]
    alike: bool = False
    _waiting: list[_Question] = field(default_factory=list)
    _asking: bool = False
    _lock: Lock = field(default_factory=Lock)

    def ask(self, batch: Batch) -> list[list[Row]]:
        """What the batch's operations give back, at a moment after this call.

        Raises Refused, and what ``ask_all`` raises.
        """
        mine = _Question(batch)
        with self._lock:
            if self._asking:
                self._waiting.append(mine)
            else:
                self._asking, mine.all = True, [mine]
        if mine.all is None:
            mine.woken.wait()
        if mine.all is not None:
            self._lead(mine.all)
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        return whole(mine.answer)

    def _lead(self, questions: Sequence[_Question]) -> None:
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

    def _answer(self, questions: Sequence[_Question]) -> None:
        """An error of the request is everybody's."""
        numbers: list[int] = []
        batches: list[Batch] = []
        for q in questions:
            if not (self.alike and q.batch in batches):
                batches.append(q.batch)
                numbers.append(len(batches) - 1)
            else:
                numbers.append(batches.index(q.batch))
        try:
            found = self.ask_all(batches)
            for q, number in zip(questions, numbers, strict=True):
                q.answer = found[number]
        except BaseException as e:  # noqa: BLE001 (it is raised by each who asked)
            for q in questions:
                q.error = e
        finally:
            for q in questions:
                q.woken.set()
