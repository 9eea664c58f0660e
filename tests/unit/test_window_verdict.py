"""Every reason why a sample is not valid, one by one; and that there is none in a good one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.driver import Usage
from provision.errors import WorkloadError
from provision.measuring.capture import Interim, Stream, load
from provision.measuring.verdict import Finding, judge
from provision.measuring.window import Window
from provision.measuring.window import load as load_of
from provision.measuring.workload import HEADER_BYTES
from provision.measuring.workloads import WORKLOADS
from provision.measuring.workloads.netperf_words import KEYS, MEGABIT, parse
from tests.unit.streams import PAIRS, START_S, asked, capture, interims, link, stream, with_result

FULL = [100.0] * 70
ONE, TWO = stream("vm1", FULL), stream("vm2", FULL)


def find(streams: Sequence[Stream], **changes: object) -> Finding:
    return judge(replace(capture(streams), **changes), asked())  # type: ignore[arg-type]


def test_a_good_sample_is_valid_and_adds_up() -> None:
    found = find([ONE, stream("vm2", [50.0] * 70, START_S + 0.3)])
    assert found.reasons == ()
    assert found.valid
    assert found.aggregate_mbit == pytest.approx(150)
    assert found.guests_mbit == {"vm1": pytest.approx(100), "vm2": pytest.approx(50)}
    assert found.counters_mbit == {"vm1": pytest.approx(100), "vm2": pytest.approx(50)}
    assert found.skew_ms == pytest.approx(300)
    assert found.window_s == pytest.approx(10)
    assert found.generator_percent == pytest.approx((10, 10))
    assert found.retransmits == 0


NICS = (replace(PAIRS[0], nic=1), replace(PAIRS[1], guest="vm1", nic=2))


def test_streams_of_one_guest_are_judged_one_by_one_and_added_up() -> None:
    first, second = replace(ONE, pair="vm1.link1"), replace(TWO, pair="vm1.link2")
    links = {"c1": link(ONE), "c2": link(TWO)}
    found = judge(capture([first, second], links), asked(pairs=NICS))
    assert found.valid
    assert found.links_mbit == {"vm1.link1": pytest.approx(100), "vm1.link2": pytest.approx(100)}
    assert (
        found.counters_mbit.keys() == found.disagreement_percent.keys() == found.links_mbit.keys()
    )
    assert found.guests_mbit == {"vm1": pytest.approx(200)}
    slow = link(replace(second, output=replace(TWO.output, interims=tuple(interims([50.0] * 70)))))
    found = judge(capture([first, second], links | {"c2": slow}), asked(pairs=NICS))
    assert found.reasons == (
        "vm1.link2: netperf says 100.0 Mbit/s, c2 of the load generator carried 50.0",
    )
    found = judge(capture([first], links), asked(pairs=NICS))
    assert "vm1.link2: no stream" in found.reasons


def test_the_uplinks_of_one_guest_are_told_apart() -> None:
    flows, window = WORKLOADS["netperf-send"].flows(NICS), Window(0.0, 10.0)
    rows = [(0, 0, 0, 0), (0, 125_000_000, 0, 0)]
    usages = [Usage(10.0 * n, (), {}, {"u1": rows[0], "u2": rows[n]}) for n in (0, 1)]
    assert load_of(usages, flows, window, HEADER_BYTES).uplinks_mbit == {
        "vm1.link1": 0.0, "vm1.link2": pytest.approx(100),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("two", "reason"),
    [
        (stream("vm2", FULL, START_S + 2.1), "started 2.10 s apart, more than the ramp of 2 s"),
        (stream("vm2", FULL[:50]), "vm2: ended 2.00 s before the window did"),
        (stream("vm2", [0.0] * 70), "vm2: nothing was transferred"),
        (stream("vm2", []), "vm2: no interim results"),
        (replace(TWO, fault="netperf ended with exit 1"), "vm2: netperf ended with exit 1"),
        (with_result(TWO, ELAPSED_TIME="13.40"), "vm2: ran 13.4 s instead of 14 s"),
        (with_result(TWO, DIRECTION="Send"), "direction was Send, not Receive"),
        (with_result(TWO, REMOTE_SEND_SIZE="16384"), "vm2: REMOTE_SEND_SIZE was 16384, not 8192"),
        (with_result(TWO, LOCAL_RECV_SIZE="131072"), "vm2: LOCAL_RECV_SIZE was 131072, not 8192"),
        (with_result(TWO, RSS_SIZE_REQ="-1"), "vm2: RSS_SIZE_REQ was -1, not 65536"),
        (with_result(TWO, LSR_SIZE_END="212992"), "vm2: LSR_SIZE_END became 212992 for 65536"),
        (
            replace(TWO, output=replace(TWO.output, units=frozenset({MEGABIT, "10^3bits/s"}))),
            "vm2: rates in 10^3bits/s instead of 10^6bits/s",
        ),
        (
            replace(TWO, output=replace(TWO.output, result={})),
            "vm2: netperf did not tell THROUGHPUT, THROUGHPUT_UNITS",
        ),
        (
            replace(TWO, output=replace(TWO.output, interims=(*TWO.output.interims[:30],
                                                              *TWO.output.interims[36:]))),
            "vm2: no interim result for 1.40 s",
        ),
    ],
)  # fmt: skip
def test_a_stream_that_is_not_as_asked_makes_the_sample_invalid(two: Stream, reason: str) -> None:
    found = find([ONE, two])
    assert not found.valid
    assert any(reason in words for words in found.reasons), found.reasons
    assert not any(words.startswith("vm1") for words in found.reasons if "ended" not in words)


def test_sizes_that_nobody_uses_in_this_direction_do_not_matter() -> None:
    assert find([ONE, with_result(TWO, LOCAL_SEND_SIZE="16384", REMOTE_RECV_SIZE="1")]).valid


def test_a_stream_that_is_missing_makes_the_sample_invalid() -> None:
    found = find([ONE])
    assert "vm2: no stream" in found.reasons
    assert found.guests_mbit["vm2"] == 0


@given(st.sampled_from([0.5, 0.9, 0.97, 0.985, 1.0, 1.015, 1.03, 1.1, 2.0]))
def test_netperf_and_the_nics_agree_within_two_per_cent(factor: float) -> None:
    claimed = stream("vm2", [100 * factor] * 70)
    found = judge(capture([ONE, claimed], {"c2": link(TWO)}), asked())
    assert found.disagreement_percent["vm2"] == pytest.approx(100 * (factor - 1), abs=0.01)
    assert found.valid == (abs(factor - 1) < 0.02)
    assert found.valid or any("c2 of the load generator carried 100.0" in r for r in found.reasons)


def test_a_nic_that_was_not_watched_makes_the_sample_invalid() -> None:
    made = capture([ONE, TWO])
    found = judge(replace(made, links={"c1": made.links["c1"]}), asked())
    words = "vm2: c2 of the load generator was not watched during the window"
    assert found.reasons == (words,)


def test_a_stream_that_told_all_at_once_cannot_be_compared() -> None:
    whole = replace(TWO.output, interims=(Interim(START_S + 14, 14.0, 100.0),))
    found = judge(capture([ONE, replace(TWO, output=whole)], {"c2": link(TWO)}), asked())
    assert found.reasons == (
        "vm2: no interim result for 10.00 s",
        "vm2: no interim result within the window to compare with c2",
    )


@pytest.mark.parametrize(
    ("first", "last", "silent_s"),
    [(5, 15, None), (5, 16, 1.2), (54, 65, 1.2), (58, 66, None)],
    ids=["mostly before", "into the window", "out of it", "at its end"],
)
def test_silence_counts_as_far_as_it_is_within_the_window(
    first: int, last: int, silent_s: float | None
) -> None:
    """The window is from the 10th interim result to the 60th."""
    told = interims(FULL)
    pause = Interim(told[last - 1].end_s, 0.2 * (last - first), 100.0)
    whole = (*told[:first], pause, *told[last:])
    found = find([ONE, replace(TWO, output=replace(TWO.output, interims=whole))])
    words = () if silent_s is None else (f"vm2: no interim result for {silent_s:.2f} s",)
    assert found.reasons == words


@pytest.mark.parametrize("apart", [True, False])
def test_datagrams_that_the_load_generator_does_not_take_are_its_limit(apart: bool) -> None:
    """Where it shares the guests' CPUs that is a remark, as those are."""
    told = dict.fromkeys(KEYS["datagram"], "1000") | {
        "DIRECTION": "Receive", "REMOTE_SEND_SIZE": "1472", "THROUGHPUT_UNITS": MEGABIT,
    }  # fmt: skip
    one = with_result(ONE, **told)
    two = with_result(stream("vm2", [40.0] * 70), **told | {"LOCAL_RECV_CALLS": "400"})
    workload = WORKLOADS["netperf-udp-send"]
    seen = capture([one, two], {"c2": link(ONE)})
    found = judge(seen, asked(workload=workload, apart=apart))
    words = "vm2: limits: the load generator took 40.0 Mbit/s of 101.7 that came by c2"
    assert found.reasons == ((words,) if apart else ())
    assert (words in found.warnings) != apart
    assert found.lost_percent == {"vm1": 0, "vm2": pytest.approx(60)}
    more = replace(seen, links={**seen.links, "c1": link(stream("vm1", [50.0] * 70))})
    found = judge(more, asked(workload=workload, apart=False))
    assert found.reasons == (
        "vm1: netperf says 100.0 Mbit/s, c1 of the load generator carried 50.8",
    )


