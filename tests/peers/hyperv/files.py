"""The files of the host: folders, plain files and virtual disks on one volume."""

from __future__ import annotations

import ntpath
from collections.abc import Iterator

from tests.peers.hyperv.model import Disk, File, normal
from tests.peers.powershell.host import FileFault

GB = 1 << 30
_LETTERS = frozenset('<>"|?*')


class Volume:
    """Drive C:, with ``capacity`` bytes; what a VHD takes is what was written to it.

    Several threads may use it: what is gone through is a copy.
    """

    def __init__(self, capacity: int = 100 * GB) -> None:
        self.capacity = capacity
        self._files: dict[str, File] = {}
        self._folders: dict[str, str] = {}
        for path in ("C:\\", "C:\\Windows", "C:\\Users", "C:\\ProgramData"):
            self._folders[normal(path)] = path

    @property
    def free(self) -> int:
        return self.capacity - sum(file.size for file in [*self._files.values()])

    def paths(self) -> list[str]:
        """All files and folders, for a look at what is left behind."""
        return sorted([*self._folders.values(), *(f.path for f in self._files.values())])

    def find(self, path: str) -> File | None:
        return self._files.get(self._sound(path))

    def __getitem__(self, path: str) -> File:
        """Raises FileFault where there is none."""
        found = self.find(path)
        if found is None:
            raise FileFault("System.IO.FileNotFoundException", f"Could not find file '{path}'.")
        return found

    def is_file(self, path: str) -> bool:
        return self.find(path) is not None

    def is_folder(self, path: str) -> bool:
        return self._sound(path) in self._folders

    def read(self, path: str) -> bytes:
        return self[path].data

    def write(self, path: str, data: bytes, *, append: bool = False) -> None:
        found = self.find(path)
        kept = found.data if found is not None and append else b""
        self.put(File(path, kept + data))

    def put(self, file: File) -> None:
        """Raises FileFault where its folder is not there, or the volume is full."""
        key = self._sound(file.path)
        if self.is_folder(file.path):
            raise FileFault(
                "System.UnauthorizedAccessException", f"Access to the path '{file.path}' is denied."
            )
        if not self.is_folder(ntpath.dirname(file.path)):
            raise FileFault(
                "System.IO.DirectoryNotFoundException",
                f"Could not find a part of the path '{file.path}'.",
            )
        before = self._files.get(key)
        if file.size - (before.size if before else 0) > self.free:
            raise FileFault("System.IO.IOException", "There is not enough space on the disk.")
        self._files[key] = file

    def make_folder(self, path: str) -> None:
        """With all above it."""
        key = self._sound(path)
        if key in self._files:
            raise FileFault("System.IO.IOException", f"Cannot create '{path}' because a file or"
                            " directory with the same name already exists.")  # fmt: skip
        above = ntpath.dirname(path.rstrip("\\"))
        if above and above != path and not self.is_folder(above):
            self.make_folder(above)
        self._folders.setdefault(key, path.rstrip("\\"))

    def remove(self, path: str) -> None:
        self._files.pop(self._sound(path), None)

    def remove_folder(self, path: str) -> None:
        """With all below it."""
        key = self._sound(path)
        for kind in (self._files, self._folders):
            for one in [k for k in [*kind] if k == key or k.startswith(f"{key}\\")]:
                kind.pop(one, None)

    def remove_empty(self, path: str) -> None:
        """As Directory.Delete. Raises FileFault where it is not there, or not empty."""
        if not self.is_folder(path):
            text = f"Could not find a part of the path '{path}'."
            raise FileFault("System.IO.DirectoryNotFoundException", text)
        if [*self.below(path)]:
            raise FileFault("System.IO.IOException", "The directory is not empty.")
        del self._folders[self._sound(path)]

    def below(self, path: str) -> Iterator[str]:
        """Files and folders straight in a folder."""
        begin = self._sound(path).rstrip("\\") + "\\"
        several = [*self._folders.items(), *((k, f.path) for k, f in [*self._files.items()])]
        inside = [(k, p) for k, p in several if k.startswith(begin) and len(k) > len(begin)]
        yield from sorted(p for k, p in inside if "\\" not in k[len(begin) :])

    def disk(self, path: str) -> Disk | None:
        found = self.find(path)
        return found.disk if found is not None else None

    def chain(self, path: str) -> list[File]:
        """A virtual disk and all that it stands on. Raises FileFault where one is not there."""
        found = []
        while path:
            file = self[path]
            if file.disk is None:
                raise FileFault("System.IO.IOException", f"The file '{path}' is corrupted.")
            found.append(file)
            path = file.disk.parent
        return found

    def _sound(self, path: str) -> str:
        drive, rest = ntpath.splitdrive(path.replace("/", "\\"))
        if drive.upper() != "C:" or not rest.startswith("\\") or _LETTERS & set(rest):
            raise FileFault(
                "System.IO.DirectoryNotFoundException",
                f"Could not find a part of the path '{path}'.",
            )
        return normal(path)
