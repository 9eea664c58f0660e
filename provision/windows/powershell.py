"""Static PowerShell scripts on a Windows guest; data goes in as JSON on standard input alone.

The command line is one that cmd.exe and PowerShell take alike, whichever OpenSSH has for a shell.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from provision.errors import WorldError

MARKER = "provision:"
LONGEST = 8100  # cmd.exe takes 8191 characters, its own words included
_WORDS = (
    "powershell.exe", "-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass",
    "-OutputFormat", "Text", "-EncodedCommand",
)  # fmt: skip


def command(script: str) -> tuple[str, ...]:
    """What runs a script, of whose lines comments and indentation are left out."""
    lines = (line.strip() for line in script.splitlines())
    code = "\n".join(line for line in lines if line and not line.startswith("#"))
    return (*_WORDS, base64.b64encode(code.encode("utf-16-le")).decode())


def answer(who: str, said: str) -> dict[str, Any]:
    """What the script told. Raises WorldError with its own words, or where it told nothing."""
    line = next((one for one in said.splitlines() if one.startswith(MARKER)), "")
    try:
        data = base64.b64decode(line[len(MARKER) :], validate=True)
        # not all control characters are escaped by Windows PowerShell's JSON
        found: dict[str, Any] = json.loads(data, strict=False)
    except ValueError as e:
        raise WorldError(f"{who}: PowerShell gave no answer: {said[:200]!r}") from e
    if not found.get("ok"):
        raise WorldError(f"{who}: {' '.join(str(found.get('message')).split())[:500]}")
    return found
