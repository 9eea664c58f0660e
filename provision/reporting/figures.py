"""The figures of a report: throughput, what happened over time, and CPU. Imported lazily."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from provision.errors import WorkloadError
from provision.measuring.capture import Capture, Stream, load
from provision.measuring.results import Run, Sample
from provision.measuring.stats import Summary, interval
from provision.measuring.workloads import read

#: told apart by those who do not see all colours too (Okabe, Ito 2008)
COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#d55e00", "#f0e442", "#999999")
INK, FAINT, SHADE = "#1f2933", "#9aa5b1", "#eef4fb"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "provision",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
LOOKS = 3  # at a counter, between two steps
MOST_GUESTS = len(COLOURS)  # named one by one; beyond that they cannot be told apart


@dataclass(frozen=True, slots=True)
class Group:
    """A run with its samples and summaries, as the figures and tables need them."""

    run: Run
    samples: tuple[Sample, ...]
    summaries: tuple[Summary, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished figure: its name, what it shows in words, and both renderings."""

    name: str
    caption: str
    svg: str
    png: bytes

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / f"{self.name}.svg").write_text(self.svg)
        (folder / f"{self.name}.png").write_bytes(self.png)


def draw(groups: Sequence[Group]) -> Iterator[Drawing]:
    """All figures; those over time need the raw output, and are left out where it is gone."""
    with mpl.rc_context(STYLE):
        if any(s.aggregate_mbit for g in groups for s in g.summaries):
            yield _throughput(groups)
        for number, group in enumerate(groups, 1):
            prefix = f"{number}-" if len(groups) > 1 else ""
            for sample in _shown(group):
                try:
                    capture = load(
                        group.run.path / sample.raw / "streams.json", partial(read, sample.workload)
                    )
                except WorkloadError:
                    continue
                if any(_steps(s)[1] for s in capture.streams):
                    yield _series(f"{prefix}{sample.workload}", group, sample, capture)
            if any(s.finding.host_percent for s in group.samples if s.valid):
                yield _cpu(f"{prefix}cpu", group)


def _shown(group: Group) -> Iterator[Sample]:
    """Of each workload the last valid sample, or the last there is."""
    for summary in group.summaries:
        mine = [s for s in group.samples if s.workload == summary.workload]
        yield ([s for s in mine if s.valid] or mine)[-1]


def _finish(figure: Figure, name: str, caption: str) -> Drawing:
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
    figure.savefig(png, format="png", bbox_inches="tight", dpi=150)
    text = svg.getvalue()
    return Drawing(name, caption, text[text.index("<svg") :], png.getvalue())


def _colours(count: int) -> list[str]:
    return list(islice(cycle(COLOURS), count))


