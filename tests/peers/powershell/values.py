"""What a PowerShell variable can hold, and how it is shown, judged and enumerated.

None is $null, str, bool, int, float, bytes ([byte[]]), list ([object[]]), datetime, timedelta and
UUID are Python's own; the rest is here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.peers.powershell.errors import ErrorRecord, Unsupported, runtime


class Nothing:
    """What a command gave that gave nothing: $null where it is kept, no element in a pipeline."""


NOTHING = Nothing()


@dataclass(frozen=True)
class EnumValue:
    """A member of a .NET enumeration."""

    type: str
    name: str
    number: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class TypeRef:
    """A type literal; ``element`` is set for arrays."""

    name: str
    element: TypeRef | None = None

    def __str__(self) -> str:
        return self.name


class NetList(list[Any]):
    """An ArrayList or a List[T], which unlike an array can grow."""

    def __init__(self, items: Iterable[Any] = (), type: str = "ArrayList") -> None:
        super().__init__(items)
        self.type = type


class Table:
    """A dictionary whose text keys know no case; one that is not ordered has no lasting order."""

    def __init__(self, items: Iterable[tuple[Any, Any]] = (), *, ordered: bool = False) -> None:
        self.ordered = ordered
        self._items: dict[Any, tuple[Any, Any]] = {}
        for key, value in items:
            self[key] = value

    @staticmethod
    def _fold(key: Any) -> Any:
        return key.casefold() if isinstance(key, str) else key

    def __contains__(self, key: Any) -> bool:
        return self._fold(key) in self._items

    def __getitem__(self, key: Any) -> Any:
        return self._items.get(self._fold(key), (None, None))[1]

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is None:
            raise runtime(
                "NullArrayIndex",
                "InvalidOperation",
                "Index operation failed; the array index evaluated to null.",
            )
        fold = self._fold(key)
        kept = self._items.get(fold, (key, None))[0]
        self._items[fold] = (kept, value)

    def __delitem__(self, key: Any) -> None:
        self._items.pop(self._fold(key), None)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> Iterator[tuple[Any, Any]]:
        found = [*self._items.values()]
        if not self.ordered:  # as .NET's buckets would, so that nobody relies on an order
            found.sort(key=lambda pair: uuid.uuid5(uuid.NAMESPACE_OID, str(pair[0])).int)
        return iter(found)


class PSObject:
    """A custom object, or an object of a .NET type that has been told of: see ``known``.

    ``known`` are properties that the type has and this object does not show, so that asking for
    any other is noticed.
    """

    def __init__(
        self, items: Iterable[tuple[str, Any]] | Mapping[str, Any] = (), type: str = "",
        known: Iterable[str] | None = None, shown: str | None = None,
    ) -> None:  # fmt: skip
        pairs = items.items() if isinstance(items, Mapping) else items
        self.properties = Table(pairs, ordered=True)
        self.type = type or "System.Management.Automation.PSCustomObject"
        self.known = None if known is None else frozenset(name.casefold() for name in known)
        self.shown = shown

    @property
    def custom(self) -> bool:
        return self.type.endswith("PSCustomObject")


@dataclass
class ScriptBlock:
    """A block of the script, and what it closes over."""

    node: Any
    source: bytes = field(repr=False, default=b"")


@dataclass(frozen=True)
class Member:
    """What ``PSObject.Properties`` has: a name and a value."""

    name: str
    value: Any


def text(value: Any) -> str:
    """As "$value" is written, in the invariant culture."""
    match value:
        case None | Nothing():
            return ""
        case bool():
            return "True" if value else "False"
        case str() | int() | EnumValue() | TypeRef() | uuid.UUID():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case datetime():
            return value.strftime("%m/%d/%Y %H:%M:%S")
        case timedelta():
            return str(value)
        case bytes() | list():
            return " ".join(text(v) for v in value)
        case Table():
            ordered = "System.Collections.Specialized.OrderedDictionary"
            return ordered if value.ordered else "System.Collections.Hashtable"
        case PSObject():
            if value.shown is not None:
                return value.shown
            if not value.custom:
                return value.type
            inner = "; ".join(f"{k}={text(v)}" for k, v in value.properties.items())
            return f"@{{{inner}}}"
        case ErrorRecord():
            return value.message
        case ScriptBlock():
            return value.source.decode()
    raise Unsupported(f"how a {type(value).__name__} is written as text")


def truth(value: Any) -> bool:
    """As ``if`` judges it."""
    match value:
        case None | Nothing():
            return False
        case bool() | int() | float() | str() | bytes():
            return bool(value)
        case list():
            return truth(value[0]) if len(value) == 1 else bool(value)
        case EnumValue():
            return value.number != 0
    return True


def elements(value: Any) -> list[Any]:
    """What a pipeline or ``foreach`` makes of it: hashtables and texts stay whole."""
    match value:
        case None:
            return [None]
        case Nothing():
            return []
        case list():
            return [*value]
        case bytes():
            return [*value]
    return [value]


def collapse(found: list[Any]) -> Any:
    """What a variable gets of a pipeline: nothing, the only one, or an array."""
    if not found:
        return NOTHING
    return found[0] if len(found) == 1 else found


def type_name(value: Any) -> str:
    """The full name of its .NET type."""
    match value:
        case bool():
            return "System.Boolean"
        case str():
            return "System.String"
        case int():
            return "System.Int32" if -(2**31) <= value < 2**31 else "System.Int64"
        case float():
            return "System.Double"
        case bytes():
            return "System.Byte[]"
        case NetList():
            return f"System.Collections.{value.type}"
        case list():
            return "System.Object[]"
        case Table():
            return text(value)
        case EnumValue():
            return value.type
        case datetime():
            return "System.DateTime"
        case timedelta():
            return "System.TimeSpan"
        case uuid.UUID():
            return "System.Guid"
        case PSObject():
            return value.type
        case ErrorRecord():
            return "System.Management.Automation.ErrorRecord"
        case ScriptBlock():
            return "System.Management.Automation.ScriptBlock"
    raise Unsupported(f"the type of a {type(value).__name__}")
