"""The main job with real guests and real traffic, by the commands a user types."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.conftest import Shell

pytestmark = pytest.mark.live
Check = Callable[[], None]


def test_the_whole_day_of_four_guests(shell: Shell, as_before: Check) -> None:
    up = ["up", "--hv", "kvm", "--vms", "4", "--nic", "virtio", "--rate", "60mbit", "-n", "test"]
    built = shell.json(*up)
    assert sorted(built["guests"]) == ["vm1", "vm2", "vm3", "vm4"]
    for seen in built["guests"].values():
        assert seen["accel"] in ("kvm", "tcg")
        assert seen["started"] in ("restored", "booted")
        assert seen["netperf"].startswith("Netperf version")
    again = shell.json(*up)
    assert again["changed"] == []
    assert again["took_s"] < 2

    status = shell.json("status", "-n", "test")
    assert {t["state"] for t in status["things"]} == {"as asked"}
    assert shell("plan", "-n", "test").stdout == "nothing to change\n"
    assert "as asked" in shell("verify", "-n", "test").stdout
    _apart(shell, list(built["guests"].values()))

    result = shell.json("run", "netperf-send", "netperf-receive", "-n", "test",
                        "--seconds", "3", "--repeat", "1")  # fmt: skip
    _trustworthy(result)

    shell("ssh", "-n", "test", "vm1", "--", "touch /root/dirty; sync")
    for level in ("process", "revert"):
        shell("reset", "-n", "test", "--level", level)
        dirty = shell("ssh", "-n", "test", "vm1", "--", "test -e /root/dirty", code=None)
        assert (dirty.returncode == 0) == (level == "process")
    shell("down", "-n", "test")
    as_before()
    assert not (shell.folder / "testbeds/test").exists()
    document = json.loads(shell("report", "--json").stdout)
    assert document["runs"][0]["id"] == result["runs"][0]["id"]


def _apart(shell: Shell, guests: list[dict[str, object]]) -> None:
    """Each guest is somebody of its own, and is reached by its name."""
    for what in ("machine_id", "hostname"):
        assert len({str(g[what]) for g in guests}) == len(guests)
    inventory = json.loads(shell("inventory", "-n", "test", "--list").stdout)
    assert inventory["guests"]["hosts"] == ["vm1", "vm2", "vm3", "vm4"]
    keys = set()
    for name in inventory["guests"]["hosts"]:
        script = "hostname; date +%s; head -c 16 /dev/urandom | od -An -tx1; ssh-keyscan localhost"
        asked_s = time.time()
        said = shell("ssh", "-n", "test", name, "--", script)
        hostname, now, random, host_key = said.stdout.splitlines()
        assert hostname == name
        assert asked_s - 2 < int(now) < time.time() + 1
        keys |= {host_key.split()[2], random}
    assert len(keys) == 8


def _trustworthy(result: dict[str, list[dict[str, list[dict[str, object]]]]]) -> None:
    samples = result["runs"][0]["samples"]
    valid = [s for s in samples if s["valid"]]
    assert {s["workload"] for s in valid} == {"netperf-send", "netperf-receive"}
    for sample in valid:
        finding = sample["finding"]
        assert isinstance(finding, dict)
        assert 0 <= finding["skew_ms"] < 1000
        assert set(finding["guests_mbit"]) == {"vm1", "vm2", "vm3", "vm4"}
        assert all(0 < rate < 62 for rate in finding["guests_mbit"].values())
        assert all(abs(v) < 2 for v in finding["disagreement_percent"].values())


def test_three_nics_in_one_guest_have_a_link_and_a_stream_each(
    shell: Shell, as_before: Check
) -> None:
    """Restored, so that each is plugged in; every stream agrees with its own uplink's counters."""
    up = ["up", "--vms", "1", "--rate", "40mbit", "-n", "test", "--set", "guests.nics_each=3"]
    built = shell.json(*up)
    seen = built["guests"]["vm1"]
    names = {nic["name"] for nic in seen["nics"]}
    assert names == {"mgmt", "link1", "link2", "link3"}
    assert "as asked" in shell("verify", "-n", "test").stdout
    result = shell.json("run", "netperf-send", "-n", "test", "--seconds", "2", "--repeat", "1")
    (sample,) = [s for s in result["runs"][0]["samples"] if s["valid"]]
    finding = sample["finding"]
    links = finding["links_mbit"]
    assert sorted(links) == ["vm1.link1", "vm1.link2", "vm1.link3"]
    assert all(20 < rate < 42 for rate in links.values()), links
    for near in (finding["counters_mbit"], finding["uplinks_mbit"]):
        assert near == pytest.approx(links, rel=0.06)
    assert finding["guests_mbit"] == {"vm1": pytest.approx(sum(links.values()))}
    shell("reset", "-n", "test")
    done = shell.json("up", "-n", "test", "--set", "guests.nics_each=1")
    assert "! guest/vm1" in done["changed"]
    shell("down", "-n", "test")
    as_before()


