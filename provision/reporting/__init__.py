"""From runs' folders to a table, a JSON document and a page. Needs no host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from provision.measuring.compare import Comparison, compare, loss, rates
from provision.measuring.influences import AFTER, BEFORE
from provision.measuring.influences import remarks as remarks_of
from provision.measuring.results import Run, Sample, beside, differences
from provision.measuring.stats import Interval, Summary, reached, summarise
from provision.presets import DOCUMENT as PRESET
from provision.reporting import neighbours, published
from provision.reporting.words import GENERATOR, MBIT, PAYLOAD, counted, grouped, together
from provision.state import put, writing

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = 1
WORDS = ("run", "workload", "valid")  # columns
NONE, DASH = "none", "-"  # no valid sample; nothing that this workload has
OTHERS = "% of a CPU of the host went to neither the guests nor the load generator's programs"
SEVERAL = 2  # workloads, beyond which not all are named


def document(folders: Sequence[Path]) -> dict[str, Any]:
    """All runs as plain data: what was measured, each workload's summary, every sample."""
    runs = [(Run(folder), Run(folder).samples()) for folder in beside(folders)]
    return {
        "format": FORMAT,
        "runs": [_run(run, samples) for run, samples in runs],
        "differ_in": differences(s for _, samples in runs for s in samples),
        "compared": _compared(runs),
    }


def _run(run: Run, samples: Sequence[Sample]) -> dict[str, Any]:
    near = list(neighbours.neighbours(samples))
    return {
        "id": run.id,
        "testbed": run.testbed,
        "folder": str(run.path),
        "subject": asdict(samples[0].subject) if samples else None,
        "workloads": [
            asdict(s) | _extremes(s, samples) | _stopped(run, s, samples)
            for s in summarise(samples)
        ],
        "beside": near,
        "published": published.published(run.document(PRESET), samples, near),
        "gaps": run.gaps(samples),
        "knobs": run.document("host").get("knobs", {}),
        "influences": list(
            remarks_of(run.document(BEFORE), run.document(AFTER), _programs(samples), run.testbed)
        ),
        "samples": [
            {k: v for k, v in asdict(s).items() if k != "subject"}
            | {"valid": s.valid, "aggregate": s.finding.aggregate, "unit": s.finding.unit}
            for s in samples
        ],
    }


def _programs(samples: Sequence[Sample]) -> set[str]:
    """All that the workloads ran on the load generator."""
    notes = {note for s in samples for note in s.notes}
    return {n.removeprefix(GENERATOR) for n in notes if n.startswith(GENERATOR)}


def _extremes(summary: Summary, samples: Sequence[Sample]) -> dict[str, Any]:
    """The worst of the valid samples, and what the invalid ones and the warnings were about."""
    mine = [s for s in samples if s.workload == summary.workload]
    valid = [s.finding for s in mine if s.valid]
    off = [abs(v) for f in valid for v in f.disagreement_percent.values()]
    others = [f"{f.others_percent:.0f} {OTHERS}" for f in valid if f.disturbed]
    warnings = grouped([*(w for f in valid for w in f.warnings), *others])
    if len(valid) == 2:
        warnings.append("two samples are too few for a useful interval")
    return {
        "skew_ms": max((f.skew_ms for f in valid), default=None),
        "disagreement_percent": max(off, default=None),
        "retransmits": sum(f.retransmits or 0 for f in valid),
        "reasons": grouped(r for s in mine for r in s.finding.reasons),
        "others_percent": max(
            (f.others_percent for f in valid if f.others_percent is not None), default=None
        ),
        "warnings": warnings,
        "dom0_percent": _means([f.dom0_percent for f in valid]),
        "irqs_per_s": _means([f.irqs_per_s for f in valid]),
    }


def _stopped(run: Run, summary: Summary, samples: Sequence[Sample]) -> dict[str, Any]:
    """The width that repetitions were to come within, and what they came to; None: none was."""
    within = run.document("spec").get("run", {}).get("within_percent")
    came = reached(s for s in samples if s.workload == summary.workload)
    return {"within_percent": within, "reached_percent": came}


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    """By CPU; nothing where samples know of different numbers of CPUs."""
    same = len({len(row) for row in rows}) == 1
    return [sum(values) / len(values) for values in zip(*rows, strict=True)] if same else []


