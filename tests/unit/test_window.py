"""The window, and rates and counters over it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.driver import Usage
from provision.measuring.capture import Series
from provision.measuring.window import Window, common, load, mean_rate, payload_mbit
from provision.measuring.workload import HEADER_BYTES
from provision.measuring.workloads import WORKLOADS
from tests.unit.streams import OPTIONS, PAIRS, START_S, capture, interims, link, stream

FLOWS = WORKLOADS["netperf-send"].flows(PAIRS)

rates = st.lists(st.floats(0, 1e5), min_size=1, max_size=100)


def test_the_window_opens_a_ramp_after_the_last_start_and_is_as_long_as_asked() -> None:
    streams = [stream("vm1", [1] * 70), stream("vm2", [1] * 70, START_S + 1.5)]
    begins = WORKLOADS["netperf-send"].begins(capture(streams))
    window = common(begins.values(), OPTIONS)
    assert window.begin_s - START_S == pytest.approx(1.5 + OPTIONS.ramp_s)
    assert window.length_s == pytest.approx(OPTIONS.duration_s)


def test_streams_that_start_apart_add_up_only_where_both_run() -> None:
    """One link of 100: each alone has all of it, together half each; their means add up to more."""
    first = interims([100] * 20 + [50] * 50)
    second = interims([50] * 50 + [100] * 20, START_S + 4)
    window = Window(START_S + 6, START_S + 12)
    assert mean_rate(first, window) + mean_rate(second, window) == pytest.approx(100)
    own = sum(i.rate for i in first) / 70 + sum(i.rate for i in second) / 70
    assert own > 125


@given(rates, st.floats(0.1, 30), st.floats(0, 10))
def test_a_mean_is_within_its_rates(found: list[float], length_s: float, late_s: float) -> None:
    window = Window(START_S + late_s, START_S + late_s + length_s)
    mean = mean_rate(interims(found), window)
    assert -1e-6 <= mean <= max(found) * (1 + 1e-6)


@given(rates, st.floats(0.01, 0.99))
def test_a_window_is_the_sum_of_its_parts(found: list[float], part: float) -> None:
    end_s = START_S + 0.2 * len(found)
    middle_s = START_S + part * (end_s - START_S)
    parts = [Window(START_S, middle_s), Window(middle_s, end_s)]
    whole = Window(START_S, end_s)
    summed = sum(mean_rate(interims(found), w) * w.length_s for w in parts)
    expected = mean_rate(interims(found), whole) * whole.length_s
    assert summed == pytest.approx(expected, rel=1e-5, abs=1e-2)


@given(rates)
def test_the_nic_agrees_with_a_stream_that_it_carried(found: list[float]) -> None:
    whole = stream("vm1", found)
    window = Window(START_S, START_S + 0.2 * len(found))
    seen = payload_mbit(link(whole), window, received=True)
    assert seen == pytest.approx(mean_rate(whole.output.interims, window), rel=1e-3, abs=1e-2)


def test_large_segments_have_one_header_each() -> None:
    at = [0.0, 1.0]
    octets, packets = 1_000_000.0, 20.0
    nic = link(stream("vm1", [1]))
    frames = Series(at, [0, octets + packets * HEADER_BYTES])
    seen = type(nic)(frames, Series(at, [0, packets]), frames, frames)
    assert payload_mbit(seen, Window(0, 1), received=True) == pytest.approx(8)


def test_frames_shorter_than_the_headers_are_no_traffic_and_no_less() -> None:
    at, frames = [0.0, 1.0], 3.0
    nic = link(stream("vm1", [1]))
    octets, packets = Series(at, [0, 42 * frames]), Series(at, [0, frames])
    seen = type(nic)(octets, packets, octets, packets)
    assert f"{payload_mbit(seen, Window(0, 1), received=True):.1f}" == "0.0"


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50), st.floats(0, 1))
def test_a_counter_never_falls_between_its_readings(steps: list[float], part: float) -> None:
    values = [sum(steps[: n + 1]) for n in range(len(steps))]
    series = Series([float(n) for n in range(len(steps))], values)
    moment = part * (len(steps) - 1)
    now = series.at(moment)
    assert now is not None
    assert values[0] - 1e-6 <= now <= values[-1] * (1 + 1e-9) + 1e-6
    assert series.at(0.0) == values[0]
    assert series.at(float(len(steps) - 1)) == values[-1]


def test_outside_of_its_readings_a_counter_says_nothing() -> None:
    series = Series([1.0, 2.0], [0.0, 1.0])
    assert series.at(0.9) is None
    assert series.at(2.1) is None
    assert series.rate(0.5, 1.5) is None
    assert Series([], []).at(0) is None


def usage(at_s: float, host: tuple[float, ...], guest: float, sent: int) -> Usage:
    packets = sent // 1000
    nics = {"u1": (0, sent + HEADER_BYTES * packets, 0, packets)}
    return Usage(START_S + at_s, host, {"vm1": guest}, nics)


def test_the_host_is_read_over_the_same_window() -> None:
    readings = [
        usage(0, (0.0, 0.0), 0.0, 0),
        usage(10, (0.0, 0.0), 0.0, 0),
        usage(20, (5.0, 10.0), 8.0, 1_000_000),
    ]
    seen = load(readings, FLOWS, Window(START_S + 10, START_S + 20), HEADER_BYTES)
    assert seen.host_percent == pytest.approx((50, 100))
    assert seen.guest_percent == {"vm1": pytest.approx(80)}
    assert seen.uplinks_mbit == {"vm1": pytest.approx(0.8)}


def test_dom0_and_its_interrupts_are_read_over_the_same_window() -> None:
    def reading(at_s: float, dom0: tuple[float, ...], irqs: tuple[int, ...]) -> Usage:
        return Usage(START_S + at_s, (), {}, {}, dom0, irqs)

    window = Window(START_S + 10, START_S + 20)
    first, last = reading(10, (1.0, 1.0), (50, 7)), reading(20, (11.0, 2.0), (1050, 7))
    seen = load([first, last], FLOWS, window, HEADER_BYTES)
    assert seen.dom0_percent == pytest.approx((100, 10))
    assert seen.irqs_per_s == pytest.approx((100, 0))
    fewer = load([first, reading(20, (11.0,), (1050,))], FLOWS, window, HEADER_BYTES)
    assert (fewer.dom0_percent, fewer.irqs_per_s) == ((), ())


def test_readings_that_do_not_span_the_window_say_nothing() -> None:
    readings = [usage(12, (0.0,), 0.0, 0), usage(20, (5.0,), 8.0, 9)]
    seen = load(readings, FLOWS, Window(START_S + 10, START_S + 20), HEADER_BYTES)
    assert (seen.host_percent, seen.guest_percent, seen.uplinks_mbit) == ((), {}, {})
    assert load([], FLOWS, Window(START_S, START_S + 1), HEADER_BYTES).host_percent == ()
