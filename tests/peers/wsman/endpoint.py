"""The endpoint that a test starts: WinRM of one host, which may be made to misbehave."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.peers import certs
from tests.peers.wsman import soap
from tests.peers.wsman.auth import SEALED_TYPE, Accounts, Headers, Login, Unreadable
from tests.peers.wsman.faults import Fault
from tests.peers.wsman.listener import Drop, Handler, Listener
from tests.peers.wsman.process import Program
from tests.peers.wsman.shells import Quotas, Shells


@dataclass(frozen=True)
class Request:
    """One request, the ``number``-th from 1; ``shell`` and ``command`` are ids, "" = none."""

    number: int
    action: str
    shell: str
    command: str
    size: int


@dataclass(frozen=True)
class Trouble:
    """How a request goes wrong. ``acts``: whether the host does what was asked.

    ``answer`` None is the honest one, "drop" none at all, a number HTTP's bare status. ``then``
    is done between the act and the answer, ``delay_s`` passes before the answer.
    """

    acts: bool = True
    answer: Fault | int | Literal["drop"] | None = None
    then: Callable[[], None] | None = None
    delay_s: float = 0


Hook = Callable[[Request], Trouble | None]


@dataclass
class Endpoint:
    """``uri`` with http needs sealed messages, with https takes Basic too.

    ``hook`` sees each request before it is obeyed. ``log`` has all requests, oldest first;
    ``refused`` counts logins that failed. ``complaints`` is what no sound client sends.
    """

    uri: str
    shells: Shells
    listener: Listener
    quotas: Quotas
    fingerprint: str = ""
    ca: Path | None = None
    hook: Hook | None = None
    log: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def counts(self) -> Counter[str]:
        """How many requests of each action there were."""
        with self._lock:
            return Counter(request.action for request in self.log)

    def calm(self) -> None:
        """Forget the requests so far, and disturb none."""
        with self._lock:
            self.log.clear()
            self.hook = None

    def wait_quiet(self, timeout_s: float = 30) -> None:
        """Wait until no process runs, such as one of a client that was killed."""
        with self.shells.quiet:
            quiet = lambda: not self.shells._running  # noqa: E731
            assert self.shells.quiet.wait_for(quiet, timeout_s), "a process does not end"

    def down(self) -> None:
        """The host goes away, and all shells with it."""
        self.listener.down()
        self.shells.end()

    def up(self) -> None:
        self.listener.up()

    def answer(self, data: bytes) -> tuple[int, bytes]:
        """Status and envelope. Raises Drop."""
        message_id = ""
        try:
            message = soap.parse(data)
            message_id = message.id
            trouble = self._note(message)
            body = self.shells.handle(message) if trouble.acts else ""
            if trouble.then is not None:
                trouble.then()
            self._ended.wait(trouble.delay_s)
            if trouble.answer == "drop":
                raise Drop
            if isinstance(trouble.answer, Fault):
                raise trouble.answer
            if isinstance(trouble.answer, int):
                return trouble.answer, b""
            return 200, soap.answer(message, body)
        except Fault as fault:
            return fault.status, soap.refusal(message_id, fault)

    def _note(self, message: soap.Message) -> Trouble:
        with self._lock:
            number = len(self.log) + 1
            request = Request(number, message.action, message.shell, message.command, message.size)
            self.log.append(request)
            hook = self.hook
        return (hook(request) if hook is not None else None) or Trouble()


def _server(endpoint: Endpoint, accounts: Accounts, cert_hash: bytes) -> Callable[..., None]:
    """What HTTP does with a request."""

    def serve(handler: Handler, data: bytes) -> None:
        if handler.login is None:
            handler.login = Login(accounts, handler.tls, basic=handler.tls, cert_hash=cert_hash)
        passes, headers = handler.login.greet(handler.headers.get("Authorization", ""))
        sealed = handler.headers.get("Content-Type", "").startswith("multipart/encrypted")
        if handler.path.partition("?")[0] != "/wsman":
            handler.reply(404)
        elif not passes:
            if not any(value.startswith("Negotiate ") for _, value in headers):
                endpoint.refused += bool(handler.headers.get("Authorization"))
            handler.reply(401, headers=headers)
        elif len(data) > endpoint.quotas.envelope_kib * 1024:
            handler.close_connection = True  # and with it the login, whose seals go on counting
            handler.reply(413, headers=headers)
        elif data and not (sealed or handler.tls):  # AllowUnencrypted is false unless it is set
            handler.reply(500, headers=headers)
        elif not data:
            handler.reply(200, headers=headers)
        else:
            _answer(endpoint, handler, data, headers, sealed=sealed)

    return serve


def _answer(
    endpoint: Endpoint, handler: Handler, data: bytes, headers: Headers, *, sealed: bool
) -> None:
    try:
        plain = handler.login.open(data) if sealed else data
    except Unreadable:
        return handler.reply(400)
    status, found = endpoint.answer(plain)
    if sealed and found:
        return handler.reply(status, handler.login.seal(found), SEALED_TYPE, headers)
    return handler.reply(status, found, headers=headers)


@contextmanager
def endpoint(
    program: Program, folder: Path, user: str, password: str, *, tls: bool = False,
    quotas: Quotas | None = None, expired: bool = False,
) -> Iterator[Endpoint]:  # fmt: skip
    """Start one on a free port; with ``tls`` it has a certificate of a CA of its own.

    ``program`` is what commands run; ``expired``: so is the certificate.
    """
    accounts = Accounts(user, password, folder / "ntlm-users")
    accounts.write()
    made = certs.make(folder, expired=expired) if tls else None
    quotas = quotas or Quotas()
    complaints: list[str] = []
    shells = Shells(program, user, quotas, complaints.append)
    cert_hash = b""
    if made is not None:
        cert_hash = hashlib.sha256(ssl.PEM_cert_to_DER_cert(made.cert.read_text())).digest()
    serve: list[Callable[..., None]] = []
    files = (made.cert, made.key) if made else None

    def served(handler: Handler, data: bytes) -> None:
        serve[0](handler, data)

    listener = Listener(served, files)
    found = Endpoint(
        f"http{'s' if tls else ''}://127.0.0.1:{listener.port}/wsman", shells, listener, quotas,
        made.fingerprint if made else "", made.ca if made else None, complaints=complaints,
    )  # fmt: skip
    serve.append(_server(found, accounts, cert_hash))
    try:
        yield found
    finally:
        found._ended.set()
        shells.end()
        listener.close()
