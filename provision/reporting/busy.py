"""Where the CPU time went, workload by workload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from provision.measuring.stats import Summary, interval
from provision.reporting.drawing import (
    COLOURS,
    INK,
    MOST_ROWS,
    ROW_IN,
    SHADE,
    Drawing,
    Group,
    finished,
    part,
)

MOST_PANELS = 3  # side by side; more workloads are lines of a table
MOST_COLUMNS = 12  # of one sort in that table; of more the mean and the most
CAPTION = (
    "CPU over the common windows in per cent of one CPU, mean of the valid samples: each CPU of "
    "the host, each guest by the hypervisor's own accounts, the programs of the load generator, "
    "and what the host did beside."
)


@dataclass(frozen=True, slots=True)
class _Part:
    """What had some CPU: ``sort`` is what it is one of, such as the host's CPUs."""

    sort: str
    label: str
    percent: float
    colour: str


def cpu(name: str, which: str, group: Group) -> Iterator[Drawing]:
    """Bars of few workloads, a table of many; ``which`` begins the captions."""
    found = [(s.workload, parts) for s in group.summaries if (parts := list(_parts(group, s)))]
    if len(found) <= MOST_PANELS:
        yield _bars(name, f"{which}{CAPTION}", found)
        return
    pages = [found[n : n + MOST_ROWS] for n in range(0, len(found), MOST_ROWS)]
    for number, page in enumerate(pages, 1):
        called, said = part(name, number, len(pages))
        lines = [(workload, _condensed(parts)) for workload, parts in page]
        yield _table(called, f"{which}{CAPTION}{said}", lines)


def _parts(group: Group, summary: Summary) -> Iterator[_Part]:
    valid = [s.finding for s in group.samples if s.workload == summary.workload and s.valid]
    found = [f for f in valid if f.host_percent]
    if not found:
        return

    def mean(values: Sequence[float]) -> float:
        return interval(values).mean

    for n in range(len(found[0].host_percent)):
        busy = mean([f.host_percent[n] for f in found])
        yield _Part("host CPU", f"host CPU {n}", busy, COLOURS[0])
    for guest in found[0].guest_percent:
        busy = mean([f.guest_percent.get(guest, 0.0) for f in found])
        yield _Part("guest", guest, busy, COLOURS[2])
    if clients := [f.clients_percent for f in valid if f.clients_percent is not None]:
        yield _Part("", "load generator", mean(clients), COLOURS[3])
    if others := [f.others_percent for f in valid if f.others_percent is not None]:
        yield _Part("", "all else", mean(others), COLOURS[7])


def _condensed(parts: Sequence[_Part]) -> list[_Part]:
    """Of a sort that has many: the mean of all, and the most of any."""
    found: list[_Part] = []
    for sort in dict.fromkeys(p.sort for p in parts):
        mine = [p for p in parts if p.sort == sort]
        if sort and len(mine) > MOST_COLUMNS:
            busy, colour = [p.percent for p in mine], mine[0].colour
            found.append(_Part(sort, f"{sort}s, mean", sum(busy) / len(busy), colour))
            found.append(_Part(sort, f"{sort}s, most", max(busy), colour))
        else:
            found += mine
    return found


def _bars(name: str, caption: str, panels: Sequence[tuple[str, Sequence[_Part]]]) -> Drawing:
    height = 0.8 + 0.24 * max(len(parts) for _, parts in panels)
    figure = Figure(figsize=(1.2 + 3.1 * len(panels), height))
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
    for axes, (workload, parts) in zip(grid[0], panels, strict=True):
        axes.barh(range(len(parts)), [p.percent for p in parts], 0.7,
                  color=[p.colour for p in parts])  # fmt: skip
        for y, one in enumerate(parts):
            axes.text(one.percent, y, f" {one.percent:.0f}", va="center", color=INK)
        axes.set_yticks(range(len(parts)), [p.label for p in parts])
        axes.set_title(workload)
        axes.margins(x=0.15)
        axes.set_xlabel("% of one CPU")
        axes.grid(axis="x", color=SHADE)
    grid[0][0].invert_yaxis()
    return finished(figure, name, caption)


def _table(name: str, caption: str, lines: Sequence[tuple[str, Sequence[_Part]]]) -> Drawing:
    """Darker is busier."""
    columns = list(dict.fromkeys(p.label for _, parts in lines for p in parts))
    cells = [{p.label: p.percent for p in parts} for _, parts in lines]
    busy = [[row.get(column, float("nan")) for column in columns] for row in cells]
    most = max(100.0, *(value for row in cells for value in row.values()))
    figure = Figure(figsize=(0.62 * len(columns) + 0.5, ROW_IN * len(lines) + 0.9))
    axes = figure.add_subplot()
    shades = LinearSegmentedColormap.from_list("busy", ["#ffffff", COLOURS[0]])
    axes.imshow(busy, cmap=shades, vmin=0, vmax=most, aspect="auto")
    for y, row in enumerate(cells):
        for x, column in enumerate(columns):
            if (value := row.get(column)) is not None:
                colour = "white" if value > 0.6 * most else INK
                axes.text(x, y, f"{value:.0f}", ha="center", va="center", color=colour)
    axes.set_yticks(range(len(lines)), [workload for workload, _ in lines])
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return finished(figure, name, caption)