def spread(found: Interval | None) -> str:
    """A mean with its interval in words."""
    if found is None:
        return NONE
    digits = 1 if found.mean < 1000 else 0
    half = "" if found.half is None else f" ± {found.half:,.{digits}f}"
    return f"{found.mean:,.{digits}f}{half}"


def rows(folders: Sequence[Path]) -> list[dict[str, str]]:
    """The summary table's cells, by column; runs of one workload stand side by side."""
    groups = [(Run(f).id, Run(f).samples()) for f in beside(folders)]
    ratio = "of native" if _is_native(groups[0][1]) else "ratio"
    found = [(id_, s, samples) for id_, samples in groups for s in summarise(samples)]
    names = list(dict.fromkeys(s.workload for _, s, _ in found))
    numbers = {id_: n for n, (id_, _) in enumerate(groups, 1)}
    several = any(s.subject.nics_each > 1 for _, samples in groups for s in samples)
    units = list(dict.fromkeys(s.unit for _, s, _ in found if s.unit != MBIT))
    cells = []
    for name in names:
        mine = [entry for entry in found if entry[1].workload == name]
        first = rates(mine[0][2], name)
        for id_, summary, samples in mine:
            row = {"run": str(numbers[id_])} if len(groups) > 1 else {}
            cells.append(row | _cells(summary, samples, units, several))
            if len(groups) > 1:
                own = samples is mine[0][2]
                cells[-1][ratio] = "1" if own else _ratio(compare(first, rates(samples, name)))
    for column in ("offered", "p50 µs", "p99 µs", "lost %", "CPU %/Mbit"):
        if all(row[column] == DASH for row in cells):
            for row in cells:
                del row[column]
    return cells


def _is_native(samples: Sequence[Sample]) -> bool:
    return bool(samples) and samples[0].subject.hypervisor == "native"


def _others(summary: Summary, units: Sequence[str]) -> dict[str, Interval | None]:
    """The columns that only some workloads have, by their heading."""
    return {
        "offered": summary.offered_mbit,
        **{unit: summary.aggregate if unit == summary.unit else None for unit in units},
        "p50 µs": summary.p50_us,
        "p99 µs": summary.p99_us,
        "lost %": summary.lost_percent,
    }


def _ratio(found: Comparison | None) -> str:
    if found is None:
        return DASH
    if found.low is None or found.high is None:
        return f"{found.ratio:.2f}"
    return f"{found.ratio:.2f} ({found.low:.2f} to {found.high:.2f})"


def _compared(runs: Sequence[tuple[Run, Sequence[Sample]]]) -> list[dict[str, Any]]:
    """Every later run against the first, workload by workload."""
    return [
        {"run": number, "workload": name, "words": one.words(), "loss_percent": one.loss_percent}
        | asdict(one)
        for number, (_, samples) in enumerate(runs[1:], 2)
        for name, one in loss(runs[0][1], samples).items()
    ]


def _cells(
    summary: Summary, samples: Sequence[Sample], units: Sequence[str], several: bool
) -> dict[str, str]:
    """A row; ``several``: a guest of any of the runs has more than one NIC."""
    worst = _extremes(summary, samples)
    valid = summary.taken - summary.invalid
    redone = f", {summary.redone} redone" if summary.redone else ""
    cost = summary.host_percent_per_mbit

    def shown(value: float | None, form: str) -> str:
        return DASH if value is None else format(value, form)

    def reach(found: tuple[float, float] | None) -> str:
        if found is None:
            return DASH
        digits = 0 if found[1] >= 10 else 1  # "1 to 1" would tell nothing
        return f"{found[0]:,.{digits}f} to {found[1]:,.{digits}f}"

    return {
        "workload": summary.workload,
        MBIT: spread(summary.aggregate_mbit),
        **{k: spread(v) if v else DASH for k, v in _others(summary, units).items()},
        "per guest": reach(summary.guests_range),
        **({"per NIC": reach(summary.links_range)} if several else {}),
        "Jain (least)": DASH
        if summary.jain is None
        else f"{summary.jain:.3f} ({shown(summary.jain_least, '.3f')})",
        "skew ms": shown(worst["skew_ms"], ".0f"),
        "NICs %": shown(worst["disagreement_percent"], ".2f"),
        "CPU %": shown(summary.host_percent.mean if summary.host_percent else None, ".0f"),
        "CPU %/Mbit": format(cost.mean, ".3f") if cost else DASH,
        "valid": f"{valid} of {summary.taken}{redone}",
    }


