"""The floor: the same guests started by bare QEMU commands in parallel, until SSH answers."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from provision.access import Access
from provision.host import Host
from provision.image import Image
from provision.seed import Identity, Nic, iso

BRIDGE = "pvbench0"


def boot(image: Image, count: int, folder: Path, accel: str) -> float:
    """Seconds from the first command until each of ``count`` guests took a login over SSH."""
    access = Access(folder / "keys")
    access.public_key()
    with ExitStack() as stack:
        host = Host()
        host.run("ip", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
        stack.callback(host.run, "ip", "link", "del", BRIDGE)
        host.run("ip", "addr", "add", "198.19.255.1/24", "dev", BRIDGE)
        host.run("ip", "link", "set", BRIDGE, "up")
        began = time.monotonic()
        with ThreadPoolExecutor(count) as pool:
            guests = [pool.submit(_one, image, n, folder, access, accel) for n in range(count)]
            running = [guest.result() for guest in guests]
        took_s = time.monotonic() - began
        for process in running:
            process.kill()
            process.wait()
        for n in range(count):
            host.run("ip", "link", "del", f"pvbench{n + 1}", check=False)
    return took_s


def _one(image: Image, n: int, folder: Path, access: Access, accel: str) -> subprocess.Popen[bytes]:
    """One guest, two NICs as in a testbed: started, and logged in to."""
    tap, at = f"pvbench{n + 1}", f"198.19.255.{n + 10}"
    macs = [f"52:54:00:be:{nic:02x}:{n:02x}" for nic in (1, 2)]
    who = Identity(
        f"bench{n}", f"{n + 1:032x}", access.public_key(), access.host_key(f"bench{n}"),
        (Nic(macs[0], "mgmt", f"{at}/24"), Nic(macs[1], "link1", f"198.18.{n}.2/24")),
    )  # fmt: skip
    disk, seed = folder / f"{n}.qcow2", folder / f"{n}.iso"
    seed.write_bytes(iso(who))
    Host().run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image.disk),
               str(disk))  # fmt: skip
    Host().run("ip", "tuntap", "add", tap, "mode", "tap")
    Host().run("ip", "link", "set", tap, "master", BRIDGE, "up")
    process = subprocess.Popen([
        "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", f"pc,accel={accel}",
        "-cpu", "max" if accel == "tcg" else "host", "-m", "1024", "-smp", "1",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.cmdline,
        "-drive", f"if=virtio,file={disk},format=qcow2,cache=unsafe",
        "-drive", f"if=virtio,file={seed},format=raw,readonly=on",
        "-netdev", f"tap,id=n0,ifname={tap},script=no,downscript=no",
        "-device", f"virtio-net-pci,netdev=n0,mac={macs[0]},romfile=",
        "-netdev", f"hubport,id=n1,hubid={n}",
        "-device", f"virtio-net-pci,netdev=n1,mac={macs[1]},romfile=",
        "-device", "virtio-serial", "-device", "virtio-rng-pci",
        "-serial", f"file:{folder / f'{n}.log'}",
    ])  # fmt: skip
    words = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
             "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5",
             "-i", str(access.key), f"root@{at}", "true"]  # fmt: skip
    while subprocess.run(words, check=False, capture_output=True).returncode:
        if process.poll() is not None:
            raise SystemExit(f"bare QEMU ended with {process.returncode}")
    return process
