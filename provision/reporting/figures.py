"""The figures of a report: throughput, what happened over time, and CPU. Imported lazily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, pairwise

import matplotlib as mpl
from matplotlib.figure import Figure

from provision.errors import WorkloadError
from provision.measuring.capture import Capture, Stream, load
from provision.measuring.results import Sample
from provision.measuring.verdict import Finding
from provision.measuring.workloads import read
from provision.reporting.bars import throughput
from provision.reporting.busy import cpu
from provision.reporting.drawing import (
    COLOURS,
    MOST_GUESTS,
    SHADE,
    STYLE,
    Drawing,
    Group,
    finished,
)

LOOKS = 3  # at a counter, between two steps


def draw(groups: Sequence[Group]) -> Iterator[Drawing]:
    """All figures; those over time need the raw output, and are left out where it is gone."""
    with mpl.rc_context(STYLE):
        if any(s.aggregate for g in groups for s in g.summaries):
            yield from throughput(groups)
        for number, group in enumerate(groups, 1):
            prefix = f"{number}-" if len(groups) > 1 else ""
            which = f"Run {number}: " if len(groups) > 1 else ""
            for sample in _shown(group):
                try:
                    capture = load(
                        group.run.path / sample.raw / "streams.json", partial(read, sample.workload)
                    )
                except WorkloadError:
                    continue
                if any(_steps(s)[1] for s in capture.streams):
                    yield _series(f"{prefix}{sample.workload}", which, sample, capture)
            if any(s.finding.host_percent for s in group.samples if s.valid):
                yield from cpu(f"{prefix}cpu", which, group)


def _shown(group: Group) -> Iterator[Sample]:
    """Of each workload the last valid sample, or the last there is."""
    for summary in group.summaries:
        mine = [s for s in group.samples if s.workload == summary.workload]
        yield ([s for s in mine if s.valid] or mine)[-1]


def _steps(stream: Stream) -> tuple[list[float], list[float]]:
    """Moments and the rates between them; nothing where the program tells no parts of its run."""
    if count := stream.counter:
        at = list(count.at_s[::LOOKS])
        return at, [count.rate(*ends) or 0.0 for ends in pairwise(at)]
    interims = stream.output.interims
    if not interims:
        return [], []
    return [interims[0].begin_s, *(i.end_s for i in interims)], [i.rate for i in interims]


def _called(stream: Stream, finding: Finding) -> str:
    """A flow's name; what sends all frames is called by whom they are for."""
    if stream.pair in finding.shares:
        return stream.pair
    return "all guests" if finding.forwarded else "neighbours"


def _series(name: str, which: str, sample: Sample, capture: Capture) -> Drawing:
    figure = Figure(figsize=(7.5, 3.0))
    axes = figure.add_subplot()
    finding = sample.finding
    zero = finding.begin_s
    axes.axvspan(0, finding.window_s, color=SHADE, label="common window")
    few = len(capture.streams) <= MOST_GUESTS
    for colour, stream in zip(cycle(COLOURS), capture.streams, strict=False):
        edges, rates = _steps(stream)
        if rates:
            axes.stairs(rates, [at_s - zero for at_s in edges], color=colour, linewidth=1.1,
                        baseline=None, label=_called(stream, finding) if few else None)  # fmt: skip
    axes.set_xlabel("seconds since the common window opened")
    axes.set_ylabel(finding.measure)
    axes.margins(x=0.02, y=0.1)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=SHADE)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    verdict = "valid" if sample.valid else "INVALID"
    return finished(
        figure,
        name,
        f"{which}{sample.workload}, repetition {sample.repetition} ({verdict}): the rate of each "
        f"stream, by its program's interim results or its server's count; only the shaded window "
        f"of {finding.window_s:g} s counts. The streams began {finding.skew_ms:.0f} ms apart.",
    )
