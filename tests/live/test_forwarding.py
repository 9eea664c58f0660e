"""Guests that forward for real between two of their NICs, beside one whose CPU is busy."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.live.conftest import Shell

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes bridges and control groups: needs root"),
    pytest.mark.skipif(not shutil.which("runc"), reason="needs runc"),
]


def test_a_guest_forwards_beside_a_busy_one_and_both_are_as_before(shell: Shell) -> None:
    shell("up", "--hv", "container", "-n", "fwd", "--vms", "2", "--set", "guests.nics_each=2", "-q")
    words = ("forwarding-500B-20M+light", "--seconds", "1", "--repeat", "1", "-n", "fwd")
    [run] = shell.json("run", *words)["runs"]
    [found] = [s for s in run["samples"] if s["valid"]]
    finding = found["finding"]
    assert list(finding["links_mbit"]) == ["vm1"]
    assert finding["offered_mbit"]["vm1"] == pytest.approx(20, rel=0.02)
    assert finding["links_mbit"]["vm1"] == pytest.approx(20, rel=0.02)
    for guest in ("vm1", "vm2"):
        look = "cat /proc/sys/net/ipv4/ip_forward; pgrep -c stress"
        said = shell("ssh", "-n", "fwd", guest, "--", look, code=None).stdout.split()
        assert said == ["0", "0"], guest


def test_a_guest_with_one_nic_forwards_nothing_and_it_is_said_what_would(shell: Shell) -> None:
    shell("up", "--hv", "container", "-n", "fwd", "--vms", "1", "-q")
    done = shell("run", "forwarding-64B-1M", "-n", "fwd", code=7)
    assert "forwarding-64B-1M needs 2 NICs in each guest: vm1" in done.stderr
    assert "--set guests.nics_each=2" in done.stderr
