"""Tasks and other changes that the server tells of: waited for with a deadline, never polled.

Each wait has a collector of its own (one is not for several threads), which the next wait takes up
again. vSphere Web Services SDK, "WaitForUpdatesEx".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

from drivers.vsphere.api import Fault, vim, vmodl
from drivers.vsphere.connect import Session
from drivers.vsphere.read import query, spec
from drivers.vsphere.together import Together
from provision.errors import DriverError, ProvisionError

WAIT_S = 30  # of one call, well below what it may last
STATE = ("info.state", "info.error", "info.result", "info.progress")
OUTCOME = ("info.state", "info.result")
BUSY_TRIES = 5
_LOST_COLLECTOR = (vmodl.fault.ManagedObjectNotFound, vmodl.query.InvalidCollectorVersion)

Say = Callable[[str], None]


def _silent(_phase: str) -> None:
    """Nobody is to be told."""


@dataclass(slots=True)
class Tasks:
    """All waiting of one connection."""

    session: Session
    together: Together
    task_s: float
    _idle: list[tuple[int, Any]] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def run(self, start: Callable[[], Any], say: Say = _silent) -> Any:
        """Start a task and wait for its end; returns its result.

        A VM that is busy with another task is waited for. Raises the task's fault, DriverError
        at the deadline, and what ``start`` raises.
        """
        for _ in range(BUSY_TRIES - 1):
            try:
                return self.wait(start(), say)
            except vim.fault.TaskInProgress as e:
                if e.task is None:
                    raise
                with suppress(Fault):
                    self.wait(e.task)
        return self.wait(start(), say)

    def wait(self, task: Any, say: Say = _silent) -> Any:
        """The result of a task that was started. Raises as ``run``."""
        # most have ended by now, so that one call does
        seen = dict(self.together.get(task, *OUTCOME))
        if not _ended(seen):
            self.until(task, STATE, _ended, self.task_s, say, seen)
        if seen.get("info.state") == "error":
            raise seen.get("info.error") or self.together.get(task, "info.error")["info.error"]
        if not _ended(seen):
            raise DriverError(f"no end of the task {task._moId} after {self.task_s:g} s")
        return seen.get("info.result")

    def until(
        self, ref: Any, paths: Sequence[str], enough: Callable[[dict[str, Any]], bool],
        limit_s: float, say: Say = _silent, seen: dict[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """Wait until the object's properties are ``enough``; whether they were in time.

        ``seen`` takes the properties. Raises Fault where the object is gone.
        """
        seen = {} if seen is None else seen
        deadline = monotonic() + limit_s
        while monotonic() < deadline:
            number = self.session.number
            try:
                for change in self._changes(ref, paths, deadline):
                    seen[change.name] = change.val
                    if change.name == "info.progress" and change.val:
                        say(f"{change.val} %")
                    if enough(seen):
                        return True
            except _LOST_COLLECTOR as e:
                if number == self.session.number and getattr(e, "obj", ref) == ref:
                    raise
        return enough(seen)

    def _changes(self, ref: Any, paths: Sequence[str], deadline: float) -> Iterator[Any]:
        """Each change of the properties until then, their state at first included."""
        with self._collector() as collector:
            watch = collector.CreateFilter(spec(ref, paths), False)
            version = ""
            try:
                while (left_s := deadline - monotonic()) > 0:
                    update = collector.WaitForUpdatesEx(version, self._options(left_s))
                    if update is not None:
                        version = update.version
                        yield from _told(update, ref)
            finally:
                with suppress(Fault):
                    watch.DestroyPropertyFilter()

    def _options(self, left_s: float) -> Any:
        """A call's own end, at least a second: 0 would be a question without waiting."""
        wait_s = min(left_s, WAIT_S, self.session.to.limits.call_s / 2)
        return query.WaitOptions(maxWaitSeconds=max(1, round(wait_s)))

    @contextmanager
    def _collector(self) -> Iterator[Any]:
        """A collector for one wait; it ends with its session."""
        with self._lock:
            self._idle = [i for i in self._idle if i[0] == self.session.number]
            number, found = self._idle.pop() if self._idle else (self.session.number, None)
        if found is None:
            found = self.session.content.propertyCollector.CreatePropertyCollector()
        whole = True
        try:
            yield found
        except (Fault, ProvisionError):
            whole = False
            raise
        finally:
            if whole:
                with self._lock:
                    self._idle.append((number, found))
            else:
                with suppress(Fault):
                    found.DestroyPropertyCollector()


def _told(update: Any, ref: Any) -> Iterator[Any]:
    for part in update.filterSet:
        for thing in part.objectSet:
            if thing.kind == "leave":
                raise vmodl.fault.ManagedObjectNotFound(obj=ref)
            yield from thing.changeSet


def _ended(seen: dict[str, Any]) -> bool:
    return seen.get("info.state") in ("success", "error")
