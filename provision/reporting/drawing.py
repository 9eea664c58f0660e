"""A figure: its colours, and what it comes to. Imported lazily, for matplotlib is slow to load."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from provision.measuring.results import Run, Sample
from provision.measuring.stats import Summary
from provision.state import put

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
MOST_GUESTS = len(COLOURS)  # named one by one; beyond that they cannot be told apart
MOST_ROWS = 40  # of one picture, that it fits a page
ROW_IN = 0.3  # inches


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
        """Into a folder that is there; raises WorkloadError where the disk does not take it."""
        put(folder / f"{self.name}.svg", self.svg)
        put(folder / f"{self.name}.png", self.png)


def finished(figure: Figure, name: str, caption: str) -> Drawing:
    """Both renderings; the same figure is the same every time."""
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
    figure.savefig(png, format="png", bbox_inches="tight", dpi=150)
    text = svg.getvalue()
    return Drawing(name, caption, text[text.index("<svg") :], png.getvalue())


def part(name: str, number: int, of: int) -> tuple[str, str]:
    """The name of one picture of several, and what its caption says of that; both from 1."""
    if of == 1:
        return name, ""
    return (name if number == 1 else f"{name}-{number}"), f" Part {number} of {of}."
