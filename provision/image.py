"""The guest image: built once for each recipe, whole or not at all, and never changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provision.errors import HostError, PreflightError, UserError, WorldError
from provision.image_recipe import CMDLINE, FILES, recipe_digest

__all__ = [
    "FILES", "NAME", "Image", "build", "find", "from_file", "listing", "recipe_digest", "remove",
]  # fmt: skip

#: what a spec calls the image that this module builds
NAME = "debian12"
SPACE_MIB = 1500
_STALE = ".building-"
_QCOW2 = b"QFI\xfb"


@dataclass(frozen=True, slots=True)
class Image:
    """A disk that guests' overlays stand on, and what they boot it with.

    ``kernel`` is None for a user's own disk, which boots by itself (and ``cmdline`` is "").
    ``info`` has at least ``format``: ``qcow2``, ``raw``, ``vmdk``, or ``files``, of which ``disk``
    is the tree, and nothing boots it. ``packed`` is the kernel as Linux's own boot protocol has it,
    for what can load no other; None = there is none.
    """

    digest: str
    folder: Path
    disk: Path
    kernel: Path | None
    initrd: Path | None
    cmdline: str
    info: Mapping[str, str]
    packed: Path | None = None

    @property
    def tree(self) -> Path:
        """Its files; beside a disk once they were unpacked from it."""
        return self.folder / "tree"


def find(store: Path, digest: str | None = None, *, files: bool = False) -> Image | None:
    """The image of that digest, or the newest of this version's recipe; None = not built.

    That is one with a disk; where ``files`` are all that is asked, one that is nothing else, or a
    disk's that are unpacked already or can be.
    """
    if digest is not None:
        return _read(store / digest[:16])
    recipe = recipe_digest()[:16]
    built = [i for i in listing(store) if i.info.get("recipe") == recipe]
    disks = [i for i in built if i.info["format"] != FILES]
    if not files:
        return next(iter(disks), None)
    unpacks = shutil.which("qemu-img") is not None
    trees = [i for i in built if i not in disks]  # first: guests stay on what they stand on
    return next(iter([*trees, *(i for i in disks if unpacks or i.tree.is_dir())]), None)


def _read(folder: Path) -> Image | None:
    folder = folder.resolve()  # guests restored through one link and another are of one image
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        digest, info = manifest["digest"], manifest["info"]
        if info["format"] == FILES:
            return Image(digest, folder, folder / "tree", None, None, "", info)
        return Image(
            digest=digest,
            folder=folder,
            disk=folder / "disk.qcow2",
            kernel=folder / manifest["kernel"],
            initrd=folder / "initrd",
            cmdline=manifest["cmdline"],
            info=info,
            packed=packed if (packed := folder / "vmlinuz").exists() else None,
        )
    except (OSError, ValueError, KeyError):
        # a folder that someone else has damaged: the next build makes another
        return None


def from_file(path: Path) -> Image:
    """A user's own disk, with cloud-init in it; its digest changes when the file does."""
    try:
        path = path.resolve(strict=True)
        with path.open("rb") as f:
            kind = _format(f.read(512))
        status = path.stat()
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from e
    if kind is None:
        raise UserError(
            f"{path}: no disk to boot from: neither qcow2 nor VMDK, nor raw with a boot sector",
            hint=f"qemu-img info {path}",
        )
    digest = hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()
    info = {"format": kind, "file": str(path)}
    return Image(digest, path.parent, path, None, None, "", info)


def _format(head: bytes) -> str | None:
    """What a disk file is by its first 512 bytes."""
    if head.startswith(_QCOW2):
        return "qcow2"
    if head.startswith((b"KDMV", b"# Disk DescriptorFile")):
        return "vmdk"
    return "raw" if head[510:512] == b"\x55\xaa" else None  # of a GPT too: its protective MBR


def listing(store: Path) -> list[Image]:
    """All that is built, newest first."""
    found = [_read(p.parent) for p in store.glob("[!.]*/manifest.json")]
    whole = [image for image in found if image is not None]
    return sorted(whole, key=lambda i: i.info.get("built_at", ""), reverse=True)


