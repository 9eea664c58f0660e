"""Kernel and initramfs from the image's own files: pure functions on bytes.

Linux's Documentation/x86/boot.rst has the header of a bzImage, initramfs/buffer-format the archive.
"""

from __future__ import annotations

import lzma
import stat
import struct
import zlib
from collections.abc import Iterable, Mapping

SECTOR = 512


def vmlinux(bzimage: bytes) -> bytes | None:
    """The kernel unpacked, so that no emulated CPU has to do it; None where it cannot be.

    Only xz and gzip are known; the ELF file must be one that QEMU starts directly (PVH).
    """
    if bzimage[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", bzimage, 0x206)[0] < 0x208:
        return None
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * SECTOR + offset
    payload = bzimage[start : start + length]
    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            unpacked = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(b"\x1f\x8b"):
            unpacked = zlib.decompressobj(wbits=31).decompress(payload)
        else:
            return None
    except (lzma.LZMAError, zlib.error):
        return None
    # the PVH entry point stands in an ELF note: owner "Xen", type 18
    pvh = struct.pack("<III", 4, 4, 18) + b"Xen\0"
    pvh_long = struct.pack("<III", 4, 8, 18) + b"Xen\0"
    is_elf = unpacked.startswith(b"\x7fELF")
    return unpacked if is_elf and (pvh in unpacked or pvh_long in unpacked) else None


def load_order(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """Paths of the wanted modules and all they need, in the order in which they can be loaded.

    ``modules_dep`` is depmod's file. A module that it lacks is built into the kernel.
    """
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[_name(path)] = (path, rest.split())
    order: list[str] = []
    for name in wanted:
        path, before = needs.get(_name(name), ("", []))
        # depmod lists a module's needs deepest last
        order += [p for p in (*reversed(before), path) if p and p not in order]
    return order


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def initramfs(init: bytes, busybox: bytes, modules: Mapping[str, bytes]) -> bytes:
    """The archive whose ``/init`` loads ``modules`` in their order; not compressed."""
    folders = ("bin", "dev", "modules", "root", "sys")
    parts = [_entry(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    parts += [
        _entry("init", stat.S_IFREG | 0o755, init),
        _entry("bin/busybox", stat.S_IFREG | 0o755, busybox),
    ]
    for number, (name, data) in enumerate(modules.items(), start=10):
        parts.append(_entry(f"modules/{number}-{name}", stat.S_IFREG | 0o644, data))
    return b"".join([*parts, _entry("TRAILER!!!", 0, b"")])


def _entry(name: str, mode: int, data: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
