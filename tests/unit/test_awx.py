"""The jobs and the inventory source, started as AWX starts them, on the fake hypervisor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from provision import journal
from provision.measuring.results import Run
from tests.awx import REPOSITORY, Controller
from tests.unit.streams import sample


@pytest.fixture
def awx(tmp_path: Path) -> Controller:
    return Controller(tmp_path / "awx")


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, Any]:
    """The extra variables of a fake hypervisor that lasts from one job to the next."""
    uri = f"fake://{tmp_path}/world.json"
    return {"provision_hv": "fake", "provision_set": {"hypervisor.uri": uri}}


def test_up_sync_up_again_reset_down(awx: Controller, fake: dict[str, Any]) -> None:
    up = awx.launch("up", provision_vms=2, provision_name="rack7", **fake)
    assert (up.rc, up.changed) == (0, 1), up.output
    assert up.artifacts["provision_name"] == "rack7"
    assert (up.artifacts["provision_guests"], up.artifacts["provision_exit_code"]) == (2, 0)
    assert up.artifacts["provision_took_s"] > 0

    synced = awx.sync()
    assert synced.returncode == 0, synced.stderr
    found = json.loads(synced.stdout)
    assert found["guests"]["hosts"] == ["vm1", "vm2"]
    assert found["loadgenerators"]["hosts"] == ["load-generator"]

    again = awx.launch("up", **up.artifacts)
    assert (again.rc, again.changed, again.artifacts["provision_changed"]) == (0, 0, 0)
    reset = awx.launch("reset", **again.artifacts)
    assert (reset.rc, reset.changed) == (0, 1), reset.output
    down = awx.launch("down", **reset.artifacts)
    assert (down.rc, down.changed) == (0, 1), down.output
    again = awx.launch("down")
    assert (again.rc, again.changed) == (0, 0)

    synced = awx.sync()
    assert synced.returncode != 0
    assert "nor any other; next: provision up -n lab" in synced.stderr


def test_a_sync_has_plain_strings_and_the_groups_asked_for(
    awx: Controller, fake: dict[str, Any]
) -> None:
    assert awx.launch("up", provision_vms=1, provision_nic="e1000", **fake).rc == 0
    synced = awx.sync(PROVISION_NAME="lab")
    assert "__ansible_unsafe" not in synced.stdout
    found = json.loads(synced.stdout)
    assert found["nic_e1000"]["hosts"] == ["vm1"]
    assert sorted(found["hypervisor_fake"]["hosts"]) == ["load-generator", "vm1"]
    assert found["_meta"]["hostvars"]["vm1"]["netperf_address"] == "198.18.1.2"
    other = awx.sync(PROVISION_NAME="rack8")
    assert other.returncode != 0
    assert "no testbed 'rack8'; there are: lab" in other.stderr


def test_a_failing_up_fails_the_job_in_provisions_words(
    awx: Controller, fake: dict[str, Any]
) -> None:
    job = awx.launch("up", provision_nic="virtoi", **fake)
    assert (job.rc, job.artifacts) == (2, {"provision_exit_code": 2})
    assert "exit code 2: usage or spec, nothing was touched" in job.said
    assert "has no vNIC model 'virtoi' (did you mean 'virtio'?)" in job.said
    assert "next: provision doctor --hv fake" in job.said
    assert journal.testbeds(awx.folder / "state") == []


def test_check_mode_tells_and_touches_nothing(
    awx: Controller, fake: dict[str, Any], tmp_path: Path
) -> None:
    job = awx.launch("up", "--check", **fake)
    assert (job.rc, job.changed) == (0, 1), job.output
    assert journal.testbeds(awx.folder / "state") == []
    assert awx.launch("up", **fake).rc == 0
    before = (tmp_path / "world.json").read_text()
    assert awx.launch("up", "--check", **fake).changed == 0
    for template in ("reset", "run", "down"):
        job = awx.launch(template, "--check")
        assert (job.rc, job.changed) == (0, 0), job.output
    assert (tmp_path / "world.json").read_text() == before


def test_a_testbed_in_use_is_for_later(awx: Controller, fake: dict[str, Any]) -> None:
    assert awx.launch("up", **fake).rc == 0
    with journal.lease(awx.folder / "state", "lab"):
        job = awx.launch("down")
    assert (job.rc, job.artifacts["provision_exit_code"]) == (2, 5)
    assert "in use by another, launch this job again later" in job.said
    assert awx.launch("down").rc == 0


def test_empty_answers_of_a_survey_are_no_answers(awx: Controller, fake: dict[str, Any]) -> None:
    uri = fake["provision_set"]["hypervisor.uri"]
    answers = {"name": "", "file": "", "vms": "", "nic": "", "state_dir": "", "hv": "fake"}
    text = f"hypervisor.uri={uri}\n\nguests.count=2\n"
    job = awx.launch("up", provision_set=text, **{f"provision_{k}": v for k, v in answers.items()})
    assert job.rc == 0, job.output
    assert (job.artifacts["provision_name"], job.artifacts["provision_guests"]) == ("lab", 2)


def test_a_host_is_restarted_only_where_the_launch_says_so(
    awx: Controller, fake: dict[str, Any]
) -> None:
    uri = fake["provision_set"]["hypervisor.uri"]
    fake["provision_set"] = {"hypervisor.uri": uri, "dom0.memory": "2GiB"}
    assert awx.launch("up", "--check", **fake).rc == 0
    job = awx.launch("up", **fake)
    assert job.rc == 2, job.output
    assert "this restarts the host fake" in job.said
    job = awx.launch("up", **fake, provision_reboot=True)
    assert job.rc == 0, job.output
    assert awx.launch("down").rc == 2
    job = awx.launch("down", provision_reboot="true")
    assert (job.rc, job.changed) == (0, 1), job.output


def test_a_state_of_its_own(awx: Controller, fake: dict[str, Any], tmp_path: Path) -> None:
    job = awx.launch("up", provision_state_dir=str(tmp_path / "elsewhere"), **fake)
    assert job.rc == 0, job.output
    assert (tmp_path / "elsewhere/testbeds/lab").exists()
    assert awx.sync(PROVISION_STATE_DIR=str(tmp_path / "elsewhere")).returncode == 0


def test_answers_are_words_and_never_commands(awx: Controller, fake: dict[str, Any]) -> None:
    job = awx.launch("up", provision_nic="--help", provision_name="$(touch pwned); 1", **fake)
    assert job.rc == 2
    assert "--name" in job.said
    assert "nothing was touched" in job.said
    assert not list(awx.folder.rglob("pwned"))


def test_a_level_that_is_none(awx: Controller) -> None:
    job = awx.launch("reset", provision_level="hard")
    assert job.rc == 2
    assert "process, revert, recreate" in job.said


def test_no_provision_command(awx: Controller) -> None:
    awx.command("exec /nowhere/python")
    job = awx.launch("down")
    assert (job.rc, job.artifacts["provision_exit_code"]) == (2, 127)
    assert "/nowhere/python" in job.said


def test_run_without_a_testbed(awx: Controller) -> None:
    job = awx.launch("run", provision_workloads=["netperf-send"], provision_seconds=2)
    assert job.rc == 2
    assert "next: provision up -n lab" in job.said


@pytest.mark.parametrize("code", [0, 8])
def test_run_tells_what_was_measured(awx: Controller, tmp_path: Path, code: int) -> None:
    reasons = ("vm1: netperf ended early",)
    run = Run.create(tmp_path / "runs", "lab", {})
    run.append(sample("netperf-send", 900, 1, reasons=reasons))
    run.append(sample("netperf-send", 100, 1, attempt=2))
    run.append(sample("netperf-send", 111, 2))
    run.append(sample("netperf-receive", 90, 1, reasons=reasons))
    record = "printf '%s\\n' \"$@\" > words"
    awx.command(f"{record}\n$provision report --json {run.path}\nexit {code}")
    job = awx.launch("run", provision_workloads="netperf-send, netperf-receive",
                     provision_seconds=2, provision_repeat="2")  # fmt: skip
    assert job.artifacts == {
        "provision_aggregate_mbit": {"netperf-send": 105.5},
        "provision_exit_code": code,
        "provision_invalid": 2,
        "provision_run": run.id,
        "provision_valid": 2,
    }
    assert job.rc == (2 if code else 0), job.output
    assert not code or reasons[0] in job.said
    words = (awx.folder / "job-0/project/words").read_text().split()
    assert words == ["run", "--json", "--repeat=2", "--seconds=2", "--",
                     "netperf-send", "netperf-receive"]  # fmt: skip


def test_every_variable_of_a_job_is_explained() -> None:
    role = REPOSITORY / "playbooks/jobs/roles/provision"
    specs = YAML().load(role / "meta/argument_specs.yml")["argument_specs"]
    page = (REPOSITORY / "docs/awx.md").read_text()
    for template, spec in specs.items():
        assert (REPOSITORY / f"playbooks/jobs/{template}.yml").exists()
        assert {name for name in spec["options"] if f"`{name}`" not in page} == set()
    options = {name for spec in specs.values() for name in spec["options"]}
    assert set(YAML().load(role / "defaults/main.yml")) == options
