r"""JSON as Windows PowerShell 5.1 reads and writes it, with what surprises people there.

ConvertTo-Json goes two levels deep unless told otherwise and writes what is deeper as text, writes
enumerations as numbers and dates as \/Date(ms)\/, and escapes < > & '. ConvertFrom-Json takes
\/Date(ms)\/ for a date, hands on an array as one object, and refuses empty keys and such as differ
in case only. Sources: about_Json pages of 5.1, and the source of PowerShell 6's first version.
"""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.peers.powershell.errors import ErrorRecord, PSError, Unsupported
from tests.peers.powershell.values import (
    NOTHING,
    EnumValue,
    PSObject,
    Table,
    TypeRef,
    text,
)  # fmt: skip

DEEPEST_READ = 100
MOST_DEPTH = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(r'"\\/Date\((-?\d+)(?:[+-]\d{4}|[a-zA-Z])?\)\\/"')


def written(value: Any, depth: int = 2, *, compress: bool = False) -> str:
    """What ``ConvertTo-Json -InputObject`` gives."""
    mark = uuid.uuid4().hex  # which no text has
    plain = _plain(value, 0, depth, mark)
    if compress:
        found = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    else:
        found = json.dumps(plain, ensure_ascii=False, indent=4).replace("\n", "\r\n")
    for letter in "<>&'":
        found = found.replace(letter, f"\\u{ord(letter):04x}")
    return re.sub(rf'"{mark}(-?\d+)"', r'"\\/Date(\1)\\/"', found)


def _plain(value: Any, level: int, depth: int, mark: str) -> Any:
    match value:
        case None | bool() | str() | int() | float():
            return value
        case EnumValue():
            return value.number
        case uuid.UUID():
            return str(value)
        case datetime():
            at = value if value.tzinfo else value.replace(tzinfo=UTC)
            return f"{mark}{int((at - _EPOCH).total_seconds() * 1000)}"
    if value is NOTHING:
        return None
    if level > depth:
        return text(value)
    match value:
        case Table():
            return {text(k): _plain(v, level + 1, depth, mark) for k, v in value.items()}
        case PSObject():
            return {text(k): _plain(v, level + 1, depth, mark) for k, v in value.properties.items()}
        case list() | bytes():
            return [_plain(v, level + 1, depth, mark) for v in value]
        case timedelta():
            return {
                "Ticks": round(value.total_seconds() * 10**7),
                "TotalSeconds": value.total_seconds(),
            }
        case TypeRef() | ErrorRecord():
            raise Unsupported("a type or an error as JSON")
    raise Unsupported(f"a {type(value).__name__} as JSON")


def read(document: str) -> Any:
    """What ``ConvertFrom-Json`` gives. Raises PSError where it is no JSON."""
    dates: dict[str, datetime] = {}

    def date(found: re.Match[str]) -> str:
        mark = uuid.uuid4().hex
        dates[mark] = datetime.fromtimestamp(int(found[1]) / 1000, UTC)
        return json.dumps(mark)

    try:
        found = json.loads(
            _DATE.sub(date, document), object_pairs_hook=_object, parse_constant=_refuse
        )
        _judge(found, 0)
    except (ValueError, RecursionError) as e:
        raise PSError(ErrorRecord(
            "System.ArgumentException,Microsoft.PowerShell.Commands.ConvertFromJsonCommand",
            "InvalidArgument", f"Invalid JSON primitive: {e}", "System.ArgumentException",
        )) from e  # fmt: skip
    return _dated(found, dates) if dates else found


def _object(pairs: list[tuple[str, Any]]) -> PSObject:
    names = [name.casefold() for name, _ in pairs]
    if "" in names:
        raise ValueError("a key is empty")
    if len(names) != len(set(names)):
        raise ValueError("the dictionary contains the duplicated keys in different case")
    return PSObject(pairs)


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _judge(value: Any, level: int) -> None:
    if level > DEEPEST_READ:
        raise ValueError("RecursionLimit exceeded.")
    match value:
        case PSObject():
            for _, one in value.properties.items():
                _judge(one, level + 1)
        case list():
            for one in value:
                _judge(one, level + 1)


def _dated(value: Any, dates: dict[str, datetime]) -> Any:
    match value:
        case PSObject():
            return PSObject((k, _dated(v, dates)) for k, v in value.properties.items())
        case list():
            return [_dated(v, dates) for v in value]
        case str():
            return dates.get(value, value)
    return value
