"""Images are whole or not there; the tools are stand-ins, the disk is made by the real ones."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provision import image, image_build, image_recipe
from provision.errors import HostError, PreflightError, UserError
from tests.peers.scratch import programs_without

ROOT = Path(__file__).parents[2]
SYSTEM = {
    "boot/vmlinuz-6.1.0-9-amd64": b"not a bzImage",
    "bin/busybox": b"busybox",
    "usr/bin/netperf": b"netperf",
    "usr/bin/netserver": b"netserver",
    "etc/debian_version": b"12.9\n",
    "lib/modules/6.1.0-9-amd64/modules.dep": b"kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko\n"
    b"kernel/lib/crc16.ko:\n",
    "lib/modules/6.1.0-9-amd64/kernel/fs/ext4/ext4.ko": b"ext4",
    "lib/modules/6.1.0-9-amd64/kernel/lib/crc16.ko": b"crc16",
    "var/lib/dpkg/status": b"Package: netperf-doc\nVersion: 1\n\nPackage: netperf\nStatus: x\n"
    b"Description: y\n more\nVersion: 2.7.0-0.1\n\n",
}
#: stands in for mmdebstrap: argument n of the real one is the target, before the sources
TOOL = """#!/bin/sh
echo "I: running apt-get update..." >&2
echo $$ >>"{log}"
{action}
for word; do case $word in */system.tar) cp "{system}" "$word" ;; esac; done
"""
WAIT = 'while [ ! -e "{go}" ]; do sleep 0.02; done'

Tool = Callable[[str], None]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Put a stand-in for mmdebstrap (and for apt) first in PATH; the argument is what it does."""
    tools = tmp_path / "tools"
    tools.mkdir()
    with tarfile.open(tmp_path / "system.tar", "w") as tar:
        for name, data in SYSTEM.items():
            (tmp_path / "file").write_bytes(data)
            (tmp_path / "file").chmod(0o640)
            tar.add(tmp_path / "file", f"./{name}")

    def script(name: str, text: str) -> None:
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def use(action: str) -> None:
        words = {"log": tmp_path / "log", "system": tmp_path / "system.tar"}
        script("mmdebstrap", TOOL.format(action=action.format(go=tmp_path / "go"), **words))

    script("apt-config", "#!/bin/sh\n")
    line = "http://mirror.example/debian/\tbookworm\tmain\tDebian\tPackages"
    script("apt-get", f"#!/bin/sh\necho '{line}'\n")
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(image_build, "DISK_GIB", 1)
    use("")
    return use


def left(store: Path) -> list[str]:
    return sorted(p.name for p in store.iterdir() if p.name != ".lock")


def test_an_image_is_built_once_and_found_by_its_recipe(tmp_path: Path, tool: Tool) -> None:
    store, said = tmp_path / "images", list[str]()
    assert image.find(store) is None
    built = image.build(store, said.append)
    assert built == image.find(store) == image.find(store, built.digest)
    assert built.info["recipe"] == image.recipe_digest()[:16]
    assert left(store) == [built.digest[:16]]
    assert left(built.folder) == ["bin", "disk.qcow2", "initrd", "manifest.json", "vmlinuz"]
    assert built.kernel == built.packed == built.folder / "vmlinuz"
    assert built.initrd is not None and b"10-crc16.ko" in built.initrd.read_bytes()
    assert {**built.info, "built_at": "", "recipe": ""} == {
        "format": "qcow2", "recipe": "", "debian": "12.9", "kernel": "6.1.0-9-amd64",
        "netperf": "2.7.0-0.1", "built_at": "",
    }  # fmt: skip
    assert (built.folder / "bin" / "netserver").read_bytes() == b"netserver"
    assert (built.folder / "bin" / "netserver").stat().st_mode & 0o777 == 0o755
    assert "running apt-get update..." in said
    info = json.loads(
        subprocess.run(
            ["qemu-img", "info", "--output=json", built.disk], capture_output=True, check=True
        ).stdout
    )
    assert (info["format"], info["virtual-size"]) == ("qcow2", 1 << 30)
    assert info["actual-size"] < 50 << 20
    assert built.disk.stat().st_mode & 0o777 == 0o644
    assert built.folder.stat().st_mode & 0o777 == 0o755

    assert image.build(store, said.append) == built
    assert len((tmp_path / "log").read_text().split()) == 1


