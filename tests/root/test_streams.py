"""Samples of real netperf between namespaces: the good one, and every way to go wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.errors import Interrupted, WorkloadError
from provision.measuring.results import Run, Subject
from provision.measuring.take import Bench, measure
from provision.measuring.workloads import WORKLOADS
from provision.playing import Player
from tests.root.machines import marks, sh
from tests.root.streamlab import BYTES_PER_S, OPTIONS, RATE_MBIT, Lab, lab, netperf

pytestmark = marks
SEND, RECEIVE = WORKLOADS["netperf-send"], WORKLOADS["netperf-receive"]
#: what 200 Mbit/s of frames carry: 1448 of 1514 bytes
FULL_MBIT = RATE_MBIT * 1448 / 1514
SUBJECT = Subject(
    "kvm", "1", "here", "tcg", "virtio", 2, 1, "none", "2.7.0", OPTIONS.duration_s, OPTIONS.ramp_s,
    OPTIONS.message_bytes, OPTIONS.socket_buffer_bytes, RATE_MBIT,
)  # fmt: skip


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return netperf(tmp_path_factory.mktemp("netperf"))


@pytest.fixture(scope="module")
def two(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two guests, on which nothing is installed yet."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tools}:{before}"
    try:
        with lab("pvst", 2, tmp_path_factory.mktemp("lab")) as made:
            yield made
    finally:
        os.environ["PATH"] = before


@pytest.fixture
def ready(two: Lab, tmp_path: Path) -> Lab:
    """Two guests whose netservers serve."""
    if not all(two.netservers(n) for n in (1, 2)):
        Player(tmp_path / "ready", two.inventory()).play("install.yml", "install", {})
    return two


@pytest.fixture(autouse=True)
def nothing_left(two: Lab) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while left := two.clients():
        assert time.monotonic() < deadline, left


def _bench(made: Lab, root: Path, **changes: Any) -> Bench:
    bench = Bench(Run.create(root, "test", {}), made.inventory(), made.pairs, SUBJECT, made.usage,
                  apart=False)  # fmt: skip
    return replace(bench, **changes)


def test_every_other_netperf_says_what_the_links_carry(ready: Lab, tmp_path: Path) -> None:
    names = ["netperf-both", "netperf-rr", "netperf-crr", "netperf-udp-send", "netperf-udp-receive"]
    taken = measure(_bench(ready, tmp_path), [WORKLOADS[n] for n in names], repeat=1, redo=2)
    found = {s.workload: s.finding for s in taken if s.valid}
    assert list(found) == names, [s.finding.reasons for s in taken]
    both = found["netperf-both"]
    assert set(both.links_mbit) == {"vm1.send", "vm1.receive", "vm2.send", "vm2.receive"}
    assert both.guests_mbit["vm1"] > 1.5 * FULL_MBIT, "each way has the cable to itself"
    for name in ("netperf-rr", "netperf-crr"):
        finding = found[name]
        assert finding.unit == "trans/s"
        assert finding.aggregate == sum(finding.transactions_per_s.values()) > 100
        for latency in finding.latency_us.values():
            assert 0 < latency["MIN"] <= latency["P50"] <= latency["P99"] <= latency["MAX"]
    assert found["netperf-crr"].aggregate < found["netperf-rr"].aggregate
    # a sender of datagrams goes as fast as it can: what the cable does not carry is lost
    frame = 200 * 1472 / 1514
    for name in ("netperf-udp-send", "netperf-udp-receive"):
        for guest, mbit in found[name].guests_mbit.items():
            assert mbit == pytest.approx(frame, rel=0.1), (name, guest)
    assert all(p > 10 for p in found["netperf-udp-send"].lost_percent.values())


def test_samples_both_ways_say_what_the_links_carry(ready: Lab, tmp_path: Path) -> None:
    said: list[tuple[str, str, str]] = []
    bench = _bench(ready, tmp_path, say=lambda *words: said.append(words))
    taken = measure(bench, [SEND, RECEIVE], repeat=1, redo=1)
    assert [s.workload for s in taken if s.valid] == ["netperf-send", "netperf-receive"], taken
    assert bench.run.samples() == taken
    for sample in (s for s in taken if s.valid):
        finding = sample.finding
        for guest in ("vm1", "vm2"):
            assert finding.guests_mbit[guest] == pytest.approx(FULL_MBIT, rel=0.05)
            assert finding.uplinks_mbit[guest] == pytest.approx(FULL_MBIT, rel=0.08)
        assert finding.aggregate_mbit == pytest.approx(sum(finding.guests_mbit.values()))
        assert finding.window_s == OPTIONS.duration_s
        assert 0 <= finding.skew_ms < 1000 * OPTIONS.ramp_s
        assert len(finding.host_percent) == os.cpu_count()
        assert finding.clients_percent
        assert "THROUGHPUT=" in (bench.run.path / sample.raw / "vm1.txt").read_text()
    assert ("netperf-send 1/1", "start", "") in said
    assert any(status == "done" and "Mbit/s" in detail for _, status, detail in said)


def test_streams_that_start_apart_make_no_valid_sample(ready: Lab, tmp_path: Path) -> None:
    def late(order: dict[str, Any]) -> None:
        order["programs"]["sh"] = []
        for number, stream in enumerate(order["streams"]):
            words = " ".join(stream["argv"])
            stream["argv"] = ["sh", "-c", f"sleep {1.2 * number}; exec {words}"]

    finding = ready.take(RECEIVE, OPTIONS, tmp_path, late)
    assert finding.skew_ms == pytest.approx(1200, abs=400), finding.reasons
    assert any("apart, more than the ramp of 0.5 s" in r for r in finding.reasons)
    assert any(r.startswith("vm1: ended") for r in finding.reasons)


def test_a_netserver_that_dies_ends_the_sample_at_once(ready: Lab, tmp_path: Path) -> None:
    options = replace(OPTIONS, duration_s=20)
    killer = ready.once_carried(BYTES_PER_S, lambda: ready.kill_netservers(2))
    began = time.monotonic()
    finding = ready.take(RECEIVE, options, tmp_path)
    killer.join()
    assert time.monotonic() - began < 10
    assert "stopped early: vm2 failed" in finding.reasons
    assert any(r.startswith("vm2: netperf ended with exit") for r in finding.reasons)
    # and the next sample tells what to do
    with pytest.raises(
        WorkloadError, match=r"vm2: netserver at 198.18.2.2:14004 does not answ"
    ) as e:
        measure(_bench(ready, tmp_path), [SEND], repeat=1, redo=1)
    assert "vm1" not in str(e.value)
    assert e.value.hint == "provision reset --level process"
    Player(tmp_path / "reset", ready.inventory()).play("reset.yml", "reset", {})
    assert ready.take(RECEIVE, OPTIONS, tmp_path).guests_mbit["vm2"] > 100


def test_a_stalled_stream_is_taken_again(ready: Lab, tmp_path: Path) -> None:
    within_the_window = round(1.2 * OPTIONS.ramp_s * BYTES_PER_S)
    pauser = ready.once_carried(within_the_window, lambda: _pause(ready, 1.3))
    taken = measure(_bench(ready, tmp_path), [RECEIVE], repeat=1, redo=3)
    pauser.join()
    assert [s.attempt for s in taken] == list(range(1, len(taken) + 1))
    assert not taken[0].valid
    assert any("no interim result for" in r for r in taken[0].finding.reasons)
    assert taken[-1].valid, taken[-1].finding.reasons


def _pause(made: Lab, pause_s: float) -> None:
    pids = made.netservers(2)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(pause_s)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def test_traffic_by_another_link_makes_no_valid_sample(ready: Lab, tmp_path: Path) -> None:
    generator, guest = ready.generator, ready.guest(2)
    sh(
        "ip",
        "-n",
        generator,
        "link",
        "add",
        "stray",
        "type",
        "veth",
        "peer",
        "eth1",
        "netns",
        guest,
    )
    try:
        for namespace, nic, far in (
            (generator, "stray", "198.18.2.2"),
            (guest, "eth1", "198.18.2.1"),
        ):
            sh("ip", "-n", namespace, "link", "set", nic, "up")
            sh("ip", "-n", namespace, "route", "add", f"{far}/32", "dev", nic)
        finding = ready.take(RECEIVE, OPTIONS, tmp_path)
    finally:
        sh("ip", "-n", generator, "link", "del", "stray")
    assert any("c2 of the load generator carried 0.0" in r for r in finding.reasons)
    assert any("went by stray, which is no link of this testbed" in r for r in finding.reasons)
    assert not any(r.startswith("vm1") for r in finding.reasons)


def test_a_stream_that_hangs_is_ended_and_counts_for_nothing(ready: Lab, tmp_path: Path) -> None:
    def cut_off() -> None:
        sh("ip", "-n", ready.guest(2), "link", "set", "eth0", "down")

    cut = ready.once_carried(BYTES_PER_S // 4, cut_off)
    try:
        finding = ready.take(RECEIVE, OPTIONS, tmp_path, lambda order: order.update(deadline_s=4.0))
    finally:
        cut.join()
        sh("ip", "-n", ready.guest(2), "link", "set", "eth0", "up")
    assert "stopped early: no end after 4 s" in finding.reasons
    assert any(r.startswith("vm2: netperf was still running") for r in finding.reasons)
    assert finding.guests_mbit["vm2"] < 50 < finding.guests_mbit["vm1"]


@pytest.mark.parametrize("name", ["netperf-udp-send", "netperf-udp-receive"])
def test_datagrams_that_never_come_make_no_valid_sample(
    ready: Lab, tmp_path: Path, name: str
) -> None:
    """What is too long for a bridge's port is lost without a word; netserver still answers."""
    ports = [f"{ready.prefix}{port}2" for port in "ut"]
    for port in ports:
        sh("ip", "link", "set", port, "mtu", "1000")
    try:
        finding = ready.take(WORKLOADS[name], OPTIONS, tmp_path)
    finally:
        for port in ports:
            sh("ip", "link", "set", port, "mtu", "1500")
    assert "vm2: nothing was transferred" in finding.reasons
    assert finding.lost_percent["vm2"] == 100
    assert finding.guests_mbit["vm2"] == 0 < finding.guests_mbit["vm1"]
    assert not any(r.startswith("vm1") for r in finding.reasons), finding.reasons


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda o: o["programs"].update({"netperf-9": []}), "netperf-9: not found on the load gen"),
        (lambda o: o["streams"][1].update(nic="c9"), "vm2: the load generator has no link c9; it"),
        (
            lambda o: o["streams"][0].update(local="192.0.2.1"),
            "vm1: 192.0.2.1 of c1: Cannot assign",
        ),
        (
            lambda o: o["streams"][0].update(port=9),
            "vm1: netserver at 198.18.1.2:9 does not",
        ),
    ],
)
def test_what_cannot_be_measured_is_told_at_once(
    ready: Lab, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], words: str
) -> None:
    order = SEND.plan(ready.pairs, OPTIONS)
    spoil(order)
    process = ready.start(order, tmp_path)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 3
    assert said.startswith(words)
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "streams.json").exists()


