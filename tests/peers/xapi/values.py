"""Values as they go over the wire: what each type of the model looks like, and what it defaults to.

From XenAPI's "wire protocol" page: int is a decimal string, float a double, bool a boolean,
datetime ISO 8601, enum and ref strings, set an array, map a struct with string keys.
"""

from __future__ import annotations

import re
import xmlrpc.client
from collections.abc import Iterator
from typing import Any

from tests.peers.xapi.table import Model, load

NULL = "OpaqueRef:NULL"
NEVER = "19700101T00:00:00Z"
_INT = re.compile(r"-?\d+")
_KINDS = {"bool": bool, "float": float, "datetime": xmlrpc.client.DateTime}
_PLAIN: dict[str, Any] = {"int": "0", "bool": False, "float": 0.0, "string": ""}


class Failure(Exception):
    """An answer that is an error: ``details`` as clients get them.

    Raises AssertionError where the published table of errors does not have it so.
    """

    def __init__(self, code: str, *params: object) -> None:
        known = load().errors
        name = "SR_BACKEND_FAILURE" if code.startswith("SR_BACKEND_FAILURE_") else code
        assert name in known, f"no such error code: {code}"
        least = len(known[name] or ())
        assert len(params) >= least, f"{code} has {least} parameters, not {params}"
        self.details = [code, *map(str, params)]
        super().__init__(*self.details)


def default(kind: str, text: str | None = None) -> Any:
    """What a field of that type is without a value; ``text`` is the model's own default."""
    if kind.endswith(" set"):
        return []
    if kind.endswith(" map"):
        return {}
    if kind.endswith(" ref"):
        return NULL
    if kind == "datetime":
        return xmlrpc.client.DateTime(NEVER)
    if text is not None:
        return _read(kind, text)
    return _PLAIN.get(kind, "")


def _read(kind: str, text: str) -> Any:
    match kind:
        case "bool":
            return text == "true"
        case "float":
            return float(text)
        case "int":
            return str(int(text))
        case _:
            return text.strip('"')


def faults(model: Model, kind: str, value: object, where: str) -> Iterator[str]:
    """What is wrong with a value that came over the wire."""
    if kind.endswith(" record"):
        if not isinstance(value, dict):
            yield f"{where}: a struct is wanted, not {value!r}"
    elif kind.endswith(" set"):
        if not isinstance(value, list):
            yield f"{where}: an array is wanted, not {value!r}"
            return
        for one in value:
            yield from faults(model, kind.removesuffix(" set"), one, f"{where}[]")
    elif kind.endswith(" map"):
        if not isinstance(value, dict):
            yield f"{where}: a struct is wanted, not {value!r}"
            return
        of_key, of_value = kind[1 : -len(") map")].split(" -> ", 1)
        for key, one in value.items():
            yield from faults(model, of_key, key, f"{where}'s key")
            yield from faults(model, of_value, one, f"{where}[{key!r}]")
    else:
        yield from _scalar(model, kind, value, where)


def _scalar(model: Model, kind: str, value: object, where: str) -> Iterator[str]:
    if wanted := _KINDS.get(kind):
        if not isinstance(value, wanted):
            yield f"{where}: {kind} is wanted, not {value!r}"
    elif not isinstance(value, str):
        yield f"{where}: a string is wanted ({kind}), not {value!r}"
    elif kind == "int" and not (_INT.fullmatch(value) and -(1 << 63) <= int(value) < 1 << 63):
        yield f"{where}: an int as a decimal string is wanted, not {value!r}"
    elif kind.startswith("enum ") and value not in model.enums[kind.removeprefix("enum ")]:
        yield f"{where}: {value!r} is no {kind.removeprefix('enum ')}"