def test_a_result_of_nothing_is_told_whatever_was_sent() -> None:
    """A sender's socket buffer takes the first of what never arrives."""
    found = find([ONE, with_result(stream("vm2", [0.4] + [0.0] * 69), THROUGHPUT="0.00")])
    assert found.reasons[0] == "vm2: nothing was transferred"


def test_of_a_stream_that_ended_badly_only_that_is_told() -> None:
    cut = stream("vm2", FULL[:3])
    found = find([ONE, replace(cut, fault="netperf was still running after 26.1 s")])
    assert found.reasons == ("vm2: netperf was still running after 26.1 s",)


def test_what_others_did_on_the_host_is_known() -> None:
    def usage(at_s: float, others: float) -> Usage:
        busy_s = (0.4 + others) * at_s  # 10 % are the netperf clients'
        return Usage(START_S + at_s, (busy_s, 0.5 * at_s), {"vm1": 0.8 * at_s}, {})

    def judged(others: float, apart: bool = False) -> Finding:
        usages = [usage(0, others), usage(14, others)]
        return judge(capture([ONE, TWO]), asked(apart=apart), usages)

    quiet, loud = judged(0.15), judged(0.34)
    assert quiet.others_percent == pytest.approx(15)
    assert loud.others_percent == pytest.approx(34)
    assert (quiet.disturbed, loud.disturbed) == (False, True)
    assert judged(0.34, apart=True).others_percent == pytest.approx(44)
    assert judge(capture([ONE, TWO]), asked()).others_percent is None


