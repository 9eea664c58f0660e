"""Guests that are namespaces: what a simulated host powers on, where no hypervisor can be had.

A guest has processes, mounts, a hostname and a network of its own, a disk that is a folder, and
sshd. Who it is comes from its seed alone, as for a guest that boots our image; without a seed it
runs, and nobody reaches it. Its NICs are on the bridges that it is told, so that a wrong switch or
uplink shows as traffic that does not flow. ``/sys`` and ``/proc`` show the hardware that its VM
has, so that what is looked for inside can be wrong.

What this cannot judge: kernels, boot loaders and drivers of guests; vCPUs and memory in force.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from provision import image, state
from provision.host import DIE_WITH_US, Host
from provision.seed import MAGIC, SYSTEM_AREA, Identity, Nic
from tests.peers.wires import cable, machine

HERE = Host()
T = TypeVar("T")
START_S = 60
COPIED = (
    "passwd",
    "group",
    "nsswitch.conf",
    "ld.so.cache",
    "protocols",
    "services",
    "alternatives",
)
SSHD = """
LogLevel VERBOSE
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PidFile none
UsePAM no
StrictModes no
UseDNS no
Subsystem sftp internal-sftp
"""
#: the root, what its hardware looks like, its hostname, and what it runs
INIT = """
set -e
root=$1 shown=$2; hostname "$3"; shift 3
mount --bind "$root" "$root"
mount --rbind /usr "$root/usr" && mount -o remount,bind,ro "$root/usr"
mount --bind "$root/local" "$root/usr/local"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/class/net" && cp -a "$shown/net/." "$root/sys/class/net"
mount --bind "$shown/online" "$root/sys/devices/system/cpu/online"
mount --bind "$shown/meminfo" "$root/proc/meminfo"
mount --bind "$shown/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -t tmpfs tmpfs "$root/dev" && mkdir "$root/dev/pts" && ln -s pts/ptmx "$root/dev/ptmx"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
for node in null zero full random urandom tty; do
  touch "$root/dev/$node" && mount --bind "/dev/$node" "$root/dev/$node"
done
mount -t tmpfs tmpfs "$root/run" && mkdir "$root/run/sshd"
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Card:
    """A NIC of the guest; ``bridge`` is on the host, None = its cable is out.

    ``driver`` and ``pci_id`` (``vendor:device``, "" = it is no PCI function) are what the guest
    sees of it; ``rate_mbit`` is the most that it sends.
    """

    mac: str
    bridge: str | None
    driver: str
    pci_id: str = ""
    rate_mbit: int | None = None


@dataclass(frozen=True)
class Hardware:
    """What the VM has."""

    cpus: int
    memory_mib: int
    cards: tuple[Card, ...]


def identity_of(iso: bytes) -> Identity | None:
    """Who the guest becomes that has this seed disk; None where there is no document of ours.

    Raises ValueError or UserError where what stands there is none of ours.
    """
    area = iso[:SYSTEM_AREA]
    if not area.startswith(MAGIC.encode()):
        return None
    lines = area.decode(errors="replace").split("\nend\n")[0].splitlines()[1:]
    told: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        told.setdefault(word, []).append(rest)
    nics = []
    for text in told.get("nic", ()):
        mac, name, address, mtu = text.split(" ")
        nics.append(Nic(mac, name, address, int(mtu)))
    return Identity(
        hostname=told["hostname"][0],
        machine_id=told["machine-id"][0],
        authorized_key=told["authorized-key"][0],
        host_key="\n".join(told["host-key"]) + "\n",
        nics=tuple(nics),
        seed=bytes.fromhex(told["seed"][0]),
    )


