"""The test host's disk, built once for each recipe: GRUB boots Xen and dom0 from it."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from provision import image_boot, image_mirror, state
from provision.errors import PreflightError
from provision.host import DIE_WITH_US
from provision.image import Image
from tests.peers.xen import recipe

TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-system-x86_64": "qemu-system-x86"}
BUILD_S = 1800
SECTOR = 512
FIRST = 2048  # sector of the root file system: before it, there is room for GRUB
ROOT_GIB = 6
_MBR_CODE, _MBR_TABLE = 440, 446


def disk() -> Path:
    """The folder with ``disk.raw`` and the keys ``id`` and ``host``; the first call takes minutes.

    Raises PreflightError where a tool is missing or there is no mirror.
    """
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise PreflightError(f"the Xen host is built with {', '.join(missing)}: not installed")
    store = state.default().root / "peers"
    store.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = store / f"xen-{recipe.digest()}"
    with (store / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            work = store / ".building"
            shutil.rmtree(work, ignore_errors=True)  # a dead builder's: the lock is ours
            work.mkdir(mode=0o700)
            _build(work)
            work.rename(found)
    return found


def store(image: Image) -> Path:
    """A disk with the guests' image on it, as a push would have laid it: .images/DIGEST/FILE."""
    assert image.kernel is not None
    assert image.initrd is not None
    folder = state.default().root / "peers"
    found = folder / f"images-{image.digest[:16]}.raw"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            work = folder / ".images"
            shutil.rmtree(work, ignore_errors=True)
            target = work / "tree/.images" / image.digest[:16]
            target.mkdir(parents=True)
            for file in (image.disk, image.kernel, image.initrd, image.packed):
                if file is not None:
                    _place(file, target / file.name, 0o644)
            words = ("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", "tree")
            _run(work, *words, "disk", "2G")
            (work / "disk").rename(found)
            shutil.rmtree(work)
    return found


def _build(work: Path) -> None:
    mirror, root = image_mirror.find(), work / "root"
    # what it mounts in the tree goes with it, however it ends
    alone = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    _run(work, *alone, *recipe.mmdebstrap(mirror.sources, mirror.apt_options, root))
    for name in ("id", "host"):
        _run(work, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / name))
    _place(work / "id.pub", root / "root/.ssh/authorized_keys", 0o600)
    _place(work / "host", root / "etc/ssh/ssh_host_ed25519_key", 0o600)
    version = next(p.name for p in (root / "lib/modules").iterdir())
    (root / f"boot/initrd.img-{version}").write_bytes(_initramfs(root, version))
    _disk(work, root)
    shutil.rmtree(root)


def _place(source: Path, target: Path, mode: int) -> None:
    shutil.copyfile(source, target)
    target.chmod(mode)


def _initramfs(root: Path, version: str) -> bytes:
    folder = root / "lib/modules" / version
    order = image_boot.load_order((folder / "modules.dep").read_text(), recipe.BOOT_MODULES)
    modules = {Path(p).name: (folder / p).read_bytes() for p in order}
    busybox = (root / "bin/busybox").read_bytes()
    return image_boot.initramfs((recipe.FILES / "init").read_bytes(), busybox, modules)


def _disk(work: Path, root: Path) -> None:
    """One partition with the root file system; GRUB's boot.img and core.img before it.

    boot.img loads the sector that follows it (its default), where core.img's first sector says how
    long the rest is, as grub-mkimage wrote it.
    """
    target, grub = work / "disk.raw", root / "boot/grub/i386-pc/boot.img"
    core = (root / "boot/core.img").read_bytes()
    (root / "boot/core.img").unlink()
    assert len(core) < (FIRST - 1) * SECTOR, "GRUB does not fit before the partition"
    with target.open("wb") as f:
        f.truncate((FIRST * SECTOR) + (ROOT_GIB << 30))
    _run(
        work, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-E", f"offset={FIRST * SECTOR}",
        "-d", str(root), str(target), f"{ROOT_GIB}G",
    )  # fmt: skip
    sectors = (ROOT_GIB << 30) // SECTOR
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", FIRST, sectors)
    with target.open("r+b") as f:
        f.write(grub.read_bytes()[:_MBR_CODE])
        f.seek(_MBR_TABLE)
        f.write(entry + bytes(48) + b"\x55\xaa")
        f.write(core)


def _run(work: Path, *words: str) -> None:
    own = {"TMPDIR": str(work), "INITRD": "No", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*DIE_WITH_US, *words], cwd=work, capture_output=True, text=True, check=False,
        timeout=BUILD_S, env=os.environ | own,
    )  # fmt: skip
    assert not done.returncode, f"{words[0]}: {done.stderr[-3000:]}"


if __name__ == "__main__":
    print(disk())
