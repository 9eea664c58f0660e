"""HTTP through real proxies between namespaces: the good sample, and every way to go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from provision.measuring.results import Run, Subject
from provision.measuring.take import Bench, measure
from provision.measuring.verdict import Finding
from provision.measuring.workloads import series
from provision.playing import Player
from tests.root.machines import marks, sh
from tests.root.streamlab import OPTIONS, RATE_MBIT, Lab, lab, netperf

pytestmark = [
    *marks,
    pytest.mark.skipif(
        not all(shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin") for p in
                ("nginx", "ab", "haproxy")),
        reason="needs nginx, ab and haproxy: tools/setup test",
    ),
]  # fmt: skip
CLIENTS, ARRIVALS_PER_S = 4, 50
HTTP = replace(OPTIONS, clients=CLIENTS, arrivals_per_s=ARRIVALS_PER_S)
(CLOSED,), (OPEN,) = series(["http-closed"], [8]), series(["http-open"], [8])
SUBJECT = Subject(
    "kvm", "1", "here", "tcg", "virtio", 2, 1, "none", "", HTTP.duration_s, HTTP.ramp_s,
    HTTP.message_bytes, HTTP.socket_buffer_bytes, RATE_MBIT, clients=CLIENTS,
    arrivals_per_s=ARRIVALS_PER_S,
)  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two guests whose proxies serve."""
    with lab("pvht", 2, tmp_path_factory.mktemp("lab")) as made:
        player = Player(tmp_path_factory.mktemp("ready"), made.inventory())
        played = player.play("http.yml", "http", {})
        assert set(played.stats["haproxy"]) == {"vm1", "vm2"}
        yield made


@pytest.fixture(autouse=True)
def nothing_left(two: Lab) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while left := two.clients():
        assert time.monotonic() < deadline, left


def test_samples_of_both_loads_agree_with_origin_and_nics(two: Lab, tmp_path: Path) -> None:
    bench = Bench(Run.create(tmp_path, "test", {}), two.inventory(), two.pairs, SUBJECT,
                  two.usage, apart=False)  # fmt: skip
    chosen = [*series(["http-closed"], [0, 16]), *series(["http-open"], [16])]
    taken = measure(bench, chosen, repeat=1, redo=2)
    found = {s.workload: s.finding for s in taken if s.valid}
    names = ["http-closed-0k", "http-closed-16k", "http-open-16k"]
    assert list(found) == names, [s.finding.reasons for s in taken]
    assert bench.run.samples() == taken
    for name, finding in found.items():
        assert finding.unit == "conn/s"
        assert set(finding.transactions_per_s) == {"vm1", "vm2"}
        for guest, latency in finding.latency_us.items():
            order = [latency[k] for k in ("MIN", "P50", "P90", "P99", "MAX")]
            assert 0 < order[0] <= order[-1], guest
            assert order == sorted(order)
        if name.endswith("16k"):
            for guest, per_s in finding.transactions_per_s.items():
                assert finding.guests_mbit[guest] == pytest.approx(per_s * 16384 * 8 / 1e6)
                assert finding.counters_mbit[guest] > 0.98 * finding.guests_mbit[guest]
    for per_s in found["http-open-16k"].transactions_per_s.values():
        assert per_s == pytest.approx(ARRIVALS_PER_S, rel=0.05)
    assert found["http-closed-0k"].aggregate > found["http-open-16k"].aggregate
    raw = [bench.run.path / s.raw / "streams.json" for s in taken if s.valid]
    helpers = [one for path in raw for one in json.loads(path.read_text())["helpers"]]
    assert {h["name"] for h in helpers} == {"origin-of-vm1", "origin-of-vm2"}
    assert all(h["cpu_s"][-1] > h["cpu_s"][0] for h in helpers), "what serves is the load's"


#: bytes of a link: connections are being served; and for over half a second, of the open load
SERVING, SERVING_LONG = 100_000, ARRIVALS_PER_S * 6 // 10 * 2 * 8192


def _hold(made: Lab, octets: int, for_s: float) -> Thread:
    """Guest 2's proxy does nothing for a while, from when its link has carried so much."""

    def hold() -> None:
        pids = made.running(2, "haproxy")
        for number, pause_s in ((signal.SIGSTOP, for_s), (signal.SIGCONT, 0)):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(pause_s)

    return made.once_carried(octets, hold)


def _against_the_other(finding: Finding, *reasons: str) -> list[str]:
    """What guest 2 did and guest 1 is blamed for, which a busy machine may disturb too."""
    words = [r.removeprefix("vm2: ") for r in reasons]
    return [r for r in finding.reasons if r.startswith("vm1") and any(w in r for w in words)]


