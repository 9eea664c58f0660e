"""The guest image as a tree of files: the root of containers, each with a layer of its own over it.

An image that was built for containers alone is that tree. Of any other it lies beside the disk, and
is unpacked from there once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from provision.errors import DriverError, HostError, PreflightError
from provision.image import FILES, Image

LIMIT_S = 600


def ensure(image: Image | None, want: str, say: Callable[[str], None]) -> Path:
    """The tree of the image with the digest ``want``; ``say`` gets each phase.

    Raises PreflightError where a tool is missing or the image is no built one, DriverError where
    it is not at hand, HostError where a tool fails; half a tree is never left under its name.
    """
    if image is None or image.digest != want:
        named = want[:16] or "(none)"
        raise DriverError(f"image {named} is not at hand", hint="provision image build")
    found = image.tree
    if image.info["format"] == FILES:
        return found
    if image.kernel is None:
        raise PreflightError(
            f"{image.disk}: a container has files for its root, and boots no disk",
            hint="guests.image: debian12",
        )
    if found.is_dir():
        return found
    with (image.folder / ".tree.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.is_dir():  # another may have made it while we waited
            say("unpacking the image, once")
            _unpack(image.disk, found)
    return found


def _unpack(disk: Path, to: Path) -> None:
    part, raw = to.with_name(".tree.part"), to.with_name(".tree.raw")
    for tool, package in (("qemu-img", "qemu-utils"), ("debugfs", "e2fsprogs")):
        if shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") is None:
            raise PreflightError(f"{tool} is missing", hint=f"apt-get install {package}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o755)
    try:
        _run("qemu-img", "convert", "-O", "raw", str(disk), str(raw))
        said = _run("debugfs", "-R", f"rdump / {part}", str(raw))
        if wrong := [line for line in said.splitlines() if not line.startswith("debugfs ")]:
            raise HostError(f"{disk}: {wrong[0]}", hint="provision image build --force")
        part.rename(to)
    finally:
        raw.unlink(missing_ok=True)
        shutil.rmtree(part, ignore_errors=True)


def _run(*words: str) -> str:
    """What it says on stderr."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", "--", *words], capture_output=True, text=True,
        timeout=LIMIT_S, check=False, env=os.environ | {"PATH": path},
    )  # fmt: skip
    if done.returncode:
        raise HostError(f"{words[0]}: {done.stderr.strip()[-300:]}", hint=f"df -h {words[-1]}")
    return done.stderr
