"""OpenVZ's driver against libvirt's own, whose tools are stand-ins in namespaces of the test's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEER = ROOT / "tests" / "peers" / "openvz"


@pytest.mark.root
def test_a_guests_life(tmp_path: Path) -> None:
    pytest.importorskip("libvirt")
    if os.geteuid():
        pytest.skip("needs root, for namespaces and mounts")
    done = subprocess.run(
        ["unshare", "--mount", "--net", PEER / "host", tmp_path, sys.executable, PEER / "day.py",
         tmp_path],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if "no connection driver available" in done.stderr:
        pytest.skip("libvirt was built without its OpenVZ driver")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    version, why = seen.pop("facts")
    assert version.endswith("vzctl 4.9.4") and "snapshots" in why
    assert all("without our mark" in words for words in seen.pop("foreign"))
    half, owned = seen.pop("half")
    assert half is None and ["guest", "vm1"] in owned
    assert seen == {
        "put": True,
        "inside": ["198.18.1.2/24", "198.19.7.10/24"],
        "files": "vm1",
        "busy_s": 1.5,
        "anew": True,
        "owned": ["guest", "switch", "switch"],
        "live": True,
        "stopped": True,
        "again": True,
        "other": True,
        "gone": [None, ""],
        "untouched": True,
        "mended": True,
        "left": [],
    }
