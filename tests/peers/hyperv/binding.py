"""Binds what a cmdlet is given to its parameters, by the published tables: about_Parameter_Sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from tests.peers.powershell.convert import integer
from tests.peers.powershell.errors import ErrorRecord, PSError, Unsupported
from tests.peers.powershell.host import Call
from tests.peers.powershell.values import EnumValue, PSObject, Table, text, type_name

HERE = Path(__file__).parent
_WORDS = {"String", "Object", "Version", "Uri"}
_INTS = {"Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64"}
#: 5.1's shared aliases that modules bring
ALIASES = {
    "restore-vmcheckpoint": "Restore-VMSnapshot", "get-vmcheckpoint": "Get-VMSnapshot",
    "remove-vmcheckpoint": "Remove-VMSnapshot", "gcim": "Get-CimInstance", "gi": "Get-Item",
    "ri": "Remove-Item", "rm": "Remove-Item", "ni": "New-Item", "gci": "Get-ChildItem",
    "dir": "Get-ChildItem", "ls": "Get-ChildItem", "del": "Remove-Item",
}  # fmt: skip


@cache
def tables() -> Mapping[str, Any]:
    """All cmdlets by their names in lower case; each has its ``name``."""
    found = {}
    for file in ("cmdlets.json", "others.json", "../windows/cmdlets.json"):
        for name, table in json.loads((HERE / file).read_text()).items():
            found[name.lower()] = {"name": name, "hyperv": file == "cmdlets.json", **table}
    return found


@dataclass(frozen=True)
class Bound:
    """What a cmdlet was given. ``set`` is the parameter set, "" where the cmdlet has one only."""

    name: str
    set: str
    values: Mapping[str, Any]
    call: Call

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def flag(self, name: str) -> bool:
        return bool(self.values.get(name, False))

    @property
    def family(self) -> str:
        """What error ids end with."""
        if tables()[self.name.lower()]["hyperv"]:
            return f"Microsoft.HyperV.PowerShell.Commands.{self.name.replace('-', '')}"
        return self.name

    def failed(self, id: str, category: str, message: str) -> PSError:
        """An error of this cmdlet, to be raised or handed to ``call.error``."""
        return PSError(ErrorRecord(f"{id},{self.family}", category, message))

    def sure(self, what: str) -> None:
        """As where a cmdlet asks first, which nobody can answer who is not there."""
        if self.flag("Force") or self.values.get("Confirm") is False:
            return
        raise self.failed(
            "InvalidOperation", "InvalidOperation",
            f"Windows PowerShell is in NonInteractive mode. Read and Prompt functionality is not"
            f" available. ({what})",
        )  # fmt: skip


def bind(call: Call) -> Bound:
    """Raises PSError as the binder does."""
    table = tables()[ALIASES.get(call.name.lower(), call.name).lower()]
    if call.piped is not None or call.positional:
        raise Unsupported(f"{table['name']} by pipe or by place: parameters are named here")
    bare = Bound(table["name"], "", {}, call)
    parameters = table["parameters"]
    values: dict[str, Any] = {}
    for given, value in call.named.items():
        name = _find(bare, parameters, text(given))
        if name in values:
            raise bare.failed(
                "ParameterAlreadyBound",
                "InvalidArgument",
                f"Cannot bind parameter because parameter '{name}' is specified more than once.",
            )
        values[name] = _converted(bare, name, parameters[name], value)
    chosen = _set(bare, table, values)
    return Bound(table["name"], chosen, values, call)


def _find(bare: Bound, parameters: Mapping[str, Any], given: str) -> str:
    low = given.lower()
    for name, parameter in parameters.items():
        if low in (name.lower(), *(alias.lower() for alias in parameter.get("aliases", ()))):
            return str(name)
    begins = [name for name in parameters if name.lower().startswith(low)]
    if len(begins) == 1:
        return begins[0]
    if begins:
        matching = " ".join(f"-{name}" for name in begins)
        raise bare.failed(
            "AmbiguousParameter",
            "InvalidArgument",
            "Parameter cannot be processed because the parameter name"
            f" '{given}' is ambiguous. Possible matches include: {matching}.",
        )
    raise bare.failed(
        "NamedParameterNotFound",
        "InvalidArgument",
        f"A parameter cannot be found that matches parameter name '{given}'.",
    )


def _converted(bare: Bound, name: str, parameter: Mapping[str, Any], value: Any) -> Any:
    kind = parameter["type"]
    if kind.endswith("[]"):
        items = value if isinstance(value, list) else [value]
        return [_single(bare, name, kind[:-2], parameter, one) for one in items]
    if isinstance(value, list):
        if len(value) == 1 and kind not in ("Boolean",):
            value = value[0]
        else:
            raise _refused(bare, name, text(value), kind, "System.Object[]")
    return _single(bare, name, kind, parameter, value)


def _single(bare: Bound, name: str, kind: str, parameter: Mapping[str, Any], value: Any) -> Any:
    if kind in ("Boolean", "SwitchParameter"):
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float) and kind == "Boolean":
            return bool(value)
        raise _refused(bare, name, text(value), kind, type_name(value) if value is not None else "")
    if kind == "TimeSpan" and isinstance(value, timedelta):
        return value
    if kind in _INTS:
        found = _integer(bare, name, kind, value)
        if parameter.get("values") and str(found) not in parameter["values"]:
            raise _not_allowed(bare, name, text(value), parameter["values"])
        return found
    if kind in _WORDS:
        return _word(bare, name, parameter, value)
    if parameter.get("values"):
        return _enum(bare, name, kind, parameter["values"], value)
    if isinstance(value, PSObject) and not value.custom:
        return value
    if kind in ("Guid",):
        return text(value)
    raise _refused(bare, name, text(value), kind, type_name(value) if value is not None else "")


def _integer(bare: Bound, name: str, kind: str, value: Any) -> int:
    if isinstance(value, str | int | float | bool | EnumValue):
        try:
            return integer(value, f"System.{kind}")
        except PSError as e:
            raise _refused(bare, name, text(value), kind, type_name(value), str(e)) from e
    raise _refused(bare, name, text(value), kind, type_name(value) if value is not None else "")


def _word(bare: Bound, name: str, parameter: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, Table | PSObject) and getattr(value, "custom", True):
        # PowerShell would write it as text, which nobody means
        bare.call.shell.host.complain(f"{bare.name} -{name}: an object where a text belongs")
    found = text(value)
    if parameter.get("required") and found == "":
        what = "Null" if value is None else "EmptyString"
        raise bare.failed(
            f"ParameterArgumentValidationError{what}NotAllowed",
            "InvalidData",
            f"Cannot bind argument to parameter '{name}' because it is an empty string.",
        )
    return found


def _enum(bare: Bound, name: str, kind: str, names: list[str], value: Any) -> EnumValue | str:
    given = text(value)
    for number, one in enumerate(names):
        if one.lower() == given.lower():
            return EnumValue(f"Microsoft.HyperV.PowerShell.{kind}", one, number)
    raise _not_allowed(bare, name, given, names)


def _not_allowed(bare: Bound, name: str, value: str, names: list[str]) -> PSError:
    return bare.failed(
        "ParameterArgumentValidationError",
        "InvalidData",
        f"Cannot validate argument on parameter '{name}'. The"
        f' argument "{value}" does not belong to the set'
        f' "{",".join(names)}" specified by the ValidateSet attribute.',
    )


def _refused(bare: Bound, name: str, value: str, kind: str, had: str, why: str = "") -> PSError:
    return bare.failed(
        "CannotConvertArgumentNoMessage",
        "InvalidArgument",
        f"Cannot bind parameter '{name}'. Cannot convert the"
        f' "{value}" value of type "{had}" to type "System.{kind}". {why}'.strip(),
    )


def _set(bare: Bound, table: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """The parameter set that fits, with all that is mandatory in it."""
    names: list[str] = table.get("sets") or [""]
    parameters = table["parameters"]

    def has(name: str, one: str) -> bool:
        return one in parameters[name].get("sets", [one])

    def lacking(one: str) -> list[str]:
        return [
            n for n in parameters if n not in values and has(n, one) and _due(parameters[n], one)
        ]

    fits = [one for one in names if all(has(n, one) for n in values)]
    whole = [one for one in fits if not lacking(one)]
    default = table.get("default_set", "")
    if not fits or (len(whole) > 1 and default not in whole):
        raise bare.failed(
            "AmbiguousParameterSet",
            "InvalidArgument",
            "Parameter set cannot be resolved using the specified named parameters.",
        )
    if whole:
        return default if default in whole else whole[0]
    missing = lacking(default if default in fits else fits[0])
    raise bare.failed(
        "MissingMandatoryParameter",
        "InvalidArgument",
        "Cannot process command because of one or more missing"
        f" mandatory parameters: {' '.join(missing)}.",
    )


def _due(parameter: Mapping[str, Any], one: str) -> bool:
    required = parameter.get("required", False)
    return one in required if isinstance(required, list) else bool(required)
