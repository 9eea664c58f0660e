"""The page on vSphere says which privileges are needed, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from drivers.vsphere.examine import PRIVILEGES

PAGE = Path(__file__).parents[2] / "docs" / "vsphere.md"


def test_the_page_lists_each_privilege_with_its_use() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| the .* \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    wanted = [(name, why) for on in PRIVILEGES.values() for name, why in on.items()]
    assert [row for row in rows if row[0].count(".") > 0 and row[0][0].isupper()] == wanted
