"""What the test host is made of: Debian's packages, and the few files that make it boot fast."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from provision.image_recipe import RELEASE

#: raise it when the builder makes another disk of the same recipe
BUILDER = 1
FILES = Path(__file__).parent / "files"
PACKAGES = (
    "bridge-utils", "busybox-static", "dbus", "dmsetup", "ethtool", "grub-common",
    "grub-pc-bin", "grub2-common", "iproute2", "iputils-ping", "kmod", "libvirt-clients",
    "libvirt-daemon-driver-xen", "libvirt-daemon-system", "linux-image-amd64", "netcat-openbsd",
    "openssh-server", "openvswitch-switch", "procps", "python3", "python3-libvirt",
    "qemu-system-xen", "qemu-utils", "systemd-sysv", "udev", "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17", "xenstore-utils",
)  # fmt: skip
#: of a kernel's 400 MB of modules, those that this host uses
MODULES = (
    "arch/x86/crypto", "crypto", "drivers/block", "drivers/md", "drivers/net/ethernet/intel/e1000",
    "drivers/net/net_failover.ko", "drivers/net/tun.ko", "drivers/net/veth.ko",
    "drivers/net/virtio_net.ko", "drivers/net/xen-netback", "drivers/virtio", "drivers/xen",
    "fs/ext4", "fs/isofs", "fs/jbd2", "fs/mbcache.ko", "lib", "net/802", "net/bridge", "net/core",
    "net/ipv4", "net/ipv6", "net/llc", "net/netfilter", "net/nsh", "net/openvswitch", "net/sched",
)  # fmt: skip
#: what its initramfs loads, dependencies apart
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "ext4")


def digest() -> str:
    """The name of what this recipe builds: 16 hex digits."""
    recipe = {
        "builder": BUILDER,
        "release": RELEASE,
        "packages": PACKAGES,
        "modules": MODULES,
        "boot_modules": BOOT_MODULES,
        "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in FILES.iterdir()},
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def mmdebstrap(sources: Sequence[str], apt_options: Sequence[str], target: Path) -> list[str]:
    """The command that makes ``target``, the tree of the whole host."""
    dpkg = ["force-unsafe-io", "force-confold", "path-exclude=/lib/modules/*/kernel/*"]
    dpkg += [f"path-include=/lib/modules/*/kernel/{m}{'' if '.ko' in m else '/*'}" for m in MODULES]
    dpkg += [f"path-exclude=/usr/share/{part}/*" for part in ("doc", "info", "locale", "man")]
    return [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
        "--architectures=amd64", "--aptopt=Apt::Install-Recommends \"false\"",
        *(f"--aptopt={option}" for option in apt_options),
        *(f"--dpkgopt={option}" for option in dpkg),
        f"--include={','.join(PACKAGES)}",
        f"--customize-hook=copy-in {FILES / 'setup'} /",
        f"--customize-hook=copy-in {FILES / 'vif-bridge'} /etc/xen/scripts",
        '--customize-hook=chroot "$1" sh /setup',
        RELEASE, str(target), *sources,
    ]  # fmt: skip
