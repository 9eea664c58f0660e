"""libvirtd on this machine, where no service manager runs one (a container, a bare chroot)."""

from __future__ import annotations

import fcntl
import grp
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provision.errors import PreflightError

SYSTEMD = Path("/run/systemd/system")
RUN = Path("/run/libvirt")
SOCKET = RUN / "libvirt-sock"
LOG_SOCKET = RUN / "virtlogd-sock"
KVM = Path("/dev/kvm")
START_S = 30


def ensure() -> str:
    """See that libvirtd answers, if that is ours to do; returns what was done, "" = nothing.

    Only root on a machine without systemd starts anything. Raises PreflightError where libvirtd
    is not installed or does not start.
    """
    if SYSTEMD.exists() or os.geteuid() != 0:
        return ""
    done = _open_kvm()
    if not _answers(SOCKET):
        with _alone():
            if not _answers(SOCKET):  # another may have started it while we waited
                done += _start()
    return "; ".join(done)


def _start() -> list[str]:
    names = [name for name, at in (("virtlogd", LOG_SOCKET),) if not _answers(at)]
    for name in (*names, "libvirtd"):
        _run(name)
    if not _answers(SOCKET):
        raise PreflightError("libvirtd was started and does not listen", hint=_LOG)
    return [f"started {' and '.join([*names, 'libvirtd'])}"]


_LOG = "less /var/log/libvirt/libvirtd.log, or run libvirtd in the foreground"


def _run(name: str) -> None:
    """Daemons that put themselves in the background, and return when they listen."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if path is None:
        raise PreflightError(
            f"{name} is not installed", hint="apt-get install libvirt-daemon-system"
        )
    try:
        done = subprocess.run(
            [path, "-d"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=START_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        raise PreflightError(f"{name}: not up within {START_S} s", hint=_LOG) from e
    if done.returncode:
        raise PreflightError(f"{name}: {done.stderr.strip() or done.returncode}", hint=_LOG)


def _answers(path: Path) -> bool:
    """Whether somebody listens; a socket's file alone may be a dead daemon's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _open_kvm() -> list[str]:
    """Give /dev/kvm to its group, as udev does; there is none here.

    libvirt (virQEMUCapsIsValid) otherwise finds KVM when it probes QEMU, finds that QEMU's user
    cannot have it, and so probes again at every call, for seconds.
    """
    try:
        found = KVM.stat()
        group = grp.getgrnam("kvm").gr_gid
    except (OSError, KeyError):
        return []
    if not stat.S_ISCHR(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o066:
        return []
    os.chown(KVM, 0, group)
    KVM.chmod(0o660)
    return ["gave /dev/kvm to the group kvm, as udev would"]


@contextmanager
def _alone() -> Iterator[None]:
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "provision.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
