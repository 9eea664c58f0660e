"""pydantic's errors -> faults in plain words, each at the fields that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from provision.errors import did_you_mean
from provision.spec import Spec
from provision.spec.faults import Fault, Loc, show

#: pydantic's error types and what is said instead; {} is the value
_PHRASES: Mapping[str, str] = {
    "missing": "is required",
    "int_type": "should be a whole number, not {}",
    "string_type": "should be text, not {}",
    "tuple_type": "should be a list, not {}",
    "model_type": "should be a mapping, not {}",
    "greater_than": "should be more than {gt}, not {}",
    "greater_than_equal": "should be at least {ge}, not {}",
    "less_than_equal": "should be at most {le}, not {}",
    "string_unicode": "has a character that text cannot have",
}


def faults(error: ValidationError) -> Iterator[Fault]:
    """All that is wrong, in pydantic's order."""
    for e in error.errors(include_url=False):
        loc, context = e["loc"], e.get("ctx", {})
        if e["type"] == "faults":
            for fault in context["faults"]:
                yield Fault(fault.what, tuple((*loc, *at) for at in fault.at))
        else:
            yield Fault(_said(e["type"], loc, e["input"], context) or e["msg"], (loc,))


def _said(kind: str, loc: Loc, value: object, context: Mapping[str, Any]) -> str:
    if kind == "extra_forbidden":
        return "no such field" + _field_meant(loc)
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        words = re.findall("'([^']*)'", context["expected"])
        return f"should be {context['expected']}, not {show(value)}{did_you_mean(value, words)}"
    said = _PHRASES.get(kind, "").format(show(value), **context)
    quote = kind == "string_type" and isinstance(value, int | float)
    return f"{said}; write it in quotes" if quote else said


def _field_meant(loc: Loc) -> str:
    """Of the fields beside it the nearest, else a field of that name elsewhere."""
    known = list(fields())
    near = did_you_mean(loc[-1], [p[-1] for p in known if p[:-1] == loc[:-1]])
    elsewhere = [".".join(p) for p in known if p[-1] == loc[-1]]
    return near or (f" here (did you mean {elsewhere[0]!r}?)" if elsewhere else "")


def name(model: type[BaseModel], attribute: str) -> str:
    """What YAML calls a field of a section."""
    return str(model.model_fields[attribute].validation_alias or attribute)


def path(attributes: str) -> str:
    """What YAML calls the field at a dotted path of attributes; as it is where there is none."""
    parts: list[str] = []
    model: type[BaseModel] | None = Spec
    for attribute in attributes.split("."):
        if model is None or attribute not in model.model_fields:
            return attributes
        parts.append(name(model, attribute))
        model = sections(model)[parts[-1]]
    return ".".join(parts)


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """The fields of a section as YAML calls them, each with its own section, if it is one."""
    found = {}
    for attribute, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        inner = (k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))
        found[name(model, attribute)] = next(inner, None)
    return found


def fields(model: type[BaseModel] = Spec, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every field, as written in YAML, parents first."""
    for part, inner in sections(model).items():
        yield (*at, part)
        if inner:
            yield from fields(inner, (*at, part))
