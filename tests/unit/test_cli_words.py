"""What the command line says: which testbed, which guest, which run, and how many."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from drivers.fake import Fake
from provision.cli import cli
from provision.cli.which import there_are
from provision.errors import UserError
from provision.measuring.results import RESULTS, Run
from tests.unit.streams import sample
from tests.unit.test_cli import Shell, fake, shell, world

__all__ = ["fake", "shell"]  # fixtures


def test_help_shows_the_day_line_by_line(shell: Shell) -> None:
    shown = shell("--help").stdout
    assert "\b" not in shown
    lines = [line.strip() for line in shown.splitlines() if line.startswith("  provision ")]
    assert [line.split()[1] for line in lines] == [
        "up", "run", "report", "down",
    ]  # fmt: skip


def test_down_of_nothing_is_done_already(shell: Shell, fake: list[str], tmp_path: Path) -> None:
    assert shell("down").stdout == "no testbed; nothing to do\n"
    done = shell("down", "-n", "nothing")
    assert (done.returncode, done.stdout) == (
        0, "no testbed 'nothing', nor any other; nothing to do\n")  # fmt: skip
    shell("up", *fake, "-n", "fe2")
    before = world(tmp_path)
    done = shell("down", "-n", "fe1")
    assert (done.returncode, done.stdout) == (
        0, "no testbed 'fe1'; there are: fe2; nothing to do\n")  # fmt: skip
    assert world(tmp_path) == before
    told = json.loads(shell("down", "-n", "fe1", "--json").stdout)
    assert told == {"testbed": "fe1", "undone": []}


def test_among_several_testbeds_one_is_to_be_named(shell: Shell, fake: list[str]) -> None:
    for name in ("fe3", "fe2"):
        shell("up", *fake, "-n", name)
    for verb in ("verify", "down", "run"):
        done = shell(verb)
        assert done.returncode == 2
        assert "there are 2 testbeds: fe2, fe3" in done.stderr
        assert "next:  say which: -n fe2 or -n fe3" in done.stderr
    assert "next:  say which: -n fe2 or -n fe3" in shell("verify", "-n", "fe4").stderr


def test_clicks_own_errors_are_json_too(shell: Shell) -> None:
    for words in (
        ["up", "--vms", "many", "--json"],
        ["nothing", "--json"],
        ["up", "--jsn", "--json"],
    ):
        done = shell(*words)
        told = json.loads(done.stdout)
        assert (told["exit_code"], done.returncode) == (2, 2)
        assert told["error"] in done.stderr
    assert shell("up", "--vms", "many").stdout == ""


def test_the_spec_that_is_taken_is_told(shell: Shell, fake: list[str]) -> None:
    said = "lab: taking its spec as it stands; flags go over it"
    assert said not in shell("up", *fake, "--vms", "2").stderr
    assert said in shell("up").stderr
    assert said in shell("plan", "--vms", "1").stderr
    assert said not in shell("up", "-q").stderr
    events = shell("up", "--events").stdout.splitlines()
    assert json.loads(events[0])["detail"] in said
    done = shell("plan", "-f", "-", stdin="hypervisor: fake\n")
    assert said not in done.stderr


@pytest.mark.parametrize("change", [6, 7])  # before its making is begun, and within
def test_a_guest_that_was_never_made_is_told_before_ssh_is(
    shell: Shell, fake: list[str], change: int
) -> None:
    assert shell("up", *fake, "--vms", "1", PROVISION_FAKE=f"fail={change}").returncode == 6
    done = shell("ssh", "vm1", "--", "true")
    assert done.returncode == 7
    assert "guest vm1 was never made, or is gone" in done.stderr
    assert "next:  provision up -n lab" in done.stderr


def test_guests_are_listed_in_order(shell: Shell, fake: list[str]) -> None:
    assert there_are(["vm10", "vm2", "vm1"]) == "; there are: vm1, vm2, vm10"
    assert there_are([]) == ", nor any other"
    shell("up", *fake, "--vms", "3")
    done = shell("ssh", "vm9")
    assert "no guest 'vm9'; there are: vm1, vm2, vm3" in done.stderr


@pytest.mark.parametrize(
    ("started", "said"),
    [
        ("restored", "vm1: nothing was written to its console: it was restored, not booted\n"),
        ("booted", "vm1: nothing was written to its console\n"),
    ],
)
def test_a_silent_console_says_why(
    fake: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, started: str, said: str
) -> None:
    monkeypatch.setenv("PROVISION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Fake, "evidence", lambda *_: {"started": started})
    assert CliRunner().invoke(cli, ["up", *fake, "--vms", "1"]).exit_code == 0
    done = CliRunner().invoke(cli, ["console", "vm1"])
    assert (done.stdout, done.stderr) == ("", said)
    monkeypatch.setattr(Fake, "console", lambda *_: "login:")
    assert CliRunner().invoke(cli, ["console", "vm1"]).stdout == "login:\n"


def test_doctor_lists_the_drivers(shell: Shell) -> None:
    found = {
        c["what"]: c["detail"] for c in json.loads(shell("doctor", "--hv", "fake", "--json").stdout)
    }
    there = set(found["drivers"].split(", "))
    assert {"kvm", "vsphere"} <= there
    assert "fake" not in there, "it makes nothing, and is no choice"
    assert found["fake"], "but it can be asked for"


def test_a_misspelt_workload_is_told_before_all_else(shell: Shell) -> None:
    """Neither the testbed that is missing nor another workload's missing file hides it."""
    done = shell("run", "mine.yml", "netprf-send+haevy", "http-closed.yml", "-n", "nothing")
    assert done.returncode == 2
    for words in (
        "mine.yml: No such file or directory\n",
        "no workload 'netprf-send+haevy' (did you mean 'netperf-send+heavy'?)",
        "http-closed.yml: No such file or directory (did you mean 'http-closed'?)",
    ):
        assert words in done.stderr
    assert "no testbed 'nothing'" in shell("run", "netperf-send", "-n", "nothing").stderr


