"""HTTPS to vCenter or an ESXi host by pyVmomi's stub, with connections of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from pyVmomi import SoapAdapter

from drivers import https
from drivers.https import BROKEN, PORT, Connection, Endpoint, NotSent, WrongCertificate, unreachable
from provision.driver import Tls

__all__ = [
    "BROKEN", "PORT", "Connection", "Endpoint", "Limits", "NotSent", "Wire", "WireType",
    "WrongCertificate", "endpoint", "unreachable",
]  # fmt: skip
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

    def __init__(self, to: Endpoint, version: str) -> None:
        super().__init__(
            host=to.host, port=to.port, version=version, sslContext=to.context, poolSize=POOL,
            connectionPoolTimeout=IDLE_S,
        )  # fmt: skip
        self.to = to
        self.scheme = lambda **_: self.to.connection()

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
        conn.used = True
        super().ReturnConnection(conn)


WireType = Callable[[Endpoint, str], Wire]


def endpoint(uri: str, tls: Tls, limits: Limits) -> Endpoint:
    """From ``https://host[:port]/``. Raises UserError for what is no such URI or CA file."""
    return https.endpoint(uri, tls, limits, KIND)
