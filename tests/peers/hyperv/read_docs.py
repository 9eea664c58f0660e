"""Makes ``cmdlets.json`` anew, of a clone of MicrosoftDocs/windows-powershell-docs.

    python -m tests.peers.hyperv.read_docs CLONE [2025]

Two traps of its pages: a blank line may stand between a syntax heading and its code block, and a
parameter may have one block for each of its parameter sets.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEPT = HERE / "cmdlets.json"
#: what a host's driver may want of Hyper-V's module
NEEDED = [
    "Get-VMHost",
    "Get-VM",
    "New-VM",
    "Set-VM",
    "Start-VM",
    "Stop-VM",
    "Remove-VM",
    "Remove-VMSavedState",
    "Rename-VM",
    "Get-VMProcessor",
    "Set-VMProcessor",
    "Get-VMMemory",
    "Set-VMMemory",
    "Get-VMFirmware",
    "Set-VMFirmware",
    "Get-VMBios",
    "Set-VMBios",
    "Get-VMNetworkAdapter",
    "Add-VMNetworkAdapter",
    "Set-VMNetworkAdapter",
    "Remove-VMNetworkAdapter",
    "Connect-VMNetworkAdapter",
    "Disconnect-VMNetworkAdapter",
    "Rename-VMNetworkAdapter",
    "Get-VMHardDiskDrive",
    "Add-VMHardDiskDrive",
    "Remove-VMHardDiskDrive",
    "Get-VMDvdDrive",
    "Add-VMDvdDrive",
    "Set-VMDvdDrive",
    "Remove-VMDvdDrive",
    "New-VHD",
    "Get-VHD",
    "Checkpoint-VM",
    "Get-VMSnapshot",
    "Restore-VMSnapshot",
    "Remove-VMSnapshot",
    "Get-VMSwitch",
    "New-VMSwitch",
    "Set-VMSwitch",
    "Remove-VMSwitch",
    "Rename-VMSwitch",
    "Get-VMIntegrationService",
    "Enable-VMIntegrationService",
    "Disable-VMIntegrationService",
]


def listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def page(name: str, text: str) -> dict[str, Any]:
    """The table of one cmdlet's page."""
    syntax = re.search(r"\n## SYNTAX\n(.*?)\n## ", text, re.DOTALL)
    assert syntax, name
    block = r"^### (.+?)[ \t]*\n+```\w*\n" + re.escape(name) + r"\b"
    heads: list[str] = re.findall(block, syntax[1], re.MULTILINE)
    sets = [head.replace("(Default)", "").strip() for head in heads]
    default = next((s for s, h in zip(sets, heads, strict=True) if "(Default)" in h), None)
    after = text.split("\n## PARAMETERS", 1)[1]
    body = re.split(r"\n## (?!PARAMETERS)|\n### CommonParameters", after)[0]
    found = {}
    for part in re.split(r"\n(?=### -)", body)[1:]:
        heading = re.match(r"### -(\w+)", part)
        assert heading, part[:80]
        found[heading[1]] = _parameter(part)
    head: dict[str, Any] = {"sets": sets} if sets else {}
    return head | ({"default_set": default} if default else {}) | {"parameters": found}


def _parameter(part: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": None}
    sets: list[str] = []
    required: list[str] = []
    more: dict[str, list[str]] = {"aliases": [], "values": []}
    for block in re.findall(r"```yaml\n(.*?)```", part, re.DOTALL):
        yaml = dict(re.findall(r"^([\w ]+):[ \t]*(.*)$", block, re.MULTILINE))
        found["type"] = yaml["Type"].strip()
        own = listed(yaml.get("Parameter Sets", "(All)"))
        sets += own
        if yaml.get("Required", "").strip() == "True":
            required += own
        for key, line in (("aliases", "Aliases"), ("values", "Accepted values")):
            more[key] += [v for v in listed(yaml.get(line)) if v not in more[key]]
    everywhere = "(All)" in sets
    if not everywhere:
        found["sets"] = list(dict.fromkeys(sets))
    if required:
        whole = "(All)" in required or set(required) == set(sets)
        found["required"] = True if whole else list(dict.fromkeys(required))
    return found | {key: values for key, values in more.items() if values}


def tables(clone: Path, year: str) -> dict[str, Any]:
    pages = sorted((clone / "docset" / f"winserver{year}-ps" / "Hyper-V").glob("*.md"))
    return {
        file.stem: page(file.stem, file.read_text(encoding="utf-8-sig").replace("\r\n", "\n"))
        for file in pages if file.stem != "Hyper-V"
    }  # fmt: skip


def kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of all cmdlets those that are needed."""
    return {name: found[name] for name in NEEDED}


def dump(found: Mapping[str, Any]) -> str:
    """One parameter a line, so that versions can be compared."""
    cmdlets = []
    for name, table in found.items():
        rest = {key: value for key, value in table.items() if key != "parameters"}
        head = json.dumps(rest, separators=(",", ":"))[1:-1]
        lines = ",\n".join(
            f"  {json.dumps(p)}: {json.dumps(v, separators=(',', ':'))}"
            for p, v in table["parameters"].items()
        )
        comma = "," if head else ""
        cmdlets.append(f' {json.dumps(name)}: {{{head}{comma}"parameters": {{\n{lines}\n }}}}')
    return "{\n" + ",\n".join(cmdlets) + "\n}\n"


if __name__ == "__main__":
    KEPT.write_text(dump(kept(tables(Path(sys.argv[1]), (sys.argv[2:] or ["2025"])[0]))))