@pytest.mark.parametrize("load", [CLOSED, OPEN])
def test_a_proxy_that_hangs_makes_no_valid_sample(two: Lab, tmp_path: Path, load: Any) -> None:
    holder = _hold(two, SERVING, 1.8)
    finding = two.take(load, HTTP, tmp_path)
    holder.join()
    assert any(r.startswith("vm2: no request came to the origin for") for r in finding.reasons), (
        finding.reasons
    )
    assert not _against_the_other(finding, "no request came to the origin for")


def test_an_open_load_does_not_hide_that_it_waited(two: Lab, tmp_path: Path) -> None:
    """Connections that were to begin while the proxy stood still count from then on."""
    holder = _hold(two, SERVING_LONG, 0.7)
    finding = two.take(OPEN, HTTP, tmp_path)
    holder.join()
    assert finding.latency_us["vm2"]["P90"] > 300_000
    assert finding.latency_us["vm2"]["P90"] > 3 * finding.latency_us["vm1"]["P50"]


def _size(order: dict[str, Any]) -> None:
    order["helpers"][1]["files"]["www/object"] = ["x", 4096]


def _elsewhere(order: dict[str, Any]) -> None:
    """The origin is not where the proxy looks for it: 503 is what it answers."""
    helper, stream = order["helpers"][1], order["streams"][1]
    address, port = helper["listens"]
    conf = helper["files"]["nginx.conf"]
    helper["files"]["nginx.conf"] = conf.replace(f":{port} ", f":{port + 50} ")
    helper["listens"] = stream["counter"]["address"] = [address, port + 50]


@pytest.mark.parametrize(
    ("load", "spoil", "reasons"),
    [
        (CLOSED, _size, ["vm2: the object had 4096 bytes, not 8192"]),
        (OPEN, _size, ["failed: size 4096"]),
        (CLOSED, _elsewhere, ["answers were not 2xx", "vm2: nothing was served"]),
        (OPEN, _elsewhere, ["failed: status 503", "vm2: nothing was served"]),
    ],
)
def test_an_answer_that_was_not_asked_for_makes_no_valid_sample(
    two: Lab, tmp_path: Path, load: Any, spoil: Callable[[dict[str, Any]], None],
    reasons: list[str],
) -> None:  # fmt: skip
    finding = two.take(load, HTTP, tmp_path, spoil)
    for reason in reasons:
        assert any(reason in r for r in finding.reasons), finding.reasons
    assert not _against_the_other(finding, *reasons)


def test_an_origin_that_dies_ends_the_sample(two: Lab, tmp_path: Path) -> None:
    def kill() -> None:
        pid = next(p for p in two.clients("nginx") if "vm2" in _words(p))
        os.kill(pid, signal.SIGKILL)

    killer = two.once_carried(SERVING, kill)
    finding = two.take(CLOSED, replace(HTTP, duration_s=20), tmp_path)
    killer.join()
    assert finding.reasons[0] == "stopped early: origin-of-vm2 ended: no words"
    assert any(r.startswith("vm1: ab was still running") for r in finding.reasons)


def _words(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_a_full_disk_of_the_load_generator_makes_no_valid_sample(two: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))

    def fill() -> None:
        try:
            with (folder / "else").open("wb") as f:
                while True:
                    f.write(bytes(4096))
                    f.flush()
        except OSError:
            pass

    filler = two.once_carried(SERVING, fill)
    try:
        finding = two.take(OPEN, HTTP, folder)
    finally:
        filler.join()
        sh("umount", str(folder))
    assert any(r.startswith("stopped early: no space is left") for r in finding.reasons), (
        finding.reasons
    )


def test_no_proxy_is_told_at_once(two: Lab, tmp_path: Path) -> None:
    order = CLOSED.plan(two.pairs, HTTP)
    order["streams"][1]["port"] = 8079
    process = two.start(order, tmp_path)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 3
    assert said.startswith("vm2: haproxy at 198.18.2.2:8079 does not answer: Connection refused")


def test_reset_ends_the_proxies(two: Lab, tmp_path: Path) -> None:
    """The last test: no proxy serves after it."""
    assert two.running(1, "haproxy")
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{netperf(tmp_path / 'netperf')}:{before}"
    try:
        Player(tmp_path / "reset", two.inventory()).play("reset.yml", "reset", {})
    finally:
        os.environ["PATH"] = before
    assert not two.running(1, "haproxy")
    two.kill_netservers()
