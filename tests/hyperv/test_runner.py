"""The script itself: its syntax, its names, and that all it is asked for is as published."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from drivers.hyperv.ops import Batch, Call, Operation, Program, Rmdir, Write, request
from drivers.hyperv.shell import MARKER, encoded_runner
from tests.hyperv import grammar
from tests.hyperv.emitted import operations

TABLES = Path(__file__).parents[1] / "peers" / "hyperv"
COMMAND_LINE = 32767  # CreateProcess; cmd.exe would take 8191
BUILTINS = {"New-Object", "Start-Sleep", "ConvertFrom-Json", "ConvertTo-Json"}
TYPES = {
    "Convert", "Console", "IO.File", "IO.Directory", "Enum", "Guid", "DateTime", "TimeSpan",
    "ValueType", "array", "string", "void", "System.Collections.IEnumerable",
}  # fmt: skip
CREATED = {"System.Text.UTF8Encoding", "System.Collections.ArrayList", "System.Threading.Mutex"}
#: of any cmdlet, by about_CommonParameters, and what those that change something have
COMMON = {"ErrorAction", "Confirm", "WhatIf", "Verbose"}


@pytest.fixture(scope="module")
def root() -> Any:
    return grammar.tree(grammar.script())


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("cmdlets.json", "others.json"):
        found |= json.loads((TABLES / name).read_text())
    return found


def test_it_parses_and_the_grammar_finds_what_is_wrong() -> None:
    assert grammar.faults(grammar.script()) == []
    assert grammar.faults(b"if ($a { 1 }\n")
    assert grammar.faults(b"$a = $b ? 1 : 2\n"), "this grammar is PowerShell 5's: no ternary"
    assert grammar.faults(b"$a = $b ?? 1\n")


def test_it_is_plain_ascii_and_short_enough() -> None:
    grammar.script().decode("ascii")
    assert b"\r" not in grammar.script()
    assert len(encoded_runner()) + 200 < COMMAND_LINE


def test_it_calls_nothing_by_name_but_what_is_listed_here(root: Any) -> None:
    own = grammar.texts(root, "function_name")
    assert grammar.texts(root, "command_name") - own == BUILTINS
    dynamic = [n for n in grammar.nodes(root, "command_invokation_operator")]
    called = sorted(n.parent.text.decode() for n in dynamic)
    assert called == ["& $op.cmdlet @parameters", "& $program @words"]
    types = {text.strip("[]") for text in grammar.texts(root, "type_literal")}
    assert types == TYPES
    created = {
        n.text.decode().split()[1].split("(")[0]
        for n in grammar.nodes(root, "command")
        if n.text.startswith(b"New-Object")
    }
    assert created == CREATED


def test_nothing_makes_script_of_text(root: Any) -> None:
    text = grammar.script().decode().lower()
    for word in ("invoke-expression", "iex ", "scriptblock", "invokescript", "add-type", "$input"):
        assert word not in text
    assert not list(grammar.nodes(root, "script_block_expression", "pipeline_chain_tail"))
    # what it writes into strings is its own error alone
    filled = grammar.texts(root, "expandable_string_literal")
    assert filled == {'"ProvisionProgram: exit ${code}: $lines"'}


def test_what_it_lists_is_published(root: Any, tables: dict[str, Any]) -> None:
    listed = grammar.allowed(root)
    assert len(listed) == len(set(listed))
    assert [name for name in listed if name not in tables] == []


def test_what_it_lists_is_what_the_driver_asks_for(root: Any) -> None:
    asked = {op.cmdlet for op in operations() if isinstance(op, Call)}
    assert asked == set(grammar.allowed(root))


@pytest.mark.parametrize(
    "op", {json.dumps(_op.told(), sort_keys=True): _op for _op in operations()}.values(), ids=str
)
def test_each_operation_fits_the_tables(op: Operation, tables: dict[str, Any]) -> None:
    if isinstance(op, Program):
        assert op.name in {"bcdedit", "cpugroups", "whoami"}
        return
    if isinstance(op, Write | Rmdir):
        return
    assert fits(op, tables[op.cmdlet]) == []


def fits(op: Call, table: dict[str, Any]) -> list[str]:
    """Each fault of a call: names, types, allowed values, and no parameter set that has all."""
    faults: list[str] = []
    parameters = table["parameters"]
    given = {*op.params, *op.take}
    for name in sorted(given - parameters.keys() - COMMON):
        faults.append(f"{op.cmdlet} has no {name}")
    for name, value in op.params.items():
        if name in parameters and not _is(value, parameters[name]):
            faults.append(f"{op.cmdlet} -{name} {value!r} is no {parameters[name]['type']}")
    sets = table.get("sets") or [""]
    if not any(_in_set(one, given - COMMON, parameters) for one in sets):
        faults.append(f"{op.cmdlet}: no parameter set has {', '.join(sorted(given))}")
    return faults


def _is(value: Any, parameter: dict[str, Any]) -> bool:
    kind = parameter["type"].removesuffix("[]")
    several = value if isinstance(value, list | tuple) else [value]
    if not parameter["type"].endswith("[]") and len(several) != 1:
        return False
    if allowed := parameter.get("values"):
        return all(str(one) in allowed for one in several)
    if kind in ("SwitchParameter", "Boolean"):
        return all(isinstance(one, bool) for one in several)
    if "Int" in kind:
        return all(isinstance(one, int) and not isinstance(one, bool) for one in several)
    return all(isinstance(one, str) for one in several)


def _in_set(one: str, given: set[str], parameters: dict[str, Any]) -> bool:
    """Whether a set has all that is given; what it needs itself is told of one-set cmdlets too."""
    inside = {n for n, p in parameters.items() if one in p.get("sets", [one])}
    return given <= inside


def test_the_check_finds_what_is_wrong(tables: dict[str, Any]) -> None:
    for call in (
        Call("New-VMSwitch", {"NetAdaptorName": "e1"}),
        Call("New-VM", {"Generation": 3}),
        Call("Add-VMNetworkAdapter", {"IsLegacy": "yes"}),
        Call("New-VMSwitch", {"NetAdapterName": "e1", "SwitchType": "Private"}),
        Call("Set-VMProcessor", {"RelativeWeight": "100"}),
    ):
        assert fits(call, tables[call.cmdlet]), call


def test_a_real_powershell_runs_it(tmp_path: Path) -> None:
    program = shutil.which("pwsh") or shutil.which("powershell")
    if program is None:
        pytest.skip("no PowerShell is on this machine: the runner has not met one")
    text = "x'; Remove-Item *; '$(1)\n\u00e9\u20ac 2024-01-01T00:00:00Z"
    ops: list[Operation] = [
        Write(str(tmp_path / text[:1]), b"bytes"),
        Call("Get-Item", {"LiteralPath": str(tmp_path / "x")}, select=("Name", "Length")),
        Call("Test-Path", {"LiteralPath": text}, select=(".",)),
        Call("Get-Item", {"LiteralPath": text}, lenient=True),
        Call("Get-Item", {"LiteralPath": text}),
    ]
    words = ["-NoLogo", "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded_runner()]
    done = subprocess.run(
        [program, *words], input=request("1", [Batch(ops=ops)]), capture_output=True, timeout=240,
        check=False,
    )  # fmt: skip
    (line,) = [ln for ln in done.stdout.splitlines() if ln.startswith(MARKER)]
    from drivers.hyperv.ops import Refused, answers

    name, (found,) = answers(line[len(MARKER) :].strip(), [Batch(ops=ops)])
    assert name == "1"
    assert isinstance(found, Refused), "the last has no such file"
    assert found.category == "ObjectNotFound"
