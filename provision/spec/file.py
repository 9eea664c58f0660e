"""A spec's text, flags and ``--set``s -> Spec, with every fault at once and in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from provision.errors import SpecError
from provision.spec import Spec, describe
from provision.spec import words as specwords
from provision.spec import yamltext as yamlread
from provision.spec.faults import Fault, Loc, show
from provision.spec.section import Section

HINT = "provision init writes a spec with every field explained"
Flags = Mapping[str, tuple[str, object]]


def load(
    path: Path | None, overrides: Sequence[tuple[str, str]] = (), flags: Flags | None = None
) -> Spec:
    """The spec in a file; None is an empty one. See ``loads``."""
    if path is None:
        return loads("", "spec", overrides, flags)
    try:
        with path.open("rb") as file:
            raw = file.read(yamlread.MAX_BYTES + 1)
    except OSError as e:
        raise SpecError([f"{path}: {e.strerror}"], hint="provision init") from e
    return loads(raw, str(path), overrides, flags, path.parent)


def loads(
    content: str | bytes,
    source: str,
    overrides: Sequence[tuple[str, str]] = (),
    flags: Flags | None = None,
    folder: Path = Path(),
) -> Spec:
    """The spec in a text that came from ``source``; paths in it are relative to ``folder``.

    ``flags`` maps a field's dotted path to the flag's name and value; ``overrides`` are the path
    and the YAML text of each ``--set``, and come after the flags. Raises SpecError.
    """
    told = Told(yamlread.read(content), source)
    if not told.document.whole:
        raise told.error()
    data = told.document.data
    for path, (flag, value) in (flags or {}).items():
        data = told.override(data, path, flag, value)
    for path, value_text in overrides:
        origin = f"--set {_dotted(tuple(path.split('.')))}"
        data = told.override(data, path, origin, told.value(origin, value_text))
    try:
        spec = Spec.model_validate(data, by_name=False, context={"folder": folder})
    except ValidationError as e:
        for fault in (*specwords.faults(e), *_hidden(data, e)):
            told.fault(fault)
    if told.problems:
        raise told.error()
    return spec


def text(spec: Spec) -> str:
    """The whole spec as YAML, every field said; ``loads`` gives an equal one."""
    return yamlread.write(_said(spec, describe(spec)))


def _said(model: BaseModel, data: dict[str, Any]) -> dict[str, Any]:
    """The data of a model, under the names that YAML has."""
    return {
        specwords.name(type(model), attribute): _said(inner, value)
        if isinstance(inner := getattr(model, attribute), BaseModel)
        else value
        for attribute, value in data.items()
    }


def template() -> str:
    """A spec with every field at its default and a comment on each."""
    return (Path(__file__).with_name("provision.yml")).read_text("utf-8")


@dataclass(frozen=True, slots=True)
class _Override:
    """``origin`` is what the user typed to set the field at ``loc``."""

    loc: Loc
    origin: str


class Told:
    """What the user said and where; what is wrong with it."""

    def __init__(self, document: yamlread.Document, source: str) -> None:
        self.document = document
        self.source = source
        self.overrides: list[_Override] = []
        #: (file before flags, line, column, text)
        self.problems: set[tuple[int, int, int, str]] = set()
        for index, loc, what in document.problems:
            self.at_index(index, loc, what)

    def error(self) -> SpecError:
        return SpecError([text for *_, text in sorted(self.problems)], hint=HINT)

    def value(self, origin: str, text: str) -> object:
        """A value given as YAML on the command line."""
        document = yamlread.read(text)
        for _, _, what in document.problems:
            self.at_override(len(self.overrides), origin, what)
        return document.data

    def override(self, data: object, path: str, origin: str, value: object) -> object:
        """``data`` with a field set; the data given stays as it is."""
        loc = tuple(path.split("."))
        try:
            data = _with(data, loc, value, Spec)
        except _NotASection as e:
            self.at_override(len(self.overrides), origin, str(e))
            return data
        places = self.document.places
        for gone in [p for p in places if p[: len(loc)] == loc]:
            del places[gone]
        self.overrides.append(_Override(loc, origin))
        return data

    def fault(self, fault: Fault) -> None:
        """Pointed at the first field that was given, else at what is nearest to one."""
        loc = next((at for at in fault.at if self.given(at)), fault.at[0])
        for length in range(len(loc), -1, -1):
            near = loc[:length]
            if override := self.given_by(near):
                path = f"{_dotted(loc)}: " if loc != override.loc else ""
                number = self.overrides.index(override)
                return self.at_override(number, override.origin, f"{path}{fault.what}")
            if near in self.document.places:
                return self.at_index(self.document.places[near], loc, fault.what)
        self.at_index(0, loc, fault.what)

    def given(self, loc: Loc) -> bool:
        return loc in self.document.places or self.given_by(loc) is not None

    def given_by(self, loc: Loc) -> _Override | None:
        """The last flag that set this field, or something in it."""
        said = (o for o in reversed(self.overrides) if o.loc[: len(loc)] == loc != ())
        return next(said, None)

    def at_override(self, number: int, origin: str, what: str) -> None:
        self.problems.add((1, number, 0, f"{origin}: {what}"))

    def at_index(self, index: int, loc: Loc, what: str) -> None:
        line, column = self.document.place(index)
        path = f"{_dotted(loc)}: " if loc else ""
        self.problems.add((0, line, column, f"{self.source}:{line}:{column}: {path}{what}"))


class _NotASection(Exception):
    """A path goes through something that has no fields."""


def _with(data: object, loc: Loc, value: object, model: type[BaseModel] | None) -> object:
    """``data`` with ``value`` at ``loc``, and the sections on the way there."""
    if not loc:
        return value
    if isinstance(data, str) and model and issubclass(model, Section) and model.short:
        data = {model.short: data}
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise _NotASection(f"there is no field {loc[0]!r} in {show(data)}")
    inner = specwords.sections(model).get(str(loc[0])) if model else None
    return data | {loc[0]: _with(data.get(loc[0]), loc[1:], value, inner)}


def _without(data: object, loc: Loc) -> object:
    """``data`` without what is at ``loc``; a list, or a section that lacks it, goes whole: None."""
    if not loc or not isinstance(data, dict) or loc[0] not in data:
        return None
    rest = {k: v for k, v in data.items() if k != loc[0]}
    inner = _without(data[loc[0]], loc[1:])
    return rest if inner is None else rest | {loc[0]: inner}


def _hidden(data: object, error: ValidationError) -> Iterator[Fault]:
    """The faults of several fields together that show once the wrong fields are left out."""
    wrong: set[Loc] = set()
    while not any(e["type"] == "faults" and e["loc"] == () for e in error.errors()):
        more = {fault.at[0] for fault in specwords.faults(error)} - wrong
        if not more:
            return
        wrong |= more
        for loc in more:
            data = _without(data, loc)
        try:
            Spec.model_validate(data, by_name=False)
        except ValidationError as e:
            error = e
    for fault in specwords.faults(error) if wrong else ():
        if not any(a[: len(w)] == w or w[: len(a)] == a for a in fault.at for w in wrong):
            yield fault


def _dotted(loc: Loc) -> str:
    """For people: a part that is no plain name is quoted."""
    return ".".join(s if re.fullmatch(r"[\w-]+", s := str(p)) else ascii(p) for p in loc)