@pytest.mark.parametrize("model", ["e1000", "e1000e", "rtl8139", "vmxnet3"])
def test_every_nic_model_carries_traffic(shell: Shell, as_before: Check, model: str) -> None:
    shell("up", "--vms", "1", "--nic", model, "--rate", "40mbit", "-n", "test")
    result = shell.json("run", "netperf-send", "-n", "test", "--seconds", "2", "--repeat", "1")
    assert result["runs"][0]["subject"]["nic"] == model
    assert any(s["valid"] for s in result["runs"][0]["samples"])
    shell("down", "-n", "test")
    as_before()


def test_changes_in_place_and_anew(shell: Shell, as_before: Check) -> None:
    shell("up", "--vms", "2", "-n", "test")
    boots = _boots(shell)
    done = shell.json("up", "-n", "test", "--set", "guests.cpu.weight=512")
    assert done["changed"] == ["~ guest/vm1", "~ guest/vm2"]
    assert _boots(shell) == boots
    done = shell.json("up", "-n", "test", "--set", "guests.memory=768MiB")
    assert done["changed"] == ["~ guest/vm1", "~ guest/vm2"]
    assert not set(_boots(shell)) & set(boots)
    done = shell.json("up", "-n", "test", "--vms", "1")
    assert "- guest/vm2" in done["changed"]
    shell("reset", "-n", "test", "--level", "recreate")
    shell("down", "-n", "test")
    as_before()


def _boots(shell: Shell) -> list[str]:
    guests = shell.json("verify", "-n", "test")
    return [seen["boot_id"] for seen in guests.values()]


def test_open_vswitch_and_a_proxy(shell: Shell, as_before: Check) -> None:
    few = ["--set", "run.object_kib=[1]", "--set", "run.arrivals=20"]
    shell("up", "--vms", "1", "--switch", "ovs", "--rate", "40mbit", "-n", "test", *few)
    result = shell.json("run", "netperf-send", "http-open", "-n", "test", "--seconds", "2",
                        "--repeat", "1")  # fmt: skip
    valid = {s["workload"]: s["finding"] for s in result["runs"][0]["samples"] if s["valid"]}
    assert list(valid) == ["netperf-send", "http-open-1k"]
    assert valid["http-open-1k"]["transactions_per_s"]["vm1"] == pytest.approx(20, rel=0.1)
    assert result["runs"][0]["subject"]["haproxy"].startswith("2.")
    shell("down", "-n", "test")
    as_before()


def test_booted_cold_where_the_spec_says_so(shell: Shell, as_before: Check) -> None:
    built = shell.json("up", "--vms", "1", "-n", "test", "--set", "guests.start=boot")
    assert built["guests"]["vm1"]["started"] == "booted"
    shell("down", "-n", "test")
    as_before()


def test_files_left_are_runs_only(shell: Shell) -> None:
    shell("up", "--vms", "1", "-n", "test")
    shell("down", "-n", "test")
    left = {p.name for p in Path(shell.folder).iterdir()}
    assert left <= {"images", "journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm",
                    "locks", "testbeds", "runs"}  # fmt: skip
    assert [p.name for p in (shell.folder / "testbeds").iterdir()] == [".golden"]