def test_a_saturated_dom0_is_named_and_invalidates_nothing() -> None:
    usages = [Usage(START_S + s, (), {}, {}, (0.97 * s, 0.5 * s), (10 * s, 0)) for s in (0, 14)]
    found = judge(capture([ONE, TWO]), asked(), usages)
    assert found.valid
    assert found.dom0_percent == pytest.approx((97, 50))
    assert found.irqs_per_s == pytest.approx((10, 0))
    assert found.warnings == ("the bottleneck is dom0: its vCPU 0 was 90 % busy or more",)


def test_a_tenth_of_a_large_host_is_no_disturbance() -> None:
    found = replace(find([ONE, TWO]), others_percent=150.0, host_percent=(100.0,) * 16)
    assert not found.disturbed
    assert replace(found, others_percent=161.0).disturbed


def test_traffic_by_links_that_are_not_ours_makes_the_sample_invalid() -> None:
    stray = link(stream("vm2", [5.0] * 70))
    found = judge(capture([ONE, TWO], {"eth0": stray}), asked())
    assert [r for r in found.reasons if "went by eth0" in r]
    little = link(stream("vm2", [0.5] * 70))
    assert judge(capture([ONE, TWO], {"eth0": little}), asked()).valid


def test_a_busy_load_generator_counts_where_it_is_a_machine_of_its_own() -> None:
    busy = capture([ONE, TWO], busy=0.95)
    assert judge(busy, asked()).reasons == ("CPU 0 of the load generator was 95 % busy",)
    shared = judge(busy, asked(apart=False))
    assert shared.valid
    assert shared.warnings == ("limits: a CPU was 95 % busy, and the load generator shares it",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stopped": "vm2 failed"}, "stopped early: vm2 failed"),
        ({"clock_jump_s": 0.5}, "the load generator's clock was stepped by 500 ms"),
    ],
)
def test_what_happened_to_the_run_as_a_whole_counts(
    changes: dict[str, object], reason: str
) -> None:
    assert find([ONE, TWO], **changes).reasons == (reason,)