@pytest.mark.root
def test_the_root_of_containers_needs_nothing_of_qemu(
    tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to be built, and not to be found; where QEMU's tool is, a disk's files will do."""
    store, everything = tmp_path / "images", os.environ["PATH"]
    few = programs_without("qemu-", tmp_path / "few")
    monkeypatch.setenv("PATH", f"{tmp_path}/tools{os.pathsep}{few}")
    with pytest.raises(PreflightError, match="qemu-utils"):
        image.build(store, lambda _: None)
    built = image.build(store, lambda _: None, files=True)
    assert left(built.folder) == ["bin", "manifest.json", "tree"]
    assert (built.disk, built.kernel, built.info["format"]) == (built.tree, None, "files")
    assert (built.tree / "usr/bin/netperf").read_bytes() == b"netperf"
    assert not (built.tree / "boot").exists()
    assert (built.tree / "usr/bin/netperf").stat().st_mode & 0o777 == 0o640
    assert (built.folder / "bin" / "netserver").stat().st_mode & 0o777 == 0o755
    assert image.build(store, lambda _: None, files=True) == built
    assert image.find(store, files=True) == image.find(store, built.digest) == built
    assert image.find(store) is None

    monkeypatch.setenv("PATH", everything)
    disk = image.build(store, lambda _: None)
    assert image.find(store) == disk != built
    assert image.find(store, files=True) == built  # guests stay on what they stand on
    image.remove(store, built.digest)
    assert image.find(store, files=True) == disk
    monkeypatch.setenv("PATH", str(few))
    assert image.find(store, files=True) is None
    disk.tree.mkdir()
    assert image.find(store, files=True) == disk


def test_a_forced_build_leaves_the_former_for_guests_that_stand_on_it(
    tmp_path: Path, tool: Tool
) -> None:
    former = image.build(tmp_path, lambda _: None)
    bytes_then = former.disk.read_bytes()
    latter = image.build(tmp_path, lambda _: None, force=True)
    assert latter.digest != former.digest
    assert former.disk.read_bytes() == bytes_then
    assert image.find(tmp_path) == latter and image.find(tmp_path, former.digest) == former
    assert image.listing(tmp_path) == [latter, former]


def test_the_digest_follows_every_file_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = image.recipe_digest()
    assert before == image.recipe_digest()
    copy = tmp_path / "guest"
    subprocess.run(["cp", "-r", image_recipe.GUEST, copy], check=True)
    monkeypatch.setattr(image_recipe, "GUEST", copy)
    assert image.recipe_digest() == before
    for name in ("root/usr/lib/provision/identify", "initramfs/init", "setup"):
        old = (copy / name).read_bytes()
        (copy / name).write_bytes(old + b"#")
        assert image.recipe_digest() != before
        (copy / name).write_bytes(old)
    (copy / "root/usr/lib/provision/identify").chmod(0o600)  # as from an archive without modes
    assert image.recipe_digest() == before
    monkeypatch.setattr(image_recipe, "PACKAGES", (*image_recipe.PACKAGES, "iperf3"))
    assert image.recipe_digest() != before


@pytest.mark.parametrize(
    ("words", "reason", "hint"),
    [
        ("E: Unable to locate package netperf", "Unable to locate package netperf", "non-free"),
        ("tar: x: Cannot write: No space left on device", "no space left", "df -h"),
        ("E: Failed to fetch http://x/ Could not connect", "Failed to fetch", "--mirror"),
        ("", "running apt-get update", ""),
    ],
)
def test_a_tool_that_fails_leaves_nothing_but_its_reason(
    tmp_path: Path, tool: Tool, words: str, reason: str, hint: str
) -> None:
    tool(f"echo '{words}' >&2; exit 1")
    with pytest.raises(HostError, match=reason) as e:
        image.build(tmp_path / "images", lambda _: None)
    assert hint in e.value.hint
    assert left(tmp_path / "images") == []


def test_a_system_that_lacks_what_guests_need_is_no_image(
    tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_recipe, "init", lambda: b"")
    with tarfile.open(tmp_path / "system.tar", "w"):
        pass
    with pytest.raises(HostError, match="has no /"):
        image.build(tmp_path / "images", lambda _: None)
    assert left(tmp_path / "images") == []


def test_a_killed_tool_leaves_nothing(tmp_path: Path, tool: Tool) -> None:
    tool(WAIT)

    def kill(phase: str) -> None:
        if phase.startswith("running"):
            for line in _tools(tmp_path):
                os.kill(int(line.split()[0]), signal.SIGKILL)

    with pytest.raises(HostError, match="mmdebstrap"):
        image.build(tmp_path / "images", kill)
    assert left(tmp_path / "images") == []
    assert not _tools(tmp_path)


def test_a_failed_rebuild_leaves_the_image_that_was_there(tmp_path: Path, tool: Tool) -> None:
    before = image.build(tmp_path / "images", lambda _: None)
    tool("exit 1")
    with pytest.raises(HostError):
        image.build(tmp_path / "images", lambda _: None, force=True)
    assert image.find(tmp_path / "images") == before
    assert before.disk.exists()


def test_an_interrupted_build_leaves_nothing_and_no_tool(tmp_path: Path, tool: Tool) -> None:
    tool(WAIT)

    def interrupt(phase: str) -> None:
        if phase.startswith("running"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image.build(tmp_path / "images", interrupt)
    assert left(tmp_path / "images") == []
    assert not _tools(tmp_path)


def _tools(tmp_path: Path) -> list[str]:
    """Command lines of stand-ins that run still."""
    lines = subprocess.run(
        ["ps", "axww", "-o", "pid,stat,args"], capture_output=True, text=True, check=True
    )
    ours = f"{tmp_path}/tools/mmdebstrap"
    return [s for s in lines.stdout.splitlines() if ours in s and s.split()[1] != "Z"]


def _builder(store: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path; from provision import image, image_build\n"
        "image_build.DISK_GIB = 1\n"
        "print(image.build(Path(sys.argv[1]), lambda s: print(s, flush=True)).digest)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(store)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def _read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"ended without {words!r}")


def test_two_builders_at_once_build_once(tmp_path: Path, tool: Tool) -> None:
    tool(WAIT)
    first = _builder(tmp_path / "images")
    _read_until(first, "running apt-get")
    second = _builder(tmp_path / "images")
    _read_until(second, "waiting")
    (tmp_path / "go").touch()
    told = [p.communicate(timeout=30)[0].split()[-1] for p in (first, second)]
    assert told == [i.digest for i in image.listing(tmp_path / "images")] * 2
    assert len((tmp_path / "log").read_text().split()) == 1


def test_what_a_killed_builder_left_is_swept_by_the_next(tmp_path: Path, tool: Tool) -> None:
    store = tmp_path / "images"
    tool(WAIT)
    killed = _builder(store)
    _read_until(killed, "running apt-get")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert left(store) == [f".building-{image.recipe_digest()[:16]}"]
    assert image.find(store) is None and image.listing(store) == []
    (store / ".building-0123456789abcdef-old").mkdir()
    if os.geteuid():
        (tmp_path / "go").touch()
    deadline = time.monotonic() + 10
    while _tools(tmp_path) and time.monotonic() < deadline:  # no event tells of a foreign death
        time.sleep(0.02)
    assert not _tools(tmp_path)
    tool("")
    built = image.build(store, lambda _: None)
    assert left(store) == [built.digest[:16]]


def test_what_is_missing_is_said_before_anything_is_written(
    tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_build, "DISK_TOOLS", {"no-such-tool": "its-package"})
    with pytest.raises(PreflightError, match="its-package") as e:
        image.build(tmp_path / "images", lambda _: None)
    assert "apt-get install its-package" in e.value.hint
    assert not (tmp_path / "images").exists()


def test_a_store_that_cannot_be_is_said(tmp_path: Path, tool: Tool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PreflightError, match="Not a directory"):
        image.build(tmp_path / "file" / "images", lambda _: None)


def test_too_little_space_is_said_at_once(
    tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "SPACE_MIB", 1 << 40)
    with pytest.raises(PreflightError, match="MiB free"):
        image.build(tmp_path / "images", lambda _: None)
    assert left(tmp_path / "images") == []


def test_listing_and_removing(tmp_path: Path, tool: Tool) -> None:
    store = tmp_path / "images"
    assert image.listing(store) == []
    built = image.build(store, lambda _: None)
    assert image.listing(store) == [built]
    with pytest.raises(UserError, match="no image"):
        image.remove(store, "0" * 64)
    with pytest.raises(UserError, match="no image"):
        image.remove(store, "")
    image.remove(store, built.digest)
    assert image.listing(store) == [] and left(store) == []


def test_a_damaged_image_is_not_found_and_the_next_build_mends_it(
    tmp_path: Path, tool: Tool
) -> None:
    for words in ("{", "{}"):
        built = image.build(tmp_path, lambda _: None)
        assert image.find(tmp_path) == built
        (built.folder / "manifest.json").write_text(words)
        assert image.find(tmp_path) is None and image.listing(tmp_path) == []


def test_a_users_own_disk(tmp_path: Path) -> None:
    disk = tmp_path / "cloud.img"
    with pytest.raises(UserError, match="No such file"):
        image.from_file(disk)
    disk.write_bytes(b"QFI\xfb and so on")
    own = image.from_file(disk)
    assert (own.disk, own.kernel, own.info["format"]) == (disk, None, "qcow2")
    disk.write_bytes(bytes(510) + b"\x55\xaa and so on")
    assert image.from_file(disk).info["format"] == "raw"
    assert image.from_file(disk).digest != own.digest
    disk.write_bytes(b"KDMV and so on")
    assert image.from_file(disk).info["format"] == "vmdk"
    disk.write_bytes(b"root:x:0:0:root:/root:/bin/bash\n" * 40)
    with pytest.raises(UserError, match="no disk to boot from"):
        image.from_file(disk)


def test_the_lock_is_free_after_all_that_can_happen(tmp_path: Path, tool: Tool) -> None:
    tool("exit 1")
    with pytest.raises(HostError):
        image.build(tmp_path, lambda _: None)
    with (tmp_path / ".lock").open() as f:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
