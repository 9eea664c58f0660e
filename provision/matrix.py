"""Every driver beside every other: what can be had where, why not, and what restarts the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from provision import registry
from provision.capabilities import (
    CHECKPOINT,
    MANAGEMENT,
    MODEL,
    NICS,
    OS,
    SWITCH,
    Can,
    Capabilities,
)
from provision.errors import PreflightError

#: the spec's paths that drivers answer differently, by the table's sections
PATHS: Mapping[str, tuple[str, ...]] = {
    "Guests": (
        "guests.cpu.pin",
        "guests.cpu.weight",
        "guests.cpu.cap_percent",
        "guests.cpu.reserve_percent",
        "guests.cpu.emulator_pin",
        "guests.memory_reserve_mib",
        "guests.latency",
        "guests.nic.rate_mbit",
        f"{OS}=windows",
        CHECKPOINT,
    ),
    "dom0, or the host itself": (
        "dom0.vcpus",
        "dom0.pin",
        "dom0.weight",
        "dom0.cap_percent",
        "dom0.memory_mib",
        "dom0.irq_affinity",
    ),
}
HARDWARE = ("sriov", "passthrough")  # models that are hardware, asked after of everybody
LABELS = {
    CHECKPOINT: "a checkpoint, for `reset --level revert`",
    MANAGEMENT: "makes the management network itself",
    NICS: "NICs in one guest, at most",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line: ``path`` is the spec's, ``value`` one value of it, ``cells`` are by driver."""

    section: str
    path: str
    value: str
    cells: Mapping[str, Can]

    @property
    def label(self) -> str:
        from provision.spec.words import path as written

        at = f"{self.path}: {self.value}" if self.value else self.path
        return LABELS.get(self.path) or f"`{at if self.value else written(self.path)}`"


@dataclass(frozen=True, slots=True)
class Matrix:
    """``lacks`` says why a driver has no column; ``nics`` is how many vNICs a guest may have."""

    drivers: tuple[str, ...]
    rows: tuple[Row, ...]
    nics: Mapping[str, int]
    lacks: Mapping[str, str]


def matrix(names: Iterable[str] | None = None) -> Matrix:
    """All drivers that are found, or some; no host is asked."""
    found: dict[str, Capabilities] = {}
    lacks: dict[str, str] = {}
    for name in registry.known() if names is None else names:
        try:
            capabilities = getattr(registry.find(name), "capabilities", None)
        except PreflightError as e:
            lacks[name] = f"{e}; {e.hint}"
            continue
        if capabilities is None:
            lacks[name] = "the driver does not say what it can do"
        elif names is not None or not capabilities.imagined:
            found[name] = capabilities
    nics = {name: each.most_nics for name, each in found.items()}
    return Matrix(tuple(found), tuple(_rows(found)), nics, lacks)


def _rows(found: Mapping[str, Capabilities]) -> Iterator[Row]:
    def row(section: str, path: str, value: str = "") -> Row:
        return Row(section, path, value, {n: each.can(path, value) for n, each in found.items()})

    models = dict.fromkeys(m for each in found.values() for m in sorted(each.nic_models))
    for model in dict.fromkeys([*(m for m in models if m not in HARDWARE), *HARDWARE]):
        yield row("vNIC models", MODEL, model)
    switches = dict.fromkeys(s for each in found.values() for s in each.switches)
    for switch in switches:
        yield row("Switches (dom0's network backend)", SWITCH, switch)
    for section, paths in PATHS.items():
        for path in paths:
            yield row(section, *path.split("="))
    yield row("Access", MANAGEMENT)


def words(can: Can, notes: list[str]) -> str:
    """A cell, with the number of its note, which is added where it is new."""
    if not can.words:
        return str(can.answer)
    if can.words not in notes:
        notes.append(can.words)
    return f"{can.answer} [{notes.index(can.words) + 1}]"


def plain(found: Matrix) -> dict[str, Any]:
    """As plain data for JSON."""
    return {
        "drivers": list(found.drivers),
        "rows": [
            {
                "section": row.section,
                "path": row.path,
                "value": row.value,
                "cells": {
                    n: {"answer": str(c.answer), "words": c.words} for n, c in row.cells.items()
                },
            }
            for row in found.rows
        ],
        "most_nics": dict(found.nics),
        "lacks": dict(found.lacks),
    }


def cells(found: Matrix, notes: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The table's lines: (section, label and cells); ``notes`` is filled."""
    for row in found.rows:
        yield row.section, [row.label, *(words(can, notes) for can in row.cells.values())]
    yield "Access", [LABELS[NICS], *(str(n) for n in found.nics.values())]


def terminal(found: Matrix) -> Iterator[str]:
    """Lines of columns; sections have a line of their own."""
    notes: list[str] = []
    lines = [(section, [c.replace("`", "") for c in row]) for section, row in cells(found, notes)]
    head = ["", *found.drivers]
    widths = [max(len(row[i]) for row in (head, *(r for _, r in lines))) for i in range(len(head))]

    def line(row: list[str]) -> str:
        return "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()

    yield line(head)
    before = ""
    for section, row in lines:
        if section != before:
            yield section
        before = section
        yield line(row)
    yield from (f"[{n}] {note}" for n, note in enumerate(notes, 1))
    yield from (f"{name}: no column: {why}" for name, why in found.lacks.items())


def markdown(found: Matrix) -> Iterator[str]:
    """The page's lines: a table a section, then the notes."""
    notes: list[str] = []
    before = ""
    for section, row in cells(found, notes):
        if section != before:
            yield from ("", f"## {section}", "", f"| | {' | '.join(found.drivers)} |")
            yield f"| --- |{' --- |' * len(found.drivers)}"
        before = section
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield from ("", "## Notes", "")
    yield from (f"{n}. {note}" for n, note in enumerate(notes, 1))


PAGE = """\
<!-- Written by `provision doctor --matrix --markdown > docs/matrix.md`; not by hand. -->

# What can be had where

From what the drivers say of themselves, without any host: *yes*, *no* and why, or *needs reboot*,
which is a restart of the hypervisor's host by `up --yes`, undone by `down --yes`. A note after
*yes* is what the host must have for it; `provision doctor` says whether it has. What is *no* is
refused by `plan`, before anything is touched."""


def page(found: Matrix) -> str:
    """docs/matrix.md, whole."""
    return "\n".join([PAGE, *markdown(found)]) + "\n"
