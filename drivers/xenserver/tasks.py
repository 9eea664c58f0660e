"""Long calls as tasks: waited for by events with a deadline, never polled, and always destroyed.

XenAPI: ``Async.CLASS.METHOD``, event.from, task.destroy. A task that ended and is not destroyed
stays for an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any
from xml.etree import ElementTree

from drivers.xenserver.api import BUSY, Failure, Lost, Record, code, gone_is_fine
from drivers.xenserver.connect import Session
from provision.errors import DriverError, ProvisionError

WAIT_S = 30.0  # of one call, well below what it may last
BUSY_TRIES = 5
SETTLE_S = 300.0
Say = Callable[[str], None]


def _silent(_phase: str) -> None:
    """Nobody is to be told."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """All waiting of one connection."""

    session: Session
    task_s: float

    def run(self, method: str, *args: Any, say: Say = _silent) -> str:
        """Start ``Async.METHOD`` and wait for its end; returns its result, "" where it has none.

        What another operation keeps busy is waited for. Raises the task's Failure, Lost, and
        DriverError at the deadline, when the task is cancelled.
        """
        for _ in range(BUSY_TRIES - 1):
            try:
                return self._once(method, args, say)
            except Failure as e:
                if code(e) not in BUSY or len(e.details) < 3:
                    raise
                self.idle(str(e.details[1]), str(e.details[2]))
        return self._once(method, args, say)

    def wait(self, task: str, what: str, say: Say = _silent) -> str:
        """The result of a task that was started, which is destroyed. Raises as ``run``."""
        try:
            for record in self.watch("task", task, self.task_s):
                if (done := _result(record)) is not None:
                    return done
                if 0 < (progress := float(record["progress"])) < 1:
                    say(f"{100 * progress:.0f} %")
            with suppress(Failure, Lost):
                self.session.call("task.cancel", task)
            raise DriverError(f"no end of {what} after {self.task_s:g} s")
        finally:
            with suppress(Failure, Lost, ProvisionError):
                self.session.call("task.destroy", task)

    def watch(self, cls: str, ref: str, limit_s: float) -> Iterator[Record]:
        """An object's record as it is, and at each change, until the time is over.

        Raises Failure HANDLE_INVALID where it is gone.
        """
        token, deadline = "", monotonic() + limit_s
        while (left_s := deadline - monotonic()) > 0:
            wait_s = min(left_s, WAIT_S, self.session.to.limits.call_s / 2)
            try:
                found = self.session.call("event.from", [f"{cls}/{ref}"], token, float(wait_s))
            except Failure as e:
                if code(e) != "EVENTS_LOST":
                    raise
                token = ""
                continue
            first, token = token == "", found["token"]
            if first and not found["events"]:
                raise Failure(["HANDLE_INVALID", cls, ref])
            for event in found["events"]:
                if event["operation"] == "del" or "snapshot" not in event:
                    raise Failure(["HANDLE_INVALID", cls, ref])
                yield event["snapshot"]

    def idle(self, cls: str, ref: str) -> None:
        """Wait until nothing is being done to an object; one that is gone is idle."""
        with gone_is_fine():
            if not self.session.call(f"{cls}.get_current_operations", ref):
                return
            for record in self.watch(cls.lower(), ref, SETTLE_S):
                if not record.get("current_operations"):
                    return

    def _once(self, method: str, args: tuple[Any, ...], say: Say) -> str:
        return self.wait(str(self.session.call(f"Async.{method}", *args)), method, say)


def _result(record: Record) -> str | None:
    """What a task gave, None while it goes on. Raises Failure."""
    status = record["status"]
    if status == "success":
        text = str(record["result"])
        return (ElementTree.fromstring(text).text or "").strip() if "<" in text else text.strip()
    if status in ("failure", "cancelled"):
        raise Failure(list(record["error_info"]) or ["TASK_CANCELLED"])
    return None
