"""Means with their 95 % interval over the valid samples of one workload, and fairness: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from provision.errors import UserError
from provision.measuring.results import Sample, differences

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean; ``sd`` and ``half`` (half the width of the interval) need two values at least."""

    n: int
    mean: float
    sd: float | None
    half: float | None

    @property
    def percent(self) -> float | None:
        """Half the width, in per cent of the mean."""
        return None if self.half is None or not self.mean else 100 * self.half / abs(self.mean)


@dataclass(frozen=True, slots=True)
class Summary:
    """One workload's valid samples. ``taken`` counts all, ``redone`` those after a first try.

    ``aggregate``, ``guests`` (by guest) and the ranges are what the workload is about, in ``unit``;
    ``measure`` says what that counts.
    ``guests_mbit`` is by guest, ``links_mbit`` by stream. ``range_mbit`` is from the least to the
    most that any guest had in any sample, ``links_range_mbit`` that any stream had;
    ``host_percent`` is all the host's CPUs together, in per cent of one, and beside it the same for
    each Mbit/s of what does not count transactions; ``jain`` is the
    mean of the samples' own indices among their streams, ``jain_least`` the least of them. Of
    latencies and losses each sample counts with that of its worst stream.
    """

    workload: str
    direction: str
    taken: int
    invalid: int
    redone: int
    aggregate_mbit: Interval | None
    guests_mbit: Mapping[str, Interval]
    range_mbit: tuple[float, float] | None
    host_percent: Interval | None
    host_percent_per_mbit: Interval | None
    jain: float | None
    jain_least: float | None
    links_mbit: Mapping[str, Interval]
    links_range_mbit: tuple[float, float] | None
    transactions_per_s: Interval | None
    p50_us: Interval | None
    p99_us: Interval | None
    lost_percent: Interval | None
    offered_mbit: Interval | None
    unit: str
    measure: str
    aggregate: Interval | None
    guests: Mapping[str, Interval]
    guests_range: tuple[float, float] | None
    links_range: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Stop:
    """When to stop repeating: the interval of the aggregate is within that of its mean, or so many.

    ``within_percent`` is half the interval's width; ``most`` counts repetitions.
    """

    within_percent: float
    most: int

    def goes_on(self, workload: str, repetition: int, taken: Iterable[Sample]) -> bool:
        """Whether a workload needs that repetition, after those taken."""
        found = reached(s for s in taken if s.workload == workload)
        return repetition <= self.most and (found is None or found > self.within_percent)


def reached(samples: Iterable[Sample]) -> float | None:
    """Half the width of the valid samples' interval, in per cent; None before there is one."""
    values = [s.finding.aggregate for s in samples if s.valid]
    return interval(values).percent if values else None


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean; raises ValueError on no values."""
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = sum(values) / n
    if n == 1:
        return Interval(1, mean, None, None)
    from scipy.special import stdtrit

    sd = sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return Interval(n, mean, sd, float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / sqrt(n))


def jain(values: Sequence[float]) -> float | None:
    """Fairness among shares, from 1/n to 1 (Jain, Chiu, Hawe 1984); None where all are zero."""
    squares = len(values) * sum(v * v for v in values)
    return sum(values) ** 2 / squares if squares > 0 else None


def summarise(samples: Iterable[Sample]) -> list[Summary]:
    """One summary a workload, in the order they were first taken.

    Raises UserError where what was measured is not the same for all, naming each difference.
    """
    taken = list(samples)
    if found := differences(taken):
        raise UserError("samples of different things are not averaged: " + "; ".join(found))
    by_name: dict[str, list[Sample]] = {}
    for sample in taken:
        by_name.setdefault(sample.workload, []).append(sample)
    return [_summary(name, group) for name, group in by_name.items()]


def _summary(name: str, taken: Sequence[Sample]) -> Summary:
    findings = [s.finding for s in taken if s.valid]
    guests, links = ([f.guests_mbit for f in findings], [f.streams_mbit for f in findings])
    fair = [j for f in findings if (j := jain(list(f.shares.values()))) is not None]
    host = [sum(f.host_percent) for f in findings if f.host_percent]
    one = findings[0] if findings else taken[0].finding
    cost = [sum(f.host_percent) / f.aggregate_mbit for f in findings
            if f.host_percent and f.aggregate_mbit and not f.transactions_per_s]  # fmt: skip
    return Summary(
        workload=name,
        direction=taken[0].direction,
        taken=len(taken),
        invalid=sum(not s.valid for s in taken),
        redone=sum(s.attempt > 1 for s in taken),
        aggregate_mbit=interval([f.aggregate_mbit for f in findings]) if findings else None,
        guests_mbit=_means(guests),
        range_mbit=_range(guests),
        host_percent=interval(host) if host else None,
        host_percent_per_mbit=interval(cost) if cost else None,
        jain=sum(fair) / len(fair) if fair else None,
        jain_least=min(fair, default=None),
        links_mbit=_means(links),
        links_range_mbit=_range(links),
        transactions_per_s=_over([sum(f.transactions_per_s.values()) for f in findings]),
        p50_us=_over([_worst(f.latency_us, "P50") for f in findings]),
        p99_us=_over([_worst(f.latency_us, "P99") for f in findings]),
        lost_percent=_over([max(f.lost_percent.values()) for f in findings if f.lost_percent]),
        offered_mbit=_over([sum(f.offered_mbit.values()) for f in findings]),
        unit=one.unit,
        measure=one.measure,
        aggregate=interval([f.aggregate for f in findings]) if findings else None,
        guests=_means([f.guests for f in findings]),
        guests_range=_range([f.guests for f in findings]),
        links_range=_range([f.shares for f in findings]),
    )


def _over(values: Sequence[float]) -> Interval | None:
    """None where this workload does not count such a thing."""
    return interval(values) if values and any(values) else None


def _worst(latencies: Mapping[str, Mapping[str, float]], name: str) -> float:
    return max((one.get(name, 0.0) for one in latencies.values()), default=0.0)


def _means(shares: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    names = dict.fromkeys(name for one in shares for name in one)
    return {name: interval([one[name] for one in shares]) for name in names}


def _range(shares: Sequence[Mapping[str, float]]) -> tuple[float, float] | None:
    rates = [rate for one in shares for rate in one.values()]
    return (min(rates), max(rates)) if rates else None