def test_the_cables_other_end_is_compared_and_only_warned_of() -> None:
    def usage(at_s: float, octets: int) -> Usage:
        return Usage(START_S + at_s, (at_s,), {}, {"u1": (0, octets, 0, 0), "u2": (0, 0, 0, 0)})

    rate = round(100e6 / 8)
    usages = [usage(0, 0), usage(14, 14 * rate)]
    found = judge(capture([ONE, TWO]), asked(), usages)
    assert found.valid
    assert found.warnings == ("vm2: the uplink carried 0.0 Mbit/s, its far end 100.0",)
    assert found.host_percent == pytest.approx((100,))


rates = st.lists(st.floats(1, 10_000), min_size=7, max_size=7)


@given(rates, rates, st.floats(0, 1.9))
def test_streams_that_ran_together_as_asked_are_valid_whatever_they_carried(
    one: list[float], two: list[float], late_s: float
) -> None:
    found = find([stream("vm1", one * 10), stream("vm2", two * 10, START_S + late_s)])
    assert not [r for r in found.reasons if "netperf says" not in r], found.reasons
    assert found.aggregate_mbit == pytest.approx(sum(found.guests_mbit.values()))
    assert found.aggregate_mbit <= (max(one) + max(two)) * (1 + 1e-6)


@given(st.floats(2.01, 14))
def test_no_skew_beyond_the_ramp_passes(late_s: float) -> None:
    assert not find([ONE, stream("vm2", FULL, START_S + late_s)]).valid


RECORD = Path(__file__).parent / "netperf" / "streams.json"


@pytest.mark.parametrize(
    ("stopped", "signal", "late_s", "fault"),
    [
        ("no end after 26 s", 15, 20.0, "netperf was still running after {} s and was stopped; it "
         "had told nothing for 20.0 s: was the guest paused, or cut off?"),
        ("vm1 failed", 15, 0.3, "netperf was still running after {} s and was stopped"),
        ("vm1, vm2 failed", 9, 0.3, "netperf ended with signal 9 after {} s: no words"),
        (None, 9, 0.3, "netperf ended with signal 9 after {} s: no words"),
    ],
)  # fmt: skip
def test_who_ended_a_stream_is_told(
    tmp_path: Path, stopped: str | None, signal: int, late_s: float, fault: str
) -> None:
    data = json.loads(RECORD.read_text())
    data["stopped"], two = stopped, data["streams"][1]
    last_s = load(RECORD, parse).streams[1].output.interims[-1].end_s
    two |= {"exit": None, "signal": signal, "ended": [last_s + late_s, two["exec"][1] + 9]}
    (tmp_path / "streams.json").write_text(json.dumps(data))
    found = load(tmp_path / "streams.json", parse).streams
    assert [s.fault for s in found] == ["", fault.format("9.0")]


def test_what_a_load_generator_recorded_is_read(tmp_path: Path) -> None:
    found = load(Path(__file__).parent / "netperf" / "streams.json", parse)
    assert [s.pair for s in found.streams] == ["vm1", "vm2"]
    assert all(not s.fault and s.started_s for s in found.streams)
    assert all(not s.output.missing(KEYS["stream"]) for s in found.streams)
    assert all(len(s.output.interims) == 25 for s in found.streams)
    assert {"c1", "c2"} <= set(found.links)
    assert found.clock_jump_s < 0.01
    begin_s = found.released_s
    assert found.cpus[0].at(begin_s + 1) is not None
    grown = found.clients.rate(begin_s, begin_s + 2)
    assert grown is not None
    assert grown > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "cannot be read"), ('{"format": 2}', "format 2"), ('{"format": 1}', "lacks")],
)
def test_a_record_that_is_not_whole_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "streams.json"
    path.write_text(text)
    with pytest.raises(WorkloadError, match=words):
        load(path, parse)
    with pytest.raises(WorkloadError, match="cannot be read"):
        load(tmp_path / "nowhere.json", parse)
