"""What is sent to Windows guests: static, known to the grammar and the tables, short enough."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from provision.errors import WorldError
from provision.windows import powershell
from provision.windows.guest import script
from tests.hyperv import grammar
from tests.peers.hyperv.binding import tables
from tests.peers.windows.session import known

ROLE = Path(__file__).parents[2] / "playbooks" / "roles" / "netperf" / "files" / "netserver.ps1"
SCRIPTS = {
    "identity": script("identity.ps1"),
    "inspect": script("inspect.ps1"),
    "netserver": ROLE.read_text("ascii"),
}
BUILTINS = {"New-Object", "Start-Sleep", "ConvertFrom-Json", "ConvertTo-Json", "Where-Object"}
PROGRAMS = {"icacls.exe"}
#: of any cmdlet, by about_CommonParameters
COMMON = {"ErrorAction", "Confirm"}
each = pytest.mark.parametrize("name", SCRIPTS)


@each
def test_it_parses_and_is_plain(name: str) -> None:
    text = SCRIPTS[name]
    assert grammar.faults(text.encode("ascii")) == []
    assert "\r" not in text
    low = text.lower()
    for word in ("invoke-expression", "iex ", "[scriptblock]", "add-type", "start-process"):
        assert word not in low
    for later in ("??", "?.", "&&", "||", " ? "):
        assert later not in low, "not in Windows PowerShell 5.1"


@each
def test_it_calls_what_is_published_and_what_the_peer_does(name: str) -> None:
    root = grammar.tree(SCRIPTS[name].encode())
    own = grammar.texts(root, "function_name")
    called = grammar.texts(root, "command_name") - own - BUILTINS - PROGRAMS
    assert [c for c in sorted(called) if c.lower() not in tables()] == []
    assert [c for c in sorted(called) if c.lower() not in known()] == []
    for command in grammar.nodes(root, "command"):
        cmdlet = command.children[0].text.decode()
        if cmdlet.lower() not in tables():
            continue
        has = tables()[cmdlet.lower()]["parameters"]
        given = {p.strip("-:") for p in grammar.texts(command, "command_parameter")}
        assert given - has.keys() - COMMON == set(), cmdlet


def test_the_check_finds_what_is_wrong() -> None:
    root = grammar.tree(b"New-NetFirewallRule -Nmae 'x'\n")
    assert {p.strip() for p in grammar.texts(root, "command_parameter")} == {"-Nmae"}


@pytest.mark.parametrize("name", ["inspect", "netserver"])
def test_cmd_takes_its_command_line(name: str) -> None:
    words = powershell.command(SCRIPTS[name])
    assert len(" ".join(words)) <= powershell.LONGEST
    code = base64.b64decode(words[-1]).decode("utf-16-le")
    assert "#" not in code.replace("'#'", "")
    assert grammar.faults(code.encode()) == []


def _line(told: Any) -> str:
    return powershell.MARKER + base64.b64encode(json.dumps(told).encode()).decode()


def test_an_answer_is_found_among_other_words() -> None:
    said = f"Active code page: 65001\r\n{_line({'ok': True, 'a': 1})}\r\n"
    assert powershell.answer("vm1", said)["a"] == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "no answer"),
        ("provision:!!!", "no answer"),
        (f"provision:{base64.b64encode(b'nonsense').decode()}", "no answer"),
        (_line({"ok": False, "message": "port 1 is in use\r\nby another"}), "in use by another"),
    ],
)
def test_what_is_no_answer_is_an_error(said: str, words: str) -> None:
    with pytest.raises(WorldError, match=words):
        powershell.answer("vm1", said)
