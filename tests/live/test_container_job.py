"""Guests that are containers, by the commands a user types."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from drivers.container import tree
from provision import image
from tests.live.conftest import Shell
from tests.live.nics import each_carries_its_stream
from tests.live.oslevel import group, killed_while_it_makes, measured
from tests.peers.scratch import programs_without

pytestmark = pytest.mark.live
UP = ("up", "--hv", "container", "--vms", "2", "--rate", "60mbit", "-n", "test",
      "--set", "guests.memory=300MiB", "--set", "guests.cpu.cap_percent=80",
      "--set", "guests.cpu.pin=0")  # fmt: skip
#: stands in for Debian's mirror and mmdebstrap, whose last word before the sources is the target
SYSTEM = """#!/bin/sh
for word; do case $word in */system.tar) exec tar -C {tree} -cf "$word" . ;; esac; done
"""


def test_the_whole_day(shell: Shell, as_before: Callable[[], None]) -> None:
    built = shell.json(*UP)
    for seen in built["guests"].values():
        assert seen["started"] == "started"
        assert seen["netperf"].startswith("Netperf version")
        assert {nic["name"]: nic["driver"] for nic in seen["nics"]} == {
            "mgmt": "veth", "link1": "veth"
        }  # fmt: skip
    assert shell.json(*UP)["changed"] == []
    assert "as asked" in shell("verify", "-n", "test").stdout
    assert group("vm1", "memory", "memory.limit_in_bytes") == str(300 << 20)
    assert group("vm2", "cpu", "cpu.cfs_quota_us") == "80000"
    assert group("vm2", "cpuset", "cpuset.cpus") == "0"

    result = measured(shell, 60)
    assert result["runs"][0]["subject"]["hypervisor"] == "container"

    shell("ssh", "-n", "test", "vm1", "--", "touch /root/dirty")
    for level in ("process", "revert"):
        shell("reset", "-n", "test", "--level", level)
        dirty = shell("ssh", "-n", "test", "vm1", "--", "test -e /root/dirty", code=None)
        assert (dirty.returncode == 0) == (level == "process")

    _restart_of_the_host()
    assert "guest/vm1.running" not in shell("status", "-n", "test", code=7).stdout
    done = shell.json("up", "-n", "test")
    assert done["changed"] == ["~ guest/vm1", "~ guest/vm2"]
    assert "as asked" in shell("verify", "-n", "test").stdout
    shell("down", "-n", "test")
    as_before()
    assert not (shell.folder / "testbeds/test").exists()


def _restart_of_the_host() -> None:
    """What containers lose by it: /run, mounts, namespaces, groups; the rest is a disk's."""
    for guest in ("vm1", "vm2"):
        subprocess.run(["runc", "delete", "--force", f"test-{guest}"], check=True)
        subprocess.run(["ip", "netns", "del", f"pv-test-{guest}"], check=True)
    for line in subprocess.run(
        ["grep", "testbeds/test/", "/proc/mounts"], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        subprocess.run(["umount", line.split()[1]], check=True)


@pytest.mark.parametrize("thing", ["guest/vm", "switch/"])
def test_killed_at_any_moment_down_puts_the_host_back(
    shell: Shell, as_before: Callable[[], None], thing: str
) -> None:
    killed_while_it_makes(shell, thing, *UP)
    shell("down", "-n", "test")
    as_before()


def test_three_nics_on_open_vswitch(shell: Shell, as_before: Callable[[], None]) -> None:
    shell("up", "--hv", "container", "--vms", "1", "--switch", "ovs", "--rate", "60mbit",
          "--set", "guests.nics_each=3", "-n", "test")  # fmt: skip
    assert shell.json("up", "-n", "test", "--switch", "ovs")["changed"] == []
    each_carries_its_stream(shell, "test", 3, 60)
    shell("down", "-n", "test")
    as_before()


def test_from_nothing_on_a_machine_without_qemu(
    shell: Shell, as_before: Callable[[], None]
) -> None:
    found = image.find(shell.folder / "images", files=True)
    assert found is not None
    system = tree.ensure(found, found.digest, lambda _: None)
    (shell.folder / "images").unlink()
    programs = programs_without("qemu", shell.folder / "programs")
    (programs / "mmdebstrap").unlink()
    (programs / "mmdebstrap").write_text(SYSTEM.format(tree=system))
    (programs / "mmdebstrap").chmod(0o755)
    shell.env["PATH"] = str(programs)
    assert "qemu" not in shell("doctor", "--hv", "container").stdout
    shell("up", "--hv", "container", "--vms", "2", "-n", "test")
    assert '"format": "files"' in shell("image", "list", "--json").stdout
    assert shell.json("up", "-n", "test")["changed"] == []
    assert shell("ssh", "-n", "test", "vm2", "--", "hostname").stdout == "vm2\n"
    shell("down", "-n", "test")
    as_before()
