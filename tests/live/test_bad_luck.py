"""What goes wrong with a real host: in words, with the documented code, and nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.conftest import URI, Shell

pytestmark = pytest.mark.live
Check = Callable[[], None]
UP = ["up", "--vms", "2", "-n", "test"]


def until(process: subprocess.Popen[str], words: str) -> None:
    """Read its progress until a line has the words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"it ended without a word of {words!r}")


@pytest.mark.parametrize("moment", ["namespace/", "switch/", "guest/vm1", "inside"])
def test_killed_then_down(shell: Shell, as_before: Check, moment: str) -> None:
    process = shell.start(*UP)
    until(process, moment)
    process.kill()
    process.wait()
    shell("down", "-n", "test")
    as_before()


def test_killed_then_up_goes_on(shell: Shell, as_before: Check) -> None:
    process = shell.start(*UP)
    until(process, "guest/vm1")
    process.kill()
    process.wait()
    shell(*UP)
    status = shell.json("status", "-n", "test")
    assert {t["state"] for t in status["things"]} == {"as asked"}
    shell("down", "-n", "test")
    as_before()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
@pytest.mark.parametrize("moment", ["cable/", "guest/vm1"])
def test_interrupted_says_how_to_go_on(
    shell: Shell, as_before: Check, number: int, code: int, moment: str
) -> None:
    process = shell.start(*UP)
    until(process, moment)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "provision down -n test" in said
    shell("down", "-n", "test")
    as_before()


def test_two_ups_at_once(shell: Shell) -> None:
    first = shell.start(*UP)
    until(first, "namespace/")
    second = shell(*UP, code=5)
    assert f"process {first.pid}" in second.stderr
    first.communicate(timeout=300)
    assert first.returncode == 0


def test_a_guest_that_never_answers(shell: Shell, as_before: Check) -> None:
    """Its disk is empty, so it stops in the firmware; the console says so."""
    disk = shell.folder / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    began = time.monotonic()
    done = shell("up", "--vms", "1", "-n", "test", "--set", f"guests.image={disk}",
                 "--set", "guests.ready=15s", code=7)  # fmt: skip
    assert time.monotonic() - began < 60
    assert "vm1" in done.stderr
    assert "serial console" in done.stderr
    assert len(list((shell.folder / "failures").iterdir())) == 1
    shell("down", "-n", "test")
    as_before()


@pytest.fixture
def full(shell: Shell) -> Iterator[Path]:
    """A testbeds folder without room for a disk."""
    folder = shell.folder / "testbeds"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "none", str(folder)],
                   check=True)  # fmt: skip
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(shell: Shell, as_before: Check, full: Path) -> None:
    done = shell("up", "--vms", "1", "-n", "test", code=4)
    assert "no room for the disks of 1 guests" in done.stderr
    assert "df -h" in done.stderr
    as_before()


def test_no_libvirtd(shell: Shell, as_before: Check) -> None:
    nowhere = "hypervisor.uri=qemu+unix:///system?socket=/nonexistent/libvirt-sock"
    done = shell(*UP, "--set", nowhere, code=4)
    assert "next:" in done.stderr
    as_before()


