"""What a host's door leads to: the calls, by way of the wire on which things befall them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.peers.xapi.calls import Calls
from tests.peers.xapi.core import World
from tests.peers.xapi.disks import Disks
from tests.peers.xapi.hosts import Hosts
from tests.peers.xapi.nets import Nets
from tests.peers.xapi.power import Power
from tests.peers.xapi.server import IMPORT
from tests.peers.xapi.sessions import Sessions
from tests.peers.xapi.values import Failure
from tests.peers.xapi.wire import Hooks, Wire


@dataclass(frozen=True)
class Rooms:
    """What the world is made of."""

    sessions: Sessions
    disks: Disks
    nets: Nets
    power: Power
    hosts: Hosts
    calls: Calls


@dataclass
class Answers:
    """What a host's door leads to."""

    world: World
    host: str
    master: str
    rooms: Rooms
    wire: Wire
    hooks: Hooks = field(init=False)

    def __post_init__(self) -> None:
        self.hooks = Hooks(self._fail, self._failed_task, self._expire)

    def dispatch(self, method: str, params: Sequence[Any]) -> Any:
        return self.wire.through(method, params, lambda: self._call(method, params), self.hooks)

    def _call(self, method: str, params: Sequence[Any]) -> Any:
        if self.host in self.world.booting:
            raise Failure("HOST_STILL_BOOTING")
        if self.host != self.world.pool["master"]:
            raise Failure("HOST_IS_SLAVE", self.master)
        return self.rooms.calls.call(method, params)

    def upload(self, session: str, vdi: str, data: bytes, task: str) -> None:
        def act() -> None:
            with self.world.store.lock:
                self.rooms.sessions.use(session)
                if task:
                    self.world.store.get("task", task)
                failure = None
                try:
                    self.rooms.disks.write(vdi, data)
                except Failure as e:
                    failure = e
                    raise
                finally:
                    self.rooms.sessions.finish(task, failure)

        self.wire.through(f"PUT {IMPORT}", (session, vdi, len(data)), act, self.hooks)

    def _fail(self, error: Sequence[str]) -> Any:
        raise Failure(*error)

    def _failed_task(self, method: str, error: Sequence[str]) -> str:
        with self.world.store.lock:
            task = self.rooms.sessions.create_task(method, "")
            self.rooms.sessions.finish(task, Failure(*error))
            return task

    def _expire(self, params: Sequence[Any]) -> None:
        with self.world.store.lock:
            if params and self.world.store.has("session", params[0]):
                self.rooms.sessions.logout(params[0])
