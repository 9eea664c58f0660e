"""A user's own workload, described in a file of its own; every fault is told in its place."""

from __future__ import annotations

import hashlib
import pathlib
import re
import string
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, model_validator

from provision.errors import SpecError
from provision.measuring.workloads import meant
from provision.measuring.workloads.own import MEGABIT, Own
from provision.spec import words as specwords
from provision.spec import yamltext as yamlread
from provision.spec.faults import Fault, faults_error, show
from provision.spec.file import Told
from provision.spec.section import Section
from provision.spec.types import Shape, Text

PLACES = ("server", "local", "control_port", "data_port", "nic", "seconds", "folder", "pair")
GENERATOR = "load_generator.yml"


def _role(value: str, info: ValidationInfo) -> str:
    folder: pathlib.Path = (info.context or {})["folder"]
    path = folder.absolute() / value
    if not (path / "tasks" / "main.yml").is_file():
        raise ValueError(f"no role there: {show(value)}; it is the folder that has tasks/main.yml")
    return str(path.resolve())


def _pattern(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as e:
        raise ValueError(f"is no regular expression: {e}") from None
    if groups != 1:
        raise ValueError(f"should have one group, which is the figure, not {groups}")
    return value


def _places(value: str) -> str:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(value) if name is not None]
    except ValueError as e:
        raise ValueError(f"{e}; a brace of its own is written twice") from None
    if wrong := [n for n in names if n not in PLACES]:
        places = ", ".join(f"{{{p}}}" for p in PLACES)
        raise ValueError(f"there is no place {{{wrong[0]}}}; there are {places}")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Word = Annotated[str, AfterValidator(_places)]


class Described(Section):
    """What a user writes."""

    name: Annotated[str, Shape("[a-z][a-z0-9-]{0,29}", "a small letter, then a-z 0-9 -")]
    role: Annotated[str, AfterValidator(_role)]
    program: tuple[Word, ...] = Field(min_length=1)
    version: tuple[str, ...] = ()
    figure: Pattern
    unit: Text = MEGABIT
    scale: float = Field(default=1.0, gt=0)
    direction: Literal["send", "receive", "both"] = "both"
    compare: bool = False
    asks: Literal["control_port", "data_port"] | None = None
    latency_us: dict[str, Pattern] = Field(default_factory=dict)
    summary: Text = "a workload of the user's own"

    @model_validator(mode="after")
    def _together(self) -> Described:
        if self.compare and (self.unit != MEGABIT or self.direction == "both"):
            what = f"only {MEGABIT} of one direction can be compared with the NIC's counters"
            raise faults_error([Fault(what, (("compare",), ("unit",), ("direction",)))])
        return self


def load(path: pathlib.Path) -> Own:
    """The workload in a file; paths in it are relative to its folder. Raises SpecError."""
    try:
        with path.open("rb") as file:
            document = yamlread.read(file.read(yamlread.MAX_BYTES + 1))
    except OSError as e:
        what = f"{path}: {e.strerror}{meant(path.name)}"
        raise SpecError([what], hint="docs/workloads/own.md") from e
    told = Told(document, str(path))
    if document.whole:
        try:
            found = Described.model_validate(document.data, context={"folder": path.parent})
        except ValidationError as e:
            for fault in specwords.faults(e):
                told.fault(fault)
    if told.problems:
        raise SpecError([text for *_, text in sorted(told.problems)], hint="docs/workloads/own.md")
    return Own(
        name=found.name, direction=found.direction, summary=found.summary, role=found.role,
        generator=(pathlib.Path(found.role) / "tasks" / GENERATOR).is_file(),
        program=found.program, version=found.version, figure=found.figure, unit=found.unit,
        scale=found.scale, compare=found.compare, asks=found.asks or "",
        latency_us=tuple(found.latency_us.items()),
    )  # fmt: skip


def digest(workload: Own) -> str:
    """What tells two descriptions under one name apart, the role's place aside."""
    said = [workload.program, workload.figure, workload.unit, workload.scale, workload.direction]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:12]