class NsGuest:
    """One guest on ``host``, where the bridges are; ``tag`` (up to 11 letters) begins its taps.

    All it does is done by a thread of its own, which its processes end with. ``folder`` is its
    disk and what was kept of that.
    """

    def __init__(self, tag: str, folder: Path, host: Host) -> None:
        self._tag = tag
        self._folder = folder
        self._root = folder / "root"
        self._host = host
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self._init: subprocess.Popen[bytes] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=tag)

    @property
    def running(self) -> bool:
        return self._init is not None and self._init.poll() is None

    @property
    def console(self) -> Path:
        """What the guest says while it boots, and its sshd after that."""
        return self._folder / "console"

    def start(self, hardware: Hardware, who: Identity | None) -> None:
        """Boot it, and return once it would answer; raises AssertionError where it does not come.

        ``who`` None: nobody gave it a seed.
        """
        self._do(lambda: self._start(hardware, who))

    def stop(self) -> None:
        """Pull the plug; no error where it is off."""
        self._do(self._stop)

    def plug(self, number: int, bridge: str | None) -> None:
        """Put the cable of a card (from 0) on a bridge, or on none, while the guest runs."""
        words = ("master", bridge) if bridge else ("nomaster",)
        self._host.run("ip", "link", "set", self._tap(number), *words)

    def snapshot(self, name: str) -> None:
        """Keep the disk as it is now, in place of what was kept under that name."""
        self._do(lambda: self._copy(self._root, self._kept(name)))

    def revert(self, name: str) -> None:
        """The disk as it was kept; the guest is off."""
        self._do(self._stop)
        self._do(lambda: self._copy(self._kept(name), self._root))

    def forget(self, name: str) -> None:
        """Drop what was kept."""
        shutil.rmtree(self._kept(name), ignore_errors=True)

    def remove(self) -> None:
        """Off, and its disk is gone; it cannot be started again."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Off, and its thread has ended."""
        self._do(self._stop)
        self._worker.shutdown()

    def _do(self, work: Callable[[], T]) -> T:
        with self._lock:
            return self._worker.submit(work).result()

    def _kept(self, name: str) -> Path:
        return self._folder / "kept" / name

    def _tap(self, number: int) -> str:
        return f"{self._tag}n{number}"

    def _copy(self, source: Path, target: Path) -> None:
        if not source.exists():
            self._make_root()
        part = target.with_name(f"{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        HERE.run("cp", "-a", str(source), str(part))
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)

    def _start(self, hardware: Hardware, who: Identity | None) -> None:
        self._stop()
        if not self._root.exists():
            self._make_root()
        shown = self._folder / "shown"
        shutil.rmtree(shown, ignore_errors=True)
        inside = self._stack.enter_context(machine(self._tag))
        for number, card in enumerate(hardware.cards):
            self._cable(inside, number, card, who)
        self._show(shown, hardware, who)
        if who is not None:
            self._become(who)
        serving = ["/usr/sbin/sshd", "-D", "-e"] if who else ["/usr/bin/sleep", "infinity"]
        self._boot(inside, shown, who.hostname if who else "localhost", serving)

    def _boot(self, inside: Host, shown: Path, hostname: str, serving: Sequence[str]) -> None:
        """Returns once sshd listens, or at once where there is none."""
        apart = ("unshare", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child")
        words = ["sh", "-c", INIT, "init", str(self._root), str(shown), hostname, *serving]
        init = subprocess.Popen(
            [*DIE_WITH_US, *inside.argv(*apart, *words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            process_group=0,
        )  # fmt: skip
        self._stack.callback(_end, init)
        assert init.stderr is not None
        self._init, up = init, threading.Event()
        if "sshd" not in serving[0]:
            up.set()
        threading.Thread(target=self._log, args=(init, up), daemon=True).start()
        assert up.wait(START_S), f"{self._tag}: no sshd: {self.console.read_text()}"
        assert init.poll() is None, f"{self._tag}: {self.console.read_text()}"

    def _log(self, init: subprocess.Popen[bytes], up: threading.Event) -> None:
        with self.console.open("wb", buffering=0) as console:
            for line in init.stderr or ():
                console.write(line)
                if b"listening" in line:
                    up.set()
        init.wait()
        up.set()

    def _stop(self) -> None:
        self._init = None
        try:
            self._stack.close()
        finally:
            names = [link["ifname"] for link in self._host.json("ip", "-j", "link")]
            for name in names:  # else they go some time after the namespace
                if name.startswith(f"{self._tag}n"):
                    self._host.run("ip", "link", "del", name, check=False)

    def _cable(self, inside: Host, number: int, card: Card, who: Identity | None) -> None:
        nic = next((n for n in (who.nics if who else ()) if n.mac == card.mac), None)
        name, tap = nic.name if nic else f"eth{number}", self._tap(number)
        cable((self._host, tap), (inside, name))
        lines = [f"link set {name} address {card.mac}"]
        if nic:
            lines += [f"addr add {nic.address} dev {name}", f"link set {name} mtu {nic.mtu} up"]
            self._host.run("ip", "link", "set", tap, "mtu", str(nic.mtu))
        inside.run("ip", "-batch", "-", input="".join(f"{line}\n" for line in lines))
        for word, value in (("arp_ignore", 1), ("arp_announce", 2)):
            inside.run("sysctl", "-qw", f"net.ipv4.conf.{name}.{word}={value}")
        if card.rate_mbit:
            rate = ("rate", f"{card.rate_mbit}mbit", "burst", "64k", "latency", "50ms")
            inside.run("tc", "qdisc", "add", "dev", name, "root", "tbf", *rate)
        self._host.run("ip", "link", "set", tap, "up")
        self.plug(number, card.bridge)

    def _show(self, shown: Path, hardware: Hardware, who: Identity | None) -> None:
        """What /sys and /proc are to say of the machine."""
        shown.mkdir(parents=True)
        (shown / "online").write_text(f"0-{hardware.cpus - 1}\n" if hardware.cpus > 1 else "0\n")
        total_kib = hardware.memory_mib * 1024 * 95 // 100  # a kernel keeps some for itself
        (shown / "meminfo").write_text(f"MemTotal: {total_kib} kB\nMemAvailable: {total_kib} kB\n")
        (shown / "boot_id").write_text(f"{uuid.uuid4()}\n")
        names = {nic.mac: nic.name for nic in (who.nics if who else ())}
        for number, card in enumerate(hardware.cards):
            name = names.get(card.mac, f"eth{number}")
            net = shown / "net" / name
            net.mkdir(parents=True)
            for attribute in ("address", "mtu", "operstate", "queues", "statistics", "carrier"):
                (net / attribute).symlink_to(f"/sys/devices/virtual/net/{name}/{attribute}")
            device = net / "device"
            if card.pci_id:
                function = net / f"0000:00:{number + 3:02x}.0"
                function.mkdir()
                for attribute, value in zip(
                    ("vendor", "device"), card.pci_id.split(":"), strict=True
                ):
                    (function / attribute).write_text(f"0x{value}\n")
                device.symlink_to(function.name)
            else:
                device.mkdir()
            (device / "driver").symlink_to(f"/sys/bus/simulated/drivers/{card.driver}")
        (shown / "net" / "lo").symlink_to("/sys/devices/virtual/net/lo")

    def _become(self, who: Identity) -> None:
        etc = self._root / "etc"
        (etc / "ssh").mkdir(exist_ok=True)
        (etc / "ssh" / "sshd_config").write_text(SSHD)
        (etc / "ssh" / "authorized_keys").write_text(f"{who.authorized_key}\n")
        (etc / "ssh" / "host_key").write_text(who.host_key)
        (etc / "ssh" / "host_key").chmod(0o600)
        (etc / "hostname").write_text(f"{who.hostname}\n")
        (etc / "machine-id").write_text(f"{who.machine_id}\n")

    def _make_root(self) -> None:
        """A disk with as much of a system as sshd, Python and netperf need; /usr is the host's."""
        part = self._folder / "root.part"
        shutil.rmtree(part, ignore_errors=True)
        for name in ("usr", "local/bin", "proc", "sys", "dev", "run", "root", "tmp", "etc",
                     "var/tmp", "var/lib", "var/log", "home", "opt"):  # fmt: skip
            (part / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (part / name).symlink_to(f"usr/{name}")
        (part / "var" / "run").symlink_to("/run")
        for name in ("tmp", "var/tmp"):
            (part / name).chmod(0o1777)
        for name in COPIED:
            source = Path("/etc") / name
            if source.is_dir():
                shutil.copytree(source, part / "etc" / name, symlinks=True)
            elif source.exists():
                shutil.copy(source, part / "etc" / name)
        (part / "etc" / "shadow").write_text("root:*:19000:0:99999:7:::\n")
        (part / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
        golden = image.find(state.default().images)
        assert golden, "the guest image, which has netperf beside it, is not built: make image"
        for program in ("netperf", "netserver"):
            shutil.copy(golden.folder / "bin" / program, part / "local" / "bin" / program)
        part.rename(self._root)


def _end(init: subprocess.Popen[bytes]) -> None:
    init.kill()
    init.wait()
