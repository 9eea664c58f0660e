"""Two configurations set against each other: is there a difference, and how large is it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

from provision.measuring.results import Sample
from provision.measuring.stats import CONFIDENCE, Interval, interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second against the first. ``low`` and ``high`` bound the ratio of means.

    ``p`` is Welch's, two-sided: how often as large a difference comes of chance alone; ``effect``
    is Hedges' g, the difference in standard deviations. None where there are too few values, or
    they do not differ among themselves.
    """

    ratio: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    effect: float | None = None

    @property
    def loss_percent(self) -> float:
        """How much less the second is; more is a negative loss."""
        return 100 * (1 - self.ratio)

    def words(self) -> str:
        """For people: the change in per cent with its interval, and how sure it is."""
        said = f"{_percent(self.ratio)}"
        if self.low is not None and self.high is not None:
            said += f" (95 %: {_percent(self.low)} to {_percent(self.high)})"
        if self.p is not None and self.effect is not None:
            p = f"{self.p:.3f}" if self.p >= 0.001 else "< 0.001"
            said += f", Welch's p {p}, effect {self.effect:+.1f} standard deviations"
        return said


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison | None:
    """The means of independent samples; None where one has none above zero.

    The ratio's interval is made by the delta method on its logarithm, with Welch's degrees of
    freedom (Welch 1947; Hedges 1981 for the effect).
    """
    if not first or not second:
        return None
    a, b = interval(first), interval(second)
    if a.mean <= 0 or b.mean <= 0:
        return None
    ratio = b.mean / a.mean
    if a.sd is None or b.sd is None or not (a.sd or b.sd):
        return Comparison(ratio)
    from scipy.special import stdtr, stdtrit

    rel, freedom = _welch((a.sd / a.mean) ** 2 / a.n, a.n, (b.sd / b.mean) ** 2 / b.n, b.n)
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * rel
    error, freedom = _welch(a.sd**2 / a.n, a.n, b.sd**2 / b.n, b.n)
    p = 2 * float(stdtr(freedom, -abs(b.mean - a.mean) / error))
    low, high = exp(log(ratio) - half), exp(log(ratio) + half)
    return Comparison(ratio, low, high, p, _hedges(a, b, a.sd, b.sd))


def rates(samples: Sequence[Sample], workload: str) -> list[float]:
    """The aggregate of each valid sample of a workload."""
    return [s.finding.aggregate for s in samples if s.valid and s.workload == workload]


def loss(native: Sequence[Sample], other: Sequence[Sample]) -> dict[str, Comparison]:
    """By workload that both ran, all valid samples of the second set against the first's.

    The aggregate is compared; what is lost against native is ``loss_percent`` of each.
    """
    names = dict.fromkeys(s.workload for s in native)
    found = {name: compare(rates(native, name), rates(other, name)) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def _welch(a: float, n_a: int, b: float, n_b: int) -> tuple[float, float]:
    """The standard error of a difference from both means' variances, and its degrees of freedom."""
    return sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))


def _hedges(a: Interval, b: Interval, sd_a: float, sd_b: float) -> float:
    freedom = a.n + b.n - 2
    pooled = sqrt(((a.n - 1) * sd_a**2 + (b.n - 1) * sd_b**2) / freedom)
    return (b.mean - a.mean) / pooled * (1 - 3 / (4 * freedom - 1))


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
