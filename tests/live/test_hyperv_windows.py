"""The main job with Windows guests: identity, verify, netserver brought, real traffic, all shut."""

from __future__ import annotations

import hashlib
import json

import pytest

from provision import image, state
from tests.live.hyperv import Bed, bed
from tests.peers.hyperv.guests import Spaces
from tests.peers.hyperv.peer import WINDOWS
from tests.peers.windows.guest import WinGuest
from tests.peers.windows.machine import Machine

__all__ = ["bed"]
pytestmark = pytest.mark.live


def _inside(bed: Bed, vm: str) -> tuple[WinGuest, Machine]:
    spaces = bed.lab.spaces
    assert isinstance(spaces, Spaces)
    guest = spaces.inside(vm)
    assert guest.machine is not None
    return guest, guest.machine


def test_the_whole_day_of_windows_guests(bed: Bed) -> None:
    typed, spec = bed.shell, bed.spec("day")
    golden = image.find(state.default().images)
    assert golden, "the guest image, which has netperf beside it, is not built: make image"
    program = golden.folder / "bin" / "netserver"
    brought = {"file": str(program), "sha256": hashlib.sha256(program.read_bytes()).hexdigest()}
    words = ("-f", str(spec), "--vms", "2", "--set", "guests.os=windows",
             "--set", f"guests.image={WINDOWS}",
             "--set", f"guests.netserver={json.dumps(brought)}")  # fmt: skip
    built = typed.json("up", *words)
    seen = built["guests"]["vm2"]
    assert seen["kernel"].startswith("Microsoft Windows Server")
    assert [n["name"] for n in seen["nics"]] == ["mgmt", "link1"]
    assert {n["driver"] for n in seen["nics"]} == {"netvsc"}
    assert seen["nics"][1]["speed_mbit"] == 10000
    assert "lso-ipv4" in seen["nics"][1]["offloads"]
    _, one = _inside(bed, "day-vm1")
    assert {r.name for r in one.state.rules} == {"provision-ssh", "provision-ping"}
    assert not one.state.tasks
    assert "nothing to change" in typed("up", *words).stdout
    result = typed.json("run", "netperf-both", "-n", "day", "--seconds", "1", "--repeat", "1",
                        "--redo", "0", code=None)  # fmt: skip
    assert "runs" in result, result
    (run,) = result["runs"]
    assert brought["sha256"] in run["subject"]["netperf"]
    for sample in run["samples"]:
        # this load generator is no machine of its own, so its CPUs may be the limit, nothing else
        busy = [r for r in sample["finding"]["reasons"] if "of the load generator was" in r]
        assert sample["finding"]["reasons"] == busy
        rates = sample["finding"]["guests_mbit"]
        assert set(rates) == {"vm1", "vm2"}
        assert all(mbit > 1 for mbit in rates.values())
    assert one.calls.count("Register-ScheduledTask") == 1
    assert {r.name for r in one.state.rules} == {"provision-ssh", "provision-ping"}
    assert not one.alive()
    assert not one.state.tasks
    typed("reset", "-n", "day", "--level", "revert")
    _, one = _inside(bed, "day-vm1")
    one.state.cards[1].mtu = 1400
    one.state.apply_links(one.inside, one.host)
    told = typed("verify", "-n", "day", code=7)
    assert "vm1 link1: asked for MTU 1500, has 1400" in told.stderr
    typed("down", "-n", "day")
