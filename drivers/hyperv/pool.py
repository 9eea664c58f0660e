"""The shells of one controller, a few, shared by its threads; and when a request is made again.

A request that only reads is made again where its answer was lost; one that changes something
raises Lost, for its caller to look first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Event, Lock
from typing import TypeVar

from drivers.hyperv.api import Lost
from drivers.hyperv.ops import Batch, Refused, Row
from drivers.hyperv.shell import Answer, NotSent, Shell
from drivers.hyperv.wire import Door, quota

T = TypeVar("T")
SHELLS = 6  # each is a PowerShell in the root partition, of some 100 MB
TRIES = 4
FIRST_PAUSE_S = 0.2


@dataclass(slots=True)
class Pool:
    """``requests`` counts what was asked of runners, ``messages`` what went over the wire for it.

    ``messages`` has the closed shells' only, until ``close``.
    """

    door: Door
    requests: int = 0
    messages: int = 0
    _free: list[Shell] = field(default_factory=list)
    _room: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(SHELLS))
    _most: int = SHELLS
    _lock: Lock = field(default_factory=Lock)
    _pause: Event = field(default_factory=Event)  # never set: only waited for
    _closed: bool = False

    def read(self, batches: Sequence[Batch]) -> list[Answer]:
        """What became of each, asked as often as it takes. Raises Unreachable."""
        for n in range(TRIES - 1):
            try:
                return self._ask(batches)
            except (NotSent, Lost):
                self._pause.wait(FIRST_PAUSE_S * 4**n)
        try:
            return self._ask(batches)
        except (NotSent, Lost) as e:
            raise self.door.unreachable(e.__cause__ or e) from e

    def change(self, batches: Sequence[Batch]) -> list[Answer]:
        """As ``read``, but done once at most: raises Lost where nobody knows whether it was."""
        for n in range(TRIES - 1):
            try:
                return self._ask(batches)
            except NotSent:
                self._pause.wait(FIRST_PAUSE_S * 4**n)
        try:
            return self._ask(batches)
        except NotSent as e:
            raise self.door.unreachable(e.__cause__ or e) from e

    def try_once(self, batches: Sequence[Batch]) -> list[Answer]:
        """As ``read``, but only once, and Lost too is raised."""
        try:
            return self._ask(batches)
        except NotSent as e:
            raise self.door.unreachable(e.__cause__ or e) from e

    def do(self, batch: Batch) -> list[list[Row]]:
        """What the operations of one batch gave back; raises Refused, Lost, Unreachable."""
        return whole(self.change([batch])[0])

    def again(self, work: Callable[[], T], lock: str) -> T:
        """What ``work`` returns, done again where an answer was lost: it has to look first.

        Before that, what the lost request may have begun under ``lock`` has ended.
        """
        for n in range(TRIES - 1):
            try:
                return work()
            except Lost:
                self._pause.wait(FIRST_PAUSE_S * 4**n)
                whole(self.read([Batch(lock)])[0])
        return work()

    def forget(self) -> None:
        """The shells that rest are gone: the host restarts."""
        with self._lock:
            gone, self._free = self._free, []
            self.messages += sum(shell.messages for shell in gone)

    def close(self) -> None:
        """End all shells; one that is in use is ended by who has it."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for shell in free:
            self._end(shell)

    def _ask(self, batches: Sequence[Batch]) -> list[Answer]:
        with self._shell() as shell:
            with self._lock:
                self.requests += 1
            return shell.ask(batches)

    @contextmanager
    def _shell(self) -> Iterator[Shell]:
        """One for this thread alone; the one that rested least, so that few are opened.

        Where the host has none left for us, we make do with those that we have.
        """
        self._room.acquire()
        fewer = False
        try:
            with self._lock:
                shell = self._free.pop() if self._free else None
            shell = shell or Shell(self.door)
            try:
                yield shell
            except NotSent as e:
                fewer = quota(e.__cause__) and self._narrow()
                raise
            finally:
                with self._lock:
                    kept = not (shell.broken or self._closed)
                    if kept:
                        self._free.append(shell)
                if not kept:
                    self._end(shell)
        finally:
            if not fewer:
                self._room.release()

    def _narrow(self) -> bool:
        """Whether one of ours less is still one."""
        with self._lock:
            if self._most > 1:
                self._most -= 1
                return True
            return False

    def _end(self, shell: Shell) -> None:
        shell.close()
        with self._lock:
            self.messages += shell.messages


def whole(answer: Answer) -> list[list[Row]]:
    """An answer's rows; raises Refused where the batch was not done to its end."""
    if isinstance(answer, Refused):
        raise answer
    return answer
