"""Faults of a spec, and the words for what was found in a field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of several fields together: where to point, best first; all that it depends on."""

    what: str
    at: tuple[Loc, ...]


def faults_error(faults: Sequence[Fault]) -> PydanticCustomError:
    """All of them as one error, which ``specwords`` takes apart again."""
    said = "; ".join(f.what for f in faults)
    return PydanticCustomError("faults", "{said}", {"said": said, "faults": tuple(faults)})


def show(value: object) -> str:
    """A value in a message: short, on one line, whatever it is."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return "a list" if isinstance(value, list | tuple) else "a mapping"
