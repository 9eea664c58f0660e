"""The operators, by about_Operators and what follows from 5.1's conversions."""

from __future__ import annotations

import fnmatch
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from tests.peers.powershell import convert
from tests.peers.powershell.errors import PSError, Unsupported, runtime
from tests.peers.powershell.values import NOTHING, EnumValue, Table, TypeRef, text, truth

Pair = Callable[[Any, Any], bool]


def binary(operator: str, left: Any, right: Any) -> Any:
    """Of two values; ``-and``, ``-or`` and ``-f`` are the interpreter's own."""
    name = operator.lower()
    left, right = (None if v is NOTHING else v for v in (left, right))
    if name in _ARITHMETIC:
        return _ARITHMETIC[name](left, right)
    sensitive = name.startswith("-c") and name not in ("-contains",)
    bare = "-" + name[2:] if name[1:2] in "ci" and "-" + name[2:] in _COMPARING else name
    if bare in _COMPARING:
        return _compare(_COMPARING[bare], left, right, sensitive=sensitive)
    if bare in _OTHER:
        return _OTHER[bare](left, right)
    raise Unsupported(f"the operator {operator}")


def _compare(judge: Callable[..., bool], left: Any, right: Any, *, sensitive: bool) -> Any:
    if isinstance(left, list):  # a list is filtered
        return [v for v in left if judge(v, right, sensitive)]
    return judge(left, right, sensitive)


def equal(left: Any, right: Any, sensitive: bool = False) -> bool:
    """``-eq``: the right side becomes what the left one is."""
    match left:
        case None:
            return right is None
        case str():
            ours, theirs = left, text(right)
            return right is not None and (
                ours == theirs if sensitive else ours.casefold() == theirs.casefold()
            )
        case EnumValue():
            if isinstance(right, EnumValue):
                return left.type == right.type and left.number == right.number
            if isinstance(right, str):
                return left.name.casefold() == right.casefold()
            return right is not None and left.number == right
        case bool():
            return left == truth(right)
        case int() | float():
            if isinstance(right, str | bool | EnumValue):
                try:
                    right = convert.cast(right, convert.type_ref("double"))
                except PSError:
                    return False
            return left == (0 if right is None else right)
        case uuid.UUID():
            return text(left) == text(right).lower()
        case TypeRef():
            return text(left) == text(right)
        case datetime() | timedelta() | bytes() | Table():
            return bool(left == right)
    return left is right


def _ordered(left: Any, right: Any) -> int:
    """Less than 0, 0, or more, as the left one is to the right one."""
    if isinstance(left, str):
        ours, theirs = left.casefold(), text(right).casefold()
        return (ours > theirs) - (ours < theirs)
    if isinstance(left, datetime | timedelta):
        return int(left > right) - int(left < right)
    if isinstance(left, EnumValue):
        left = left.number
    if left is None:
        left = 0
    if not isinstance(left, int | float):
        raise Unsupported(f"the order of a {type(left).__name__}")
    other = convert.cast(right, convert.type_ref("double")) if not isinstance(right, int) else right
    return int(left > other) - int(left < other)


def like(pattern: str, *, sensitive: bool = False) -> re.Pattern[str]:
    """A wildcard pattern of PowerShell's; a backtick makes the next one plain."""
    plain = re.sub(r"`(.)", lambda m: f"[{m[1]}]", pattern)
    return re.compile(fnmatch.translate(plain), 0 if sensitive else re.IGNORECASE)


def _like(left: Any, right: Any, sensitive: bool) -> bool:
    return like(text(right), sensitive=sensitive).match(text(left)) is not None


def _match(left: Any, right: Any, sensitive: bool) -> bool:
    return re.search(_regex(text(right)), text(left), 0 if sensitive else re.IGNORECASE) is not None


def _regex(pattern: str) -> str:
    """.NET's, of which we take what Python's has too."""
    if re.search(r"\(\?<?[#>(]|\\p\{|\\G|\\[cQ]", pattern):
        raise Unsupported(f"the regular expression {pattern}")
    return re.sub(r"\(\?<(\w+)>", r"(?P<\1>", pattern).replace(r"\z", r"\Z")


_COMPARING: Mapping[str, Callable[[Any, Any, bool], bool]] = {
    "-eq": equal,
    "-ne": lambda a, b, c: not equal(a, b, c),
    "-gt": lambda a, b, _: _ordered(a, b) > 0,
    "-ge": lambda a, b, _: _ordered(a, b) >= 0,
    "-lt": lambda a, b, _: _ordered(a, b) < 0,
    "-le": lambda a, b, _: _ordered(a, b) <= 0,
    "-like": _like,
    "-notlike": lambda a, b, c: not _like(a, b, c),
    "-match": _match,
    "-notmatch": lambda a, b, c: not _match(a, b, c),
}


def _contains(items: Any, one: Any) -> bool:
    return any(equal(v, one) for v in (items if isinstance(items, list) else [items]))


