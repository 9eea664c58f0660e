"""Properties, methods and elements of values."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.peers.powershell.errors import (
    ErrorRecord,
    PSError,
    Unsupported,
    method_failed,
    runtime,
)  # fmt: skip
from tests.peers.powershell.host import Host
from tests.peers.powershell.values import (
    NOTHING,
    EnumValue,
    Member,
    NetList,
    PSObject,
    Table,
    TypeRef,
    text,
    type_name,
)  # fmt: skip

_NONE = object()


def get(host: Host, owner: Any, name: str, strict: float = 0) -> Any:
    """A property. Of a list without it, those of its elements; none at all is $null."""
    found = _own(host, owner, name)
    if found is not _NONE:
        return found
    if isinstance(owner, list) and name.lower() not in ("psobject",):
        several = [v for v in (_own(host, one, name) for one in owner) if v is not _NONE]
        flat = [x for v in several for x in (v if isinstance(v, list) else [v])]
        if flat:
            return flat[0] if len(flat) == 1 else flat
    if strict >= 2:
        raise runtime(
            "PropertyNotFoundStrict",
            "NotSpecified",
            f"The property '{name}' cannot be found on this object. Verify"
            " that the property exists.",
        )
    if name.lower() in ("count", "length") and not isinstance(owner, PSObject):
        return 0 if owner is None else 1
    return None


def _own(host: Host, owner: Any, name: str) -> Any:
    low = name.lower()
    match owner:
        case None:
            return _NONE
        case PSObject():
            return _of_object(host, owner, name)
        case Table():
            if name in owner:
                return owner[name]
            return _TABLE[low](owner) if low in _TABLE else _NONE
        case Member() if low in ("name", "value"):
            return owner.name if low == "name" else owner.value
        case ErrorRecord():
            return _ERROR[low](owner) if low in _ERROR else _NONE
        case TypeRef() if low in ("name", "fullname"):
            return owner.name.rpartition(".")[2] if low == "name" else owner.name
        case list() | bytes() if low in ("count", "length"):
            return _NONE if low == "length" and isinstance(owner, NetList) else len(owner)
        case str() if low == "length":
            return len(owner)
        case EnumValue() if low == "value__":
            return owner.number
        case timedelta() if low in _SPAN:
            return _SPAN[low](owner)
        case datetime() if low in _DATE:
            return _DATE[low](owner)
    if hasattr(owner, "ps_get"):
        return owner.ps_get(low)
    return _NONE


def _of_object(host: Host, owner: PSObject, name: str) -> Any:
    if name in owner.properties:
        return owner.properties[name]
    if name.lower() == "psobject":
        pairs = [Member(text(k), v) for k, v in owner.properties.items()]
        return PSObject({"Properties": pairs}, "System.Management.Automation.PSMemberSet")
    if not owner.custom:
        known = owner.known is None or name.casefold() in owner.known
        what = "is not told of here" if known else "is none of its"
        host.complain(f"{owner.type}.{name}: the property {what}")
    return _NONE


_TABLE: Mapping[str, Callable[[Table], Any]] = {
    "count": len,
    "keys": lambda t: [k for k, _ in t.items()],
    "values": lambda t: [v for _, v in t.items()],
}
_SPAN: Mapping[str, Callable[[timedelta], Any]] = {
    "totalseconds": timedelta.total_seconds,
    "totalmilliseconds": lambda t: t.total_seconds() * 1000,
    "ticks": lambda t: round(t.total_seconds() * 10**7),
    "days": lambda t: t.days,
}
_DATE: Mapping[str, Callable[[datetime], Any]] = {
    "ticks": lambda d: round((d - datetime(1, 1, 1, tzinfo=d.tzinfo)).total_seconds() * 10**7),
    "year": lambda d: d.year,
}


def _category(record: ErrorRecord) -> PSObject:
    kinds = "System.Management.Automation.ErrorCategory"
    return PSObject({
        "Category": EnumValue(kinds, record.category, _CATEGORIES.index(record.category)),
        "Reason": record.type.rpartition(".")[2], "Activity": "", "TargetName": "",
    }, "System.Management.Automation.ErrorCategoryInfo")  # fmt: skip


_ERROR: Mapping[str, Callable[[ErrorRecord], Any]] = {
    "fullyqualifiederrorid": lambda r: r.id,
    "categoryinfo": _category,
    "targetobject": lambda r: r.target,
    "errordetails": lambda _: None,
    "exception": lambda r: PSObject(
        {"Message": r.message, "InnerException": None}, r.type, shown=f"{r.type}: {r.message}"
    ),
}
#: System.Management.Automation.ErrorCategory, by number
_CATEGORIES = (
    "NotSpecified", "OpenError", "CloseError", "DeviceError", "DeadlockDetected",
    "InvalidArgument", "InvalidData", "InvalidOperation", "InvalidResult", "InvalidType",
    "MetadataError", "NotImplemented", "NotInstalled", "ObjectNotFound", "OperationStopped",
    "OperationTimeout", "SyntaxError", "ParserError", "PermissionDenied", "ResourceBusy",
    "ResourceExists", "ResourceUnavailable", "ReadError", "WriteError", "FromStdErr",
    "SecurityError", "ProtocolError", "ConnectionError", "AuthenticationError", "LimitsExceeded",
    "QuotaExceeded", "NotEnabled",
)  # fmt: skip


def call(host: Host, owner: Any, name: str, given: list[Any]) -> Any:
    """A method. Raises PSError as PowerShell does, Unsupported where we do not know it."""
    low = name.lower()
    if owner is None:
        raise runtime(
            "InvokeMethodOnNull",
            "InvalidOperation",
            "You cannot call a method on a null-valued expression.",
        )
    if low == "tostring" and not given:
        return text(owner)
    if low == "gettype" and not given:
        return TypeRef(type_name(owner))
    if hasattr(owner, "ps_call"):
        return owner.ps_call(low, given)
    for kind, methods in _METHODS:
        if isinstance(owner, kind) and low in methods:
            try:
                found = methods[low](owner, *given)
            except (TypeError, ValueError, IndexError) as e:
                raise method_failed(name, len(given), "System.ArgumentException", str(e)) from e
            return NOTHING if found is _NONE else found
    if isinstance(owner, list) and not isinstance(owner, NetList) and low in ("add", "remove"):
        raise method_failed(
            name, len(given), "System.NotSupportedException", "Collection was of a fixed size."
        )
    raise Unsupported(f"the method {type_name(owner)}.{name}")


def _split(value: str, *marks: Any) -> list[str]:
    letters = "".join(text(m) for m in marks) or " \t\r\n"
    return re.split("[" + re.escape(letters) + "]", value)


def _add(items: NetList, one: Any) -> Any:
    items.append(one)
    return len(items) - 1 if items.type == "ArrayList" else _NONE


def _date_text(value: datetime, how: str) -> str:
    if how not in ("o", "O", "s"):
        raise Unsupported(f"a date as {how}")
    found = value.strftime("%Y-%m-%dT%H:%M:%S")
    return found if how == "s" else f"{found}.{value.microsecond:06d}0{'Z' if value.tzinfo else ''}"


def _void(method: Callable[..., Any]) -> Callable[..., Any]:
    def done(*given: Any) -> Any:
        method(*given)
        return _NONE

    return done


_METHODS: tuple[tuple[type, Mapping[str, Callable[..., Any]]], ...] = (
    (str, {
        "trim": lambda s, *m: s.strip("".join(map(text, m)) or None), "split": _split,
        "trimend": lambda s, *m: s.rstrip("".join(map(text, m)) or None),
        "trimstart": lambda s, *m: s.lstrip("".join(map(text, m)) or None),
        "startswith": lambda s, x: s.startswith(text(x)),
        "endswith": lambda s, x: s.endswith(text(x)),
        "contains": lambda s, x: text(x) in s, "tolower": str.lower, "toupper": str.upper,
        "tolowerinvariant": str.lower, "toupperinvariant": str.upper,
        "replace": lambda s, a, b: s.replace(text(a), text(b)),
        "indexof": lambda s, x: s.find(text(x)), "lastindexof": lambda s, x: s.rfind(text(x)),
        "substring": lambda s, at, n=None: _substring(s, at, n),
        "padleft": lambda s, n, c=" ": s.rjust(n, c), "padright": lambda s, n, c=" ": s.ljust(n, c),
        "remove": lambda s, at, n=None: s[:at] + ("" if n is None else s[at + n :]),
        "insert": lambda s, at, x: s[:at] + x + s[at:],
    }),
    (NetList, {
        "add": _add, "toarray": lambda v: [*v], "clear": _void(list.clear),
        "addrange": _void(lambda v, more: v.extend(more)), "contains": lambda v, x: x in v,
        "remove": _void(lambda v, x: v.remove(x) if x in v else None),
        "insert": _void(list.insert), "removeat": _void(list.pop),
    }),
    (Table, {
        "containskey": lambda t, k: k in t, "contains": lambda t, k: k in t,
        "add": lambda t, k, v=None: _add_key(t, k, v), "remove": _void(Table.__delitem__),
        "clear": _void(lambda t: [t.__delitem__(k) for k, _ in [*t.items()]]),
        "getenumerator": lambda t: [
            PSObject({"Key": k, "Name": k, "Value": v}, "System.Collections.DictionaryEntry")
            for k, v in t.items()
        ],
    }),
    (datetime, {
        "touniversaltime": lambda d: d.astimezone(UTC), "tostring": _date_text,
    }),
    (uuid.UUID, {"tostring": lambda g, how="D": str(g) if how == "D" else g.hex}),
)  # fmt: skip


def _substring(value: str, at: int, size: int | None) -> str:
    if at < 0 or at > len(value) or (size is not None and at + size > len(value)):
        raise method_failed(
            "Substring",
            1 if size is None else 2,
            "System.ArgumentOutOfRangeException",
            "startIndex cannot be larger than length of string.\r\nParameter name: startIndex",
        )
    return value[at:] if size is None else value[at : at + size]


def _add_key(table: Table, key: Any, value: Any) -> Any:
    if key in table:
        raise method_failed(
            "Add",
            2,
            "System.ArgumentException",
            f"Item has already been added. Key in dictionary: '{text(key)}'"
            f"  Key being added: '{text(key)}'",
        )
    table[key] = value
    return _NONE


def index(owner: Any, at: Any, strict: float = 0) -> Any:
    """``$a[$i]``."""
    match owner:
        case None:
            raise runtime("NullArray", "InvalidOperation", "Cannot index into a null array.")
        case Table():
            if at is None:
                raise runtime(
                    "NullArrayIndex",
                    "InvalidOperation",
                    "Index operation failed; the array index evaluated to null.",
                )
            return [owner[k] for k in at] if isinstance(at, list) else owner[at]
        case list() | bytes() | str():
            if isinstance(at, list):
                return [owner[i] for i in at if -len(owner) <= i < len(owner)]
            if isinstance(at, int) and -len(owner) <= at < len(owner):
                return owner[at]
            if not isinstance(at, int):
                raise Unsupported(f"an index that is a {type_name(at)}")
            if strict >= 3:
                raise runtime(
                    "System.IndexOutOfRangeException",
                    "OperationStopped",
                    "Index was outside the bounds of the array.",
                )
            return None
    raise runtime(
        "CannotIndex",
        "InvalidOperation",
        f"Unable to index into an object of type {type_name(owner)}.",
    )


def put(owner: Any, name: str, value: Any) -> None:
    """Set a property, which must be there, or a key."""
    if isinstance(owner, Table):
        owner[name] = value
    elif isinstance(owner, PSObject) and name in owner.properties and owner.custom:
        owner.properties[name] = value
    else:
        raise PSError(
            ErrorRecord(
                "PropertyNotFound",
                "InvalidOperation",
                f"The property '{name}' cannot be found on this object. Verify"
                " that the property exists and can be set.",
            )
        )


def put_at(owner: Any, at: Any, value: Any) -> None:
    if isinstance(owner, Table) or (
        isinstance(owner, list) and isinstance(at, int) and -len(owner) <= at < len(owner)
    ):
        owner[at] = value
    else:
        raise runtime(
            "System.IndexOutOfRangeException",
            "OperationStopped",
            "Index was outside the bounds of the array.",
        )
