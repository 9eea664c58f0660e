"""The small PowerShell of the Hyper-V peer: what it does as 5.1 does, and what it refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peers.hyperv import binding
from tests.peers.hyperv.session import Mutexes, Windows
from tests.peers.hyperv.world import World
from tests.peers.powershell import builtins
from tests.peers.powershell.errors import PSError, Unsupported
from tests.peers.powershell.interpreter import Interpreter
from tests.peers.wsman.process import Process

UTF8 = 65001


def shell(stdin: bytes = b"", codepage: int = UTF8) -> tuple[Interpreter, Process]:
    process = Process("powershell.exe", {}, codepage)
    process.feed(stdin, end=True)
    return Interpreter(Windows(World(), Mutexes(), process)), process


def run(script: str, stdin: bytes = b"") -> list[Any]:
    return shell(stdin)[0].run(script)[0]


def failed(script: str) -> PSError:
    with pytest.raises(PSError) as e:
        run(f"$ErrorActionPreference = 'Stop'; {script}")
    return e.value


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("1 + 2 * 3", [7]),
        ("'5' + 1", ["51"]),
        ("5 + '1'", [6]),
        ("7 / 2", [3.5]),
        ("6 / 2", [3]),
        ("'a' -eq 'A'", [True]),
        ("'a' -ceq 'A'", [False]),
        ("1, 2, 3, 2 -eq 2", [2, 2]),
        ("@(1, 2) -contains 2", [True]),
        ("3 -notin 1, 2", [True]),
        ("'abc' -like 'A*'", [True]),
        ("'a.b.c' -split '\\.'", ["a", "b", "c"]),
        ("'a', 'b' -join '+'", ["a+b"]),
        ("'{0:x4}-{1}' -f 255, 'b'", ["00ff-b"]),
        ("'abc' -replace 'b', 'x$0'", ["axbc"]),
        ("'abc' -replace '(b)', '<$1>'", ["a<b>c"]),
        ("1..4", [1, 2, 3, 4]),
        ("if (@()) { 1 } else { 2 }", [2]),
        ("if (@(0)) { 1 } else { 2 }", [2]),
        ("if ('0') { 1 } else { 2 }", [1]),
        ("$x = 1; $x += 2; $x++; $x", [4]),
        ("$a = @(); $a.Count; $a += 'x'; $a.Count", [0, 1]),
        ("$h = @{ 'a' = 1 }; $h.A; $h['b']; $h.Count", [1, None, 1]),
        ("$h = @{ 'Count' = 9 }; $h.Count", [9]),
        ("$o = [pscustomobject]@{ 'n' = 1 }; $k = 'N'; $o.$k", [1]),
        ("(,1).Count; (5).Count", [1, 1]),
        ("$null.Count", [0]),
        ("\"a $(1 + 1) $('x')b `$y\"", ["a 2 xb $y"]),
        ("'it''s $x'", ["it's $x"]),
        ("foreach ($x in $null) { 'never' }", []),
        ("foreach ($x in 1, 2, 3) { if ($x -eq 2) { continue }; $x }", [1, 3]),
        ("$i = 0; while ($true) { $i++; if ($i -gt 3) { break } }; $i", [4]),
        ("for ($i = 0; $i -lt 3; $i++) { $i }", [0, 1, 2]),
        ("do { 1 } while ($false)", [1]),
        ("function F($a, $b = 2) { $a + $b }; F 1; F -b 5 -a 1", [3, 6]),
        ("function F { return 1; 2 }; F", [1]),
        ("function F { ,@(1) }; @(F).Count", [1]),
        ("$f = { param($x) $x * 2 }; & $f 4", [8]),
        ("1, 2, 3 | Where-Object { $_ -gt 1 } | ForEach-Object { $_ * 10 }", [20, 30]),
        ("$p = @{ 'InputObject' = 'x' }; Write-Output @p", ["x"]),
        ("try { throw 'x' } catch { $_.Exception.Message } finally { 'end' }", ["x", "end"]),
        ("try { [Convert]::FromBase64String('!') } catch [FormatException] { 'f' }", ["f"]),
        ("function F { $script:n = 5 }; F; $n", [5]),
        ("function F { $n = 5 }; F; $n", [None]),
        ("$x = 3; function F { $x }; F", [3]),
        ("'a b'.Split(' ')", ["a", "b"]),
        ("[int]'0x10'; [int]2.5; [int]3.5", [16, 2, 4]),
        ("[bool]'False'", [True]),
        ("5 -is [int]; 'a' -is [string]; @() -is [array]", [True, True, True]),
        ("$a = 'x', 'y'; \"$a\"", ["x y"]),
        ("switch ('b') { 'a' { 1 }\n 'B' { 2 } }", [2]),
        ("# only\n1 # that", [1]),
        ("@'\n a'b\n'@", [" a'b"]),
        ("$h = [ordered]@{ 'z' = 1; 'a' = 2 }; $h.Keys", ["z", "a"]),
        ("[void](New-Object System.Collections.ArrayList).Add(1)", []),
        ("$l = New-Object System.Collections.ArrayList; $l.Add('x'); $l.Count", [0, 1]),
        ("$x = if ($true) { 'a' } else { 'b' }; $x", ["a"]),
        ("exit 3; 1", []),
    ],
)  # fmt: skip
def test_as_5_1_does(script: str, expected: Any) -> None:
    if expected is Unsupported:
        with pytest.raises(Unsupported):
            run(script)
    else:
        assert run(script) == expected


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("@{ 'a' = @{ 'b' = @{ 'c' = @{ 'd' = 1 } } } }",
         '{"a":{"b":{"c":"System.Collections.Hashtable"}}}'),
        ("@(1)", "[1]"),
        ("@{ 'a' = 'x<''&' }", '{"a":"x\\u003c\\u0027\\u0026"}'),
        ("@{ 'e' = [IO.FileMode]::Open }", '{"e":3}'),
        ("@{ 'a' = $null; }", '{"a":null}'),
        ("'é'", '"é"'),
    ],
)  # fmt: skip
def test_what_surprises_people_in_json(value: str, told: str) -> None:
    assert run(f"ConvertTo-Json -InputObject ({value}) -Compress") == [told]


def test_json_through_a_pipe_loses_an_array_of_one() -> None:
    assert run("@(1) | ConvertTo-Json -Compress") == ["1"]
    assert run("@(ConvertFrom-Json '[1, 2]').Count") == [1]  # which PowerShell 7 would make 2
    assert run(r"""(ConvertFrom-Json '{"a":"\/Date(0)\/"}').a.Year""") == [1970]
    written = run("ConvertTo-Json -InputObject ([DateTime]::UtcNow)")[0]
    assert written.startswith('"\\/Date(') and written.endswith(')\\/"')
    for bad in ('{"a":1,"A":2}', '{"":1}', "{", "[NaN]"):
        error = failed(f"ConvertFrom-Json '{bad}'")
        assert error.record.category == "InvalidArgument"


@pytest.mark.parametrize(
    "script",
    [
        "$x ? 1 : 2", "$a ?? 1", "Get-Date && Get-Date", "ConvertFrom-Json '{}' -AsHashtable",
        "1 | ForEach-Object -Parallel { 1 }", "class A {}", ". 'x.ps1'", "Invoke-Expression 'x'",
        "[Diagnostics.Process]::Start('x')", "Get-Nothing", "$x.Frobnicate()", "if (1) {",
        "workflow w { }", "Start-Job { 1 }", "'a' | Get-VM", "Get-VM 'by place'",
    ],
)  # fmt: skip
def test_what_is_not_known_is_never_passed_over(script: str) -> None:
    with pytest.raises((Unsupported, PSError)):
        run(f"$ErrorActionPreference = 'Stop'; {script}")


@pytest.mark.parametrize(
    ("script", "id", "category"),
    [
        ("throw 'mine'", "mine", "OperationStopped"),
        ("$null.Foo()", "InvokeMethodOnNull", "InvalidOperation"),
        ("Get-Nothing", "CommandNotFoundException", "ObjectNotFound"),
        ("(@(1)).Add(2)", "NotSupportedException", "NotSpecified"),
        ("'abc'.Substring(5)", "ArgumentOutOfRangeException", "NotSpecified"),
        ("[int]'x'", "InvalidCastFromStringToInteger", "InvalidArgument"),
        ("Set-StrictMode -Version 2; $undefined", "VariableIsUndefined", "InvalidOperation"),
        ("Set-StrictMode -Version 2; (@{}).x", "PropertyNotFoundStrict", "NotSpecified"),
        ("@{ 'a' = 1; 'A' = 2 }", "DuplicateKeyInHashLiteral", "InvalidOperation"),
    ],
)
def test_errors_are_told(script: str, id: str, category: str) -> None:
    found = failed(script).record
    assert (found.id, found.category) == (id, category)


def test_what_an_error_ends_is_the_preference_s() -> None:
    missing = "Get-Item -LiteralPath 'C:\\no'"
    interpreter, process = shell()
    assert interpreter.run(f"{missing}; 'on'")[0] == ["on"]
    found = process.take(10_000, 0)
    assert found is not None and b"does not exist" in found["stderr"]
    assert run(f"{missing} -ErrorAction SilentlyContinue; $Error.Count") == [1]
    assert run(f"try {{ {missing} -ErrorAction Stop }} catch {{ 'caught' }}") == ["caught"]
    assert failed(f"{missing}; 'never'").record.id.startswith("PathNotFound,")


def test_a_process_that_is_killed_stops_between_statements() -> None:
    interpreter, process = shell()
    process.kill()
    with pytest.raises(BaseException) as e:
        interpreter.run("while ($true) { 1 }")
    assert type(e.value).__name__ == "Killed"


#: what would be code if it were ever taken for it
texts = st.one_of(
    st.text(),
    st.sampled_from([
        "'; Remove-VM *; '", '"; exit 9; "', "$(exit 9)", "`n", "$env:Path", "a\r\nb", "é€😀", "@p",
        "%PATH%", "2020-01-01T00:00:00", "{0}", "\\/Date(0)\\/", "*", "[a]", "\x00", "\ufeffx",
    ]),
).filter(lambda t: not any(0xD800 <= ord(c) < 0xE000 for c in t))  # fmt: skip
ECHO = """
$utf8 = New-Object System.Text.UTF8Encoding($false)
$text = $utf8.GetString([Convert]::FromBase64String([Console]::In.ReadLine()))
$found = ConvertFrom-Json -InputObject $text
$rows = @(foreach ($one in $found.texts) { @{ 'text' = $one; 'again' = "$one" } })
$json = ConvertTo-Json -InputObject @{ 'rows' = $rows } -Depth 4 -Compress
[Console]::Out.WriteLine([Convert]::ToBase64String($utf8.GetBytes($json)))
"""


def _echoed(document: dict[str, Any]) -> Any:
    line = base64.b64encode(json.dumps(document, ensure_ascii=False).encode()) + b"\n"
    interpreter, process = shell(line)
    interpreter.run(ECHO)
    found = process.take(10**9, 0)
    assert found is not None and not found["stderr"]
    return json.loads(base64.b64decode(found["stdout"]))


@given(st.lists(texts, max_size=4))
def test_data_stays_data(given_texts: list[str]) -> None:
    """Quotes, dollars, newlines, letters of any sort: what comes out is what went in."""
    found = _echoed({"texts": given_texts})
    assert [row["text"] for row in found["rows"]] == given_texts
    assert [row["again"] for row in found["rows"]] == given_texts


@given(texts)
def test_a_parameter_s_value_is_its_value(value: str) -> None:
    script = """
    $given = ConvertFrom-Json -InputObject ([Console]::In.ReadLine())
    $p = @{ 'InputObject' = $given.value }
    Write-Output @p
    """
    line = json.dumps({"value": value}).encode() + b"\n"
    assert run(script, line) == [value]


@given(texts)
def test_a_name_that_is_called_is_never_a_script(name: str) -> None:
    """``&`` calls what has that name, and nothing has."""
    known = {*binding.tables(), *binding.ALIASES, *builtins.CMDLETS, *builtins.ALIASES}
    if not name.strip() or name.lower().rpartition("\\")[2].removesuffix(".exe") in (
        *known, "bcdedit", "whoami", "cpugroups",
    ):  # fmt: skip
        return
    line = json.dumps({"name": name}).encode() + b"\n"
    script = "$n = (ConvertFrom-Json -InputObject ([Console]::In.ReadLine())).name; & $n"
    with pytest.raises(PSError) as e:
        run(f"$ErrorActionPreference = 'Stop'; {script}", line)
    assert e.value.record.id == "CommandNotFoundException"


def test_mutexes_are_of_the_whole_host() -> None:
    """Held by one process; of one that was killed they are said to be abandoned."""
    world, mutexes = World(), Mutexes()

    def process() -> tuple[Callable[[str], Any], Process]:
        found = Process("powershell.exe", {}, UTF8)
        interpreter = Interpreter(Windows(world, mutexes, found))
        return (lambda script: interpreter.run(script)[0]), found

    make = "$m = New-Object System.Threading.Mutex($false, 'Global\\x'); $m.WaitOne(0)"
    (one, first), (other, _) = process(), process()
    assert one(make) == [True]
    assert other(make) == [False]
    mutexes.abandon(first)
    with pytest.raises(PSError) as e:
        other(make)
    assert e.value.record.id == "AbandonedMutexException"
    assert other("$m.WaitOne(0); $m.ReleaseMutex()") == [True]
    assert one("$m.WaitOne(0)") == [True]
