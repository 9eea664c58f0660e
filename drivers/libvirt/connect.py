"""The connection to libvirt, its errors in words, and the host that commands then go to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import libvirt

from drivers.libvirt import daemon
from provision.errors import DriverError, Unreachable, UserError
from provision.host import Host, hang_up, ssh
from provision.state import own_sockets

LOCAL = "qemu:///system"
KEEPALIVE_S, KEEPALIVE_TRIES = 5, 6  # a silent host is given up after half a minute


@dataclass(slots=True)
class Connection:
    """``conn`` may be used by several threads: libvirt's connections are made for that."""

    uri: str
    conn: Any
    host: Host
    daemon: str
    _folder: TemporaryDirectory[str] | None = field(repr=False)

    def reopen(self) -> None:
        """Connect anew, where the far side was down meanwhile. Raises Unreachable."""
        self._hang_up()
        self.conn = _open(self.uri, urlsplit(self.uri))

    def close(self) -> None:
        """Hang up; no error where the far side is gone already."""
        self._hang_up()
        if self._folder is not None:
            hang_up(self.host)
            self._folder.cleanup()

    def _hang_up(self) -> None:
        try:
            self.conn.close()
        except libvirt.libvirtError:
            self.conn = None


def connect(uri: str, host: Host | None = None, local: str = LOCAL) -> Connection:
    """Open ``uri`` ("" = ``local``, on this machine); ``host`` overrides where commands go.

    Raises Unreachable with what would help, UserError for a URI of no use here.
    """
    libvirt.registerErrorHandler(_silent, None)
    uri = uri or local
    parts = urlsplit(uri)
    _refuse(uri, parts, urlsplit(local).scheme)
    remote = parts.scheme.endswith("+ssh")
    started = daemon.ensure() if uri == LOCAL else ""
    _event_loop()
    conn = _open(uri, parts)
    folder = own_sockets() if remote and host is None else None
    if host is None:
        host = _far(parts, Path(folder.name)) if folder is not None else Host()
    return Connection(uri, conn, host, started, folder)


def _open(uri: str, parts: SplitResult) -> Any:
    try:
        conn = libvirt.open(uri)
        if parts.scheme.endswith("+ssh"):
            conn.setKeepAlive(KEEPALIVE_S, KEEPALIVE_TRIES)
    except libvirt.libvirtError as e:
        raise _unreachable(uri, parts, e) from e
    return conn


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise libvirt's errors as ours, with what was being done."""
    try:
        yield
    except libvirt.libvirtError as e:
        raise DriverError(f"{what}: {words(e)}") from e


def words(error: libvirt.libvirtError) -> str:
    """What libvirt said, as one line."""
    return " ".join((error.get_error_message() or str(error)).split())


def _silent(_context: object, _error: object) -> None:
    """Errors are raised; libvirt would print them as well."""


def _refuse(uri: str, parts: SplitResult, kind: str) -> None:
    fine = [kind, f"{kind}+unix", f"{kind}+ssh", *(["test"] if kind == "qemu" else [])]
    if parts.scheme not in fine:
        raise UserError(
            f"hypervisor.uri {uri!r}: bridges and disks need commands on the host as well",
            hint=f"reach it by SSH: {kind}+ssh://user@host/system",
        )
    if parts.scheme != "test" and parts.path != "/system":
        raise UserError(
            f"hypervisor.uri {uri!r}: only the system's libvirtd can use bridges",
            hint=f"{parts.scheme}://{parts.netloc}/system",
        )


def _far(parts: SplitResult, folder: Path) -> Host:
    """The machine of a URI with ssh in it, over one shared connection of this driver's own.

    Like libvirt, it takes the key from the URI's ``keyfile``.
    """
    key = parse_qs(parts.query).get("keyfile")
    target = f"ssh://{parts.netloc}" if parts.port else parts.netloc
    return ssh(target, control=folder, key=Path(key[0]) if key else None)


def _unreachable(uri: str, parts: SplitResult, error: libvirt.libvirtError) -> Unreachable:
    text = words(error)
    if parts.scheme.endswith("+ssh"):
        port = f"-p {parts.port} " if parts.port else ""
        user = f"{parts.username}@" if parts.username else ""
        kind = parts.scheme.partition("+")[0]
        hint = f"ssh {port}{user}{parts.hostname} virsh -c {kind}:///system version"
        if "authentication" in text:  # libvirtd itself asks who we are, as an oVirt host's does
            hint = "give libvirt a file of credentials: …/system?authfile=PATH (docs/kvm.md)"
    elif "ermission denied" in text or "authenticat" in text:
        hint = "sudo provision …, or join the group: sudo usermod -aG libvirt $USER"
    elif "No such file" in text:
        hint = "apt-get install libvirt-daemon-system, then: systemctl start libvirtd"
    elif "/proc/vz" in text:
        hint = "boot the host's OpenVZ kernel, or name its host: openvz+ssh://root@HOST/system"
    else:
        hint = "systemctl restart libvirtd"
    return Unreachable(f"{uri}: {text}", hint=hint)


@cache
def _event_loop() -> None:
    """Start what brings libvirt's events and sends its keep-alives; a process has one such loop."""
    libvirt.virEventRegisterDefaultImpl()
    Thread(target=_loop, name="libvirt", daemon=True).start()


def _loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
