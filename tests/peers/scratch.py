"""Folders for tests: scratch, which the next one removes where this one is killed, and PATHs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch(prefix: str, parent: Path) -> Iterator[Path]:
    """Make a folder that is locked as long as it is in use, and remove it."""
    for stale in parent.glob(f"{prefix}*"):
        if (lock := _lock(stale)) is not None:
            shutil.rmtree(stale, ignore_errors=True)
            os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def programs_without(prefix: str, folder: Path) -> Path:
    """Make a folder with all the programs of PATH but those whose names begin so."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*"):
            if not program.name.startswith(prefix) and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    return folder


def _lock(folder: Path) -> int | None:
    """A lock on the folder that ends with the process; None where someone else has it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None  # gone meanwhile, or another user's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
