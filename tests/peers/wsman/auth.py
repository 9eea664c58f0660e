"""Who comes in: NTLM with message encryption, and Basic over HTTPS ([MS-WSMV] 2.2.9.1).

Kerberos needs a domain controller and cannot be had here. An NTLM login holds for its connection.
"""

from __future__ import annotations

import base64
import os
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import spnego
import spnego.channel_bindings
import spnego.exceptions

SEALED = "application/HTTP-SPNEGO-session-encrypted"
BOUNDARY = b"--Encrypted Boundary"
OCTETS = b"\tContent-Type: application/octet-stream\r\n"
SEALED_TYPE = f'multipart/encrypted;protocol="{SEALED}";boundary="Encrypted Boundary"'
USERS = "NTLM_USER_FILE"
#: what the library makes of a token that is none
_NO_TOKEN = (spnego.exceptions.SpnegoError, ValueError, LookupError, struct.error)
Headers = tuple[tuple[str, str], ...]


class Unreadable(Exception):
    """What came is not sealed as it says, or not by who logged in."""


@dataclass(frozen=True)
class Accounts:
    """The one user of a host, and where the library that judges NTLM finds the password.

    ``names`` are the domains under which a local user may come in.
    """

    user: str
    password: str = field(repr=False)
    file: Path
    names: tuple[str, ...] = ("", ".", "HV1")
    #: the library looks into an environment variable, of which a process has one
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def write(self) -> None:
        assert ":" not in self.password, "the file of users has no way to write that"
        self.file.touch(mode=0o600)
        self.file.write_text("".join(f"{n}:{self.user}:{self.password}\n" for n in self.names))

    @contextmanager
    def known(self) -> Iterator[None]:
        """For as long as the library may ask who the users are."""
        with self._lock:
            before = os.environ.get(USERS)
            os.environ[USERS] = str(self.file)
            try:
                yield
            finally:
                if before is None:
                    del os.environ[USERS]
                else:
                    os.environ[USERS] = before

    def step(self, context: Any, token: bytes) -> bytes | None:
        with self.known():
            found: bytes | None = context.step(token)
            return found

    def new(self, kind: str, cert_hash: bytes) -> Any:
        """A context for one login; ``cert_hash`` binds it to the channel of HTTPS."""
        bindings = None
        if cert_hash:
            text = b"tls-server-end-point:" + cert_hash
            bindings = spnego.channel_bindings.GssChannelBindings(application_data=text)
        raw = kind == "NTLM"
        how = spnego.NegotiateOptions.use_ntlm if raw else spnego.NegotiateOptions.use_negotiate
        with self.known():
            return spnego.server(
                protocol="ntlm" if raw else "negotiate",
                channel_bindings=bindings,
                options=how | spnego.NegotiateOptions.wrapping_winrm,
            )


@dataclass
class Login:
    """One connection's. ``refused`` counts logins that failed."""

    accounts: Accounts
    tls: bool
    basic: bool
    cert_hash: bytes = b""
    _context: Any = None
    _known: bool = False

    def greet(self, authorization: str) -> tuple[bool, Headers]:
        """Whether a request may pass, and what its answer has to say about logging in."""
        if authorization.startswith("Basic "):
            given = base64.b64decode(authorization[6:]).decode(errors="replace")
            right = given == f"{self.accounts.user}:{self.accounts.password}"
            return self.tls and self.basic and right, () if right else self._offers()
        found = re.fullmatch(r"(Negotiate|NTLM) (\S+)", authorization)
        if not found:
            return self._known, () if self._known else self._offers()
        kind, token = found[1], base64.b64decode(found[2])
        if self._context is None or self._context.complete:
            self._context, self._known = self.accounts.new(kind, self.cert_hash), False
        try:
            said = self.accounts.step(self._context, token)
        except _NO_TOKEN:
            self._context, self._known = None, False
            return False, self._offers()
        self._known = self._context.complete
        back = (("WWW-Authenticate", f"{kind} {base64.b64encode(said).decode()}"),) if said else ()
        return self._known, back

    def _offers(self) -> Headers:
        basic = (("WWW-Authenticate", 'Basic realm="WSMAN"'),) if self.tls and self.basic else ()
        return (("WWW-Authenticate", "Negotiate"), *basic)

    def open(self, data: bytes) -> bytes:
        """What is in a sealed message. Raises Unreadable."""
        head, _, rest = data.partition(OCTETS)
        length = re.search(rb"Length=(\d+)\r\n", head)
        end = rest.rfind(BOUNDARY + b"--")
        if self._context is None or SEALED.encode() not in head or not length or end < 4:
            raise Unreadable
        size = int.from_bytes(rest[:4], "little")
        try:
            found: bytes = self._context.unwrap_winrm(rest[4 : 4 + size], rest[4 + size : end])
        except _NO_TOKEN as e:
            raise Unreadable(str(e)) from e
        if len(found) != int(length[1]):
            raise Unreadable
        return found

    def seal(self, data: bytes) -> bytes:
        found = self._context.wrap_winrm(data)
        original = f"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length={len(data)}"
        return b"\r\n".join([
            BOUNDARY, f"\tContent-Type: {SEALED}".encode(), original.encode(), BOUNDARY,
            OCTETS[:-2] + b"\r\n" + len(found.header).to_bytes(4, "little") + found.header
            + found.data + BOUNDARY + b"--", b"",
        ])  # fmt: skip