def remarks(data: dict[str, Any]) -> list[str]:
    """What a reader must know beside the figures; runs are told by their number in the table."""
    many = len(data["runs"]) > 1
    found = [f"run {n} is {run['id']}" for n, run in enumerate(data["runs"], 1) if many]
    found += [f"the runs differ in {words}" for words in data["differ_in"]]
    found += [
        f"{one['workload']}: run {one['run']} against run 1: {one['words']}"
        for one in data["compared"]
    ]
    for n, run in enumerate(data["runs"], 1):
        where = f"run {n}: " if many else ""
        if not run["samples"]:
            found.append(f"{where}no sample was taken")
        found += [f"{where}{words}" for words in run["gaps"] + run["influences"]]
        found += [f"{where}{words}" for words in neighbours.words(run["beside"])]
        said = [(w["workload"], words) for w in run["workloads"] for words in _said(w)]
        for names, words in together(said):
            every = len(names) == len(run["workloads"]) > SEVERAL
            found.append(f"{where}{'all workloads' if every else ', '.join(names)}: {words}")
    return found


def _said(workload: dict[str, Any]) -> Iterator[str]:
    """What there is to say of one workload."""
    yield from (f"invalid: {words}" for words in workload["reasons"])
    yield from workload["warnings"]
    yield from _dom0(workload)
    yield from _width(workload)


def _width(workload: dict[str, Any]) -> Iterator[str]:
    """Where a width was asked and not reached."""
    within, came = workload["within_percent"], workload["reached_percent"]
    if within is not None and (came is None or came > within):
        have = "there is no interval" if came is None else f"the interval is ±{came:.1f} %"
        tries = workload["taken"] - workload["redone"]
        yield f"{have} after {tries} repetitions; ±{within:g} % was asked"


def _dom0(workload: dict[str, Any]) -> Iterator[str]:
    """What dom0 did meanwhile, where there is one."""
    if busy := workload["dom0_percent"]:
        by_vcpu = ", ".join(f"{percent:.0f}" for percent in busy)
        yield f"dom0 was {by_vcpu} % busy, by vCPU"
        if irqs := workload["irqs_per_s"]:
            yield f"dom0's CPUs served {', '.join(f'{n:,.0f}' for n in irqs)} interrupts a second"


def terminal(folders: Sequence[Path]) -> None:
    """The table and the remarks on standard output; wide tables are never cut."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    console = Console(highlight=False)
    data, cells = document(folders), rows(folders)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in cells[0] if cells else ():
        side: Literal["left", "right"] = "left" if column in WORDS else "right"
        table.add_column(column, justify=side, no_wrap=True)
    for row in cells:
        table.add_row(*row.values())
    needed = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.width = max(console.width, needed)
    if cells:
        console.print(table)
    for run in data["runs"]:
        if run["published"]:
            _marks(console, run["published"])
    units = [words for words in counted(data) if words != PAYLOAD]
    for words in (*units, *remarks(data)):
        console.print(f"- {words}", markup=False, soft_wrap=True)


def _marks(console: Console, found: dict[str, Any]) -> None:
    """What was published, beside ours."""
    from rich.table import Table

    console.print(f"\n{published.title(found)}", markup=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in published.COLUMNS:
        table.add_column(column)
    for row in published.cells(found):
        table.add_row(*row.values())
    console.print(table)
    for words in (found["summary"], *found["remarks"]):
        console.print(f"- {words}", markup=False, soft_wrap=True)
    console.print()


def write(folders: Sequence[Path]) -> Path:
    """Write page, document and figures into the last run's folder; the page's path.

    Several runs side by side get names of their own there, so that its own report stays. Raises
    WorkloadError where the disk does not take it.
    """
    from provision.reporting import page as report_html

    home = folders[-1]
    name = "report" if len(folders) == 1 else "compared"
    data = document(folders)
    drawings = report_html.figures(beside(folders))
    page = home / f"{name}.html"
    text = report_html.page(data, rows(folders), remarks(data), drawings)
    figures = home / ("figures" if len(folders) == 1 else "figures-compared")
    with writing(figures):
        figures.mkdir(exist_ok=True)
    put(home / f"{name}.json", json.dumps(data, indent=1) + "\n")
    for drawing in drawings:
        drawing.save(figures)
    put(page, text)
    return page
