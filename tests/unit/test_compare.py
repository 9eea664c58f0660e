"""Two configurations: the ratio and its interval, Welch's test, the size of the effect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from provision.measuring.compare import compare, loss
from tests.unit.streams import sample

FIRST = [100.0, 102.0, 98.0, 101.0, 99.0]
SECOND = [108.0, 113.0, 110.0, 111.0, 108.0]
RATES = st.lists(st.floats(1, 1e5), min_size=2, max_size=12)


def test_a_difference_with_its_interval_and_its_size() -> None:
    found = compare(FIRST, SECOND)
    assert found
    assert found.ratio == pytest.approx(1.1)
    assert found.low == pytest.approx(1.0715, abs=5e-4)
    assert found.high == pytest.approx(1.1293, abs=5e-4)
    assert found.p == pytest.approx(stats.ttest_ind(SECOND, FIRST, equal_var=False).pvalue)
    assert found.effect == pytest.approx(10 / 3.5**0.5 * (1 - 3 / 31))
    assert found.words() == (
        "+10.0 % (95 %: +7.2 % to +12.9 %), Welch's p < 0.001, effect +4.8 standard deviations"
    )


def test_a_part_of_means_is_found_by_resampling_too() -> None:
    """An independent way to the same interval: the bootstrap, seeded, of many more samples."""
    many, more = FIRST * 40, SECOND * 40
    found = compare(many, more)
    assert found
    boot = stats.bootstrap(
        (more, many), lambda x, y, axis: x.mean(axis) / y.mean(axis), method="percentile",
        n_resamples=4000, rng=7,
    ).confidence_interval  # fmt: skip
    assert found.low == pytest.approx(boot.low, abs=5e-4)
    assert found.high == pytest.approx(boot.high, abs=5e-4)


@given(RATES, RATES)
def test_turned_round_it_says_the_same(a: list[float], b: list[float]) -> None:
    there, back = compare(a, b), compare(b, a)
    assert there
    assert back
    assert there.ratio * back.ratio == pytest.approx(1)
    if there.low is not None and back.high is not None:
        assert there.low * back.high == pytest.approx(1)
        assert there.p == pytest.approx(back.p)


def test_too_little_to_judge_by() -> None:
    one = compare([100.0], [110.0, 111.0])
    assert one
    assert (one.low, one.p, one.words()) == (None, None, "+10.5 %")
    assert compare([5.0, 5.0], [5.0, 5.0]) is not None
    assert compare([0.0, 0.0], [5.0, 6.0]) is None


def test_the_loss_against_native_is_by_workload_and_of_valid_samples_alone() -> None:
    native = [sample("netperf-send", 1000.0 + n, n) for n in (1, 2, 3)]
    other = [sample("netperf-send", 800.0 + n, n) for n in (1, 2, 3)]
    other += [sample("netperf-send", 1.0, 4, reasons=("stalled",)), sample("netperf-rr", 5.0, 1)]
    found = loss(native, other)
    assert list(found) == ["netperf-send"]
    one = found["netperf-send"]
    assert one.loss_percent == pytest.approx(20, abs=0.1)
    assert one.low is not None
    assert loss(other, native)["netperf-send"].loss_percent < 0