def _as(value: Any, to: Any) -> Any:
    try:
        return convert.cast(value, to)
    except PSError:
        return None


def _replace(left: Any, right: Any) -> Any:
    pattern, new = (*right, "")[:2] if isinstance(right, list) else (right, "")
    if re.search(r"\$(?![\d{$])|\$\{\D", text(new)):
        raise Unsupported(f"the replacement {text(new)}")
    by = re.sub(r"\$\{?(\d+)\}?", r"\\g<\1>", text(new).replace("\\", r"\\"))

    def one(v: Any) -> str:
        return re.sub(_regex(text(pattern)), by, text(v), flags=re.IGNORECASE)

    return [one(v) for v in left] if isinstance(left, list) else one(left)


def _split(left: Any, right: Any) -> list[str]:
    pattern, most = (right[0], right[1] - 1) if isinstance(right, list) else (right, 0)
    found: list[str] = []
    for v in left if isinstance(left, list) else [left]:
        found += re.split(
            _regex(text(pattern)), text(v), maxsplit=max(most, 0), flags=re.IGNORECASE
        )
    return found


_OTHER: Mapping[str, Callable[[Any, Any], Any]] = {
    "-contains": _contains,
    "-notcontains": lambda a, b: not _contains(a, b),
    "-in": lambda a, b: _contains(b, a),
    "-notin": lambda a, b: not _contains(b, a),
    "-is": convert.is_type,
    "-isnot": lambda a, b: not convert.is_type(a, b),
    "-as": _as,
    "-replace": _replace,
    "-split": _split,
    "-join": lambda a, b: text(b).join(text(v) for v in (a if isinstance(a, list) else [a])),
    "-band": lambda a, b: convert.integer(a, "System.Int64") & convert.integer(b, "System.Int64"),
    "-bor": lambda a, b: convert.integer(a, "System.Int64") | convert.integer(b, "System.Int64"),
    "-bxor": lambda a, b: convert.integer(a, "System.Int64") ^ convert.integer(b, "System.Int64"),
    "-xor": lambda a, b: truth(a) != truth(b),
}


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        if isinstance(value, str) and re.fullmatch(r"\s*-?\d+\s*", value):
            return int(value)
        return convert.cast(value, convert.type_ref("double" if isinstance(value, str) else "int"))
    return value


def _plus(left: Any, right: Any) -> Any:
    match left:
        case None:
            return right
        case str():
            return left + text(right)
        case list():
            return [*left, *(right if isinstance(right, list) else [right])]
        case bytes():
            return [*left, *(right if isinstance(right, list | bytes) else [right])]
        case Table():
            if not isinstance(right, Table):
                raise runtime(
                    "AddHashTableToNonHashTable",
                    "InvalidOperation",
                    "A hash table can only be added to another hash table.",
                )
            return Table([*left.items(), *right.items()])
        case datetime() | timedelta():
            return left + right
    return _number(left) + _number(right)


def _minus(left: Any, right: Any) -> Any:
    if isinstance(left, datetime | timedelta):
        return left - right
    return _number(left) - _number(right)


def _times(left: Any, right: Any) -> Any:
    if isinstance(left, str | list):
        return left * convert.integer(right)
    return _number(left) * _number(right)


def _divide(left: Any, right: Any) -> Any:
    a, b = _number(left), _number(right)
    if b == 0:
        raise runtime("RuntimeException", "NotSpecified", "Attempted to divide by zero.")
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b


def _modulo(left: Any, right: Any) -> Any:
    a, b = _number(left), _number(right)
    return abs(a) % abs(b) * (1 if a >= 0 else -1)


_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": _plus, "-": _minus, "*": _times, "/": _divide, "%": _modulo,
}  # fmt: skip


def formatted(pattern: str, values: list[Any]) -> str:
    """``-f``: plain places, and hexadecimal, decimal and fixed ones."""

    def place(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        number, width, how = int(found[1]), found[2], found[3] or ""
        if number >= len(values):
            raise runtime(
                "FormatError",
                "InvalidOperation",
                "Error formatting a string: Index (zero based) must be greater"
                " than or equal to zero and less than the size of the argument"
                " list..",
            )
        value, digits = values[number], int(how[1:] or 0) if how else 0
        match how[:1].lower():
            case "":
                shown = text(value)
            case "x":
                shown = format(_number(value), f"0{digits}{how[0]}")
            case "d":
                shown = format(int(_number(value)), f"0{digits}d")
            case "f" | "n":
                comma = "," if how[0] in "nN" else ""
                shown = format(float(_number(value)), f"{comma}.{digits if how[1:] else 2}f")
            case _:
                raise Unsupported(f"the format {found[0]}")
        width_n = int(width or 0)
        return shown.rjust(width_n) if width_n >= 0 else shown.ljust(-width_n)

    return re.sub(r"\{\{|\}\}|\{(\d+)(?:,(-?\d+))?(?::([^}]*))?\}", place, pattern)
