"""The bare host as the baseline, by the commands a user types."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live.conftest import Shell
from tests.live.nics import each_carries_its_stream
from tests.live.oslevel import group, killed_while_it_makes, measured

pytestmark = pytest.mark.live
UP = ("up", "--hv", "native", "--vms", "2", "--rate", "60mbit", "-n", "test",
      "--set", "guests.memory=300MiB", "--set", "guests.cpu.cap_percent=80")  # fmt: skip


@pytest.mark.parametrize("virt", ["host", "namespace"])
def test_the_whole_day(shell: Shell, as_before: Callable[[], None], virt: str) -> None:
    up = [*UP, "--set", f"guests.virt={virt}"]
    built = shell.json(*up)
    assert {g["accel"] for g in built["guests"].values()} == {virt}
    assert shell.json(*up)["changed"] == []
    assert "as asked" in shell("verify", "-n", "test").stdout
    assert group("vm1", "memory", "memory.limit_in_bytes") == str(300 << 20)
    assert group("vm2", "cpu", "cpu.cfs_quota_us") == "80000"
    where = "hostname; grep -o provision.test.vm2 /proc/self/cgroup | sort -u"
    assert shell("ssh", "-n", "test", "vm2", "--", where).stdout == "vm2\nprovision.test.vm2\n"

    if virt == "namespace":
        shell("reset", "-n", "test", "--level", "recreate")
        shell("up", "-n", "test", "--vms", "1", "--set", "guests.nics_each=3")
        each_carries_its_stream(shell, "test", 3, 60)
        shell("down", "-n", "test")
        as_before()
        return
    result = measured(shell, 60)
    assert result["runs"][0]["subject"]["hypervisor"] == "native"
    assert result["runs"][0]["subject"]["nic"] == "uplink"

    refused = shell("reset", "-n", "test", code=2)
    assert "no checkpoint" in refused.stderr
    assert "--level recreate" in refused.stderr
    shell("reset", "-n", "test", "--level", "recreate")
    done = shell.json("up", "-n", "test", "--set", "guests.cpu.weight=512")
    assert done["changed"] == ["~ guest/vm1", "~ guest/vm2"]
    assert group("vm1", "cpu", "cpu.shares") == "2048"
    shell("down", "-n", "test")
    as_before()
    assert not (shell.folder / "testbeds/test").exists()


@pytest.mark.parametrize("thing", ["guest/vm", "uplink/"])
def test_killed_at_any_moment_down_puts_the_host_back(
    shell: Shell, as_before: Callable[[], None], thing: str
) -> None:
    killed_while_it_makes(shell, thing, *UP)
    shell("down", "-n", "test")
    as_before()


def test_what_a_bare_host_cannot_is_refused(shell: Shell) -> None:
    done = shell("up", "--hv", "native", "-n", "test", "--nic", "e1000", "--switch", "ovs",
                 "--set", "guests.nic.rate=10mbit", code=2)  # fmt: skip
    assert "no vNIC model 'e1000'" in done.stderr
    assert "no switch of type 'ovs'" in done.stderr
    assert "the uplink itself" in done.stderr
