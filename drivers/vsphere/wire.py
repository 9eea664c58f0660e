"""HTTPS to vCenter or an ESXi host by pyVmomi's stub, with connections of ours."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from pyVmomi import SoapAdapter

from drivers import https
from drivers.https import (
    BROKEN,
    PORT,
    Connection,
    Endpoint,
    NotSent,
    Reply,
    WrongCertificate,
    unreachable,
)
from drivers.vsphere.reply import Replies
from drivers.vsphere.request import Requests, Unusual
from provision.driver import Tls

__all__ = [
    "BROKEN", "PORT", "Connection", "Endpoint", "Limits", "NotSent", "Wire", "WireType",
    "WrongCertificate", "endpoint", "unreachable",
]  # fmt: skip
AGENT = "provision"
IDLE_S = 60  # servers close connections that rest; a younger one is still tried first
POOL = 60
KIND = https.Kind(
    "vSphere", "a vCenter or an ESXi host", "/sdk/vimServiceVersions.xml",
    "https://vcenter.example/",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """How long we wait, in seconds: for a connection, a reply, a task, and a guest's Tools."""

    connect_s: float = 15
    call_s: float = 120
    task_s: float = 3600
    tools_s: float = 180


_Base: Any = SoapAdapter.SoapStubAdapter


class Wire(_Base):  # type: ignore[misc]
    """pyVmomi's stub with connections of ours; threads share it, as it is a pool of them."""

    cookie: str

    def __init__(self, to: Endpoint, version: str) -> None:
        super().__init__(
            host=to.host, port=to.port, version=version, sslContext=to.context, poolSize=POOL,
            connectionPoolTimeout=IDLE_S,
        )  # fmt: skip
        self.to = to
        self.scheme = lambda **_: self.to.connection()
        self._requests = Requests(self.version)
        self._replies: dict[Any, Replies] = {}
        self._headers = {
            "SOAPAction": self.versionId,
            "Content-Type": "text/xml; charset=UTF-8",
            "Accept-Encoding": "gzip",
            "User-Agent": AGENT,
        }

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outer: Any = None) -> Any:  # noqa: N802
        """As pyVmomi's own: the status and what was returned, which may be a fault.

        Without ``outer``, whose managed objects are to be, that alone, and a fault is raised.
        """
        request = self.SerializeRequest(mo, info, args)
        link = self.GetConnection()
        try:
            reply = link.post(self.path, self._headers | {"Cookie": self.cookie}, request)
            found = self._read(reply, outer or self, info.result)
        except BaseException:
            # the server may be sick, and what was read of its reply is of no use to another call
            link.close()
            self.DropConnections()
            raise
        self.cookie = reply.headers.get("set-cookie", self.cookie)
        self.ReturnConnection(link)
        if outer is not None:
            return reply.status, found
        if reply.status != 200:
            raise found
        return found

    def SerializeRequest(self, mo: Any, info: Any, args: Any) -> bytes:  # noqa: N802
        try:
            return self._requests.write(mo, info, args)
        except (Unusual, LookupError, TypeError, ValueError, AttributeError):
            found: bytes = super().SerializeRequest(mo, info, args)
            return found

    def _read(self, reply: Reply, stub: Any, result: Any) -> Any:
        text = reply.body
        if reply.headers.get("content-encoding", "").lower() == "gzip":
            text = _unpacked(text)
        if reply.status not in (200, 500):
            raise HTTPException(f"{reply.status} {reply.reason}")
        replies = self._replies.get(stub)
        if replies is None:
            replies = self._replies[stub] = Replies(stub)
        return replies.read(text, result)

    def GetConnection(self) -> Connection:  # noqa: N802 (pyVmomi's name)
        """One that is open. Raises NotSent."""
        while True:
            try:
                found: Connection = super().GetConnection()
            except (OSError, HTTPException) as e:
                raise NotSent(str(e)) from e
            if not found.stale():
                return found
            found.close()

    def ReturnConnection(self, conn: Connection) -> None:  # noqa: N802
        conn.rest()
        super().ReturnConnection(conn)


def _unpacked(text: bytes) -> bytes:
    try:
        return gzip.decompress(text)
    except (EOFError, OSError, zlib.error) as e:
        raise HTTPException(f"a reply that is no gzip: {e}") from e


WireType = Callable[[Endpoint, str], Wire]


def endpoint(uri: str, tls: Tls, limits: Limits) -> Endpoint:
    """From ``https://host[:port]/``. Raises UserError for what is no such URI or CA file."""
    return https.endpoint(uri, tls, limits, KIND)
