"""XML-RPC to a pool's master: XenAPI's client on connections of ours.

The client has no deadlines of its own, and the library below it sends a request again where a kept
connection was reset: a clone would be made twice. Here each request is sent once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from xmlrpc.client import Error, Fault, SafeTransport

from XenAPI import Session as _Client

from drivers import https
from drivers.https import Connection, Endpoint, NotSent
from drivers.xenserver.api import Failure
from provision.driver import Tls

Client: Any = _Client
KIND = https.Kind("XenAPI", "a XenServer or XCP-ng host", "/", "https://xenserver.example/")
API_VERSION, ORIGINATOR = "1.0", "provision"
LOGIN = "login_with_password"
NOT_LOGGED_IN = 401  # what the client says of a session that is no more
#: TypeError: the client adds a reply that has no status to text
BROKEN = (*https.BROKEN, Error, TypeError)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long we wait, in seconds.

    For a connection, a reply, a task, a cable's carrier, and a host that restarts.
    """

    connect_s: float = 15
    call_s: float = 120
    task_s: float = 3600
    carrier_s: float = 30
    reboot_s: float = 1200


class SessionGone(Exception):
    """The server does not know our session any more; the call was not done."""


class Transport(SafeTransport):
    """One connection, kept; a request is sent once, whatever becomes of it."""

    def __init__(self, to: Endpoint) -> None:
        super().__init__(context=to.context)
        self._to = to
        self._link: Connection | None = None

    def make_connection(self, host: Any) -> Any:
        """One that is open. Raises NotSent."""
        self._extra_headers = []
        if self._link is not None and self._link.stale():
            self.close()
        if self._link is None:
            link = self._to.connection()
            try:
                link.connect()
            except (OSError, HTTPException) as e:
                raise NotSent(str(e)) from e
            self._link = link
        return self._link

    def close(self) -> None:
        """Hang up; the next request connects anew."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        """Raises what befell the connection, which is then closed."""
        try:
            found = self.single_request(host, handler, request_body, verbose)
        except BaseException:
            self.close()
            raise
        if self._link is not None:
            self._link.rest()
        return found


class Line:
    """A session on a connection of its own, for one thread at a time. ``ref`` "" = logged out."""

    def __init__(self, to: Endpoint) -> None:
        self.to = to
        self._transport = Transport(to)
        self._client = Client(f"https://{to.netloc}", transport=self._transport)

    @property
    def ref(self) -> str:
        return self._client._session or ""

    def log_in(self, user: str, password: Callable[[], str]) -> None:
        """Raises Failure, and what befell the connection.

        The password is asked for once the server has proved itself, and is not kept.
        """
        self._transport.make_connection(self.to.netloc)
        try:
            getattr(self._client, LOGIN)(user, password(), API_VERSION, ORIGINATOR)
        finally:  # the client would keep it, to log in again by itself
            self._client.last_login_method = self._client.last_login_params = None

    def request(self, method: str, args: tuple[Any, ...]) -> Any:
        """Raises Failure, SessionGone, and what befell the connection."""
        try:
            return self._client.xenapi_request(method, args)
        except Fault as e:
            if e.faultCode == NOT_LOGGED_IN:
                raise SessionGone from e
            raise

    def log_out(self) -> None:
        """Raises as ``request``; what is left is a line without a session."""
        if self.ref:
            self._client.last_login_method = LOGIN
            self._client.xenapi_request("session.logout", ())

    def hang_up(self) -> None:
        self._transport.close()


LineType = Callable[[Endpoint], Line]


def endpoint(uri: str, tls: Tls, limits: Limits) -> Endpoint:
    """From ``https://host[:port]/``. Raises UserError for what is no such URI or CA file."""
    return https.endpoint(uri, tls, limits, KIND)


__all__ = ["BROKEN", "Failure", "Limits", "Line", "LineType", "NotSent", "SessionGone", "endpoint"]