@pytest.mark.parametrize(
    ("folder", "why"),
    [("file", "is no folder"), ("/proc/x", "cannot be used: /proc: "), ("x" * 300, "too long")],
)
def test_an_impossible_state_folder_is_told(
    shell: Shell, tmp_path: Path, folder: str, why: str
) -> None:
    (tmp_path / "file").touch()
    doctor = shell("doctor", "--hv", "fake", "--json", PROVISION_STATE_DIR=folder)
    assert doctor.returncode in (2, 4)
    assert why in doctor.stdout
    up = shell("up", "--hv", "fake", PROVISION_STATE_DIR=folder)
    assert up.returncode in (1, 2)
    assert "PROVISION_STATE_DIR" in up.stderr
    for done in (doctor, up):
        assert "Traceback" not in done.stderr
        assert "defect" not in done.stderr


def test_a_list_of_no_runs_says_so(shell: Shell) -> None:
    assert shell("report", "--list").stdout == "no run yet; provision run makes one\n"
    assert json.loads(shell("report", "--list", "--json").stdout) == []


def test_what_is_refused_is_told_before_an_image_is_built(
    fake: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def build(*_: object, **__: object) -> None:
        raise AssertionError("minutes went by")

    monkeypatch.setenv("PROVISION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Fake, "takes_image", True)
    monkeypatch.setattr("provision.image.build", build)
    done = CliRunner().invoke(cli, ["up", *fake, "--nic", "virtoi"])
    assert isinstance(done.exception, UserError)
    assert "no vNIC model 'virtoi'" in str(done.exception)


def test_a_run_is_not_set_beside_itself(shell: Shell, tmp_path: Path) -> None:
    one = kept(tmp_path, "fe1", ())
    for words in ([one.id, one.id], [one.id, str(one.path)]):
        done = shell("report", *words)
        assert done.returncode == 2
        assert f"{one.id} is named twice" in done.stderr
    assert not (one.path / "compared.html").exists()


def test_one_is_not_many(shell: Shell) -> None:
    done = shell("validate", "-f", "-", stdin="guests: {count: 1}\nhypervisor: fake\n")
    assert done.stdout == "lab: 1 guest on fake: sound\n"
    crowded = "guests: {count: 1, memory: 9999GiB}\nhypervisor: fake\n"
    done = shell("plan", "-f", "-", stdin=crowded)
    assert "1 guest wants" in done.stderr


def kept(tmp_path: Path, testbed: str, *reasons: tuple[str, ...]) -> Run:
    run = Run.create(tmp_path / "state" / "runs", testbed, {})
    for n, words in enumerate(reasons, 1):
        run.append(sample("netperf-send", 100, n, reasons=words))
    return run


def test_runs_are_listed_with_what_they_have(shell: Shell, tmp_path: Path) -> None:
    one = kept(tmp_path, "fe1", (), ("stopped early",))
    none = kept(tmp_path, "fe2")
    torn = kept(tmp_path, "fe3", ())
    (torn.path / RESULTS).write_text("no run")
    lines = shell("report", "--list").stdout.splitlines()
    assert sorted(lines) == sorted([
        f"{one.id}  2 samples, 1 invalid", f"{none.id}  no sample", f"{torn.id}  cannot be read",
    ])  # fmt: skip
    (only,) = json.loads(shell("report", "--list", "-n", "fe1", "--json").stdout)
    assert (only["run"], only["testbed"]) == (one.id, "fe1")


def test_the_last_run_of_a_testbed(shell: Shell, tmp_path: Path) -> None:
    first = kept(tmp_path, "fe1", ())
    kept(tmp_path, "fe2", ())
    (shown,) = json.loads(shell("report", "-n", "fe1", "--json").stdout)["runs"]
    assert shown["id"] == first.id


def test_a_run_without_any_sample_is_no_success(shell: Shell, tmp_path: Path) -> None:
    run = kept(tmp_path, "fe1")
    done = shell("report")
    assert done.returncode == 8
    assert "no sample was taken" in done.stdout
    one = sample("netperf-send", 100, 1)
    run.append(replace(one, raw="raw/one"))
    assert shell("report").returncode == 0
    text = (run.path / RESULTS).read_text()
    (run.path / RESULTS).write_text(text + text.splitlines()[1][:50])
    assert "- the last line of results.jsonl is cut off, and left out" in shell("report").stdout
