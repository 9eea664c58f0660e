"""Where provision keeps things on the controller."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from provision.errors import PreflightError


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


def default() -> State:
    """PROVISION_STATE_DIR, else the system's place for root and the user's for others."""
    if chosen := os.environ.get("PROVISION_STATE_DIR"):
        return State(Path(chosen).absolute())
    if os.geteuid() == 0:
        return State(Path("/var/lib/provision"))
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return State(Path(base) / "provision")


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