def test_a_foreign_domain_of_the_same_name_is_left_alone(shell: Shell) -> None:
    xml = "<domain type='qemu'><name>test-vm1</name><memory unit='MiB'>32</memory>"
    xml += "<os><type>hvm</type></os></domain>"
    virsh = ["virsh", "-q", "-c", URI]
    subprocess.run([*virsh, "define", "/dev/stdin"], input=xml, text=True, check=True)
    try:
        before = subprocess.run([*virsh, "dumpxml", "test-vm1"], capture_output=True, check=True)
        done = shell("up", "--vms", "1", "-n", "test", code=6)
        assert "test-vm1" in done.stderr
        shell("down", "-n", "test")
        after = subprocess.run([*virsh, "dumpxml", "test-vm1"], capture_output=True, check=True)
        assert after.stdout == before.stdout
    finally:
        subprocess.run([*virsh, "undefine", "test-vm1"], check=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", "link", *words], check=True)


def test_what_came_loose_is_seen_and_plugged_back(shell: Shell, as_before: Check) -> None:
    """By bridges, taps and a pause behind its back; the guest itself runs on."""
    built = shell.json("up", "--vms", "2", "-n", "test")
    boots = {name: seen["boot_id"] for name, seen in built["guests"].items()}
    hosts = json.loads(shell("inventory", "-n", "test", "--list").stdout)["_meta"]["hostvars"]
    mine, other = (hosts[name]["provision_switch"] for name in ("vm1", "vm2"))
    seen = subprocess.run(["ip", "-j", "link", "show", "master", mine, "type", "tun"],
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    (tap,) = (row["ifname"] for row in json.loads(seen))
    for act in (["set", tap, "nomaster"], ["set", tap, "master", other], ["set", tap, "down"],
                ["del", mine]):  # fmt: skip
        ip(*act)
        states = {
            t["thing"]: t["state"] for t in shell.json("status", "-n", "test", code=7)["things"]
        }
        assert states["guest/vm1"] == "differs: nics", act
        assert "provision up" in shell("verify", "-n", "test", code=7).stderr
        began = time.monotonic()
        assert "~ guest/vm1" in shell.json("up", "-n", "test")["changed"]
        assert time.monotonic() - began < 8
    subprocess.run(["virsh", "-q", "-c", URI, "suspend", "test-vm2"], check=True)
    shell("up", "-n", "test")
    seen_now = shell.json("verify", "-n", "test")
    assert {name: seen["boot_id"] for name, seen in seen_now.items()} == boots
    ip("del", tap)
    shell("up", "-n", "test")
    shell("verify", "-n", "test")
    shell("down", "-n", "test")
    as_before()


def test_what_only_a_guest_sees_goes_with_a_reset(shell: Shell) -> None:
    built = shell.json("up", "--vms", "1", "-n", "test")
    nic = max(built["guests"]["vm1"]["nics"], key=lambda n: n["mac"])["name"]
    shell("ssh", "-n", "test", "vm1", "--", f"ip link set {nic} mtu 1400")
    for verb in ("verify", "up", "up"):
        said = shell(verb, "-n", "test", code=7).stderr
        assert "asked for MTU 1500, has 1400" in said
        assert "provision reset -n test" in said
    shell("reset", "-n", "test")
    shell("verify", "-n", "test")
    shell("down", "-n", "test")


def test_cut_short_before_the_checkpoint(shell: Shell) -> None:
    process = shell.start(*UP)
    until(process, "vm2 inside               ok")
    process.kill()
    process.wait()
    shell("up", "-n", "test")
    shell("reset", "-n", "test")
    shell("down", "-n", "test")


def test_a_guest_whose_clock_is_stepped_makes_no_valid_sample(shell: Shell) -> None:
    shell("up", "--vms", "1", "--rate", "40mbit", "-n", "test")
    process = shell.start("run", "netperf-send", "-n", "test", "--seconds", "2", "--repeat", "1",
                          "--json")  # fmt: skip
    until(process, "of traffic")
    shell("ssh", "-n", "test", "vm1", "--", "date -s @$(($(date +%s) + 60))")
    said, _ = process.communicate(timeout=240)
    first, *_, last = json.loads(said)["runs"][0]["samples"]
    reasons = first["finding"]["reasons"]
    assert [r for r in reasons if r.startswith("vm1: its clock was stepped by +")], reasons
    assert last["valid"], last["finding"]["reasons"]
    assert last["finding"]["clocks_ms"]["vm1"][0] > 50_000
    shell("down", "-n", "test")


def test_a_guest_that_was_shut_down_is_seen_and_mended(shell: Shell) -> None:
    shell("up", "--vms", "1", "-n", "test")
    subprocess.run(["virsh", "-q", "-c", URI, "destroy", "test-vm1"], check=True)
    status = shell.json("status", "-n", "test", code=7)
    states = {t["thing"]: t["state"] for t in status["things"]}
    assert states["guest/vm1"] == "differs: running"
    shell("verify", "-n", "test", code=7)
    shell("run", "-n", "test", code=7)
    shell("up", "-n", "test")
    shell("verify", "-n", "test")
    shell("down", "-n", "test")
