"""What each workload gave, as bars: each measure in a panel of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from provision.measuring.stats import Summary
from provision.reporting.drawing import (
    COLOURS,
    INK,
    MOST_GUESTS,
    MOST_ROWS,
    ROW_IN,
    SHADE,
    Drawing,
    Group,
    finished,
    part,
)

WIDTH_IN, EDGE_IN = 6.0, 0.75  # of a panel; above and below its rows
NEAR = 4  # times the longest bar: a wire faster than that would make all bars short


@dataclass(frozen=True, slots=True)
class _Row:
    """A bar: one workload of one run. ``wire_mbit`` is the speed of all its links, 0 = unknown."""

    label: str
    summary: Summary
    wire_mbit: float

    @property
    def top(self) -> float:
        total = self.summary.aggregate
        return 0.0 if total is None else total.mean + (total.half or 0.0)


Panel = tuple[str, list[_Row]]  # what is measured, and its bars


def throughput(groups: Sequence[Group]) -> Iterator[Drawing]:
    """Pictures of no more bars than fit a page."""
    pictures = _pictures(_panels(groups))
    for number, panels in enumerate(pictures, 1):
        name, said = part("throughput", number, len(pictures))
        yield _picture(name, said, panels)


def _panels(groups: Sequence[Group]) -> Iterator[Panel]:
    """Workloads in their order, runs of one side by side; a measure's bars all together."""
    names = dict.fromkeys(s.workload for g in groups for s in g.summaries)
    rows: dict[str, list[_Row]] = {}
    for name in names:
        for number, group in enumerate(groups, 1):
            for summary in (s for s in group.summaries if s.workload == name):
                first = not any(r.summary.workload == name for r in rows.get(summary.measure, ()))
                run = f"run {number}" if len(groups) > 1 else ""
                label = "  ".join(filter(None, (name if first else "", run)))
                wire = _wire_mbit(group, summary)
                rows.setdefault(summary.measure, []).append(_Row(label, summary, wire))
    yield from rows.items()


def _wire_mbit(group: Group, summary: Summary) -> float:
    """What all links that carried something could have; 0 = not known, or no matter."""
    wire = group.samples[0].subject.wire_mbit
    return float(wire or 0) * len(summary.links_mbit) if summary.unit == "Mbit/s" else 0.0


def _pictures(panels: Iterator[Panel]) -> list[list[Panel]]:
    found: list[list[Panel]] = []
    room = 0
    for measure, rows in panels:
        left = rows
        while left:
            if not room:
                found.append([])
                room = MOST_ROWS
            found[-1].append((measure, left[:room]))
            left, room = left[room:], max(0, room - len(left))
    return found


def _picture(name: str, said: str, panels: Sequence[Panel]) -> Drawing:
    heights = [EDGE_IN + ROW_IN * len(rows) for _, rows in panels]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained")
    column = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0].tolist()
    wired = False
    for axes, (measure, rows) in zip(column, panels, strict=True):
        wired |= _panel(axes, measure, rows)
    guests = dict.fromkeys(g for _, rows in panels for r in rows for g in r.summary.guests)
    stacked = ", one guest after another" if len(guests) > 1 else ""
    if 1 < len(guests) <= MOST_GUESTS:
        handles, labels = _legend(column)
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    line = "; dashed: the wire speed of all its links." if wired else "."
    return finished(
        figure,
        name,
        f"Mean aggregate of the valid samples{stacked}, with its 95 % t-interval{line}{said}",
    )


def _panel(axes: Axes, measure: str, rows: Sequence[_Row]) -> bool:
    """Whether a wire's speed was drawn."""
    longest = max(row.top for row in rows)
    wires = [row.wire_mbit if row.wire_mbit <= NEAR * longest else 0.0 for row in rows]
    for y, (row, wire) in enumerate(zip(rows, wires, strict=True)):
        _bar(axes, y, row, wire)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.2 * max(longest, *wires, 1e-9))
    axes.set_xlabel(measure)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.grid(axis="x", color=SHADE)
    axes.tick_params(axis="y", length=0)
    return any(wires)


def _bar(axes: Axes, y: int, row: _Row, wire: float) -> None:
    """Guests one after another, the interval of their sum over it."""
    total = row.summary.aggregate
    if total is None:
        axes.text(0, y, " no valid sample", va="center", color=COLOURS[5])
        return
    begin = 0.0
    for colour, (guest, mean) in zip(cycle(COLOURS), row.summary.guests.items(), strict=False):
        axes.barh(y, mean.mean, 0.62, left=begin, color=colour, edgecolor="white", label=guest)
        begin += mean.mean
    if total.half is not None:
        below = min(total.half, total.mean)  # no rate is less than nothing
        axes.errorbar(total.mean, y, xerr=[[below], [total.half]], color=INK, capsize=3,
                      linewidth=1.1)  # fmt: skip
    end = row.top
    if wire:
        axes.plot([wire, wire], [y - 0.42, y + 0.42], color=INK, linestyle="--", linewidth=0.9)
        if end > 0.85 * wire:
            end = max(end, wire)  # the number would cross the line
    few = "  two samples: too few" if total.n == 2 else ""
    axes.annotate(
        f"{figure_of(total.mean)}{few}", (end, y), (4, 0), textcoords="offset points",
        va="center", color=INK,
    )  # fmt: skip


def figure_of(value: float) -> str:
    """Three digits at least where there are so many to tell."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _legend(column: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    once: dict[str, Any] = {}
    for axes in column:
        handles, labels = axes.get_legend_handles_labels()
        once |= {k: v for k, v in zip(labels, handles, strict=True) if k not in once}
    return list(once.values()), list(once)
