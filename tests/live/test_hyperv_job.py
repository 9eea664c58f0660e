"""The main job on Hyper-V: the verbs as typed, a simulated host, and guests that are real."""

from __future__ import annotations

import json

import pytest

from tests.live.hyperv import SECRET, Bed, bed
from tests.live.nics import each_carries_its_stream

__all__ = ["bed"]
pytestmark = pytest.mark.live


def test_the_whole_day(bed: Bed) -> None:
    """On synthetic adapters, by sealed messages over HTTP."""
    typed, spec = bed.shell, bed.spec("day", rate="80mbit")
    words = ("-f", str(spec), "--vms", "2")
    assert "+ guest/vm1" in typed("plan", *words).stdout
    built = typed.json("up", "--hv", "hyperv", *words)
    assert {g["accel"] for g in built["guests"].values()} == {"hyperv"}
    assert all(g["integration"].startswith("Ok") for g in built["guests"].values()), built
    assert all(g["machine"].startswith("generation 2") for g in built["guests"].values())
    requests = len(bed.lab.peer.endpoint.log)
    assert "nothing to change" in typed("up", *words).stdout
    assert len(bed.lab.peer.endpoint.log) > requests
    assert "as asked" in typed("verify", "-n", "day").stdout
    assert typed("ssh", "-n", "day", "vm2", "--", "hostname").stdout == "vm2\n"
    typed("reset", "-n", "day", "--level", "process")
    result = typed.json("run", "netperf-send", "netperf-receive", "-n", "day", "--seconds", "2",
                        "--repeat", "1", "--redo", "0", code=None)  # fmt: skip
    assert "runs" in result, result
    (run,) = result["runs"]
    assert run["subject"]["nic"] == "synthetic"
    assert len(run["samples"]) == 2
    for sample in run["samples"]:
        # this load generator is no machine of its own, so its CPUs may be the limit, nothing else
        busy = [r for r in sample["finding"]["reasons"] if "of the load generator was" in r]
        assert sample["finding"]["reasons"] == busy
        rates = sample["finding"]["guests_mbit"]
        assert set(rates) == {"vm1", "vm2"}
        if sample["workload"] == "netperf-send":
            assert all(55 < mbit < 82 for mbit in rates.values()), rates
    typed("ssh", "-n", "day", "vm1", "--", "touch", "/var/tmp/dirt")
    typed("reset", "-n", "day", "--level", "revert")
    assert "dirt" not in typed("ssh", "-n", "day", "vm1", "--", "ls", "/var/tmp").stdout
    typed("ssh", "-n", "day", "vm1", "--", "touch", "/var/tmp/dirt")
    typed("reset", "-n", "day", "--level", "recreate")
    assert "dirt" not in typed("ssh", "-n", "day", "vm1", "--", "ls", "/var/tmp").stdout
    typed("down", "-n", "day")
    assert "no testbed" in typed("status").stdout
    kept = [p.read_bytes() for p in typed.folder.rglob("*") if p.is_file() and not p.is_symlink()]
    assert not any(SECRET.encode() in content for content in kept)


@pytest.mark.parametrize("bed", [True], ids=["https"], indirect=True)
def test_a_short_day_on_legacy_adapters(bed: Bed) -> None:
    """Generation 1, by HTTPS and the host's CA; two NICs in its one guest."""
    typed, spec = bed.shell, bed.spec("day", nic="legacy")
    built = typed.json("up", "--hv", "hyperv", "-f", str(spec), "--vms", "1",
                       "--set", "guests.nics_each=2")  # fmt: skip
    assert built["guests"]["vm1"]["machine"].startswith("generation 1")
    assert "as asked" in typed("verify", "-n", "day").stdout
    each_carries_its_stream(typed, "day", 2)
    (run,) = typed.json("report", "-n", "day")["runs"]
    assert run["subject"]["nic"] == "legacy"
    typed("down", "-n", "day")


def test_a_driver_that_names_the_wrong_adapter_is_found_out(bed: Bed) -> None:
    """The cables of the two guests are crossed behind the load generator's back."""
    spec = bed.spec("wrong")
    text = spec.read_text()
    spec.write_text(text.replace("ports: [lg1, lg2]", "ports: [lg2, lg1]"))
    done = bed.shell("up", "-f", str(spec), "--set", "guests.ready=20s", code=7)
    assert "does not reach 198.18.1.2 over its link" in done.stderr


def test_the_root_partition_gets_cpus_of_its_own_by_a_restart(bed: Bed) -> None:
    typed, world = bed.shell, bed.lab.peer.world
    words = ("-f", str(bed.spec("minroot")), "--vms", "1", "--set", "dom0.vcpus=2")
    planned = typed("plan", *words).stdout
    assert "restarts the host" in planned, planned
    boots = world.boots
    done = typed("up", *words, code=4)
    assert "restarts the host HV1" in done.stderr and "--yes" in done.stderr
    assert world.boots == boots
    typed("up", *words, "--yes")
    assert (world.boots, world.booted["hypervisorrootproc"]) == (boots + 1, "2")
    assert "nothing to change" in typed("up", *words).stdout
    told = typed("down", "-n", "minroot", code=4)
    assert "--yes" in told.stderr
    typed("down", "-n", "minroot", "--yes")
    assert "hypervisorrootproc" not in world.booted
    assert world.boots == boots + 2


@pytest.mark.parametrize("bed", [True], ids=["https"], indirect=True)
def test_a_server_that_is_another(bed: Bed) -> None:
    told = [
        (bed.spec("other", tls=f"fingerprint: 'ab{'0' * 62}'"), 4, "certificate"),
        (bed.spec("nobody", tls="ca: wrong.pem"), 2, "no such file"),
        (bed.spec("stranger", tls=""), 4, "not trusted"),
    ]
    for spec, code, words in told:
        done = bed.shell("up", "-f", str(spec), code=code)
        assert words in done.stderr
        assert "next:" in done.stderr
    pinned = bed.spec("pinned", tls=f"fingerprint: {bed.lab.peer.fingerprint}")
    assert "+ guest/vm1" in bed.shell("plan", "-f", str(pinned)).stdout
    trusting = bed.spec("trusting", tls="verify: false")
    found = bed.shell.json("doctor", "-f", str(trusting), code=None)
    assert any("not verified" in json.dumps(line) for line in found)
    bed.shell.env["LAB_PASSWORD"] = "hunter2"
    done = bed.shell("up", "-f", str(pinned), code=4)
    assert "wrong name or password" in done.stderr
    assert "hunter2" not in done.stderr
    assert bed.lab.peer.endpoint.refused <= 2
