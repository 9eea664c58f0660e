"""WinRM to a Windows host: who it is, who we are, and what errors of the connection say.

NTLM and Kerberos encrypt every message where there is no TLS (MS-WSMV 2.2.9.1); Basic is for HTTPS
only. The server's certificate is judged on each new connection, before anything is sent over it.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol
from winrm.transport import HAVE_KERBEROS, Transport

from provision.driver import Login, Tls
from provision.errors import PreflightError, Unreachable, UserError

PORTS = {"http": 5985, "https": 5986}
AUTHS = ("ntlm", "kerberos", "basic", "certificate")
_SEEN = re.compile(r'got "([0-9a-f]{64})"')
_ERRNO = re.compile(r"\[Errno -?\d+\] ([^\"')]+)")
TOO_MANY = (2150859173, 2150859174)  # ERROR_WSMAN_QUOTA_MAX_SHELLS, _OPERATIONS
#: what a message that got no sensible answer raises; StopIteration is pywinrm's for strange XML
BROKEN = (
    requests.RequestException, WinRMError, WinRMTransportError, WinRMOperationTimeoutError,
    OSError, SyntaxError, StopIteration, KeyError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """How long we wait, in seconds.

    For a connection, for one message, for a batch, for a guest's integration services, and for a
    host that restarts. ``late_s``: so much longer than for a message we wait for the host to say
    that it takes longer. ``idle_s``: a connection that rested longer is made anew.
    """

    connect_s: float = 15
    message_s: int = 20
    late_s: int = 10
    batch_s: float = 3600
    guest_s: float = 180
    boot_s: float = 1800
    idle_s: float = 45


class _Pinned(HTTPAdapter):
    """Connections that end unless the server's certificate has this SHA-256."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, assert_fingerprint=self._fingerprint)


class _Transport(Transport):
    fingerprint = ""

    def build_session(self) -> requests.Session:
        """Over TLS no message of ours is sent by this, so that the adapter is in time."""
        fresh = self.session is None
        session: requests.Session = super().build_session()
        if fresh and self.fingerprint:
            session.mount("https://", _Pinned(self.fingerprint))
        return session


