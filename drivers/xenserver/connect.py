"""Sessions with a pool's master: login and its redirect, renewal, calls that are not done twice.

A call that only reads is made again where its reply was lost; one that changes something raises
Lost, for its caller to look first. XenAPI: session.login_with_password, HOST_IS_SLAVE.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock
from time import monotonic
from typing import Any, TypeVar

from drivers.https import Endpoint, NotSent, unreachable
from drivers.xenserver.api import Failure, Lost, code, words
from drivers.xenserver.wire import BROKEN, Line, LineType, SessionGone
from provision.driver import Login
from provision.errors import Unreachable, UserError

T = TypeVar("T")
TRIES = 4
FIRST_PAUSE_S = 0.2
HOPS = 3
BOOTING = "HOST_STILL_BOOTING"
#: calls that change nothing, or do no more when they are done twice; besides ``get_…``
HARMLESS = frozenset({"event.from", "task.destroy", "task.cancel", "VM.assert_can_boot_here"})


class Session:
    """What calls are made through, by any thread: each call has a line of its own meanwhile.

    ``to`` is the master, whichever host was named.
    """

    def __init__(self, to: Endpoint, login: Login, line: LineType = Line) -> None:
        self.to = to
        self._login = login
        self._make = line
        self._lock = Lock()
        self._idle: list[Line] = []
        self._lines: list[Line] = []
        self._refused: Unreachable | None = None
        self._pause = Event()  # never set: only waited for
        self._idle.append(self._new())

    def call(self, method: str, *args: Any) -> Any:
        """Raises Failure; Unreachable where no server is there; Lost, see the module."""
        for pause_s in (*(FIRST_PAUSE_S * 4**n for n in range(TRIES - 1)), None):
            with self._line() as line:
                try:
                    return line.request(method, args)
                except SessionGone:
                    if pause_s is None:
                        raise Unreachable(f"{self.to.name}: its sessions do not last") from None
                    self._renew(line)
                    continue
                except BROKEN as e:
                    if not (isinstance(e, NotSent) or harmless(method)):
                        raise Lost(method, e) from e
                    if pause_s is None or isinstance(e.__cause__, ssl.SSLError):
                        raise unreachable(self.to, e) from e
            self._pause.wait(pause_s)
        raise AssertionError("the last try returns or raises")

    def again(self, work: Callable[[], T], settle: Callable[[], object] = lambda: None) -> T:
        """What ``work`` returns, done again where a reply was lost: it has to look first.

        ``settle`` waits before that for what the lost call may have started.
        """
        for n in range(TRIES - 1):
            try:
                return work()
            except Lost:
                self._pause.wait(FIRST_PAUSE_S * 4**n)
                settle()
        return work()

    def back(self, limit_s: float, ready: Callable[[], bool]) -> bool:
        """Whether the server answers again within that time, and all is ``ready`` there."""
        deadline = monotonic() + limit_s
        while True:
            with suppress(Unreachable, Failure, Lost):
                if ready():
                    return True
            if monotonic() >= deadline:
                return False
            self._pause.wait(min(1.0, FIRST_PAUSE_S * 2))

    @contextmanager
    def lent(self) -> Iterator[str]:
        """A session's reference that lives, for a request that is no call."""
        self.call("pool.get_all")
        with self._line() as line:
            yield line.ref

    def close(self) -> None:
        """Log out all sessions; no error where the server is gone already."""
        with self._lock:
            lines, self._lines, self._idle = self._lines, [], []
        for line in lines:
            with suppress(Failure, SessionGone, *BROKEN):
                line.log_out()
            line.hang_up()

    @contextmanager
    def _line(self) -> Iterator[Line]:
        with self._lock:
            found = self._idle.pop() if self._idle else None
        if found is None:
            found = self._new()
        try:
            yield found
        finally:
            with self._lock:
                self._idle.append(found)

    def _new(self) -> Line:
        if self._refused is not None:  # an account is locked after a few wrong passwords
            raise self._refused
        for _ in range(HOPS):
            line = self._make(self.to)
            try:
                line.log_in(self._login.user, self._login.password)
            except BROKEN as e:
                line.hang_up()
                raise unreachable(self.to, e) from e
            except Failure as e:
                line.hang_up()
                if code(e) == "HOST_IS_SLAVE" and len(e.details) > 1:
                    self.to = self.to.at(str(e.details[1]))
                    continue
                raise self._no_login(e) from e
            with self._lock:
                self._lines.append(line)
            return line
        raise Unreachable(f"{self.to.name}: each host names another one as the pool's master")

    def _renew(self, line: Line) -> None:
        """The line's session is no more: log in on it. Raises Unreachable."""
        try:
            line.log_in(self._login.user, self._login.password)
        except BROKEN as e:
            raise unreachable(self.to, e) from e
        except Failure as e:
            raise self._no_login(e) from e

    def _no_login(self, e: Any) -> Unreachable:
        if code(e) == BOOTING:
            return Unreachable(f"{self.to.name} is still booting", hint="try again in a minute")
        refused = _refused(self.to, self._login.user, e)
        if code(e) == "SESSION_AUTHENTICATION_FAILED":
            self._refused = refused
        return refused


def connect(to: Endpoint, login: Login | None, line: LineType = Line) -> Session:
    """Log in. Raises Unreachable, UserError where there is no login."""
    if login is None:
        raise UserError(
            f"{to.name}: no login",
            hint="hypervisor.user, and hypervisor.password: {env: NAME}",
        )
    return Session(to, login, line)


def harmless(method: str) -> bool:
    """Whether a call may be made twice."""
    verb = method.rpartition(".")[2]
    return method in HARMLESS or (
        not method.startswith("Async.") and verb.startswith(("get_", "compute_"))
    )


def _refused(to: Endpoint, user: str, e: Any) -> Unreachable:
    if code(e) == "SESSION_AUTHENTICATION_FAILED":
        return Unreachable(
            f"{to.name} refuses user {user!r}: wrong name or password",
            hint="hypervisor.user and hypervisor.password",
        )
    if code(e) in ("SESSION_AUTHORIZATION_FAILED", "RBAC_PERMISSION_DENIED"):
        return Unreachable(
            f"{to.name} lets user {user!r} do nothing", hint="give it a role: docs/xenserver.md"
        )
    return Unreachable(f"{to.name} refuses user {user!r}: {words(e)}")
