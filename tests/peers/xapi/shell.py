"""A host's dom0 behind a real ssh: its commands as programs, its /proc and /sys as files.

The namespace is this machine's system with a few things laid over it: ``xl``, ``systemctl``,
``service``, ``pidof``, ``irqbalance``, ``reboot``, ``shutdown``, ``xe-switch-network-backend``,
/opt/xensource/libexec/xen-cmdline, /etc/xensource-inventory, /etc/xensource/network.conf,
/proc/irq, /proc/interrupts, /proc/uptime, the boot's id, and each NIC's msi_irqs.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from provision.host import Host
from tests.peers import sshd
from tests.peers.xapi.dom0 import Dom0
from tests.peers.xapi.fuse import mounted
from tests.peers.xapi.procfs import tree

LIBEXEC, BIN = "opt/xensource/libexec", "opt/xensource/bin"
PLACES: Mapping[str, tuple[str, ...]] = {
    "usr/sbin": ("xl", "reboot", "shutdown", "irqbalance", "service"),
    "usr/bin": ("systemctl", "pidof", "xe-switch-network-backend"),
    LIBEXEC: ("xen-cmdline",),
    BIN: ("xe-switch-network-backend",),
}
#: asks who answers: what it is called and its words, each ended by NUL but the last. Told are its
#: exit code, how long its output is, the output, and its errors. Perl starts ten times as fast as
#: Python, and dom0 is asked a lot
PROGRAM = r"""#!/usr/bin/perl
use Socket;
socket(S, AF_UNIX, SOCK_STREAM, 0) && connect(S, pack_sockaddr_un('{path}')) or die "nobody: $!";
my ($name) = $0 =~ m<([^/]+)$>;
syswrite(S, join("\0", $name, @ARGV));
shutdown(S, 1);
my $said = '';
while (sysread(S, my $more, 65536)) {{ $said .= $more }}
my ($code, $size, $rest) = split(/\n/, $said, 3);
print STDOUT substr($rest, 0, $size);
print STDERR substr($rest, $size);
exit $code;
"""
#: what lies over the system, and what is served
LAY = """
set -e; over=$1 served=$2
for name in usr/sbin usr/bin opt etc; do
  mount -t overlay -o lowerdir="$over/$name:/$name" dom0 "/$name"
done
mount --bind "$served/irq" /proc/irq
for name in interrupts uptime; do mount --bind "$served/$name" "/proc/$name"; done
mount --bind "$served/boot_id" /proc/sys/kernel/random/boot_id
mount -t tmpfs dom0 /etc/xensource  # the one folder that is written to
touch /etc/xensource/network.conf
mount --bind "$served/network.conf" /etc/xensource/network.conf
for name in .bashrc .profile; do  # dom0's root is not this machine's
  [ ! -e ~/"$name" ] || mount --bind /dev/null ~/"$name"
done
mount -t tmpfs tmpfs /sys/class/net && cp -a "$over/net/." /sys/class/net
"""


@contextmanager
def shell(dom0: Dom0, host: Host, address: str, folder: Path) -> Iterator[Path]:
    """Serve it on that address of the namespace; yields a folder to put first in PATH.

    The ``ssh`` there knows the address. While the host is down nobody answers.
    """
    folder.mkdir()
    over, served = folder / "over", folder / "served"
    served.mkdir()
    with ExitStack() as stack, _Sshd(host, folder / f"{address}.conf") as serving:
        door = stack.enter_context(_answering(dom0, folder / "door"))
        _programs(over, door)
        with dom0.world.store.lock:
            irqs = dict(dom0.xen.irq_names)
            _etc(over, dom0)
        _nics(over, irqs)
        stack.enter_context(mounted(tree(dom0), host, served))
        host.run("sh", "-c", LAY, "lay", str(over), str(served))
        programs = sshd.prepare(folder, [(address, host, address)])
        serving.turn(True)

        def power(which: str, on: bool) -> None:
            if which == dom0.host:
                serving.turn(on)

        with dom0.world.store.lock:
            dom0.world.power.insert(0, power)
        try:
            yield programs
        finally:
            with dom0.world.store.lock:
                dom0.world.power.remove(power)


class _Sshd:
    """Serves or not. One thread starts it each time, as its processes end with their thread."""

    def __init__(self, host: Host, conf: Path) -> None:
        self._host, self._conf = host, conf
        self._now = ExitStack()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sshd")

    def __enter__(self) -> _Sshd:
        return self

    def __exit__(self, *_why: object) -> None:
        self.turn(False)
        self._worker.shutdown()

    def turn(self, on: bool) -> None:
        self._worker.submit(self._turn, on).result()

    def _turn(self, on: bool) -> None:
        self._now.close()
        if on:
            self._now.enter_context(sshd.serving(self._host, self._conf))


@contextmanager
def _answering(dom0: Dom0, path: Path) -> Iterator[Path]:
    """A socket on which the programs ask what to print."""
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen(64)

    def one(link: socket.socket) -> None:
        with suppress(OSError), link:
            asked = b""
            while more := link.recv(65536):
                asked += more
            name, *words = asked.decode().split("\0")
            code, out, err = dom0.run(name, words)
            said = out.encode()
            link.sendall(b"%d\n%d\n" % (code, len(said)) + said + err.encode())

    def accept() -> None:
        with suppress(OSError):
            while True:
                link, _ = door.accept()
                threading.Thread(target=one, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield path
    finally:
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        door.close()


def _programs(over: Path, door: Path) -> None:
    for place, names in PLACES.items():
        (over / place).mkdir(parents=True)
        for name in names:
            (over / place / name).write_text(PROGRAM.format(path=door))
            (over / place / name).chmod(0o755)


def _etc(over: Path, dom0: Dom0) -> None:
    (over / "etc" / "xensource").mkdir(parents=True)
    uuid = dom0.world.store.get("host", dom0.host)["uuid"]
    (over / "etc" / "xensource-inventory").write_text(
        f"INSTALLATION_UUID='{uuid}'\nCONTROL_DOMAIN_UUID='{dom0.xen.dom0_uuid}'\n"
        "PRODUCT_BRAND='XCP-ng'\nPRODUCT_VERSION='8.3.0'\nMANAGEMENT_INTERFACE='xenbr0'\n"
    )


def _nics(over: Path, irqs: Mapping[int, str]) -> None:
    """Each NIC below /sys/class/net, with its interrupts."""
    for irq, queue in irqs.items():
        name = queue.partition("-")[0]
        net = over / "net" / name
        (net / "device" / "msi_irqs").mkdir(parents=True, exist_ok=True)
        (net / "device" / "msi_irqs" / str(irq)).write_text("msix\n")
        for attribute in ("address", "mtu", "operstate", "statistics", "carrier", "flags"):
            link = net / attribute
            if not link.is_symlink():
                link.symlink_to(f"/sys/devices/virtual/net/{name}/{attribute}")