@dataclass(slots=True)
class Door:
    """Where the host is, how it proves itself, and who we are: makes connections.

    After one refusal no other try is made: an account is locked after a few.
    """

    scheme: str
    host: str
    port: int
    auth: str
    login: Login | None
    tls: Tls
    limits: Limits = field(default_factory=Limits)
    _refused: Unreachable | None = None
    _lock: Lock = field(default_factory=Lock)

    @property
    def name(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/wsman"

    def protocol(self) -> Protocol:
        """A connection that is not yet made; one thread uses it at a time. Raises Unreachable."""
        with self._lock:
            if self._refused is not None:
                raise self._refused
        tls = self.tls
        trusting = bool(tls.fingerprint) or not tls.verify
        user, password = ("", "")
        if self.login is not None and self.auth != "certificate":
            user, password = self.login.user, self.login.password()
        how: dict[str, Any] = {
            "username": user,
            "password": password,
            "server_cert_validation": "ignore" if trusting else "validate",
            "ca_trust_path": None if trusting else _ca(tls),
            "message_encryption": "always" if self.scheme == "http" else "auto",
            "cert_pem": str(tls.client_cert) if tls.client_cert else None,
            "cert_key_pem": str(tls.client_key) if tls.client_key else None,
            "proxy": None,
        }
        seconds = self.limits.message_s
        found = Protocol(
            self.url, transport=cast(Any, self.auth), operation_timeout_sec=seconds,
            read_timeout_sec=seconds + self.limits.late_s, **how,
        )  # fmt: skip
        transport = _Transport(self.url, auth_method=cast(Any, self.auth), service="HTTP", **how)
        transport.fingerprint = tls.fingerprint
        # requests takes both of its deadlines so
        transport.read_timeout_sec = cast(
            Any, (self.limits.connect_s, seconds + self.limits.late_s)
        )
        found.transport = transport
        return found

    def refuse(self, error: InvalidCredentialsError) -> Unreachable:
        """Take note that we are refused."""
        who = self.login.user if self.login is not None else "the certificate"
        with self._lock:
            self._refused = Unreachable(
                f"{self.name} refuses {who!r}: wrong name or password, or no right to WinRM",
                hint="hypervisor.user and hypervisor.password; too many tries lock an account; "
                "docs/hyperv.md has the groups",
            )
            self._refused.__cause__ = error
            return self._refused

    def unreachable(self, error: BaseException) -> Unreachable:
        """An error of the connection in words, with what would tell more or help."""
        if isinstance(error, InvalidCredentialsError):
            return self.refuse(error)
        text, hint = _told(self, error)
        return Unreachable(f"{self.name}: {text}", hint=hint)


def quota(e: BaseException | None) -> bool:
    """Whether the user has as many shells, or operations in them, as WinRM allows."""
    return isinstance(e, WSManFaultError) and e.wsman_fault_code in TOO_MANY


def door(uri: str, auth: str, login: Login | None, tls: Tls, limits: Limits) -> Door:
    """From ``http[s]://host[:port]``. Raises UserError for what cannot be or is not safe."""
    parts = urlsplit(uri)
    try:
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if parts.scheme not in PORTS or not parts.hostname or not port or parts.username:
        raise UserError(
            f"hypervisor.uri {uri!r}: a Hyper-V host is reached by WinRM",
            hint="http://hv7:5985 (messages are encrypted), or https://hv7:5986",
        )
    auth = auth or "ntlm"
    if auth in ("basic", "certificate") and parts.scheme != "https":
        raise UserError(
            f"hypervisor.auth: {auth} is for HTTPS only: over HTTP it would be clear text",
            hint="hypervisor.auth: ntlm, or hypervisor.uri: https://…:5986",
        )
    if auth == "kerberos" and not HAVE_KERBEROS:
        raise PreflightError(
            "hypervisor.auth: kerberos needs pywinrm's extra",
            hint="pip install 'pywinrm[kerberos]', and kinit",
        )
    if auth == "certificate" and not (tls.client_cert and tls.client_key):
        raise UserError(
            "hypervisor.auth: certificate: the spec names no certificate and key",
            hint="hypervisor.tls: {client_cert: FILE.pem, client_key: FILE.pem}",
        )
    if login is None and auth != "certificate":
        raise UserError(
            f"{parts.hostname}: no login",
            hint="hypervisor.user, and hypervisor.password: {env: NAME}",
        )
    if parts.scheme == "https" and tls.verify and not tls.fingerprint:
        _ca(tls)
    return Door(parts.scheme, parts.hostname, port, auth, login, tls, limits)


def _ca(tls: Tls) -> str | None:
    """The CAs' file or folder. Raises UserError for what is none."""
    if tls.ca is None:
        paths = ssl.get_default_verify_paths()
        return paths.cafile or paths.capath
    try:
        ssl.create_default_context(cafile=str(tls.ca))
    except OSError as e:  # ssl.SSLError is one
        raise UserError(
            f"hypervisor.tls.ca: {tls.ca}: {e.strerror or e}", hint="a PEM file of a CA"
        ) from e
    return str(tls.ca)


def _told(  # noqa: PLR0911 (one for each sort of error)
    to: Door, e: BaseException
) -> tuple[str, str]:
    look = f"openssl s_client -connect {to.host}:{to.port} </dev/null"
    show = f"{look} | openssl x509 -noout -subject -enddate -fingerprint -sha256"
    ask = f"curl -ik {to.url}"
    text = " ".join(str(e).split())
    if quota(e):
        return f"WinRM has no shell left for us: {text[:300]}", (
            "end old ones, on the host: Get-WSManInstance -ResourceURI shell -Enumerate | "
            "Remove-WSManInstance; or raise MaxShellsPerUser: docs/hyperv.md"
        )
    if isinstance(e, requests.exceptions.SSLError):
        if seen := _SEEN.search(text):
            asked = to.tls.fingerprint
            return f"its certificate's SHA-256 is {seen[1]}, not {asked} of hypervisor.tls", show
        if "certificate verify failed" in text:
            why = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
            return (
                f"its certificate is not trusted: {why}",
                f"hypervisor.tls.ca, or tls.fingerprint as shown by: {show}",
            )
        return f"no TLS as it should be: {text[-200:]}", look
    if isinstance(e, requests.exceptions.Timeout | TimeoutError):
        return f"no answer within {to.limits.connect_s:g} s", ask
    if isinstance(e, requests.exceptions.ConnectionError | OSError):
        if "getaddrinfo" in text or "Name or service" in text or isinstance(e, socket.gaierror):
            return "no such host", f"getent hosts {to.host}; hypervisor.uri"
        words = _ERRNO.search(text)
        fix = f"{ask}; on the host: Enable-PSRemoting, and the firewall's rule for WinRM"
        return (words[1] if words else text[:200]), fix
    if isinstance(e, WSManFaultError):
        return f"WinRM refuses: {text[:300]}", "winrm get winrm/config, on the host"
    if isinstance(e, WinRMTransportError):
        return f"it answers, but not as WinRM does: {text[:200]}", ask
    return text[:300] or type(e).__name__, ask
