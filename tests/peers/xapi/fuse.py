"""A file system of a few files whose contents are worked out, and whose writes may be refused.

The kernel's FUSE protocol by hand, as little of it as such files need (Linux, fuse.h, 7.31). Files
are read and written directly, never from a cache. Needs root and /dev/fuse.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provision.host import Host

REQUEST = struct.Struct("<IIQQIIII")
REPLY = struct.Struct("<IiQ")
ATTR = struct.Struct("<6Q10I")
BUFFER = 1 << 18
MOST_WRITE = 1 << 16
DIRECT_IO = 1
(LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR,
 READDIR, RELEASEDIR, ACCESS, INTERRUPT, DESTROY, BATCH_FORGET) = (
    1, 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26, 27, 28, 29, 34, 36, 38, 42)  # fmt: skip
SILENT = (FORGET, BATCH_FORGET, INTERRUPT)
MINE = 1  # the root's node


@dataclass(frozen=True)
class File:
    """``read`` gives the whole of it; ``write`` takes what is written, or raises OSError."""

    read: Callable[[], str]
    write: Callable[[str], None] | None = None


Tree = Mapping[str, "File | Tree"]


@contextmanager
def mounted(tree: Tree, host: Host, at: Path) -> Iterator[None]:
    """Serve the tree at a folder, in the mount namespace of the host; it ends with us."""
    door = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    served = _Served(tree, door)
    try:
        options = f"fd={door},rootmode=40000,user_id=0,group_id=0,allow_other"
        _mount(host, door, options, at)
        served.thread.start()
        yield
    finally:
        host.run("umount", "-l", str(at), check=False)
        os.close(door)


def _mount(host: Host, door: int, options: str, at: Path) -> None:
    import subprocess

    words = host.argv("mount", "-i", "-t", "fuse", "-o", options, "provision", str(at))
    done = subprocess.run(words, pass_fds=(door,), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"mount: {done.stderr}"


class _Served:
    """Answers the kernel, in a thread of its own."""

    def __init__(self, tree: Tree, door: int) -> None:
        self._door = door
        self._nodes: list[File | Tree] = [tree]  # node N is at N - 1
        self._children: list[dict[str, int]] = [{}]
        self._open: dict[int, bytes] = {}
        self._next = 1
        self._grow(0, tree)
        self.thread = threading.Thread(target=self._run, name="fuse", daemon=True)

    def _grow(self, index: int, tree: Tree) -> None:
        for name, node in tree.items():
            self._nodes.append(node)
            self._children.append({})
            mine = len(self._nodes) - 1
            self._children[index][name] = mine + 1
            if not isinstance(node, File):
                self._grow(mine, node)

    def _run(self) -> None:
        while True:
            try:
                request = os.read(self._door, BUFFER)
            except OSError as e:
                if e.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return
            if not request:
                return
            _, opcode, unique, node, *_ = REQUEST.unpack_from(request)
            if opcode in SILENT:
                continue
            error, body = 0, b""
            try:
                body = self._answer(opcode, node, request[REQUEST.size :])
            except OSError as e:
                error = -(e.errno or errno.EIO)
            reply = REPLY.pack(REPLY.size + len(body), error, unique) + body
            try:
                os.write(self._door, reply)
            except OSError as e:
                if e.errno != errno.ENOENT:  # whoever asked is gone
                    return

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes:  # noqa: PLR0911
        match opcode:
            case _ if opcode == INIT:
                return struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 8, 8, MOST_WRITE, 1, 0, 0, 0,
                                   *[0] * 7)  # fmt: skip
            case _ if opcode == LOOKUP:
                return self._lookup(node, body.rstrip(b"\0").decode())
            case _ if opcode in (GETATTR, SETATTR):
                return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
            case _ if opcode in (OPEN, OPENDIR):
                return self._opened(node)
            case _ if opcode in (READ, READDIR):
                fh, offset, size = struct.unpack_from("<QQI", body)
                if opcode == READDIR:
                    return self._names(node, offset, size)
                return self._open[fh][offset : offset + size]
            case _ if opcode == WRITE:
                return self._write(node, body)
            case _ if opcode in (RELEASE, RELEASEDIR):
                self._open.pop(struct.unpack_from("<Q", body)[0], None)
                return b""
            case _ if opcode in (FLUSH, FSYNC, ACCESS, DESTROY):
                return b""
            case _ if opcode == STATFS:
                return struct.pack("<5Q4I6I", 0, 0, 0, 0, 0, 512, 255, 512, 0, *[0] * 6)
        raise OSError(errno.ENOSYS, "not here")

    def _lookup(self, node: int, name: str) -> bytes:
        if (found := self._children[node - 1].get(name)) is None:
            raise OSError(errno.ENOENT, name)
        return struct.pack("<QQQQII", found, 0, 0, 0, 0, 0) + self._attributes(found)

    def _attributes(self, node: int) -> bytes:
        what = self._nodes[node - 1]
        if isinstance(what, File):
            mode = stat.S_IFREG | (0o644 if what.write else 0o444)
        else:
            mode = stat.S_IFDIR | 0o555
        return ATTR.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _opened(self, node: int) -> bytes:
        what, handle = self._nodes[node - 1], self._next
        self._next += 1
        self._open[handle] = what.read().encode() if isinstance(what, File) else b""
        return struct.pack("<QII", handle, DIRECT_IO if isinstance(what, File) else 0, 0)

    def _names(self, node: int, offset: int, size: int) -> bytes:
        entries = [(".", node), ("..", MINE), *self._children[node - 1].items()]
        found = b""
        for number, (name, child) in enumerate(entries[offset:], start=offset + 1):
            data = name.encode()
            kind = 8 if isinstance(self._nodes[child - 1], File) else 4
            entry = struct.pack("<QQII", child, number, len(data), kind) + data
            entry += b"\0" * (-len(entry) % 8)
            if len(found) + len(entry) > size:
                break
            found += entry
        return found

    def _write(self, node: int, body: bytes) -> bytes:
        what = self._nodes[node - 1]
        _, _, size, *_ = struct.unpack_from("<QQIIQII", body)
        data = body[40 : 40 + size]
        if not isinstance(what, File) or what.write is None:
            raise OSError(errno.EACCES, "read only")
        what.write(data.decode(errors="replace"))
        return struct.pack("<II", size, 0)
