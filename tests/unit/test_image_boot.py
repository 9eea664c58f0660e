"""Kernel and initramfs from an image's own files."""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.image_boot import initramfs, load_order, vmlinux

PVH = struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)
ELF = b"\x7fELF" + bytes(100) + PVH + b"the kernel" * 50
DEP = """\
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko
kernel/lib/crc16.ko:
kernel/fs/jbd2/jbd2.ko:
"""  # noqa: E501


def bzimage(payload: bytes, version: int = 0x20F) -> bytes:
    setup_sectors = 3
    head = bytearray((setup_sectors + 1) * 512)
    head[0x1F1] = setup_sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload + b"what follows"


def gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("pack", [lzma.compress, gzipped], ids=["xz", "gzip"])
def test_a_packed_kernel_is_unpacked(pack: Callable[[bytes], bytes]) -> None:
    assert vmlinux(bzimage(pack(ELF))) == ELF


@pytest.mark.parametrize(
    "image",
    [
        b"",
        bzimage(b"\x28\xb5\x2f\xfd zstd"),
        bzimage(lzma.compress(ELF)[:-40] + bytes(40)),
        bzimage(lzma.compress(ELF), version=0x207),
        bzimage(lzma.compress(b"\x7fELF without an entry point that QEMU knows")),
        bzimage(lzma.compress(PVH)),
    ],
    ids=["empty", "zstd", "damaged", "old", "no-pvh", "no-elf"],
)
def test_what_cannot_be_unpacked_is_left_to_boot_as_it_is(image: bytes) -> None:
    assert vmlinux(image) is None


def test_modules_load_after_what_they_need_and_once() -> None:
    names = [
        Path(p).name for p in load_order(DEP, ["virtio_blk", "virtio-ring", "ext4", "built_in"])
    ]
    assert names == ["virtio_ring.ko", "virtio.ko", "virtio_blk.ko", "jbd2.ko", "crc16.ko",
                     "ext4.ko.xz"]  # fmt: skip


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_another_program_reads_the_initramfs(tmp_path: Path) -> None:
    archive = initramfs(b"#!/bin/sh\n", b"busybox", {"b.ko": b"first", "a.ko": b"second!"})
    subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin/busybox").read_bytes() == b"busybox"
    modules = sorted((tmp_path / "modules").iterdir())
    assert [m.name for m in modules] == ["10-b.ko", "11-a.ko"]
    assert [m.read_bytes() for m in modules] == [b"first", b"second!"]
    assert (tmp_path / "root").is_dir()