def remove(store: Path, digest: str) -> None:
    """Remove an image; raises UserError where there is none. What stands on it is lost."""
    folder = store / digest[:16]
    if len(digest) < 16 or not folder.is_dir():
        raise UserError(f"no image {digest[:16]} in {store}", hint="provision image list")
    with _locked(store, lambda _: None):
        _discard(folder)


def build(
    store: Path,
    say: Callable[[str], None],
    mirror: str | None = None,
    force: bool = False,
    files: bool = False,
) -> Image:
    """Build this version's image, unless it is there; ``say`` gets each phase.

    ``files`` asks for no more than the root of containers, which needs nothing of QEMU's.
    Raises PreflightError before anything is written, HostError when a tool fails; nothing of a
    failed, full or interrupted build is left. An image is never changed: ``force`` puts another
    beside it, since guests' overlays may stand on the former.
    """
    from provision import image_build, image_mirror

    if not force and (found := find(store, files=files)):
        return found
    source = image_mirror.find(mirror)
    image_build.check_tools(files=files)
    with _locked(store, say) as lock:
        # another builder may have been at it while we waited for the lock
        if not force and (found := find(store, files=files)):
            return found
        _check_space(store)
        recipe = recipe_digest()
        work = store / f"{_STALE}{recipe[:16]}"
        try:
            work.mkdir(mode=0o755)
            began = time.monotonic()
            info = image_build.make(work, source, say, lock, files=files)
            info |= {"recipe": recipe[:16]}
            target = store / _finish(work, info)[:16]
            work.rename(target)
            _sync(store)
        except OSError as e:
            raise HostError(f"{e.filename or store}: {e.strerror}", hint=f"df -h {store}") from e
        finally:
            shutil.rmtree(work, ignore_errors=True)
        say(f"built in {time.monotonic() - began:.0f} s")
    image = _read(target)
    if image is None:
        raise WorldError(f"{target}: the image is gone as soon as it was built")
    return image


@contextmanager
def _locked(store: Path, say: Callable[[str], None]) -> Iterator[int]:
    """One builder at a time. What a dead one left is removed: the lock is ours, so it is dead."""
    try:
        store.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(store / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise PreflightError(
            f"{store}: {e.strerror}", hint="PROVISION_STATE_DIR chooses another folder"
        ) from e
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds an image; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in store.glob(f"{_STALE}*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield lock
    finally:
        os.close(lock)


def _check_space(store: Path) -> None:
    free = shutil.disk_usage(store).free >> 20
    if free < SPACE_MIB:
        raise PreflightError(
            f"{store}: {free} MiB free, the build needs {SPACE_MIB}",
            hint="PROVISION_STATE_DIR chooses another folder",
        )


def _finish(work: Path, info: Mapping[str, str]) -> str:
    """Write the manifest last, all else being on the disk by then; returns the image's digest."""
    kernel = "vmlinux" if (work / "vmlinux").exists() else "vmlinuz"
    files = info["format"] == FILES
    content = hashlib.sha256(CMDLINE.encode())
    for name in ("system.tar",) if files else ("disk.qcow2", kernel, "initrd"):
        with (work / name).open("rb") as f:
            content.update(hashlib.file_digest(f, "sha256").digest())
    (work / "system.tar").unlink(missing_ok=True)
    digest = content.hexdigest()
    boots = {} if files else {"kernel": kernel, "cmdline": CMDLINE}
    manifest = {"digest": digest, **boots, "info": dict(info)}
    (work / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    for path in (*work.iterdir(), *(work / "bin").iterdir(), work):  # in a tree modes are as made
        programs = path.is_dir() or path.parent.name == "bin"
        path.chmod(0o755 if programs else 0o644)
        _sync(path)
    return digest


def _discard(folder: Path) -> None:
    """Out of sight in one step, so that no half of it is ever found."""
    gone = folder.with_name(f"{_STALE}{folder.name}-old")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
