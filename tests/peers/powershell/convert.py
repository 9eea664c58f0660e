"""Casts and conversions, by PowerShell's rules."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from tests.peers.powershell.errors import Unsupported, cannot_convert
from tests.peers.powershell.values import (
    NOTHING,
    EnumValue,
    NetList,
    PSObject,
    Table,
    TypeRef,
    text,
    truth,
    type_name,
)  # fmt: skip

_SHORT: Mapping[str, str] = {
    "string": "System.String", "int": "System.Int32", "int32": "System.Int32",
    "long": "System.Int64",
    "int64": "System.Int64", "uint16": "System.UInt16", "uint32": "System.UInt32",
    "uint64": "System.UInt64", "int16": "System.Int16", "byte": "System.Byte",
    "bool": "System.Boolean", "boolean": "System.Boolean", "double": "System.Double",
    "datetime": "System.DateTime", "timespan": "System.TimeSpan", "guid": "System.Guid",
    "object": "System.Object", "array": "System.Array", "hashtable": "System.Collections.Hashtable",
    "enum": "System.Enum", "convert": "System.Convert", "console": "System.Console",
    "math": "System.Math", "environment": "System.Environment", "char": "System.Char",
    "version": "System.Version", "type": "System.Type", "valuetype": "System.ValueType",
    "exception": "System.Exception", "decimal": "System.Decimal", "single": "System.Single",
    "switch": "System.Management.Automation.SwitchParameter",
    "psobject": "System.Management.Automation.PSObject",
    "pscustomobject": "System.Management.Automation.PSCustomObject",
    "scriptblock": "System.Management.Automation.ScriptBlock",
    "regex": "System.Text.RegularExpressions.Regex", "void": "System.Void",
    "ordered": "ordered", "timezoneinfo": "System.TimeZoneInfo", "uri": "System.Uri",
    "cultureinfo": "System.Globalization.CultureInfo", "intptr": "System.IntPtr",
}  # fmt: skip
_INTS: Mapping[str, tuple[int, int]] = {
    "System.Byte": (0, 2**8 - 1), "System.Int16": (-(2**15), 2**15 - 1),
    "System.UInt16": (0, 2**16 - 1), "System.Int32": (-(2**31), 2**31 - 1),
    "System.UInt32": (0, 2**32 - 1), "System.Int64": (-(2**63), 2**63 - 1),
    "System.UInt64": (0, 2**64 - 1),
}  # fmt: skip


@cache
def type_ref(name: str) -> TypeRef:
    """The type that a literal such as ``[string[]]`` names."""
    name = re.sub(r"\s+", "", name)
    if name.endswith("[]"):
        element = type_ref(name[:-2])
        return TypeRef(f"{element.name}[]", element)
    full = _SHORT.get(name.lower(), name)
    if "." in full and not full.lower().startswith(("system.", "microsoft.")):
        full = f"System.{full}"
    return TypeRef(full)


def cast(value: Any, to: TypeRef) -> Any:
    """Raises PSError where PowerShell refuses it, Unsupported where we do not know."""
    if value is NOTHING:
        value = None
    if to.element is not None:
        return _array(value, to)
    if to.name in _INTS:
        return integer(value, to.name)
    found = _CASTS.get(to.name)
    if found is None:
        raise Unsupported(f"the cast to [{to.name}]")
    return found(value)


def _array(value: Any, to: TypeRef) -> Any:
    assert to.element is not None
    if value is None:
        return None
    if to.element.name == "System.Byte":
        if isinstance(value, bytes):
            return value
        several = value if isinstance(value, list) else [value]
        return bytes(integer(v, "System.Byte") for v in several)
    items = value if isinstance(value, list | bytes) else [value]
    return [cast(v, to.element) for v in items]


def integer(value: Any, name: str = "System.Int32") -> int:
    low, high = _INTS[name]
    match value:
        case None:
            found = 0
        case bool() | int():
            found = int(value)
        case float():
            found = round(value)  # half to even, as .NET does
        case EnumValue():
            found = value.number
        case str():
            try:
                stripped = value.strip().replace(",", "")
                is_hex = stripped.lower().startswith("0x")
                found = int(stripped, 16) if is_hex else round(float(stripped or 0))
            except (ValueError, OverflowError):
                raise cannot_convert(
                    value, name, "Input string was not in a correct format."
                ) from None
            if stripped.lstrip("-").isdigit():
                found = int(stripped)
        case _:
            raise cannot_convert(text(value), name)
    if not low <= found <= high:
        raise cannot_convert(
            text(value), name, f"Value was either too large or too small for an {name[7:]}."
        )
    return found


def _float(value: Any) -> float:
    try:
        return float(value if value is not None else 0)
    except (TypeError, ValueError):
        raise cannot_convert(text(value), "System.Double") from None


def boolean(value: Any) -> bool:
    """By cast, which takes all; binding a parameter takes less."""
    return truth(value)


def _custom(value: Any) -> Any:
    if isinstance(value, Table):
        return PSObject(value.items())
    return value


def _table(value: Any) -> Any:
    if value is None or isinstance(value, Table):
        return value
    raise cannot_convert(text(value), "System.Collections.Hashtable")


def _guid(value: Any) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(text(value))
    except ValueError:
        raise cannot_convert(text(value), "System.Guid") from None


def _timespan(value: Any) -> timedelta:
    match value:
        case timedelta():
            return value
        case int():
            return timedelta(microseconds=value / 10)  # ticks of 100 ns
    raise Unsupported("the cast to [timespan] of anything but ticks")


def _datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    raise Unsupported("the cast to [datetime] of anything but a date")


def _list(value: Any) -> Any:
    return value if isinstance(value, list | bytes) else [] if value is None else [value]


_CASTS: Mapping[str, Callable[[Any], Any]] = {
    "System.String": text,
    "System.Boolean": boolean,
    "System.Management.Automation.SwitchParameter": boolean,
    "System.Double": _float,
    "System.Object": lambda value: value,
    "System.Management.Automation.PSObject": lambda value: value,
    "System.Management.Automation.PSCustomObject": _custom,
    "System.Array": _list,
    "System.Collections.Hashtable": _table,
    "System.Collections.ArrayList": lambda value: NetList(_list(value)),
    "System.Guid": _guid,
    "System.TimeSpan": _timespan,
    "System.DateTime": _datetime,
    "System.Void": lambda _value: NOTHING,
}

_BASES: Mapping[str, Callable[[Any], bool]] = {
    "System.Object": lambda v: v is not None,
    "System.Enum": lambda v: isinstance(v, EnumValue),
    "System.Array": lambda v: isinstance(v, bytes) or type(v) is list,
    "System.ValueType": lambda v: isinstance(
        v, bool | int | float | EnumValue | datetime | timedelta | uuid.UUID
    ),
    "System.Collections.IList": lambda v: isinstance(v, list | bytes),
    "System.Collections.ICollection": lambda v: isinstance(v, list | bytes | Table),
    "System.Collections.IEnumerable": lambda v: isinstance(v, list | bytes | Table | str),
    "System.Collections.IDictionary": lambda v: isinstance(v, Table),
    "System.Management.Automation.PSCustomObject": lambda v: isinstance(v, PSObject) and v.custom,
    "System.Management.Automation.PSObject": lambda v: isinstance(v, PSObject) and v.custom,
    "System.Int32": lambda v: type(v) is int and -(2**31) <= v < 2**31,
    "System.Int64": lambda v: type(v) is int and not -(2**31) <= v < 2**31,
    # what a counter or a size is typed as cannot be told from a number alone
    "System.UInt64": lambda v: type(v) is int and not -(2**31) <= v < 2**31,
}


def is_type(value: Any, of: TypeRef) -> bool:
    """``-is``."""
    if value is None or value is NOTHING:
        return False
    judge = _BASES.get(of.name)
    return judge(value) if judge is not None else type_name(value).lower() == of.name.lower()
