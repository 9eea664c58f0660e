"""Frames on a wire, names of points, and what speaks against a point: without a network."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from provision.errors import UserError
from provision.measuring.capture import Capture, Link, Series, Stream
from provision.measuring.counters import Asked
from provision.measuring.results import Sample
from provision.measuring.verdict import Finding, judge
from provision.measuring.workload import Options, Pair
from provision.measuring.workloads import find, is_one
from provision.measuring.workloads.forwarding import PROGRAM, ways
from provision.measuring.workloads.forwarding_words import delay_ns, parse, wire_mbit
from provision.playing import playbooks
from provision.reporting import neighbours
from tests.unit.streams import sample

OPTIONS = Options(duration_s=2, ramp_s=1)
PAIRS = tuple(
    Pair(f"vm{guest}", f"198.18.{n}.2", f"198.18.{n}.1", 0, 0, f"c{n}", f"u{n}", nic)
    for n, (guest, nic) in enumerate(((1, 1), (1, 2), (2, 1), (2, 2)), 1)
)


@pytest.mark.parametrize(
    ("frame", "mbit", "delay"),
    [(64, 10, 70400), (64, 1000, 704), (500, 100, 41920), (1500, 1000, 12192)],
)
def test_the_delay_between_frames_is_the_papers(frame: int, mbit: float, delay: float) -> None:
    assert delay_ns(frame, mbit) == pytest.approx(delay)
    assert wire_mbit(1e9 / delay, frame) == pytest.approx(mbit)


@pytest.mark.parametrize(
    "name",
    ["forwarding-64B-100M", "forwarding-1500B-12.5M-3src", "forwarding-64B-max",
     "forwarding-500B-collapse", "forwarding-64B-10M@1", "forwarding-64B-10M+heavy",
     "netperf-send@2", "netperf-rr+forward-95"],
)  # fmt: skip
def test_a_name_says_all_of_a_point(name: str) -> None:
    assert find(name).name == name


def test_idle_is_another_word_for_one_guest_alone() -> None:
    assert find("netperf-send+idle").name == "netperf-send@1"


@pytest.mark.parametrize(
    "name",
    ["forwarding-63B-1M", "forwarding-64B-1M-4src", "forwarding-64B", "netperf-send@0",
     "netperf-send+busy", "netperf-sned@1", "netperf-send@1@1"],
)  # fmt: skip
def test_no_such_point(name: str) -> None:
    assert not is_one(name)
    with pytest.raises(UserError):
        find(name)


def test_a_guest_forwards_from_its_first_nic_to_its_second() -> None:
    assert [(a.port_nic, b.port_nic) for a, b in ways(PAIRS)] == [("c1", "c2"), ("c3", "c4")]
    with pytest.raises(UserError, match="two NICs"):
        find("forwarding-64B-1M").order(PAIRS[::2], OPTIONS)


def _told(
    sent_per_s: float, share: float = 1.0, drops_per_s: float = 0.0, arrived: float | None = None
) -> str:
    """What the program prints of vm1 in 5 s from 100 on, at this many frames a second."""
    rows: list[dict[str, Any]] = [{"generator": "pktgen", "version": "6.1"}]
    rows.append({"begins": 100.0, "delay_ns": 1})
    rows += [
        {"at": 100 + t / 10, "sent": {"vm1": sent_per_s * t / 10},
         "counted": {"vm1": sent_per_s * share * t / 10},
         "arrived": {"vm1": (sent_per_s * share if arrived is None else arrived) * t / 10},
         "dropped": {"vm1": drops_per_s * t / 10}, "backlogged": 0}
        for t in range(51)
    ]  # fmt: skip
    return "\n".join(map(json.dumps, [*rows, {"ended": 105.0}]))


def _judged(
    name: str, text: str, back_per_s: float, *, fault: str = "", apart: bool = True
) -> Finding:
    """A sample of vm1, its frames counted by c2 at that rate."""
    workload = find(name)
    at = [100 + t / 10 for t in range(51)]

    def grows(by: float) -> Series:
        return Series(at, [by * (t - 100) for t in at])

    size = workload.frame_bytes  # type: ignore[attr-defined]
    none = grows(0)
    links = {"c1": Link(none, none, none, none),
             "c2": Link(grows(back_per_s * size), grows(back_per_s), none, none)}  # fmt: skip
    stream = Stream(PROGRAM, 100.0, workload.read(text), text, fault)
    busy = (grows(1.0),)
    capture = Capture("lg", "6.1", {}, 100.0, 105.0, None, (stream,), links, busy, none, 0.0)
    return judge(capture, Asked(workload, OPTIONS, PAIRS[:2], apart))


def test_offered_measured_and_lost() -> None:
    finding = _judged("forwarding-64B-100M", _told(1e9 / 7040, 0.75), 1e9 / 7040 * 0.75)
    assert finding.valid, finding.reasons
    assert finding.offered_mbit == {"vm1": pytest.approx(100)}
    assert finding.links_mbit == finding.guests_mbit == {"vm1": pytest.approx(75)}
    assert finding.counters_mbit == {"vm1": pytest.approx(75)}
    assert finding.lost_percent == {"vm1": pytest.approx(25, abs=0.01)}
    assert finding.aggregate == pytest.approx(75)


@pytest.mark.parametrize(
    ("text", "back", "reason"),
    [
        (_told(71023), 71023, "vm1: limits: pktgen 6.1 sent 50.0 of 100 Mbit/s"),
        (_told(0), 0, "vm1: nothing was sent by c1"),
        (_told(142045, 0), 0, "vm1: nothing came back by c2: the guest does not forward"),
        (
            _told(142045, arrived=100000),
            100000,
            "vm1: 100.0 Mbit/s of its frames were counted, c2 of the load",
        ),
        (_told(142045, 0.9, 10000), 142045 * 0.9, "vm1: limits: c2 of the load generator dropped"),
        (_told(284090), 284090, "vm1: 200.0 Mbit/s went by c1, not 100"),
        ("", 0, "vm1: what was sent and came back was not watched during the window"),
    ],
)
def test_what_speaks_against_a_point(text: str, back: float, reason: str) -> None:
    finding = _judged("forwarding-64B-100M", text, back)
    assert [r for r in finding.reasons if r.startswith(reason)], finding.reasons


def test_as_much_as_the_generator_can_is_never_too_little() -> None:
    assert _judged("forwarding-64B-max", _told(1000), 1000).valid


def test_cut_anywhere_it_never_invents_a_figure() -> None:
    text = _told(142045)
    whole = parse(text)
    for end in range(0, len(text), 97):
        found = parse(text[:end])
        for kind in ("sent", "counted", "arrived", "dropped"):
            for guest, series in getattr(found, kind).items():
                full = getattr(whole, kind)[guest]
                assert list(series.values) == list(full.values[: len(series.values)])


def test_the_neighbours_share_is_of_its_own_maximum() -> None:
    workload = find("forwarding-500B-20M+forward-95")
    wanted = workload.wants()
    assert wanted is not None
    assert [f.pair.guest for f in wanted.flows(PAIRS)] == ["vm2"]
    known = workload.given(100.0)
    assert known.wants() is None
    told = json.loads(_plan(known.order(PAIRS, OPTIONS).streams[0]["argv"][1]))
    assert [f["name"] for f in told["flows"]] == ["vm1", "vm2"]
    assert told["flows"][1]["delay_ns"] == pytest.approx(delay_ns(64, 95))
    assert [f.name for f in known.flows(PAIRS)] == ["vm1"]


def _plan(words: str) -> bytes:
    import base64

    return base64.b64decode(words)


def test_a_busy_neighbour_outlives_the_sample_but_not_for_long() -> None:
    workload = find("netperf-send+heavy")
    others = workload.meanwhile(PAIRS, OPTIONS)
    assert others is not None
    assert others.extravars["neighbour_hosts"] == ["vm2"]
    assert others.extravars["neighbour_words"] == ["--cpu", "8", "--vm", "4"]
    deadline_s = workload.plan(PAIRS, OPTIONS)["deadline_s"]
    assert deadline_s < others.extravars["neighbour_lifetime_s"] < deadline_s + 120


@pytest.fixture
def packets() -> Any:
    """The program, as a module."""
    path = playbooks() / "roles" / "forwarding" / "files" / "packets.py"
    spec = importlib.util.spec_from_file_location("packets", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Watch:
    """Counts what was sent."""

    def __init__(self) -> None:
        self.sent = 0
        self.delays_ns: list[float] = []

    def tell(self) -> tuple[int, int]:
        return self.sent, self.sent


def _limited(watch: Watch, per_s: float, most_per_s: float) -> Callable[..., float]:
    """A guest that forwards that many frames a second, a generator that sends no more."""

    def traffic(_made: Any, _watch: Any, flows: list[dict[str, Any]], length_s: float) -> float:
        mine = [flow["delay_ns"] for flow in flows if flow["name"] != "beside"]
        watch.delays_ns = [flow["delay_ns"] for flow in flows]
        (delay,) = set(mine)
        rate = len(mine) * min(1e9 / delay if delay else most_per_s, most_per_s)
        watch.sent += int(rate * length_s)
        return 100 * max(0.0, 1 - per_s / rate)

    return traffic


WISH = {"trial_s": 1.0, "lost_percent": 0.1, "resolution": 0.05, "least": 100, "flows": 1}


@pytest.mark.parametrize("per_s", [250.0, 7040.0, 99_999.0, 400_000.0])
def test_the_collapse_point_is_found(packets: Any, per_s: float) -> None:
    watch = Watch()
    packets.traffic = _limited(watch, per_s, 500_000.0)
    found = packets.search(None, watch, {"search": WISH, "flows": [{"name": "vm1"}]})
    assert per_s * 0.94 <= 1e9 / found <= per_s * 1.002


def test_several_guests_are_searched_at_one_rate_beside_neighbours_at_theirs(packets: Any) -> None:
    watch = Watch()
    packets.traffic = _limited(watch, 30_000.0, 500_000.0)
    flows = [{"name": "vm1"}, {"name": "vm2"}, {"name": "beside", "delay_ns": 7.0}]
    found = packets.search(None, watch, {"search": WISH | {"flows": 2}, "flows": flows})
    assert 15_000 * 0.94 <= 1e9 / found <= 15_000 * 1.002
    assert watch.delays_ns[0] == watch.delays_ns[1] != watch.delays_ns[2] == 7.0


def test_a_guest_faster_than_the_generator_has_none(packets: Any) -> None:
    watch = Watch()
    packets.traffic = _limited(watch, 1e9, 500_000.0)
    assert packets.search(None, watch, {"search": WISH, "flows": [{"name": "vm1"}]}) == 0.0


def test_a_guest_that_always_loses_is_told(packets: Any) -> None:
    watch = Watch()
    packets.traffic = _limited(watch, 0.0, 500_000.0)
    with pytest.raises(packets.Fault, match="lost at every rate"):
        packets.search(None, watch, {"search": WISH, "flows": [{"name": "vm1"}]})


def test_frames_are_as_long_as_asked_and_sum_up(packets: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(packets, "own_mac", lambda _nic: bytes(6))
    flow = {"frame_bytes": 64, "source": "198.18.1.1", "target": "198.18.2.1", "port": 9009,
            "out": "c1"}  # fmt: skip
    frame = packets.frame(flow, b"\x02" * 6, 1)
    assert len(frame) == 64
    assert packets.sum16(frame[14:34]) == 0  # a header with its own checksum
    assert frame[34:38] == (9010).to_bytes(2) + (9009).to_bytes(2)


def test_a_generators_limit_holds_for_a_window_that_is_whole() -> None:
    finding = _judged("forwarding-64B-100M", _told(142045), 142045, fault="packets.py was stopped")
    assert finding.reasons == ("packets.py was stopped",)
    lab = _judged("forwarding-64B-100M", _told(142045), 142045, apart=False)
    assert lab == replace(lab, warnings=())


def _sample(workload: str, rate_mbit: float, repetition: int) -> Sample:
    """A valid sample of that aggregate; its neighbour forwards half of what it is sent."""
    made = sample("netperf-send", rate_mbit, repetition)
    finding = replace(made.finding, neighbours_mbit={"vm2": (10.0, 5.0)} if "+" in workload else {})
    return replace(made, workload=workload, finding=finding)


def test_a_neighbours_cost_is_told_against_idle() -> None:
    samples = [
        _sample(name, base + step, n)
        for name, base in (("netperf-send@1", 100), ("netperf-send+forward-50", 90))
        for n, step in enumerate((-1, 0, 1), 1)
    ]
    [found] = neighbours.neighbours(samples)
    assert found["against"] == "netperf-send@1"
    assert found["change_percent"] == pytest.approx(-10)
    assert found["low_percent"] < -10 < found["high_percent"] < 0
    assert found["neighbours_mbit"] == {"vm2": [10, 5]}
    one, two = neighbours.words([found])
    assert one.startswith("netperf-send+forward-50 against netperf-send@1: -10.0 % (95 %: -1")
    assert two.endswith("its neighbour vm2 was sent 10.0 Mbit/s and forwarded 5.0")
    assert list(neighbours.neighbours(samples[:3])) == []
