"""The KVM driver's own business on a host: disks, leftovers, a libvirtd that must be started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("libvirt")

import libvirt

from drivers.kvm.driver import Kvm
from drivers.libvirt.disks import Boot, Disks
from provision.driver import Target
from provision.errors import DriverError, PreflightError
from provision.host import Host
from provision.image import Image
from provision.resources import Guest, key
from tests.contract.peer import resources, who
from tests.root.machines import machine, marks, sh

pytestmark = marks
ROOT = Path(__file__).parents[2]
TESTBED = "kvmhost"


@pytest.fixture
def image(tmp_path: Path) -> Image:
    disk = tmp_path / "disk.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M")
    return Image("d" * 64, tmp_path, disk, None, None, "", {"format": "qcow2"})


@contextmanager
def opened(folder: Path, image: Image) -> Iterator[tuple[Kvm, Guest]]:
    """The test driver of libvirt with its switches made, and a guest that fits."""
    _, switches, guest = resources("eth1", image=image.digest)
    with machine("pvkvmhost") as host:
        driver = Kvm(Target(TESTBED, folder, "test:///default", image, who), host)
        for switch in switches:
            host.run("ip", "link", "add", switch.name, "type", "bridge")
        yield driver, guest
        driver.drop(key(guest))
        driver.close()


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_full_disk_is_said_in_words_and_leaves_nothing(tmp_path: Path, image: Image) -> None:
    folder = tmp_path / "bed"
    folder.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=160k", "none", str(folder))
    try:
        with opened(folder, image) as (driver, guest):
            with pytest.raises(DriverError, match="no room for the disk of guest vm1") as caught:
                driver.put(guest)
            assert caught.value.hint.startswith(f"df -h {folder}")
            assert files(folder) == []
            assert driver.read(key(guest)) is None
            sh("mount", "-o", "remount,size=4m", str(folder))
            driver.put(guest)
            assert driver.read(key(guest)) == guest
    finally:
        sh("umount", str(folder))


def test_no_room_for_guests_is_known_before_they_are_made(tmp_path: Path, image: Image) -> None:
    sh("mount", "-t", "tmpfs", "-o", "size=20m", "none", str(tmp_path))
    try:
        with opened(tmp_path / "not" / "yet", image) as (driver, guest):
            driver.check_room([guest])
            with pytest.raises(PreflightError, match="no room for the disks of 2") as caught:
                driver.check_room([guest, guest])
            assert caught.value.hint.startswith(f"df -h {tmp_path}/not/yet")
    finally:
        sh("umount", str(tmp_path))


def test_a_suspended_guest_is_resumed_not_started_anew(tmp_path: Path, image: Image) -> None:
    with opened(tmp_path / "bed", image) as (driver, guest):
        driver.put(guest)
        found = libvirt.open("test:///default").lookupByName(f"{TESTBED}-vm1")
        number = found.ID()
        found.suspend()
        assert driver.read(key(guest)) == replace(guest, running=False)
        driver.put(guest)
        assert driver.read(key(guest)) == guest
        assert found.ID() == number, "another process"


def test_halves_are_made_whole_or_go(tmp_path: Path, image: Image) -> None:
    folder = tmp_path / "bed"
    with opened(folder, image) as (driver, guest):
        driver.put(guest)
        whole = files(folder)
        (folder / "disks" / "vm1.qcow2").unlink()
        seen = driver.read(key(guest))
        assert isinstance(seen, Guest)
        assert "gone" in seen.image
        driver.put(guest)
        assert driver.read(key(guest)) == guest
        conn = libvirt.open("test:///default")
        found = conn.lookupByName(f"{TESTBED}-vm1")
        found.destroy()
        found.undefine()
        assert driver.read(key(guest)) is None
        assert files(folder) == whole
        driver.put(guest)
        assert driver.read(key(guest)) == guest
        driver.drop(key(guest))
        assert not folder.exists()


def test_secrets_are_qemus_alone(tmp_path: Path, image: Image) -> None:
    with opened(tmp_path / "bed", image) as (driver, guest):
        driver.put(guest)
        (seed,) = (tmp_path / "bed" / "seeds").iterdir()
        assert seed.stat().st_mode & 0o077 == 0


def test_an_image_that_qemu_may_not_read_is_said_before_the_start(image: Image) -> None:
    # pytest's own folders are root's alone, where nobody else may pass
    with TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        disk = folder / "disk.qcow2"
        disk.write_bytes(image.disk.read_bytes())
        disk.chmod(0o600)
        disks = Disks(Host(), folder / "bed", "65534:65534")
        boot = Boot(str(disk), "qcow2", None, None, "")
        with pytest.raises(PreflightError, match=f"may not read {disk}") as caught:
            disks.make("vm1", boot, b"seed")
        assert str(disk) in caught.value.hint
        assert files(folder) == ["disk.qcow2"]
        disk.chmod(0o644)
        disks.make("vm1", boot, b"seed")
        assert (folder / "bed" / "disks" / "vm1.qcow2").stat().st_uid == 65534


def run_as(uid: int, script: str, *wrap: str) -> subprocess.CompletedProcess[str]:
    words = [*wrap, "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return subprocess.run(
        [*words, sys.executable, "-c", script], capture_output=True, text=True, check=False,
        cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip


def test_no_permission_names_the_group(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        done = run_as(
            65534,
            "from drivers.libvirt.connect import connect\n"
            "from provision.errors import Unreachable\n"
            f"try: connect('qemu+unix:///system?socket={path}')\n"
            "except Unreachable as e: print(e, e.hint)",
        )
    if "ModuleNotFound" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("this interpreter is root's alone")
    assert "group: sudo usermod -aG libvirt" in done.stdout


# A machine of its own: its processes end with it, and its /run and /dev/kvm are not ours. The shell
# is its init: libvirtd waits for QEMUs that it asked, and each is an orphan until init reaps it.
ALONE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
         "sh", "-c", '"$@" & wait $!', "init")  # fmt: skip
MACHINE = """
import subprocess, sys, time
def sh(text): subprocess.run(["sh", "-ec", text], check=True)
sh('''
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/libvirt
mkdir -p /run/private /var/lib/libvirt/images
mknod -m 600 /run/private/kvm c 10 232
[ ! -e /dev/kvm ] || mount --bind /run/private/kvm /dev/kvm
''')
from drivers.libvirt import daemon as kvm_daemon
from drivers.libvirt.connect import connect
"""
needs_libvirtd = pytest.mark.skipif(
    not Path("/usr/sbin/libvirtd").exists() or Path("/run/systemd/system").exists(),
    reason="needs libvirtd, and no service manager that minds it",
)


def alone(script: str) -> subprocess.CompletedProcess[str]:
    return run_as(0, MACHINE + script, *ALONE)


@needs_libvirtd
def test_libvirtd_is_started_where_nobody_minds_it() -> None:
    done = alone(
        "link = connect('')\n"
        "print(link.daemon)\n"
        "link.conn.getCapabilities(); began = time.monotonic()\n"
        "link.conn.getCapabilities(); print('quick', time.monotonic() - began < 1)\n"
        "print(sorted(p.name for p in __import__('pathlib').Path('/run/libvirt').glob('*sock')))\n"
        "link.close()\n"
        "print('again:', connect('').daemon)"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "started virtlogd and libvirtd" in lines[0]
    assert "quick True" in lines
    assert "libvirt-sock" in lines[2]
    assert lines[-1] == "again: "


@needs_libvirtd
def test_two_at_once_start_one() -> None:
    done = alone(
        "one = [subprocess.Popen([sys.executable, '-c', 'from drivers.libvirt import daemon; "
        "print(daemon.ensure())'], stdout=subprocess.PIPE, text=True) for _ in range(4)]\n"
        "print([p.communicate()[0].count('started') for p in one])"
    )
    assert done.returncode == 0, done.stderr
    assert sum(int(c) for c in done.stdout.strip("[] \n").split(",")) == 1


@needs_libvirtd
def test_a_libvirtd_that_is_not_there_or_fails_is_said() -> None:
    done = alone(
        "import os; os.environ['PATH'] = '/nowhere'\n"
        "import shutil; which = shutil.which\n"
        "kvm_daemon.shutil.which = lambda name, path: None\n"
        "try: kvm_daemon.ensure()\n"
        "except Exception as e: print(type(e).__name__, e, e.hint)\n"
        "kvm_daemon.shutil.which = lambda name, path: '/bin/false'\n"
        "try: kvm_daemon.ensure()\n"
        "except Exception as e: print(type(e).__name__, e, e.hint)\n"
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("PreflightError virtlogd is not installed")
    assert "apt-get install libvirt-daemon-system" in first
    assert second.startswith("PreflightError virtlogd: 1")