def _throughput(groups: Sequence[Group]) -> Drawing:
    names = list(dict.fromkeys(s.workload for g in groups for s in g.summaries))
    columns = [
        (name, g, s) for name in names for g in groups for s in g.summaries if s.workload == name
    ]
    figure = Figure(figsize=(max(4.5, 1.6 + 1.1 * len(columns)), 3.6))
    axes = figure.add_subplot()
    for x, (_, group, summary) in enumerate(columns):
        _stack(axes, x, group, summary)
    axes.set_xticks(range(len(columns)), [_tick(groups, *column) for column in columns])
    axes.set_xlim(-0.7, len(columns) - 0.3)
    axes.set_ylabel("Mbit/s of payload")
    axes.margins(y=0.12)
    axes.grid(axis="y", color=SHADE)
    guests = list(dict.fromkeys(g for _, _, s in columns for g in s.guests_mbit))
    if len(guests) <= MOST_GUESTS:
        axes.legend(*_legend(axes), loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
    return _finish(
        figure,
        "throughput",
        "Mean aggregate of the valid samples, stacked by guest, with its 95 % t-interval"
        + ("; dashed: the wire speed of all links." if _wires(groups) else "."),
    )


def _tick(groups: Sequence[Group], name: str, group: Group, summary: Summary) -> str:
    words = [name, f"run {groups.index(group) + 1}"] if len(groups) > 1 else [name]
    total = summary.aggregate_mbit
    if total is not None and total.n == 2:
        words.append("two samples:\ntoo few")
    return "\n".join(words)


def _legend(axes: Axes) -> tuple[list[Any], list[str]]:
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    return list(once.values()), list(once)


def _wires(groups: Sequence[Group]) -> bool:
    return any(s.subject.wire_mbit for g in groups for s in g.samples)


def _stack(axes: Axes, x: int, group: Group, summary: Summary) -> None:
    """One bar: guests on top of each other, the interval of their sum over it."""
    floor = 0.0
    for colour, (guest, mean) in zip(cycle(COLOURS), summary.guests_mbit.items(), strict=False):
        axes.bar(x, mean.mean, 0.6, bottom=floor, color=colour, edgecolor="white", label=guest)
        floor += mean.mean
    total = summary.aggregate_mbit
    if total is None:
        axes.text(x, 0, "no valid\nsample", ha="center", va="bottom", color=COLOURS[5])
        return
    if total.half is not None:
        below = min(total.half, total.mean)  # no rate is less than nothing
        axes.errorbar(x, total.mean, [[below], [total.half]], color=INK, capsize=4, linewidth=1.2)
    top = total.mean + (total.half or 0)
    subject = group.samples[0].subject
    if subject.wire_mbit:
        wire = subject.wire_mbit * subject.guests * subject.nics_each
        axes.plot([x - 0.36, x + 0.36], [wire, wire], color=INK, linestyle="--", linewidth=0.9)
        if top > 0.9 * wire:
            top = max(top, wire)  # the number would cross the line
    axes.annotate(
        f"{total.mean:,.0f}", (x, top), (0, 4), textcoords="offset points", ha="center", color=INK
    )


def _steps(stream: Stream) -> tuple[list[float], list[float]]:
    """Moments and the rates between them; nothing where the program tells no parts of its run."""
    if count := stream.counter:
        at = list(count.at_s[::LOOKS])
        return at, [count.rate(*ends) or 0.0 for ends in pairwise(at)]
    interims = stream.output.interims
    if not interims:
        return [], []
    return [interims[0].begin_s, *(i.end_s for i in interims)], [i.rate for i in interims]


def _series(name: str, group: Group, sample: Sample, capture: Capture) -> Drawing:
    figure = Figure(figsize=(7.5, 3.0))
    axes = figure.add_subplot()
    finding = sample.finding
    zero = finding.begin_s
    axes.axvspan(0, finding.window_s, color=SHADE, label="common window")
    few = len(capture.streams) <= MOST_GUESTS
    for colour, stream in zip(_colours(len(capture.streams)), capture.streams, strict=True):
        edges, rates = _steps(stream)
        if rates:
            axes.stairs(rates, [at_s - zero for at_s in edges], color=colour, linewidth=1.1,
                        baseline=None, label=stream.pair if few else None)  # fmt: skip
    axes.set_xlabel("seconds since the common window opened")
    axes.set_ylabel("Mbit/s of payload" if finding.unit == "Mbit/s" else finding.unit)
    axes.margins(x=0.02, y=0.1)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=SHADE)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    verdict = "valid" if sample.valid else "INVALID"
    return _finish(
        figure,
        name,
        f"{sample.workload}, repetition {sample.repetition} ({verdict}): the rate of each stream, "
        f"by its program's interim results or its server's count; only the shaded window of "
        f"{finding.window_s:g} s counts. The streams began {finding.skew_ms:.0f} ms apart.",
    )


def _cpu(name: str, group: Group) -> Drawing:
    panels = [(s.workload, rows) for s in group.summaries if (rows := _busy(group, s))]
    height = 0.8 + 0.24 * max(len(rows) for _, rows in panels)
    figure = Figure(figsize=(1.2 + 3.1 * len(panels), height))
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
    for axes, (workload, rows) in zip(grid[0], panels, strict=True):
        axes.barh(range(len(rows)), [v for _, v, _ in rows], 0.7, color=[c for _, _, c in rows])
        for y, (_, value, _) in enumerate(rows):
            axes.text(value, y, f" {value:.0f}", va="center", color=INK)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.set_title(workload)
        axes.margins(x=0.15)
        axes.set_xlabel("% of one CPU")
        axes.grid(axis="x", color=SHADE)
    grid[0][0].invert_yaxis()
    return _finish(
        figure,
        name,
        "CPU over the common windows, mean of the valid samples: each CPU of the host and each "
        "guest by the hypervisor's own accounts, all netperf clients of the load generator, and "
        "what the host did for neither.",
    )


def _busy(group: Group, summary: Summary) -> list[tuple[str, float, str]]:
    """Rows of the CPU figure: label, per cent, colour."""
    valid = [s.finding for s in group.samples if s.workload == summary.workload and s.valid]
    found = [f for f in valid if f.host_percent]
    if not found:
        return []

    def mean(values: Sequence[float]) -> float:
        return interval(values).mean

    rows = [(f"host CPU {n}", mean([f.host_percent[n] for f in found]), COLOURS[0])
            for n in range(len(found[0].host_percent))]  # fmt: skip
    rows += [(guest, mean([f.guest_percent.get(guest, 0.0) for f in found]), COLOURS[2])
             for guest in found[0].guest_percent]  # fmt: skip
    clients = [f.clients_percent for f in valid if f.clients_percent is not None]
    if clients:
        rows.append(("netperf clients", mean(clients), COLOURS[3]))
    others = [f.others_percent for f in valid if f.others_percent is not None]
    if others:
        rows.append(("all else", mean(others), COLOURS[7]))
    return rows
