"""The peer's tables of cmdlets: what is kept of the published ones, and that each is done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.peers.hyperv import binding, cmdlets, read_docs
from tests.peers.windows import session as inside

#: a clone of Microsoft's pages, or a table made of one, to hold the kept one against
PUBLISHED = os.environ.get("HYPERV_CMDLETS", "")


def test_each_cmdlet_of_the_tables_is_done() -> None:
    assert sorted({*cmdlets.known(), *inside.known()}) == sorted(binding.tables())


def test_the_kept_table_is_as_its_script_writes_it() -> None:
    kept = json.loads(read_docs.KEPT.read_text())
    assert [*kept] == read_docs.NEEDED
    assert read_docs.dump(kept) == read_docs.KEPT.read_text()


@pytest.mark.skipif(not PUBLISHED, reason="HYPERV_CMDLETS names no published table or clone")
def test_the_kept_table_is_the_published_one() -> None:
    path = Path(PUBLISHED)
    found = read_docs.tables(path, "2025") if path.is_dir() else json.loads(path.read_text())
    assert read_docs.dump(read_docs.kept(found)) == read_docs.KEPT.read_text()


def test_a_page_is_read_with_its_traps() -> None:
    """A blank line before the code, and a parameter of several sets."""
    text = """
## SYNTAX

### One (Default)

```
New-Thing [-Path] <String> [-Fast]
```

### Two
```
New-Thing -Size <UInt64> [-Fast]
```

## DESCRIPTION

## PARAMETERS

### -Fast
```yaml
Type: SwitchParameter
Parameter Sets: One
Required: True
```

```yaml
Type: SwitchParameter
Parameter Sets: Two
Required: False
```

### -Path
```yaml
Type: String
Parameter Sets: (All)
Aliases: P, Name
Accepted values: a, b

Required: False
```

### CommonParameters
"""
    assert read_docs.page("New-Thing", text) == {
        "sets": ["One", "Two"], "default_set": "One",
        "parameters": {
            "Fast": {"type": "SwitchParameter", "sets": ["One", "Two"], "required": ["One"]},
            "Path": {"type": "String", "aliases": ["P", "Name"], "values": ["a", "b"]},
        },
    }  # fmt: skip
