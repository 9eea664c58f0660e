"""Where provision keeps things on the controller."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from stat import S_ISDIR
from tempfile import TemporaryDirectory, TemporaryFile

from provision.errors import PreflightError, UserError, WorkloadError

OWN = ".own"  # ends the names of folders of one process's sockets


@dataclass(frozen=True, slots=True)
class State:
    """One state folder: the journal, the images, a folder for each testbed and for each run."""

    root: Path

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def folder(self, testbed: str) -> Path:
        """Disks, consoles, keys and last errors of one testbed; gone after ``down``."""
        return self.root / "testbeds" / testbed

    def unfit(self) -> str:
        """Why nothing can be kept there, in words; "" = it can. Nothing is left behind."""
        folder = self.root
        try:
            while not folder.exists():
                folder = folder.parent
            with TemporaryFile(dir=folder):
                return ""
        except OSError as e:
            return f"{self.root} cannot be used: {folder}: {e.strerror}"


def default() -> State:
    """PROVISION_STATE_DIR, else the system's place for root and the user's for others.

    Raises UserError where that is something else than a folder.
    """
    if chosen := os.environ.get("PROVISION_STATE_DIR"):
        root = Path(chosen).absolute()
        try:
            why = "" if root.is_dir() or not os.path.lexists(root) else "is no folder"
        except OSError as e:
            why = e.strerror or "cannot be looked at"
        if why:
            hint = "name a folder of yours, or unset it"
            raise UserError(f"PROVISION_STATE_DIR: {root}: {why}", hint=hint)
        return State(root)
    if os.geteuid() == 0:
        return State(Path("/var/lib/provision"))
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return State(Path(base) / "provision")


def put(path: Path, data: str | bytes) -> None:
    """Write a file whole, or leave it as it was; raises as ``writing``."""
    with writing(path):
        whole(path, data)


def whole(path: Path, data: str | bytes) -> None:
    """The same; raises OSError."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(data if isinstance(data, bytes) else data.encode())
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises WorkloadError where the disk does not take what is written inside."""
    try:
        yield
    except OSError as e:
        if e.errno == ENOSPC:
            raise full(path) from e
        raise WorkloadError(f"{e.filename or path}: cannot be written: {e.strerror}") from e


def full(path: Path) -> WorkloadError:
    """The disk has no room for what was to be written there."""
    folder = next((p for p in (path, *path.parents) if p.is_dir()), path)
    return WorkloadError(
        f"{path}: cannot be written: {os.strerror(ENOSPC)}", hint=f"df -h {folder}: free some"
    )


def sockets() -> Path:
    """A short-named folder for ssh's control sockets (their paths may have 108 characters).

    Raises PreflightError where it is another user's, who could then answer for our hosts.
    """
    base = Path("/run") if os.geteuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp"))
    folder = base / f"provision-{os.geteuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PreflightError(
            f"{folder} is not this user's alone: ssh's sockets would be in others' hands",
            hint=f"remove {folder}, or set XDG_RUNTIME_DIR to a folder of your own",
        )
    return folder


def own_sockets() -> TemporaryDirectory[str]:
    """A folder there for connections that end with this process; killed processes' ones go.

    Raises as ``sockets``.
    """
    folder = sockets()
    for left in folder.glob(f"*{OWN}"):
        if not Path("/proc", left.name.split("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    return TemporaryDirectory(dir=folder, prefix=f"{os.getpid()}-", suffix=OWN)
