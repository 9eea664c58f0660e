"""HTTPS to a hypervisor's own server: who it is, deadlines, and what errors say.

The server's certificate is judged on each new connection, before anything is sent over it.
"""

from __future__ import annotations

import hmac
import select
import socket
import ssl
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.client import HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from provision.driver import Tls
from provision.errors import Unreachable, UserError

PORT = 443
#: what a call that got no sensible reply raises
BROKEN = (OSError, HTTPException, ExpatError)


class Limits(Protocol):
    """How long we wait, in seconds: for a connection, and for the reply to a call."""

    @property
    def connect_s(self) -> float: ...
    @property
    def call_s(self) -> float: ...


class WrongCertificate(ssl.SSLError):
    """The server's certificate is not the one that was asked for; ``seen`` is its SHA-256."""

    def __init__(self, seen: str) -> None:
        super().__init__(f"its certificate is {seen}")
        self.seen = seen


class NotSent(OSError):
    """No connection was to be had: nothing reached the server. ``__cause__`` says why."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What sort of server it is: its name for people, what it runs on, and a path to try."""

    name: str
    what: str
    path: str
    example: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is, and how it has to prove itself."""

    host: str
    port: int
    tls: Tls
    limits: Limits
    context: ssl.SSLContext = field(repr=False)
    kind: Kind

    @property
    def name(self) -> str:
        return self.netloc.removesuffix(f":{PORT}")

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def at(self, host: str, port: int | None = None) -> Endpoint:
        """The same, at another address."""
        return replace(self, host=host, port=port or self.port)

    def connection(self) -> Connection:
        """A new connection, not yet made."""
        return Connection(self)


class Connection(HTTPSConnection):
    """One connection; ``used`` once it has brought a reply."""

    def __init__(self, to: Endpoint) -> None:
        super().__init__(to.host, to.port, timeout=to.limits.connect_s, context=to.context)
        self._to = to
        self._held: list[bytes] | None = None
        self.used = False

    def connect(self) -> None:
        """Raises OSError, and WrongCertificate before a byte of ours is sent over TLS."""
        super().connect()
        sock: ssl.SSLSocket = self.sock
        if wanted := self._to.tls.fingerprint:
            seen = sha256(sock.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(seen, wanted):
                self.close()
                raise WrongCertificate(seen)
        sock.settimeout(self._to.limits.call_s)

    def request(self, *args: Any, **more: Any) -> None:
        """As http.client's, but header and body go in one piece: one record of TLS, one packet."""
        self._held = []
        try:
            super().request(*args, **more)
        finally:
            held, self._held = self._held, None
        super().send(b"".join(held))

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def stale(self) -> bool:
        """Whether the far side has hung up meanwhile: then there is something to read, its end."""
        if not self.used or self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))


def endpoint(uri: str, tls: Tls, limits: Limits, kind: Kind) -> Endpoint:
    """From ``https://host[:port]/``. Raises UserError for what is no such URI or CA file."""
    parts = urlsplit(uri)
    try:
        port = parts.port or PORT
    except ValueError:
        port = 0
    if parts.scheme != "https" or not parts.hostname or not port or parts.username:
        raise UserError(
            f"hypervisor.uri {uri!r}: {kind.what} is reached over HTTPS", hint=kind.example
        )
    return Endpoint(parts.hostname, port, tls, limits, context(tls), kind)


def context(tls: Tls) -> ssl.SSLContext:
    """A pinned certificate is compared by ``Connection``; no CA is asked then."""
    if tls.fingerprint or not tls.verify:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
        return found
    try:
        return ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    except OSError as e:  # ssl.SSLError is one
        raise UserError(
            f"hypervisor.tls.ca: {tls.ca}: {e.strerror or e}", hint="a PEM file of a CA"
        ) from e


def unreachable(to: Endpoint, error: BaseException) -> Unreachable:
    """An error of the connection in words, with what would tell more or help."""
    cause = error.__cause__ if isinstance(error, NotSent) and error.__cause__ else error
    text, hint = _told(to, cause)
    return Unreachable(f"{to.name}: {text}", hint=hint)


def _told(  # noqa: PLR0911 (one for each sort of error)
    to: Endpoint, e: BaseException
) -> tuple[str, str]:
    look = f"openssl s_client -connect {to.netloc} </dev/null"
    show = f"{look} | openssl x509 -noout -subject -enddate -fingerprint -sha256"
    ask = f"curl -k https://{to.netloc}{to.kind.path}"
    if isinstance(e, WrongCertificate):
        asked = to.tls.fingerprint
        return f"its certificate's SHA-256 is {e.seen}, not {asked} of hypervisor.tls", show
    if isinstance(e, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {e.verify_message}",
            f"hypervisor.tls.ca, or tls.fingerprint as shown by: {show}",
        )
    if isinstance(e, ssl.SSLError):
        return f"no TLS as it should be: {e.reason or e}", look
    if isinstance(e, socket.gaierror):
        return "no such host", f"getent hosts {to.host}; hypervisor.uri"
    if isinstance(e, TimeoutError):
        return f"no answer within {to.limits.connect_s:g} s, or {to.limits.call_s:g} s a call", ask
    if isinstance(e, OSError):
        return _line(e), ask
    return f"it answers, but not as {to.kind.name} does: {_line(e)}", ask


def _line(e: Any) -> str:
    return (getattr(e, "strerror", None) or " ".join(str(e).split()) or type(e).__name__)[:300]
