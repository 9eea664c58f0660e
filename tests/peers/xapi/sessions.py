"""Sessions, tasks and events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tests.peers.xapi.core import Handler, World
from tests.peers.xapi.store import Event, now
from tests.peers.xapi.values import Failure

POLL_S = 30.0  # a waiting event.from looks at its session again


class Sessions:
    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self._used: dict[str, float] = {}

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "task.create": self.create_task,
            "task.destroy": lambda ref: self.store.drop("task", ref),
            "task.cancel": self.cancel,
        }

    def login(self, user: str, password: str, _version: str = "1.0", originator: str = "") -> str:
        if (user, password) != (self.world.user, self.world.password):
            raise Failure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
        ref = self.store.new(
            "session", auth_user_name=user, originator=originator, last_active=now(),
            is_local_superuser=True, this_host=self.world.pool["master"],
        )  # fmt: skip
        self._used[ref] = time.monotonic()
        return ref

    def use(self, ref: object) -> None:
        """Raises SESSION_INVALID where there is none, or it has idled too long."""
        if isinstance(ref, str) and self.store.has("session", ref):
            if time.monotonic() - self._used[ref] <= self.world.idle_s:
                self._used[ref] = time.monotonic()
                return
            self.store.drop("session", ref)
        raise Failure("SESSION_INVALID", ref)

    def logout(self, ref: str) -> None:
        self.store.drop("session", ref)
        self._used.pop(ref, None)

    def end_all(self) -> None:
        """As when xapi is started anew."""
        for ref in self.store.refs("session"):
            self.logout(ref)

    def create_task(self, label: str, description: str) -> str:
        return self.store.new(
            "task", name_label=label, name_description=description, status="pending",
            created=now(), type="<none/>", allowed_operations=["cancel"],
        )  # fmt: skip

    def cancel(self, ref: str) -> None:
        if self.store.get("task", ref)["status"] != "pending":
            raise Failure("OPERATION_NOT_ALLOWED", "the task has ended")
        self.store.put("task", ref, status="cancelling")

    def finish(self, ref: str, failure: Failure | None, result: object = "") -> None:
        """End a task; nothing where somebody has destroyed it."""
        if not self.store.has("task", ref):
            return
        ended = {"finished": now(), "progress": 1.0, "allowed_operations": ["destroy"]}
        if failure is None:
            text = f"<value>{result}</value>" if result not in ("", None) else ""
            self.store.put("task", ref, status="success", result=text, **ended)
        else:
            kind = "cancelled" if failure.details[0] == "TASK_CANCELLED" else "failure"
            self.store.put("task", ref, status=kind, error_info=failure.details, **ended)

    def events(self, session: str, classes: list[str], token: str, timeout: float) -> Any:
        """event.from: blocks until something matches; wants the lock, and lets it go."""
        matches: dict[str, set[str] | None] = {}
        for text in classes:
            name, slash, ref = text.partition("/")
            known = {cls.lower() for cls in self.store.model.classes} | {"*", "message"}
            if not name or name.lower() not in known or (slash and not ref):
                raise Failure("EVENT_SUBSCRIPTION_PARSE_FAILURE", text)
            if not slash:
                matches[name.lower()] = None
            elif (has := matches.setdefault(name.lower(), set())) is not None:
                has.add(ref)
        since = _parse(token)
        deadline = time.monotonic() + timeout
        while not (found := self.store.since(since, matches)):
            self.use(session)
            left = deadline - time.monotonic()
            if left <= 0 or self.world.closed:
                break
            self.store.changed.wait(min(left, POLL_S))
        return {
            "events": [self._event(event) for event in found],
            "valid_ref_counts": {c.lower(): len(t) for c, t in self.store.tables.items()},
            "token": f"{self.store.generation:020d},{0:020d}",
        }

    def _event(self, event: Event) -> dict[str, Any]:
        there = self.store.has(event.cls, event.ref)
        found: dict[str, Any] = {
            "id": str(event.generation), "timestamp": f"{time.time():.6f}",
            "class": event.cls.lower(), "operation": event.operation if there else "del",
            "ref": event.ref, "obj_uuid": "",
        }  # fmt: skip
        if there:
            found["snapshot"] = self.store.record(event.cls, event.ref)
        return found


def _parse(token: str) -> int:
    if token == "":
        return 0
    try:
        since, _message = (int(part) for part in token.split(","))
    except ValueError:
        raise Failure("EVENT_FROM_TOKEN_PARSE_FAILURE", token) from None
    return since