@pytest.mark.parametrize("how", ["killed", "terminated", "nobody reads"])
def test_no_netperf_outlives_its_parent(ready: Lab, tmp_path: Path, how: str) -> None:
    process = ready.start(SEND.plan(ready.pairs, replace(OPTIONS, duration_s=60)), tmp_path)
    deadline = time.monotonic() + 10
    while len(ready.clients("netperf -4")) < 2:
        assert time.monotonic() < deadline, "the streams do not start"
    if how == "nobody reads":
        assert process.stdout is not None
        process.stdout.close()
    else:
        process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    process.wait(10)
    if how != "killed":
        data = json.loads((tmp_path / "streams.json").read_text())
        reason = {"terminated": "signal 15", "nobody reads": "nobody reads the output any more"}
        assert data["stopped"] == reason[how]
    if process.stderr is not None:
        process.stderr.close()


def test_a_cancelled_play_ends_the_streams(ready: Lab, tmp_path: Path) -> None:
    seen: list[str] = []
    bench = _bench(
        ready, tmp_path, subject=replace(SUBJECT, duration_s=60),
        say=lambda _subject, status, _detail: seen.append(status),
        cancelled=lambda: "phase" in seen and len(ready.clients("netperf -4")) == 2,
    )  # fmt: skip
    with pytest.raises(Interrupted):
        measure(bench, [SEND], repeat=1, redo=0)
    assert bench.run.samples() == []


