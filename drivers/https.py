"""HTTPS to a hypervisor's own server: who it is, deadlines, and what errors say.

The server's certificate is judged on each new connection, before anything is sent over it.
"""

from __future__ import annotations

import hmac
import re
import select
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.client import (
    BadStatusLine,
    HTTPException,
    HTTPSConnection,
    IncompleteRead,
    LineTooLong,
    RemoteDisconnected,
)
from time import monotonic
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from provision.driver import Tls
from provision.errors import Unreachable, UserError

PORT = 443
LONGEST = (
    65536  # line of a reply's head, in bytes; and HEADERS are the most lines, as http.client's
)
HEADERS = 100
FRESH_S = 0.5  # a connection that rested for less was not hung up on: servers wait for longer
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


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply, all of it. The names of ``headers`` are in small letters."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    closes: bool


class Connection(HTTPSConnection):
    """One connection."""

    def __init__(self, to: Endpoint) -> None:
        super().__init__(to.host, to.port, timeout=to.limits.connect_s, context=to.context)
        self._to = to
        self._held: list[bytes] | None = None
        self._rests_since: float | None = None
        self._file: BinaryIO | None = None

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

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """A POST and its reply, in half the time that http.client takes for them.

        Raises NotSent, and what http.client does.
        """
        if self.sock is None:
            try:
                self.connect()
            except (OSError, HTTPException) as e:
                raise NotSent(str(e)) from e
        more = {"Host": self._to.name, "Content-Length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **more}.items())
        self.sock.sendall(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
        # one wait: TLS itself would try to read first, then wait, then try again
        if not _ready(self.sock, self.sock.gettimeout()):
            raise TimeoutError("no reply")
        if self._file is None:
            self._file = self.sock.makefile("rb")
        reply = receive(self._file)
        if reply.closes:
            self.close()
        return reply

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        super().close()

    def rest(self) -> None:
        """It has brought a whole reply, and waits for its next use."""
        self._rests_since = monotonic()

    def stale(self) -> bool:
        """Whether the far side has hung up meanwhile: then there is something to read, its end."""
        since, self._rests_since = self._rests_since, None
        if since is None or self.sock is None or monotonic() - since < FRESH_S:
            return False
        return _ready(self.sock, 0)


def _ready(sock: ssl.SSLSocket, limit_s: float | None) -> bool:
    """Whether there is something to read within that time."""
    if sock.pending():
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(None if limit_s is None else 1000 * limit_s))


def receive(file: BinaryIO) -> Reply:
    """The next reply of HTTP/1. Raises HTTPException, OSError."""
    told = _status(file)
    while told["status"] == "100":  # "go on", which says nothing yet
        _headers(file)
        told = _status(file)
    status, headers = int(told["status"]), _headers(file)
    length = headers.get("content-length")
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    closes = told["minor"] == "0" or headers.get("connection", "").lower() == "close"
    if chunked:
        body = _chunks(file)
    elif length is None and status not in (204, 304):
        body, closes = file.read(), True
    else:
        body = _exactly(file, _number(length or "0", 10))
    return Reply(status, (told["reason"] or "").strip(), headers, body, closes)


def _status(file: BinaryIO) -> re.Match[str]:
    first = _line_of(file)
    if not first:
        raise RemoteDisconnected("the server hung up without a reply")
    told = re.match(r"HTTP/1\.(?P<minor>[01]) +(?P<status>\d{3})(?: +(?P<reason>.*))?$", first)
    if told is None:
        raise BadStatusLine(first)
    return told


def _line_of(file: BinaryIO) -> str:
    found = file.readline(LONGEST + 1)
    if len(found) > LONGEST:
        raise LineTooLong("header line")
    return found.decode("latin-1").rstrip("\r\n")


def _headers(file: BinaryIO) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(HEADERS):
        if not (line := _line_of(file)):
            return found
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        found[name] = f"{found[name]}, {value}" if name in found else value
    raise HTTPException(f"more than {HEADERS} headers")


def _chunks(file: BinaryIO) -> bytes:
    found: list[bytes] = []
    while size := _number(_line_of(file).partition(";")[0], 16):
        found.append(_exactly(file, size))
        _line_of(file)
    _headers(file)
    return b"".join(found)


def _number(text: str, base: int) -> int:
    with suppress(ValueError):
        if (found := int(text, base)) >= 0:
            return found
    raise HTTPException(f"no length of a reply: {text[:40]!r}")


def _exactly(file: BinaryIO, size: int) -> bytes:
    found = file.read(size)
    if len(found) < size:
        raise IncompleteRead(found, size - len(found))
    return found


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
