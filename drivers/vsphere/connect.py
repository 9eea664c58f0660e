"""A session with vCenter or an ESXi host: login, renewal, and calls that are never done twice.

A call that only reads is made again where its reply was lost; one that changes something raises
Lost, for its caller to look first. vSphere Web Services SDK, "Client Applications", "Sessions".
"""

from __future__ import annotations

import ssl
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock
from typing import Any, NoReturn, TypeVar

from pyVmomi import SoapAdapter, VmomiSupport

from drivers.vsphere.api import Fault, Lost, NoPermission, NotAuthenticated, vim, words
from drivers.vsphere.wire import BROKEN, Endpoint, NotSent, Wire, WireType, unreachable
from provision.driver import Login
from provision.errors import Unreachable, UserError

T = TypeVar("T")
_Base: Any = SoapAdapter.StubAdapterBase
_support: Any = VmomiSupport
TRIES = 4
FIRST_PAUSE_S = 0.2
VERSIONS = "/sdk/vimServiceVersions.xml"
#: methods, by their names on the wire, that may be called twice: they change nothing that lasts
HARMLESS = frozenset({
    "RetrieveServiceContent", "RetrievePropertiesEx", "ContinueRetrievePropertiesEx", "FindChild",
    "FindByInventoryPath", "CurrentTime", "HasPrivilegeOnEntities", "CreateContainerView",
    "DestroyView", "CreatePropertyCollector", "DestroyPropertyCollector", "CreateFilter",
    "DestroyPropertyFilter", "WaitForUpdatesEx",
})  # fmt: skip


class Session(_Base):  # type: ignore[misc]
    """What managed objects call their methods through. ``number`` grows with each new login."""

    def __init__(self, to: Endpoint, login: Login, wire: WireType = Wire) -> None:
        self.to = to
        self.number = 0
        self.key = ""
        self._login = login
        self._make = wire
        self._lock = Lock()
        self._refused: Unreachable | None = None
        self._pause = Event()  # never set: only waited for
        super().__init__(_version(to))
        self._wire = self._log_in()
        self.content = vim.ServiceInstance("ServiceInstance", self).RetrieveContent()

    def InvokeMethod(self, mo: Any, info: Any, args: Any) -> Any:  # noqa: N802 (pyVmomi's name)
        """Raises the server's faults; Unreachable where none is there; Lost, see the module."""
        for pause_s in (*(FIRST_PAUSE_S * 4**n for n in range(TRIES - 1)), None):
            wire = self._wire
            try:
                status, found = wire.InvokeMethod(mo, info, args, self)
            except BROKEN as e:
                if not (isinstance(e, NotSent) or info.wsdlName in HARMLESS):
                    raise Lost(info.wsdlName, e) from e
                if pause_s is None or isinstance(e.__cause__, ssl.SSLError):
                    raise unreachable(self.to, e) from e
                self._pause.wait(pause_s)
                continue
            if status == 200:
                return found
            if isinstance(found, NotAuthenticated) and pause_s is not None:
                self.renew(wire)
                continue
            raise found
        raise AssertionError("the last try returns or raises")

    def InvokeAccessor(self, mo: Any, info: Any) -> NoReturn:  # noqa: N802
        """Not to be used: one call for each property, and not all servers live through it."""
        raise AssertionError(f"{type(mo).__name__}.{info.name} is to be retrieved")

    def renew(self, stale: Wire | None = None) -> None:
        """Log in again, unless another thread has. Raises Unreachable."""
        with self._lock:
            if stale is not None and stale is not self._wire:
                return
            former, self._wire = self._wire, self._log_in()
            self.number += 1
        former.DropConnections()

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

    @property
    def cookie(self) -> str:
        """What an HTTP request of ours has to bear."""
        return str(self._wire.cookie)

    def close(self) -> None:
        """Log out; no error where the server is gone already."""
        manager = vim.SessionManager(self.content.sessionManager._moId, self._wire)
        with suppress(*BROKEN, Fault):
            manager.Logout()
        self._wire.DropConnections()

    def _log_in(self) -> Wire:
        if self._refused is not None:  # an account is locked after a few wrong passwords
            raise self._refused
        wire = self._make(self.to, self.version)
        try:
            content = vim.ServiceInstance("ServiceInstance", wire).RetrieveContent()
            user, password = self._login.user, self._login.password()
            self.key = content.sessionManager.Login(user, password, None).key
        except BROKEN as e:
            raise unreachable(self.to, e) from e
        except Fault as e:
            self._refused = _refused(self.to, self._login.user, e)
            raise self._refused from e
        return wire


def connect(to: Endpoint, login: Login | None, wire: WireType = Wire) -> Session:
    """Log in. Raises Unreachable, UserError where there is no login."""
    if login is None:
        raise UserError(
            f"{to.name}: no login",
            hint="hypervisor.user, and hypervisor.password: {env: NAME}",
        )
    return Session(to, login, wire)


def _refused(to: Endpoint, user: str, e: Any) -> Unreachable:
    if isinstance(e, vim.fault.InvalidLogin):
        return Unreachable(
            f"{to.name} refuses user {user!r}: wrong name or password",
            hint="hypervisor.user and hypervisor.password; too many tries lock an account",
        )
    if isinstance(e, NoPermission):
        return Unreachable(
            f"{to.name} lets user {user!r} do nothing", hint="give it a role: docs/vsphere.md"
        )
    return Unreachable(f"{to.name} refuses user {user!r}: {words(e)}")


def _version(to: Endpoint) -> str:
    """The newest version of the API that both sides know. Raises Unreachable."""
    offered = _offered(to)
    for version in _support.GetServiceVersions("vim25"):
        if _support.versionIdMap[version] in offered:
            return str(version)
    shown = ", ".join(sorted(offered)) or "none"
    raise Unreachable(
        f"{to.name}: it offers versions of the vSphere API ({shown}) that pyvmomi does not know",
        hint="pip install --upgrade pyvmomi",
    )


def _offered(to: Endpoint) -> set[str]:
    """The API's versions, as the server lists them for anybody. Raises Unreachable."""
    link = to.connection()
    try:
        link.request("GET", VERSIONS)
        reply = link.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise Unreachable(
                f"{to.name}: {VERSIONS}: {reply.status} {reply.reason}",
                hint=f"is a vCenter or an ESXi host there, and started? curl -k https://{to.name}/",
            )
        root = ET.fromstring(text)
    except (*BROKEN, ET.ParseError) as e:
        raise unreachable(to, e) from e
    finally:
        link.close()
    return {
        v.text
        for space in root.iter("namespace")
        if space.findtext("name") == "urn:vim25"
        for v in (*space.findall("version"), *space.findall("priorVersions/version"))
        if v.text
    }
