"""What befalls calls on their way: noted, failed, cut off, kept waiting, or their sender killed.

The peer's end of the wire does it, so that a driver under test knows nothing of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, Literal

from tests.peers.xapi.calls import changes
from tests.peers.xapi.values import Failure

#: ``instead``: an error, and the peer never acts; ``task``: a task is started, and fails so;
#: ``cut before``, ``cut after``: the connection breaks before or after the peer has acted;
#: ``slow``: it has acted and answers only when ``release`` is set; ``expired``: the session ends
#: first; ``kill before``, ``kill after``: the process ``pid`` is killed
When = Literal[
    "instead", "task", "cut before", "cut after", "slow", "expired", "kill before", "kill after"
]


@dataclass(frozen=True, slots=True)
class Call:
    """One call; ``done``: the peer has done it, ``error`` is the answer where it is one."""

    method: str
    params: tuple[Any, ...]
    done: bool
    error: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The method, whether it was called for a task or not."""
        return self.method.removeprefix("Async.")

    @property
    def changes(self) -> bool:
        return changes(self.method)


@dataclass(slots=True)
class Trouble:
    """What befalls the ``nth`` call of a method, and ``times - 1`` more.

    ``method`` without "Async."; "*" is any call, "changes" any that changes something.
    """

    method: str
    when: When = "instead"
    error: Sequence[str] = ()
    nth: int = 1
    times: int = 1
    pid: int = 0
    release: Event = field(default_factory=Event)
    met: int = 0

    def due(self, method: str) -> bool:
        """Whether this call is one; it is counted."""
        name = method.removeprefix("Async.")
        if self.method == "changes":
            if not changes(method):
                return False
        elif self.method not in ("*", name):
            return False
        self.met += 1
        return self.nth <= self.met < self.nth + self.times

    @property
    def struck(self) -> bool:
        return self.met >= self.nth

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Cut(Exception):
    """The connection is to be broken, without an answer."""


@dataclass
class Wire:
    """The log of all calls, and the troubles that wait for some."""

    log: list[Call] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    patience_s: float = 60

    def arm(self, method: str, *error: str, when: When = "instead", **more: Any) -> Trouble:
        """From now on this, and nothing else; the log starts anew.

        Raises AssertionError where the error is none of the API's.
        """
        if error:
            Failure(*error)
        self.calm()
        trouble = Trouble(method, when, error, **more)
        with self.lock:
            self.troubles.append(trouble)
        return trouble

    def calm(self) -> None:
        with self.lock:
            for trouble in self.troubles:
                trouble.release.set()
            self.troubles.clear()
            self.log.clear()

    def done(self, *names: str) -> list[str]:
        """The calls that the peer did and that change something, of these or of any, in order."""
        with self.lock:
            return [
                call.name for call in self.log
                if call.done and (call.name in names if names else call.changes)
            ]  # fmt: skip

    def sent(self, *names: str) -> list[Call]:
        """All calls of these methods."""
        with self.lock:
            return [call for call in self.log if call.name in names]

    def due(self, method: str) -> Trouble | None:
        with self.lock:
            found = [trouble for trouble in self.troubles if trouble.due(method)]
        return found[0] if found else None

    def note(self, method: str, params: Sequence[Any], error: Sequence[str], *, done: bool) -> None:
        with self.lock:
            self.log.append(Call(method, tuple(params), done, tuple(error)))

    def through(
        self, method: str, params: Sequence[Any], act: Callable[[], Any], hooks: Hooks
    ) -> Any:
        """Carry the call, with whatever befalls it. Raises Cut, or what ``hooks`` fails with."""
        trouble = self.due(method)
        when = trouble.when if trouble else ""
        if trouble and when == "kill before":
            trouble.kill()
        if when in ("cut before", "kill before"):
            self.note(method, params, (), done=False)
            raise Cut
        if trouble and when in ("instead", "task"):
            self.note(method, params, trouble.error, done=False)
            if when == "task" and method.startswith("Async."):
                return hooks.failed_task(method, trouble.error)
            return hooks.fail(trouble.error)
        if when == "expired":
            hooks.expire(params)
        try:
            found = act()
        except Exception as e:
            self.note(method, params, getattr(e, "details", ()), done=False)
            raise
        self.note(method, params, (), done=True)
        if trouble and when == "kill after":
            trouble.kill()
        if when in ("cut after", "kill after"):
            raise Cut
        if trouble and when == "slow":
            trouble.release.wait(self.patience_s)
        return found


@dataclass(frozen=True)
class Hooks:
    """What a wire needs of the server."""

    fail: Callable[[Sequence[str]], Any]
    failed_task: Callable[[str, Sequence[str]], Any]
    expire: Callable[[Sequence[Any]], None]
