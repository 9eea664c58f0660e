"""One guest with several NICs, a stream over each: what each link carried, and by which NIC."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.errors import WorkloadError
from provision.measuring.results import Run, Subject
from provision.measuring.take import Bench, measure
from provision.measuring.workloads import WORKLOADS
from provision.playing import Player
from tests.root.machines import marks, sh
from tests.root.streamlab import OPTIONS, RATE_MBIT, Lab, lab, netperf

pytestmark = marks
FULL_MBIT = RATE_MBIT * 1448 / 1514
SUBJECT = Subject(
    "kvm", "1", "here", "tcg", "virtio", 1, 1, "none", "2.7.0", OPTIONS.duration_s, OPTIONS.ramp_s,
    OPTIONS.message_bytes, OPTIONS.socket_buffer_bytes, RATE_MBIT, nics_each=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A guest with three NICs that serves on each."""
    folder = tmp_path_factory.mktemp("nics")
    (folder / "netperf").mkdir()
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{netperf(folder / 'netperf')}:{before}"
    try:
        with lab("pvsn", 1, folder, nics_each=3) as made:
            assert answers_for(made, "198.18.2.2", by="c1")  # as Linux is by itself
            Player(folder / "ready", made.inventory()).play("install.yml", "install", {})
            yield made
    finally:
        os.environ["PATH"] = before


def answers_for(made: Lab, address: str, *, by: str) -> bool:
    """Whether the guest answers ARP for an address that is not that link's."""
    near = made.generator
    sh("ip", "-n", near, "route", "replace", f"{address}/32", "dev", by)
    try:
        ping = ["ip", "netns", "exec", near, "ping", "-nc1", "-W1", address]
        subprocess.run(ping, capture_output=True, check=False)
        return "lladdr" in sh("ip", "-n", near, "neigh", "show", address, "dev", by)
    finally:
        sh("ip", "-n", near, "route", "del", f"{address}/32", "dev", by)
        sh("ip", "-n", near, "neigh", "flush", "dev", by)


def test_a_stream_for_each_nic_fills_its_own_link(three: Lab, tmp_path: Path) -> None:
    assert len(three.netservers(1)) >= 3
    run = Run.create(tmp_path, "test", {})
    bench = Bench(run, three.inventory(), three.pairs, SUBJECT, three.usage, apart=False)
    taken = measure(bench, [WORKLOADS["netperf-send"]], repeat=1, redo=2)
    assert taken[-1].valid, taken[-1].finding.reasons
    assert run.samples() == taken
    finding, names = taken[-1].finding, ["vm1.link1", "vm1.link2", "vm1.link3"]
    for by_link in (finding.links_mbit, finding.counters_mbit, finding.uplinks_mbit):
        assert list(by_link) == names
        assert list(by_link.values()) == pytest.approx([FULL_MBIT] * 3, rel=0.08)
    assert finding.guests_mbit == {"vm1": pytest.approx(sum(finding.links_mbit.values()))}
    assert {p.name for p in (run.path / taken[-1].raw).iterdir()} >= {f"{n}.txt" for n in names}


def test_no_nic_speaks_for_another(three: Lab) -> None:
    assert not answers_for(three, "198.18.2.2", by="c1")
    assert answers_for(three, "198.18.1.2", by="c1")


def test_serving_afresh_leaves_one_netserver_a_link(three: Lab, tmp_path: Path) -> None:
    before = three.netservers(1)
    Player(tmp_path / "reset", three.inventory()).play("reset.yml", "reset", {})
    after = three.netservers(1)
    assert len(after) == len(before)
    assert not {*before} & {*after}


def test_a_link_whose_port_is_taken_is_told_and_nothing_serves(three: Lab, tmp_path: Path) -> None:
    inventory = three.inventory()
    guest = inventory["all"]["children"]["guests"]["hosts"]["vm1"]
    guest["netperf_endpoints"].append(guest["netperf_endpoints"][0])
    with pytest.raises(WorkloadError, match=r"198\.18\.1\.2:14002 is in use by another program"):
        Player(tmp_path / "reset", inventory).play("reset.yml", "reset", {})
    assert not three.netservers(1)
