"""Means, their intervals, fairness, and what must never be averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from provision.errors import UserError
from provision.measuring import take
from provision.measuring.results import Run, Sample
from provision.measuring.stats import Stop, interval, jain, reached, summarise
from provision.measuring.take import Bench
from provision.measuring.workload import Workload
from provision.measuring.workloads import WORKLOADS
from tests.unit.streams import SUBJECT, sample

numbers = st.floats(0.001, 1e6)


def test_the_interval_is_students() -> None:
    """Figures of a table: t for 4 degrees of freedom at 97.5 % is 2.776."""
    found = interval([10.0, 12.0, 9.0, 11.0, 13.0])
    assert found.mean == 11
    assert found.sd == pytest.approx(1.5811, abs=1e-4)
    assert found.half == pytest.approx(2.776 * 1.5811 / 5**0.5, abs=1e-3)
    assert found.percent == pytest.approx(100 * 1.9633 / 11, abs=0.01)


def test_repeating_stops_at_the_width_or_at_the_most() -> None:
    wide = [sample("netperf-send", mbit, n) for n, mbit in enumerate((90.0, 100.0, 110.0), 1)]
    close = [sample("netperf-receive", mbit, n) for n, mbit in enumerate((99.0, 100.0, 101.0), 1)]
    stop = Stop(within_percent=5, most=4)
    assert reached(wide) == pytest.approx(24.8, abs=0.1)  # t for 2 degrees of freedom is 4.303
    assert stop.goes_on("netperf-send", 4, wide + close)
    assert not stop.goes_on("netperf-receive", 4, wide + close)
    assert not stop.goes_on("netperf-send", 5, wide)
    assert stop.goes_on("netperf-send", 2, wide[:1]), "one sample has no interval"
    bad = replace(wide[0], finding=replace(wide[0].finding, reasons=("cut off",)))
    assert stop.goes_on("netperf-receive", 4, [*close[:1], bad]), "invalid ones do not count"


def test_only_what_is_too_wide_is_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates = {"netperf-send": iter((90, 100, 95, 96, 95, 95)), "netperf-receive": iter((100, 100.5))}
    said: list[str] = []

    def taken(_bench: Bench, workload: Workload, *counts: Any) -> Sample:
        repetition, attempt, subject = counts
        said.append(subject)
        return sample(workload.name, next(rates[workload.name]), repetition, attempt=attempt)

    monkeypatch.setattr(take, "_take", taken)
    bench = Bench(Run.create(tmp_path, "lab", {}), {}, (), SUBJECT)
    workloads = [WORKLOADS["netperf-send"], WORKLOADS["netperf-receive"]]
    found = take.measure(bench, workloads, repeat=2, redo=0, stop=Stop(within_percent=5, most=9))
    assert [(s.workload, s.repetition) for s in found[4:]] == [
        ("netperf-send", n) for n in (3, 4, 5)
    ]
    assert said[:2] == ["netperf-send 1/2", "netperf-receive 1/2"]
    assert said[4] == "netperf-send 3/9"
    assert reached(found[n] for n in (0, 2, 4, 5)) > 5  # type: ignore[operator]


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert interval([5.0]).half is None
    assert interval([5.0]).percent is None
    with pytest.raises(ValueError, match="no values"):
        interval([])


@given(st.lists(numbers, min_size=2, max_size=30), st.floats(0.5, 1000))
def test_an_interval_moves_and_grows_with_its_values(values: list[float], factor: float) -> None:
    plain, scaled = interval(values), interval([v * factor for v in values])
    assert min(values) * (1 - 1e-9) <= plain.mean <= max(values) * (1 + 1e-9)
    assert plain.half is not None
    assert scaled.half is not None
    assert scaled.mean == pytest.approx(plain.mean * factor)
    assert scaled.half == pytest.approx(plain.half * factor, rel=1e-6, abs=1e-6 * scaled.mean)


@given(st.lists(numbers, min_size=2, max_size=10))
def test_more_of_the_same_makes_the_interval_narrower(values: list[float]) -> None:
    assume(max(values) > 1.01 * min(values))
    once, thrice = interval(values).half, interval(values * 3).half
    assert once is not None
    assert thrice is not None
    assert thrice < once


@given(st.lists(numbers, min_size=1, max_size=64))
def test_fairness_is_from_one_nth_to_one(values: list[float]) -> None:
    found = jain(values)
    assert found is not None
    assert 1 / len(values) - 1e-9 <= found <= 1 + 1e-9
    assert jain([values[0]] * len(values)) == pytest.approx(1)


def test_fairness_of_one_that_has_all() -> None:
    assert jain([10, 0, 0, 0]) == 0.25
    assert jain([0, 0]) is None
    assert jain([]) is None


def test_only_valid_samples_count_and_the_others_are_counted() -> None:
    samples = [
        sample("netperf-send", 100, 1),
        sample("netperf-receive", 80, 1),
        sample("netperf-send", 9000, 2, reasons=("vm1: netperf ended",)),
        sample("netperf-send", 110, 2, attempt=2),
        sample("netperf-receive", 0, 2, reasons=("stopped early",)),
    ]
    send, receive = summarise(samples)
    assert (send.workload, send.taken, send.invalid, send.redone) == ("netperf-send", 3, 1, 1)
    assert send.aggregate_mbit is not None
    assert send.aggregate_mbit.mean == 105
    assert {g: m.mean for g, m in send.guests_mbit.items()} == {"vm1": 63, "vm2": 42}
    assert send.jain == pytest.approx(105**2 / (2 * (63**2 + 42**2)))
    assert send.range_mbit == (40, 66)
    assert send.host_percent is not None
    assert send.host_percent.mean == 60
    assert (receive.taken, receive.invalid) == (2, 1)


def test_unfairness_within_samples_is_not_averaged_away() -> None:
    """The guests that had less in one sample had more in the other: their means are equal."""
    first = sample("netperf-send", 100, 1)
    shares = {"vm1": 40.0, "vm2": 60.0}
    other = replace(first, repetition=2, finding=replace(first.finding, guests_mbit=shares))
    (found,) = summarise([first, other, sample("netperf-send", 999, 3, reasons=("no",))])
    assert {m.mean for m in found.guests_mbit.values()} == {50}
    assert found.jain == pytest.approx(jain([60, 40]))
    assert found.range_mbit == (40, 60)
    even = replace(other, finding=replace(first.finding, guests_mbit={"vm1": 50.0, "vm2": 50.0}))
    (found,) = summarise([first, even])
    least = jain([60, 40])
    assert least is not None
    assert found.jain == pytest.approx((1 + least) / 2)
    assert found.jain_least == pytest.approx(least)


def test_several_nics_count_together_by_guest_and_each_for_itself() -> None:
    one = sample("netperf-send", 100, 1)
    links = {"vm1.link1": 45.0, "vm1.link2": 15.0, "vm2.link1": 20.0, "vm2.link2": 20.0}
    (found,) = summarise([replace(one, finding=replace(one.finding, links_mbit=links))])
    assert {g: m.mean for g, m in found.guests_mbit.items()} == {"vm1": 60, "vm2": 40}
    assert {g: m.mean for g, m in found.links_mbit.items()} == links
    assert (found.range_mbit, found.links_range_mbit) == ((40, 60), (15, 45))
    assert found.jain == pytest.approx(jain([45, 15, 20, 20]))


def test_a_workload_without_a_valid_sample_has_no_mean() -> None:
    (found,) = summarise([sample("netperf-send", 100, 1, reasons=("stopped early",))])
    assert found.aggregate_mbit is None
    assert found.guests_mbit == {}
    assert (found.jain, found.jain_least, found.range_mbit) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nic": "e1000"}, "vNIC model: virtio / e1000"),
        (
            {"version": "9.0", "accel": "kvm"},
            "hypervisor's version: 8.0 / 9.0; acceleration: tcg / kvm",
        ),
        ({"wire_mbit": 1000}, "wire speed, Mbit/s: not known / 1000"),
    ],
)
def test_samples_of_different_things_are_never_averaged(
    changes: dict[str, object], words: str
) -> None:
    one = sample("netperf-send", 100, 1)
    other = replace(one, subject=replace(one.subject, **changes))  # type: ignore[arg-type]
    with pytest.raises(UserError) as e:
        summarise([one, other])
    assert str(e.value).endswith(words)


@given(st.lists(st.sampled_from(["netperf-send", "netperf-receive"]), max_size=12))
def test_every_sample_is_in_one_summary(names: Sequence[str]) -> None:
    samples: list[Sample] = [sample(name, 100, n + 1) for n, name in enumerate(names)]
    assert sum(s.taken for s in summarise(samples)) == len(samples)
