"""Operations for the host, as the runner takes them: data alone, never script.

``runner.ps1`` says what each word does. Text that is data goes with a letter before it, as there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

Value = str | int | bool | Sequence[str]
Row = Mapping[str, Any]
LOCK_MS = 600_000


@dataclass(frozen=True, slots=True)
class Made:
    """What an earlier operation of the batch gave back: the objects, or a property of each."""

    op: int
    member: str = "."

    def of(self, member: str) -> Made:
        return Made(self.op, member)


@dataclass(frozen=True, slots=True)
class Call:
    """One cmdlet. ``select`` are the properties to give back of each object that it does.

    ``take`` are parameters that earlier operations made: where there are none, nothing is called.
    ``only`` keeps the objects with one of some values in a property; ``expect`` is ``none`` or
    ``some``, else the batch ends; ``lenient``: no such thing is an answer too, an empty one.
    """

    cmdlet: str
    params: Mapping[str, Value] = field(default_factory=dict)
    take: Mapping[str, Made] = field(default_factory=dict)
    select: tuple[str, ...] = ()
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    expect: str = ""
    lenient: bool = False
    again: Again | None = None

    def told(self) -> dict[str, Any]:
        words: dict[str, Any] = {
            "cmdlet": self.cmdlet,
            "params": {name: given(value) for name, value in self.params.items()},
            "take": {n: {"op": made.op, "member": made.member} for n, made in self.take.items()},
            "select": list(self.select),
        }
        if self.only:
            words["only"] = {name: given(list(values)) for name, values in self.only.items()}
        if self.expect:
            words["expect"] = self.expect
        if self.lenient:
            words["lenient"] = True
        return words | (self.again.told() if self.again is not None else {})


@dataclass(frozen=True, slots=True)
class Again:
    """To be done at most ``tries`` times, with a pause between.

    As long as it fails, or until the property ``until`` of an object begins with ``begins``.
    """

    tries: int
    pause_ms: int
    until: str = ""
    begins: str = ""

    def told(self) -> dict[str, Any]:
        words: dict[str, Any] = {"tries": self.tries, "pause_ms": self.pause_ms}
        if self.until:
            return words | {"until": self.until, "begins": given(self.begins)}
        return words | {"retry": True}


@dataclass(frozen=True, slots=True)
class Write:
    """A file's bytes, whole."""

    path: str
    data: bytes = field(repr=False)

    def told(self) -> dict[str, Any]:
        return {"write": given(self.path), "data": base64.b64encode(self.data).decode()}


@dataclass(frozen=True, slots=True)
class Rmdir:
    """A folder goes, if it is empty."""

    path: str

    def told(self) -> dict[str, Any]:
        return {"rmdir": given(self.path)}


@dataclass(frozen=True, slots=True)
class Program:
    """One of the programs that the runner knows; its exit code and its lines come back."""

    name: str
    words: tuple[str, ...]
    lenient: bool = False

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "program": self.name,
            "words": given(list(self.words)),
            "select": ["code", "lines"],
        }
        return told | ({"lenient": True} if self.lenient else {})


Operation = Call | Write | Rmdir | Program


@dataclass(slots=True)
class Batch:
    """Operations in order; the first that fails is the last. ``lock`` "" = none is needed.

    Two batches with one lock are never done at once, not even those of a controller that is gone.
    """

    lock: str = ""
    ops: list[Operation] = field(default_factory=list)

    def add(self, op: Operation) -> Made:
        """What later operations call its objects."""
        self.ops.append(op)
        return Made(len(self.ops) - 1)

    def told(self) -> dict[str, Any]:
        words: dict[str, Any] = {"ops": [op.told() for op in self.ops]}
        return words | ({"lock": self.lock, "lock_ms": LOCK_MS} if self.lock else {})


class Refused(Exception):
    """The host refused an operation: with its ``id``, its ``category``, and its own words."""

    def __init__(self, op: Operation | None, found: Row) -> None:
        self.op = op
        self.id = str(found.get("id") or "")
        self.category = str(found.get("category") or "")
        self.message = " ".join(str(found.get("message") or "").split())[:500]
        super().__init__(f"{named(op)}: {self.message or self.id}")


def named(op: Operation | None) -> str:
    """The operation in a few words, without what it holds."""
    if isinstance(op, Call):
        return op.cmdlet
    if isinstance(op, Program):
        return " ".join((op.name, *op.words[:2]))
    if isinstance(op, Write | Rmdir):
        return f"{type(op).__name__.lower()} {op.path}"
    return "the runner"


def given(value: Value) -> Any:
    """A value as the runner takes it."""
    if isinstance(value, str):
        return f"={value}"
    if isinstance(value, bool | int):
        return value
    return [f"={one}" for one in value]


def request(name: str, batches: Sequence[Batch]) -> bytes:
    """One line of ASCII."""
    told = {"id": name, "batches": [batch.told() for batch in batches]}
    return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"


def answers(text: bytes, batches: Sequence[Batch]) -> tuple[str, list[list[list[Row]] | Refused]]:
    """The request's id, and for each batch what its operations gave back, or what ended it.

    Raises ValueError for what is no answer to these.
    """
    # not all control characters are escaped by Windows PowerShell's JSON
    found = _plain(json.loads(base64.b64decode(text, validate=True), strict=False))
    told = found["batches"]
    if len(told) != len(batches):
        raise ValueError(f"{len(told)} answers to {len(batches)} batches")
    return str(found["id"]), [
        _answer(batch, one["results"]) for batch, one in zip(batches, told, strict=True)
    ]


def _answer(batch: Batch, results: Sequence[Row]) -> list[list[Row]] | Refused:
    rows: list[list[Row]] = []
    for number, result in enumerate(results):
        if not result["ok"]:
            return Refused(batch.ops[number] if number < len(batch.ops) else None, result)
        rows.append(list(result["rows"]))
    if len(rows) != len(batch.ops):
        raise ValueError(f"{len(rows)} results of {len(batch.ops)} operations")
    return rows


def _plain(value: Any) -> Any:
    """Without the wrapping that Windows PowerShell gives to some arrays."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"value", "Count"} and isinstance(value["value"], list):
        return _plain(value["value"])
    return {name: _plain(one) for name, one in value.items()}


def lock(*words: str) -> str:
    """A lock's name, of anything: a mutex has none with a backslash, or of any length."""
    return sha256("\0".join(words).encode()).hexdigest()[:32]
