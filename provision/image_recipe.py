"""What the guest image is made of: the packages, the kernel's modules, the files in ``guest/``.

Pure but for reading those files; the digest of it all is the image's name.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

#: raise it when the builder makes another image of the same recipe
BUILDER = 2
RELEASE = "bookworm"
GUEST = Path(__file__).parent / "guest"
#: the format of an image without a disk: a tree, the root of containers
FILES = "files"

#: what guests boot with; the ARP settings make a guest answer on the NIC that has the address, and
#: announce itself as a NIC comes up, so that no one waits for a retry; no_timer_check, since a
#: busy host may hold an emulated CPU up for so long that the kernel takes its timer for broken
CMDLINE = (
    "console=ttyS0 quiet net.ifnames=0 ipv6.disable=1 cryptomgr.notests no_timer_check"
    " sysctl.net.ipv4.conf.all.arp_ignore=1 sysctl.net.ipv4.conf.all.arp_announce=2"
    " sysctl.net.ipv4.conf.all.arp_notify=1"
)

PACKAGES = (
    "busybox-static", "dbus", "ethtool", "haproxy", "iproute2", "iputils-ping", "kmod",
    "linux-image-amd64", "netbase", "netperf", "openssh-server", "procps", "python3",
    "qemu-guest-agent", "sockperf", "stress-ng", "systemd-sysv", "udev",
)  # fmt: skip

#: of a kernel's 400 MB of modules, those that a guest of any hypervisor may need here; the small
#: cloud kernel lacks e1000, e1000e and 8139
MODULES = (
    "arch/x86/crypto", "crypto", "drivers/block/virtio_blk.ko", "drivers/block/xen-blkfront.ko",
    "drivers/cdrom", "drivers/char/hw_random", "drivers/char/virtio_console.ko",
    "drivers/net/dummy.ko", "drivers/net/ethernet/amd/pcnet32.ko",
    "drivers/net/ethernet/dec/tulip", "drivers/net/ethernet/intel/e1000",
    "drivers/net/ethernet/intel/e1000e", "drivers/net/ethernet/realtek", "drivers/net/hyperv",
    "drivers/net/ifb.ko", "drivers/net/mii.ko", "drivers/net/net_failover.ko",
    "drivers/net/veth.ko", "drivers/net/virtio_net.ko", "drivers/net/vmxnet3",
    "drivers/net/xen-netfront.ko", "drivers/virtio", "fs/ext4", "fs/isofs", "fs/jbd2",
    "fs/mbcache.ko", "lib", "net/8021q", "net/core", "net/ipv4", "net/netfilter", "net/packet",
    "net/sched", "net/tls",
)  # fmt: skip

#: what the initramfs needs to reach the root disk, dependencies apart
BOOT_MODULES = ("virtio_pci", "virtio_blk", "xen_blkfront", "crc32c_generic", "ext4")


def guest_files() -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of each file that goes into the image, by its path there."""
    root = GUEST / "root"
    found = {str(p.relative_to(root)): p for p in sorted(root.rglob("*")) if p.is_file()}
    found["usr/lib/provision/setup"] = GUEST / "setup"
    # modes by rule: a wheel or a checkout elsewhere may have lost them
    return {
        name: (0o755 if name.startswith("usr/lib/provision/") else 0o644, path.read_bytes())
        for name, path in found.items()
    }


def init() -> bytes:
    """The first program that runs in a guest."""
    return (GUEST / "initramfs" / "init").read_bytes()


def recipe_digest() -> str:
    """The name of what this version of provision would build: sha256 in hex."""
    recipe = {
        "builder": BUILDER,
        "release": RELEASE,
        "cmdline": CMDLINE,
        "packages": PACKAGES,
        "modules": MODULES,
        "boot_modules": BOOT_MODULES,
        "init": hashlib.sha256(init()).hexdigest(),
        "files": {
            name: (mode, hashlib.sha256(data).hexdigest())
            for name, (mode, data) in guest_files().items()
        },
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def guest_tar() -> bytes:
    """The files as a tar archive, owned by root."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (mode, data) in guest_files().items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def mmdebstrap(
    sources: Sequence[str], apt_options: Sequence[str], files: Path, target: Path, mode: str
) -> list[str]:
    """The command that makes ``target``, a tar of the whole system; ``files`` is ``guest_tar``."""
    dpkg = ["force-unsafe-io", "path-exclude=/lib/modules/*/kernel/*"]
    dpkg += [f"path-include=/lib/modules/*/kernel/{m}{'' if '.ko' in m else '/*'}" for m in MODULES]
    dpkg += [f"path-exclude=/usr/share/{part}/*" for part in ("doc", "info", "locale", "man")]
    return [
        "mmdebstrap", f"--mode={mode}", "--variant=apt", "--format=tar", "--architectures=amd64",
        "--skip=cleanup/reproducible",  # it would empty /etc/machine-id
        *(f"--aptopt={option}" for option in apt_options),
        *(f"--dpkgopt={option}" for option in dpkg),
        f"--include={','.join(PACKAGES)}",
        f"--customize-hook=tar-in {files} /",
        '--customize-hook=chroot "$1" /usr/lib/provision/setup',
        RELEASE, str(target), *sources,
    ]  # fmt: skip
