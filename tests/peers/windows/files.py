"""Drive C: of a Windows guest, which is a folder of its disk, and D: with what its DVD holds."""

from __future__ import annotations

import ntpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tests.peers.powershell.host import FileFault

T = TypeVar("T")


class Drives:
    """As ``tests.peers.powershell.host.Files`` wants them."""

    def __init__(self, root: Path, dvd: Mapping[str, bytes]) -> None:
        self._root, self._dvd = root, dvd

    def at(self, path: str) -> Path:
        """Where a path of C: is."""
        drive, rest = ntpath.splitdrive(ntpath.normpath(path))
        if drive.upper() != "C:":
            raise FileFault("System.IO.DirectoryNotFoundException", f"Could not find '{path}'.")
        return self._root / "C:" / rest.strip("\\").replace("\\", "/")

    def _on_dvd(self, path: str) -> str:
        return path[3:] if path[:3].upper() == "D:\\" else ""

    def read(self, path: str) -> bytes:
        if name := self._on_dvd(path):
            if name not in self._dvd:
                raise FileFault("System.IO.FileNotFoundException", f"Could not find '{path}'.")
            return self._dvd[name]
        return self._done(path, lambda at: at.read_bytes())

    def write(self, path: str, data: bytes, *, append: bool = False) -> None:
        def work(at: Path) -> None:
            with at.open("ab" if append else "wb") as f:
                f.write(data)

        self._done(path, work)

    def remove(self, path: str) -> None:
        self._done(path, lambda at: at.unlink(missing_ok=True))

    def move(self, path: str, to: str) -> None:
        self._done(path, lambda at: at.rename(self.at(to)))

    def is_file(self, path: str) -> bool:
        return self._on_dvd(path) in self._dvd or self.at(path).is_file()

    def is_folder(self, path: str) -> bool:
        return self.at(path).is_dir()

    def make_folder(self, path: str) -> None:
        self._done(path, lambda at: at.mkdir(parents=True, exist_ok=True))

    def remove_empty(self, path: str) -> None:
        self._done(path, lambda at: at.rmdir())

    def _done(self, path: str, work: Callable[[Path], T]) -> T:
        try:
            return work(self.at(path))
        except FileNotFoundError as e:
            kind = "System.IO.FileNotFoundException"
            raise FileFault(kind, f"Could not find '{path}'.") from e
        except OSError as e:
            raise FileFault("System.IO.IOException", f"{path}: {e.strerror}") from e
