"""The Xen host as a process: QEMU boots its disk; each data NIC is cabled to the load generator.

The cable is a tap that was made in the generator's namespace: whoever is there is at its far end.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from provision.errors import HostError, Unreachable
from provision.host import DIE_WITH_US, Host, hang_up, ssh
from provision.image import Image
from tests.peers.xen.build import disk, store

BOOT_S = 300
BOOTS = 3
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MANAGEMENT_MAC = "52:54:00:ee:00:00"
#: without VT-x or SVM guests are PV only, and dom0 is quicker
PV_CPU = "Nehalem"
#: QEMU emulates SVM, no VT-x; SMAP so that dom0 dies of it, and RDTSCP so that PVH guests do (7.2)
SVM_CPU = "max,-smap,-rdtscp"
READY = """
until systemctl is-active -q xen 2>/dev/null && [ -S /run/libvirt/libvirt-sock ]; do
  [ $((n += 1)) -lt 1200 ] || exit 1; sleep 0.1
done
"""
_TUNSETIFF, _TAP, _CLONE_NEWNET = 0x400454CA, 0x1002, 0x40000000


class ClockLost(AssertionError):
    """Nothing that waits in dom0 ends in time any more."""


@dataclass(frozen=True)
class XenHost:
    """A running host. ``uplinks`` are its data NICs' names; the far end of the first is lg1.

    ``target`` is what ssh is told, ``key`` its private key, ``known`` its known_hosts file.
    """

    folder: Path
    port: int
    key: Path
    known: Path
    generator: Host
    uplinks: tuple[str, ...]
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def target(self) -> str:
        return f"ssh://root@127.0.0.1:{self.port}"

    @property
    def host(self) -> Host:
        return ssh(self.target, control=self.folder, key=self.key, known_hosts=self.known)

    @property
    def serial(self) -> str:
        return (self.folder / "serial").read_text(errors="replace")

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Raise ClockLost where dom0's clock did not go on as ours did meanwhile.

        HPET's counter comes round every 43 s. A Xen that was kept from its CPUs for longer while it
        booted takes the rest for all that passed, and its time is hundreds of times too slow. That,
        and not a command that waited while dom0 had just begun, is what counts.
        """
        there_s, here_s = self._uptime_s(), time.monotonic()
        yield
        passed_s = time.monotonic() - here_s
        if (dom0_s := self._uptime_s() - there_s) < passed_s / 20:
            raise ClockLost(
                f"{passed_s:.1f} s passed, {dom0_s:.1f} s in dom0: its Xen was kept from the CPUs "
                "for too long; this machine is too busy for it"
            )

    def _uptime_s(self) -> float:
        return float(self.host.run("cat", "/proc/uptime").split()[0])


@contextmanager
def running(
    folder: Path, generator: Host, image: Image, nics: int = 2, cpus: int = 2, cpu: str = PV_CPU
) -> Iterator[XenHost]:
    """Boot it and wait until Xen's daemons and libvirt's answer; killed at the end.

    ``folder`` is for this run's files; the disk itself is never written to. ``image`` lies in
    /store there.
    """
    built, images = disk(), store(image)
    with ExitStack() as stack:
        port = _free_port()
        taps = [_tap(generator, f"lg{n}") for n in range(1, nics + 1)]
        for tap in taps:
            stack.callback(os.close, tap)
        known = folder / "known_hosts"
        words = (built / "host.pub").read_text().split()[:2]
        known.write_text(f"[127.0.0.1]:{port} {' '.join(words)}\n")
        key = folder / "id"
        shutil.copyfile(built / "id", key)
        key.chmod(0o600)
        sized = ("-cpu", cpu, "-smp", str(cpus))
        argv = [*_argv((built / "disk.raw", images), folder, port, taps), *sized]
        log = stack.enter_context((folder / "qemu").open("wb"))
        names = tuple(f"eth{n}" for n in range(1, nics + 1))
        for left in reversed(range(BOOTS)):
            process = subprocess.Popen(
                [*DIE_WITH_US, *argv], pass_fds=taps, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, process_group=0,
            )  # fmt: skip
            with ExitStack() as running_:
                running_.enter_context(process)
                running_.callback(process.kill)
                found = XenHost(folder, port, key, known, generator, names, process)
                running_.callback(hang_up, found.host)
                try:
                    wait(found)
                except ClockLost:
                    if not left:
                        raise
                    continue
                yield found
                return


def wait(xen: XenHost, timeout_s: float = BOOT_S) -> None:
    """Return once sshd answers, and Xen's and libvirt's daemons are up. Raises ClockLost."""
    deadline = time.monotonic() + timeout_s
    while not _answers(xen.port):
        assert xen.process.poll() is None, (xen.folder / "qemu").read_text()
        assert time.monotonic() < deadline, f"no ssh; its serial console:\n{xen.serial[-3000:]}"
        time.sleep(0.1)  # QEMU's forwarder takes connections before the host does
    with xen.timed():
        xen.host.run("sh", "-c", READY, timeout_s=timeout_s)


def reboot(xen: XenHost, timeout_s: float = 3 * BOOT_S) -> None:
    """Return once it is up again."""
    host = xen.host
    before = host.run("cat", BOOT_ID)
    host.run("sync")
    host.run("systemctl", "reboot", check=False)
    deadline, now = time.monotonic() + timeout_s, before
    while now == before:
        assert time.monotonic() < deadline, f"not back:\n{xen.serial[-3000:]}"
        time.sleep(1)
        hang_up(host)
        with suppress(HostError, Unreachable):
            now = host.run("cat", BOOT_ID, timeout_s=30)
    wait(xen, timeout_s)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as found:
        return found.recv(4) == b"SSH-"
    return False


def _argv(disks: tuple[Path, Path], folder: Path, port: int, taps: Sequence[int]) -> list[str]:
    forward = f"user,id=m0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    words = [
        "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi",
        "-m", "2560", "-nodefaults", "-no-user-config", "-display", "none",
        "-drive", f"file={disks[0]},format=raw,if=none,id=d0,snapshot=on,cache=unsafe",
        "-device", "virtio-blk-pci,drive=d0,bootindex=0",
        "-drive", f"file={disks[1]},format=raw,if=none,id=d1,readonly=on",
        "-device", "virtio-blk-pci,drive=d1",
        "-netdev", forward,
        "-device", f"virtio-net-pci,netdev=m0,mac={MANAGEMENT_MAC},romfile=",
        "-serial", f"file:{folder}/serial",
    ]  # fmt: skip
    for number, tap in enumerate(taps, 1):
        mac = f"{MANAGEMENT_MAC[:-2]}{number:02x}"
        words += ["-netdev", f"tap,fd={tap},id=n{number}"]
        words += ["-device", f"virtio-net-pci,netdev=n{number},mac={mac},romfile="]
    return words


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _tap(where: Host, name: str) -> int:
    """A tap in another namespace, opened here; a thread of its own goes there for it."""
    found: list[int | OSError] = []

    def make() -> None:
        try:
            with Path(f"/proc/{where.prefix[2]}/ns/net").open("rb") as namespace:
                entered = ctypes.CDLL(None).setns(namespace.fileno(), _CLONE_NEWNET)
            assert entered == 0, f"no way into the namespace of {where.name} (needs root)"
            tap = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP))
            found.append(tap)
        except OSError as e:
            found.append(e)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]
