"""The shell's own cmdlets, by Microsoft.PowerShell.Core and .Utility of 5.1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from tests.peers.powershell import json51
from tests.peers.powershell.convert import integer
from tests.peers.powershell.errors import ErrorRecord, PSError, Unsupported, runtime
from tests.peers.powershell.host import Call
from tests.peers.powershell.values import (
    PSObject,
    ScriptBlock,
    Table,
    collapse,
    elements,
    text,
    truth,
)  # fmt: skip

ALIASES: Mapping[str, str] = {
    "%": "ForEach-Object", "foreach": "ForEach-Object", "?": "Where-Object",
    "where": "Where-Object",
    "select": "Select-Object", "sort": "Sort-Object", "echo": "Write-Output",
    "write": "Write-Output", "sleep": "Start-Sleep", "measure": "Measure-Object",
}  # fmt: skip


def _given(call: Call, *names: str) -> list[Any]:
    """The parameters by these names, in this order by place too; None where one is not given."""
    found, rest = [], [*call.positional]
    known = {name.lower() for name in names}
    for name, _ in call.named.items():
        fits = [n for n in known if n.startswith(name.lower())]
        if len(fits) != 1 and name.lower() not in known:
            raise runtime(
                "NamedParameterNotFound",
                "InvalidArgument",
                f"A parameter cannot be found that matches parameter name '{name}'.",
            )
    for name in names:
        short = [k for k, _ in call.named.items() if name.lower().startswith(k.lower())]
        if short:
            found.append(call.named[short[0]])
        else:
            found.append(rest.pop(0) if rest else None)
    if rest:
        raise runtime(
            "PositionalParameterNotFound",
            "InvalidArgument",
            f"A positional parameter cannot be found that accepts argument '{text(rest[0])}'.",
        )
    return found


def _only_named(call: Call, *names: str) -> list[Any]:
    place, call.positional = call.positional, []
    try:
        return _given(call, *names)
    finally:
        call.positional = place


def _to_json(call: Call) -> Iterable[Any]:
    place = call.positional
    given, depth, compress = _only_named(call, "InputObject", "Depth", "Compress")
    if place:
        given = place[0]
    elif call.piped is not None:
        given = collapse(call.piped)
    most = 2 if depth is None else integer(depth)
    if not 1 <= most <= json51.MOST_DEPTH:
        raise runtime(
            "ParameterArgumentValidationError,Microsoft.PowerShell.Commands.ConvertToJsonCommand",
            "InvalidData",
            f"Cannot validate argument on parameter 'Depth'. The {most}"
            " argument is not within 1 and 100.",
        )
    return [json51.written(given, most, compress=truth(compress))]


def _from_json(call: Call) -> Iterable[Any]:
    (given,) = _given(call, "InputObject")
    if given is None and call.piped is not None:
        given = "\n".join(text(v) for v in call.piped)
    if not text(given):
        raise runtime(
            "ParameterArgumentValidationErrorEmptyStringNotAllowed,Microsoft.PowerShell.Commands.ConvertFromJsonCommand",
            "InvalidData",
            "Cannot bind argument to parameter 'InputObject' because it is an empty string.",
        )
    return [json51.read(text(given))]


def _for_each(call: Call) -> Iterable[Any]:
    (block,) = _given(call, "Process")
    if not isinstance(block, ScriptBlock):
        raise Unsupported("ForEach-Object without a block")
    return [v for one in call.piped or [] for v in call.shell.call_block(block, one)]


def _where(call: Call) -> Iterable[Any]:
    (block,) = _given(call, "FilterScript")
    if not isinstance(block, ScriptBlock):
        raise Unsupported("Where-Object without a block")
    return [v for v in call.piped or [] if truth(collapse(call.shell.call_block(block, v)))]


def _select(call: Call) -> Iterable[Any]:
    place = call.positional
    names, expand, first, last, unique = _only_named(
        call, "Property", "ExpandProperty", "First", "Last", "Unique"
    )
    names = place[0] if place else names
    found = [*(call.piped or [])]
    if first is not None:
        found = found[: integer(first)]
    if last is not None:
        found = found[-integer(last) :]
    if unique is not None:
        raise Unsupported("Select-Object -Unique")
    if expand is not None:
        return [v for one in found for v in elements(_property(call, one, text(expand)))]
    if names is None:
        return found
    return [_selected(call, one, elements(names)) for one in found]


def _selected(call: Call, one: Any, names: list[Any]) -> PSObject:
    made = PSObject()
    for name in names:
        if isinstance(name, Table):
            made.properties[text(name["Name"])] = collapse(
                call.shell.call_block(name["Expression"], one)
            )
        elif any(mark in text(name) for mark in "*?["):
            raise Unsupported(f"Select-Object {text(name)}")
        else:
            made.properties[text(name)] = _property(call, one, text(name))
    return made


def _property(call: Call, one: Any, name: str) -> Any:
    from tests.peers.powershell import members

    return members.get(call.shell.host, one, name)


def _sort(call: Call) -> Iterable[Any]:
    (name,) = _given(call, "Property")
    found = call.piped or []
    if name is None:
        return sorted(found, key=lambda v: v.casefold() if isinstance(v, str) else v)

    def key(one: Any) -> Any:
        value = _property(call, one, text(name))
        return value.casefold() if isinstance(value, str) else value

    return sorted(found, key=key)


def _measure(call: Call) -> Iterable[Any]:
    _given(call)
    count = PSObject(
        {"Count": len(call.piped or [])}, "Microsoft.PowerShell.Commands.GenericMeasureInfo"
    )
    return [count]


def _new_object(call: Call) -> Iterable[Any]:
    name, arguments, properties = _given(call, "TypeName", "ArgumentList", "Property")
    if isinstance(properties, Table):
        return [PSObject(properties.items())]
    given = [] if arguments is None else elements(arguments)
    return [call.shell.statics.new(text(name), given)]


def _write_output(call: Call) -> Iterable[Any]:
    (given,) = _given(call, "InputObject")
    return elements(given) if given is not None else call.piped or []


def _write_error(call: Call) -> Iterable[Any]:
    (message,) = _given(call, "Message")
    kind = "Microsoft.PowerShell.Commands.WriteErrorException"
    call.error(ErrorRecord(kind, "NotSpecified", text(message), kind))
    return []


def _sleep(call: Call) -> Iterable[Any]:
    place = call.positional
    seconds, milliseconds = _only_named(call, "Seconds", "Milliseconds")
    if place:
        seconds = place[0]
    call.shell.host.pause(float(seconds or 0) + float(milliseconds or 0) / 1000)
    return []


def _strict(call: Call) -> Iterable[Any]:
    version, off = _only_named(call, "Version", "Off")
    latest = text(version).lower() == "latest"
    call.shell.strict = 0.0 if off else 3.0 if latest else float(version)
    return []


def _get_command(call: Call) -> Iterable[Any]:
    """Whether a name can be called: of a cmdlet, a function, an alias or a program."""
    names, _kind = _given(call, "Name", "CommandType")
    found = []
    for name in elements(names):
        word, host = text(name), call.shell.host
        if any(mark in word for mark in "*?["):
            raise Unsupported(f"Get-Command {word}")
        kind = (
            "Function" if word.lower() in call.shell.scopes.functions
            else "Cmdlet" if word.lower() in CMDLETS or host.cmdlet(word)
            else "Application" if host.program(word) else ""
        )  # fmt: skip
        if kind:
            found.append(
                PSObject(
                    {"Name": word, "CommandType": kind, "Source": word},
                    "System.Management.Automation.CommandInfo",
                )
            )
        else:
            call.error(
                ErrorRecord(
                    "CommandNotFoundException,Microsoft.PowerShell.Commands.GetCommandCommand",
                    "ObjectNotFound",
                    f"The term '{word}' is not recognized as the name of a cmdlet,"
                    " function, script file, or operable program.",
                    "System.Management.Automation.CommandNotFoundException",
                )
            )
    return found


def _date(call: Call) -> Iterable[Any]:
    if call.positional or len(call.named):
        raise Unsupported("Get-Date with parameters")
    return [datetime.now()]


def _out_string(call: Call) -> Iterable[Any]:
    found = call.piped or []
    if not all(isinstance(v, str) for v in found):
        raise Unsupported("Out-String of anything but text")
    return ["".join(f"{v}\r\n" for v in found)]


def _import_module(call: Call) -> Iterable[Any]:
    names, *_ = _given(call, "Name", "DisableNameChecking")
    for name in elements(names):
        if text(name).lower() not in ("hyper-v", "netadapter", "nettcpip", "netlbfo"):
            raise PSError(
                ErrorRecord(
                    "Modules_ModuleNotFound,Microsoft.PowerShell.Commands.ImportModuleCommand",
                    "ResourceUnavailable",
                    f"The specified module '{text(name)}' was not loaded because no"
                    " valid module file was found in any module directory.",
                )
            )
    return []


CMDLETS: Mapping[str, Callable[[Call], Iterable[Any]]] = {
    "convertto-json": _to_json, "convertfrom-json": _from_json, "foreach-object": _for_each,
    "where-object": _where, "select-object": _select, "sort-object": _sort,
    "measure-object": _measure, "new-object": _new_object, "write-output": _write_output,
    "write-error": _write_error, "write-verbose": lambda _: [], "write-warning": lambda _: [],
    "write-debug": lambda _: [], "out-null": lambda _: [], "start-sleep": _sleep,
    "set-strictmode": _strict, "get-command": _get_command, "get-date": _date,
    "out-string": _out_string, "import-module": _import_module,
}  # fmt: skip