def test_a_controller_killed_in_mid_run_leaves_streams_that_reset_ends(
    ready: Lab, tmp_path: Path
) -> None:
    folder = Path(
        ready.inventory()["all"]["children"]["loadgenerators"]["hosts"]["lg"]["provision_folder"]
    )
    order = SEND.plan(ready.pairs, replace(OPTIONS, duration_s=60))
    with Path("/dev/null").open("w") as nowhere:
        process = ready.start(order, folder / "streams", stdout=nowhere)
    deadline = time.monotonic() + 10
    while len(ready.clients("netperf -4")) < 2:
        assert time.monotonic() < deadline, "the streams do not start"
    before = ready.netservers(1)
    Player(tmp_path / "reset", ready.inventory()).play("reset.yml", "reset", {})
    process.wait(5)
    assert ready.netservers(1)
    assert not set(before) & set(ready.netservers(1))


def _bare(made: Lab, folder: Path) -> dict[str, Any]:
    """An inventory of hosts without netperf, where no package can be had."""
    inventory = made.inventory(provision_folder=str(folder / "lg"))
    for name, guest in inventory["all"]["children"]["guests"]["hosts"].items():
        guest["provision_folder"] = str(folder / name)
        _tool(
            folder / name / "bin" / "apt-get", "echo E: Unable to locate package netperf; exit 100"
        )
    return inventory


