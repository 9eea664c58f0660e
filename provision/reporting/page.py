"""The report as one page that needs nothing else: text, tables and the figures within it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from provision import __version__
from provision.measuring.results import Run
from provision.measuring.stats import summarise
from provision.reporting import WORDS, published
from provision.reporting.drawing import Drawing, Group
from provision.reporting.figures import draw
from provision.reporting.words import counted, measured

TEMPLATES = Path(__file__).parent


def figures(folders: Sequence[Path]) -> list[Drawing]:
    """Every figure of these runs."""
    groups = []
    for folder in folders:
        run = Run(folder)
        samples = tuple(run.samples())
        groups.append(Group(run, samples, tuple(summarise(samples))))
    return list(draw(groups))


def page(
    data: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    remarks: Sequence[str],
    drawings: Sequence[Drawing],
) -> str:
    """The HTML. All that comes from outside is escaped; only our own figures are not."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(
        words=WORDS,
        runs=data["runs"],
        measured=[list(measured(run)) if run["samples"] else [] for run in data["runs"]],
        about=counted(data),
        rows=rows,
        remarks=remarks,
        marks=[
            (published.title(found), found, list(published.cells(found)))
            for run in data["runs"]
            if (found := run["published"])
        ],
        drawings=[(d.name, d.caption, Markup(d.svg)) for d in drawings],
        version=__version__,
    )
