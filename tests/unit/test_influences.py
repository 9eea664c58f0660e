"""What may have influenced a run: read from this very machine, and what a change of it becomes."""

from __future__ import annotations

import copy
import os
from typing import Any

from provision.host import Host
from provision.measuring.influences import look, remarks


def test_this_machine_tells_of_itself() -> None:
    found = look({"host": (Host(), ["lo", "nowhere0"])})["host"]
    assert found["kernel"] == os.uname().release
    assert found["nics"]["lo"]["mtu"] == "65536"
    assert "nowhere0" not in found["nics"]
    pids = {p.split()[0] for p in found["moving"]["processes"]}
    assert f"{os.getppid()}" in pids
    assert f"{os.getpid()}" not in pids, "the controller tells of itself"
    assert not list(remarks({"the host": found}, {"host": found}))


def test_a_machine_without_python_is_told() -> None:
    mute = Host("mute", ("env", "-i", "PATH=/nowhere"))
    found = look({"the load generator": (mute, [])})
    (line,) = remarks(found, found)
    assert line.startswith("the load generator does not tell what may influence figures: mute")


def seen(**more: Any) -> dict[str, Any]:
    nics = {"eth1": {"mtu": "1500", "offloads": ["tso"]}}
    moving = {"load": "0.1", "steal_s": 1.0, "processes": {"7 cron": 1.0, "9 netperf": 2.0}}
    return {
        "boot_id": "b",
        "kernel": "6.1",
        "governor": ["performance"],
        "nics": nics,
        "moving": moving,
    } | more


def test_what_changes_during_a_run_is_told() -> None:
    after = copy.deepcopy(seen(governor=["powersave"]))
    after["nics"] |= {"eth1": {"mtu": "1500", "offloads": []}, "eth2": {"mtu": "1500"}}
    told = sorted(remarks({"the host": seen()}, {"the host": after}))
    assert told == [
        "the host: governor went from ['performance'] to ['powersave'] during the run",
        "the host: nics.eth1.offloads went from ['tso'] to nothing during the run",
        "the host: nics.eth2 came during the run",
    ]


def test_what_else_ran_is_told_but_not_the_load_itself() -> None:
    after = copy.deepcopy(seen())
    after["moving"] = {
        "load": "3", "steal_s": 4.5,
        "processes": {"7 cron": 1.2, "9 netperf": 60.0, "11 backup": 7.0, "12 backup": 3.0},
    }  # fmt: skip
    told = list(remarks({"the host": seen(), "load": seen()}, {"the host": after, "load": after}))
    assert told == [
        "3.5 s of CPU were taken from the host by what it runs on itself",
        "what else ran on the host: backup 10 s of CPU",
    ]


def test_the_workloads_own_programs_are_nothing_else() -> None:
    """Whatever they are called, and wherever on a host its own guests are seen."""
    before, after = seen(), copy.deepcopy(seen())
    after["moving"]["processes"] |= {
        f"{pid} {name}": 9.0
        for pid, name in enumerate((
            "tcpreplay", "haproxy", "kpktgend_1", "ksoftirqd/0", "stress-ng-cpu", "iperf3",
            "a-very-long-pro", "backup", "nginx in provision.demo.vm1",
            "nginx in provision.other.vm1",
        ), 20)
    }  # fmt: skip
    told = list(remarks({"vm1": before}, {"vm1": after}, ["iperf3", "a-very-long-program"], "demo"))
    assert told == ["what else ran on vm1: backup 9 s, nginx in provision.other.vm1 9 s of CPU"]
