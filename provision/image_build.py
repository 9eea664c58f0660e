"""The tools that make an image's files: mmdebstrap, mke2fs, qemu-img; all in one work folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TextIO, cast

from provision import image_boot, image_recipe
from provision.errors import HostError, PreflightError
from provision.image_mirror import Mirror

#: tool -> Debian package
DISK_TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils"}
FILES_TOOLS = {"mmdebstrap": "mmdebstrap"}
ROOTLESS = {"fakeroot": "fakeroot", "newuidmap": "uidmap"}
_NOTHING: Mapping[str, str] = MappingProxyType({})
_DULL = re.compile("hook|success|signed-by|tempdir|architecture|skipping|done")
#: sparse: what guests write is in their overlays, on top of some 300 MiB
DISK_GIB = 8


def check_tools(*, files: bool) -> None:
    """Raises PreflightError that names every missing tool's package."""
    root = os.geteuid() == 0
    if files and not root:
        raise PreflightError(
            "the root of containers has files of several owners, which root alone can make",
            hint="sudo provision …",
        )
    tools = FILES_TOOLS if files else DISK_TOOLS
    wanted = tools if root else tools | ROOTLESS
    missing = [package for tool, package in wanted.items() if shutil.which(tool) is None]
    if missing:
        raise PreflightError(
            f"to build a guest image, {', '.join(missing)} must be installed",
            hint=f"apt-get install {' '.join(missing)}",
        )


def make(
    work: Path, mirror: Mirror, say: Callable[[str], None], lock: int, *, files: bool
) -> dict[str, str]:
    """Make disk.qcow2, vmlinuz, vmlinux (unpacked) and initrd in ``work``; says what is in them.

    With ``files``, ``tree`` instead, beside the system.tar that it is of. ``lock`` is held by every
    tool too, so that one which outlives us still counts as a builder.
    """
    own, system = work / "files.tar", work / "system.tar"
    own.write_bytes(image_recipe.guest_tar())
    run = _Runner(work, say, lock)
    say(f"{image_recipe.RELEASE} from {', '.join(s.split()[1] for s in mirror.sources)}")
    run(
        image_recipe.mmdebstrap(mirror.sources, mirror.apt_options, own, system, "unshare"),
        {"INITRD": "No"},  # the kernel's package need not make an initramfs: ours is smaller
    )
    own.unlink()
    if files:
        say("files")
        info = _take(system, work, boot=False)
        run(["sh", "-euc", _TREE, "tree", str(work)])
        return info | {"format": image_recipe.FILES}
    say("kernel and initramfs")
    info = _take(system, work, boot=True)
    say("disk")
    disk = ["sh", "-euc", _DISK, "disk", str(work), str(DISK_GIB)]
    run(disk if os.geteuid() == 0 else ["fakeroot", *disk])
    return info | {"format": "qcow2"}


#: what runs the containers gives them their devices
_TREE = """
cd "$1"
mkdir tree
tar -C tree --numeric-owner --exclude='./boot/*' --exclude='./dev/*' -xpf system.tar
sync -f tree
"""
_DISK = """
cd "$1"
mkdir tree
tar -C tree --numeric-owner --exclude='./boot/*' -xpf system.tar
rm system.tar
truncate -s "${2}G" disk.raw
mke2fs -q -t ext4 -L root -m 0 -J size=8 -E lazy_itable_init=1,lazy_journal_init=1 -d tree disk.raw
rm -r tree
qemu-img convert -O qcow2 disk.raw disk.qcow2
rm disk.raw
"""


