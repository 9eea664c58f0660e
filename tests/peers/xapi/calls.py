"""From a call on the wire to what answers it, by the rules that hold for all calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tests.peers.xapi import generic
from tests.peers.xapi.core import Handler, Room, World
from tests.peers.xapi.sessions import Sessions
from tests.peers.xapi.table import Message
from tests.peers.xapi.values import Failure, faults

NO_ASYNC = frozenset({"session", "event", "task"})
#: what takes its time, and bars others from the object meanwhile
LONG = frozenset(
    f"VM.{verb}" for verb in (
        "start", "start_on", "clone", "copy", "snapshot", "checkpoint", "revert", "provision",
        "hard_shutdown", "clean_shutdown", "shutdown", "suspend", "resume", "hard_reboot",
        "clean_reboot", "destroy",
    )
)  # fmt: skip
#: two of a set may run at once (xapi_vm_lifecycle.ml)
TOGETHER = ({"clone", "copy"}, {"snapshot", "checkpoint"})


class Calls:
    """``call`` is what a server does with a request: it gives the value or raises Failure."""

    def __init__(self, world: World, sessions: Sessions, rooms: Sequence[Room]) -> None:
        self.world, self.store, self.sessions = world, world.store, sessions
        self._handlers: dict[str, Handler] = {}
        for room in rooms:
            self._handlers |= room.handlers()
        for name in self._handlers:
            cls, _, verb = name.partition(".")
            assert verb in self.store.model.classes[cls].messages, f"no such message: {name}"

    def call(self, method: str, params: Sequence[Any]) -> Any:
        name = method.removeprefix("Async.")
        cls, _, verb = name.partition(".")
        known = self.store.model.classes.get(cls)
        message = known.messages.get(verb) if known else None
        if message is None or (name != method and cls in NO_ASYNC):
            self.world.complain(f"{method}: no such message")
            raise Failure("MESSAGE_METHOD_UNKNOWN", method)
        if name.startswith("session.login_with_password"):
            self._arity(name, message, params)
            with self.store.lock:
                return self.sessions.login(*params)
        self._arity(name, message, params[1:])
        with self.store.lock:
            self.sessions.use(params[0] if params else "")
        if message.state == "Removed":
            self.world.complain(f"{method}: removed from the API")
            raise Failure("MESSAGE_REMOVED")
        self._types(name, message, params[1:])
        return self._answer(method, name, message, str(params[0]), list(params[1:]))

    def _answer(self, method: str, name: str, message: Message, session: str, args: Any) -> Any:
        if method != name:
            with self.store.lock:
                task = self.sessions.create_task(f"Async.{name}", "")
            threading.Thread(
                target=self._task, args=(task, name, message, args), daemon=True
            ).start()
            return task
        with self.store.lock:
            match name:
                case "session.logout":
                    return self.sessions.logout(session)
                case "event.from":
                    return self.sessions.events(session, *args)
        return self.do(name, message, args)

    def _task(self, task: str, name: str, message: Message, args: list[Any]) -> None:
        failure, result = None, None
        try:
            result = self.do(name, message, args, task)
        except Failure as e:
            failure = e
        with self.store.lock:
            self.sessions.finish(task, failure, result)

    def do(self, name: str, message: Message, args: list[Any], task: str = "") -> Any:
        """Carry it out. Raises Failure; our own fault is INTERNAL_ERROR, complained of."""
        try:
            if name in LONG:
                self._take_time(name, args[0], task)
            with self.store.lock:
                return self._run(name, message, args)
        except Failure:
            raise
        except generic.BadRecord as e:
            self.world.complain(str(e))
            raise e.failure from e
        except Exception as e:
            self.world.complain(f"{name}: the peer itself: {e!r}")
            raise Failure("INTERNAL_ERROR", repr(e)) from e

    def _run(self, name: str, message: Message, args: list[Any]) -> Any:
        cls, _, verb = name.partition(".")
        if handler := self._handlers.get(name):
            found = handler(*args)
        elif message.implicit and verb not in ("create", "destroy"):
            found = generic.answer(self.store, cls, verb, args)
        else:
            self.world.complain(f"{name}: not modelled")
            raise Failure("NOT_IMPLEMENTED", name)
        return "" if found is None else found

    def _take_time(self, name: str, ref: str, task: str) -> None:
        """Bar others from the VM for as long as the call takes."""
        verb, mark = name.partition(".")[2], task or f"OpaqueRef:{time.monotonic_ns()}"
        operation = "destroy" if verb == "destroy" else verb
        with self.store.lock:
            now = self.store.get("VM", ref)["current_operations"]
            for other_ref, other in now.items():
                if not any({operation, other} <= both for both in TOGETHER):
                    raise Failure("OTHER_OPERATION_IN_PROGRESS", "VM", ref, other, other_ref)
            self.store.put("VM", ref, current_operations={**now, mark: operation})
        try:
            deadline = time.monotonic() + self.world.task_s
            while (left := deadline - time.monotonic()) > 0:
                with self.store.lock:
                    if self.store.tables["task"].get(task, {}).get("status") == "cancelling":
                        raise Failure("TASK_CANCELLED", task)
                time.sleep(min(left, 0.01))
        finally:
            with self.store.lock, suppress(Failure):
                now = self.store.get("VM", ref)["current_operations"]
                left_over = {k: v for k, v in now.items() if k != mark}
                self.store.put("VM", ref, current_operations=left_over)

    def _arity(self, name: str, message: Message, args: Sequence[Any]) -> None:
        least = sum(required for _, _, required in message.params)
        if not least <= len(args) <= len(message.params):
            self.world.complain(f"{name}: {len(args)} arguments, not {least}")
            raise Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", name, least, len(args))

    def _types(self, name: str, message: Message, args: Sequence[Any]) -> None:
        for (param, kind, _), value in zip(message.params, args, strict=False):
            for why in faults(self.store.model, kind, value, f"{name}: {param}"):
                self.world.complain(why)
                raise Failure("FIELD_TYPE_ERROR", param)


def changes(method: str) -> bool:
    """Whether such a call may change anything but sessions and tasks."""
    cls, _, verb = method.removeprefix("Async.").partition(".")
    if cls in ("session", "event", "task"):
        return False
    return not verb.startswith(("get_", "assert_", "compute_", "has_", "query_"))