def _tool(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def without(two: Lab, tools: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No netperf in PATH, and none that serves."""
    words = [w for w in os.environ["PATH"].split(":") if w != str(tools)]
    if tools == Path("/usr/bin"):
        pytest.skip("netperf is installed on this machine for all to find")
    monkeypatch.setenv("PATH", ":".join(words))
    two.kill_netservers()
    yield
    two.kill_netservers()


@pytest.mark.usefixtures("without")
def test_no_netperf_anywhere_is_told(two: Lab, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError) as e:
        Player(tmp_path / "run", _bare(two, tmp_path)).play("install.yml", "install", {})
    assert "vm1 has no usable netperf" in str(e.value)
    assert "Unable to locate package netperf" in str(e.value)
    assert "netperf_push" in str(e.value)


@pytest.mark.usefixtures("without")
def test_netperf_is_pushed_from_the_controller(two: Lab, tools: Path, tmp_path: Path) -> None:
    player = Player(tmp_path / "run", _bare(two, tmp_path))
    played = player.play("install.yml", "install", {"netperf_push": str(tools)})
    for name in ("vm1", "vm2", "lg"):
        pushed = tmp_path / name / "bin" / "netperf"
        assert pushed.read_bytes() == (tools / "netperf").read_bytes()
    assert played.stats["netperf"]["vm1"].startswith("2.7.")
    assert len(set(played.stats["netperf"].values())) == 1


@pytest.mark.usefixtures("without")
def test_guests_that_differ_get_the_same_bytes(two: Lab, tools: Path, tmp_path: Path) -> None:
    inventory = _bare(two, tmp_path)
    for name, tail in (("vm1", b""), ("vm2", b"other")):
        for tool in ("netperf", "netserver"):
            target = tmp_path / name / "bin" / tool
            target.write_bytes((tools / tool).read_bytes() + tail)
            target.chmod(0o755)
    played = Player(tmp_path / "run", inventory).play("install.yml", "install", {})
    assert len(set(played.stats["netperf"].values())) == 1
    found = {(tmp_path / n / "bin" / "netperf").read_bytes() for n in ("vm1", "vm2", "lg")}
    assert len(found) == 1


@pytest.mark.usefixtures("without")
def test_a_netperf_without_interim_results_is_no_netperf(two: Lab, tmp_path: Path) -> None:
    inventory = _bare(two, tmp_path)
    for name in ("vm1", "vm2"):
        for tool in ("netperf", "netserver"):
            _tool(tmp_path / name / "bin" / tool, "echo Sorry, Demo Mode not configured into this")
    with pytest.raises(WorkloadError, match="no usable netperf"):
        Player(tmp_path / "run", inventory).play("install.yml", "install", {})


def test_a_port_in_use_is_told(ready: Lab, tmp_path: Path) -> None:
    inventory = ready.inventory(provision_folder=str(tmp_path / "lg"))
    for name, guest in inventory["all"]["children"]["guests"]["hosts"].items():
        guest["provision_folder"] = str(tmp_path / name)  # so it does not know the one that serves
    with pytest.raises(WorkloadError) as e:
        Player(tmp_path / "run", inventory).play("reset.yml", "reset", {})
    assert "198.18.1.2:14002 is in use by another program" in str(e.value)


def test_a_netserver_ends_by_itself(ready: Lab, tmp_path: Path) -> None:
    player = Player(tmp_path / "run", ready.inventory())
    player.play("reset.yml", "short", {"netperf_lifetime_s": 2})
    assert ready.netservers(1)
    deadline = time.monotonic() + 8
    while ready.netservers(1) or ready.netservers(2):
        assert time.monotonic() < deadline, "netserver outlives its time"
