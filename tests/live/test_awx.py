"""The jobs of AWX with a real guest: up, its inventory, run, reset, down."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.awx import Controller
from tests.live.conftest import Shell

pytestmark = pytest.mark.live


def test_a_workflow(shell: Shell, as_before: Callable[[], None], tmp_path: Path) -> None:
    awx = Controller(tmp_path / "awx", timeout_s=600)
    awx.env["PROVISION_STATE_DIR"] = str(shell.folder)
    up = awx.launch("up", provision_hv="kvm", provision_vms=1, provision_name="test-awx",
                    provision_set={"lab.rate": "60mbit"})  # fmt: skip
    assert (up.rc, up.artifacts.get("provision_guests")) == (0, 1), up.output

    synced = awx.sync()
    assert synced.returncode == 0, synced.stderr
    assert json.loads(synced.stdout)["guests"]["hosts"] == ["vm1"]
    project = awx.folder / "sync/project"
    ansible = str(Path(sys.executable).with_name("ansible"))
    words = ["-i", "inventories/provision.yml", "guests", "-m", "ansible.builtin.ping"]
    ping = awx.start([ansible, *words], project)
    assert ping.returncode == 0, ping.stdout + ping.stderr

    run = awx.launch("run", provision_workloads=["netperf-send"], provision_seconds=2,
                     provision_repeat=1, **up.artifacts)  # fmt: skip
    assert run.rc == 0, run.output
    assert run.artifacts["provision_valid"] == 1
    assert 0 < run.artifacts["provision_aggregate_mbit"]["netperf-send"] < 60
    assert (shell.folder / "runs" / run.artifacts["provision_run"] / "results.jsonl").exists()

    reset = awx.launch("reset", provision_level="process", **run.artifacts)
    assert reset.rc == 0, reset.output
    down = awx.launch("down", **reset.artifacts)
    assert down.rc == 0, down.output
    as_before()