def _take(system: Path, work: Path, *, boot: bool) -> dict[str, str]:
    """Write what load generators get, netperf, and what guests boot, from the system's tar.

    Says what the system is.
    """
    with tarfile.open(system) as tar:
        members = {m.name.removeprefix("./"): m for m in tar if m.isfile()}

        def read(name: str) -> bytes:
            found = tar.extractfile(members[name]) if name in members else None
            if found is None:
                raise HostError(f"the guest's new system has no /{name}")
            return found.read()

        info = _boot(members, read, work) if boot else {}
        (work / "bin").mkdir(mode=0o755)
        for name in ("netperf", "netserver"):
            (work / "bin" / name).write_bytes(read(f"usr/bin/{name}"))
            (work / "bin" / name).chmod(0o755)
        status = read("var/lib/dpkg/status").decode()
        return info | {
            "debian": read("etc/debian_version").decode().strip(),
            "netperf": package_version(status, "netperf"),
            "built_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }


def _boot(members: Collection[str], read: Callable[[str], bytes], work: Path) -> dict[str, str]:
    """Write the kernel and the initramfs; says which kernel."""
    image = next((n for n in members if n.startswith("boot/vmlinuz-")), "boot/vmlinuz-")
    version = image.removeprefix("boot/vmlinuz-")
    folder = f"usr/lib/modules/{version}"
    if f"{folder}/modules.dep" not in members:
        folder = f"lib/modules/{version}"
    order = image_boot.load_order(read(f"{folder}/modules.dep").decode(), image_recipe.BOOT_MODULES)
    modules = {Path(p).name: read(f"{folder}/{p}") for p in order}
    busybox = "usr/bin/busybox" if "usr/bin/busybox" in members else "bin/busybox"
    archive = image_boot.initramfs(image_recipe.init(), read(busybox), modules)
    (work / "initrd").write_bytes(archive)
    packed = read(image)
    (work / "vmlinuz").write_bytes(packed)
    if unpacked := image_boot.vmlinux(packed):
        (work / "vmlinux").write_bytes(unpacked)
    return {"kernel": version}


def package_version(status: str, package: str) -> str:
    """The installed version, from the text of dpkg's status file; "" where it is not installed."""
    found = re.search(rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (.+)$", status, re.M)
    return found[1] if found else ""


class _Runner:
    """Runs a tool in the work folder, passes its phases on, and makes an error of its failure."""

    def __init__(self, work: Path, say: Callable[[str], None], lock: int) -> None:
        self.work, self.say, self.lock = work, say, lock

    def __call__(self, words: Sequence[str], environment: Mapping[str, str] = _NOTHING) -> None:
        process = subprocess.Popen(
            [*_guard(), *words], cwd=self.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            pass_fds=(self.lock,), start_new_session=True,
            env=os.environ | environment | {"TMPDIR": str(self.work), "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        last: deque[str] = deque(maxlen=200)
        lines = cast(TextIO, process.stderr)
        try:
            for line in lines:
                last.append(line.strip())
                if line.startswith("I: ") and not _DULL.search(line):
                    self.say(line[3:].strip())
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            lines.read()  # ends when the last of them is gone
            process.wait()
            raise
        if code:
            raise HostError(f"{words[0]}: {_reason(last)}", hint=_hint("\n".join(last), self.work))


def _guard() -> list[str]:
    """Tools die when this process does, and their mounts with them."""
    guard = ["setpriv", "--pdeathsig", "KILL", "--"]
    if os.geteuid() == 0:
        guard += ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return guard


def _reason(lines: Iterable[str]) -> str:
    """The tool's first errors, which are the cause of the others; else its last words."""
    told = [line for line in lines if line]
    if any("No space left" in line for line in told):
        return "no space left on device"
    errors = [line for line in told if re.match("(E: |W: .*failed|.*(rror|annot|Unable))", line)]
    return " / ".join(line[:300] for line in errors[:2] or told[-3:]) or "killed"


def _hint(words: str, work: Path) -> str:
    if "No space left" in words:
        return f"df -h {work.parent}"
    if "Unable to locate package" in words:
        return "a mirror with the component non-free: provision image build --mirror URL"
    if re.search("Failed to fetch|Release file|Could not|Temporary failure", words):
        return "provision image build --mirror URL"
    return ""
