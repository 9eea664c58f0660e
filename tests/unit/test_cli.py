"""The command line as a shell sees it, on the fake hypervisor: words, streams and exit codes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Done = subprocess.CompletedProcess[str]
Shell = Callable[..., Done]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run ``provision WORDS…`` in a folder and with a state of its own."""
    kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
    root = str(Path(__file__).parents[2])
    env = kept | {"PROVISION_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": root}

    def run(*words: str, stdin: str | None = None, **more: str) -> Done:
        return subprocess.run(
            [sys.executable, "-P", "-m", "provision", *words], env=env | more,
            cwd=tmp_path, capture_output=True, text=True, input=stdin, timeout=60, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def fake(tmp_path: Path) -> list[str]:
    """The flags of a fake hypervisor that lasts from one process to the next."""
    return ["--hv", "fake", "--set", f"hypervisor.uri=fake://{tmp_path}/world.json"]


def world(tmp_path: Path) -> object:
    path = tmp_path / "world.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_up_status_plan_up_down(shell: Shell, fake: list[str], tmp_path: Path) -> None:
    done = shell("up", *fake, "--vms", "2")
    assert done.returncode == 0, done.stderr
    assert "lab: up and verified" in done.stdout
    assert "guest/vm2" in done.stderr
    status = shell("status", "--json")
    assert {t["state"] for t in json.loads(status.stdout)["things"]} == {"as asked"}
    assert shell("plan").stdout == "nothing to change\n"
    again = shell("up").stdout.splitlines()
    assert again[0].startswith("GUEST ")
    assert "nothing to change" in again[-1]
    down = shell("down")
    assert down.returncode == 0, down.stderr
    assert json.loads(shell("status", "--json").stdout) == []
    assert not (tmp_path / "state/testbeds/lab").exists()


def test_the_world_is_as_before(shell: Shell, fake: list[str], tmp_path: Path) -> None:
    shell("up", *fake, "--vms", "1", "-n", "first")
    before = world(tmp_path)
    shell("up", *fake, "--vms", "3", "-n", "second", "--set", "dom0.vcpus=2")
    assert world(tmp_path) != before
    assert shell("down", "-n", "second").returncode == 0
    assert world(tmp_path) == before


def test_what_stands_elsewhere_is_not_lost_from_sight(
    shell: Shell, fake: list[str], tmp_path: Path
) -> None:
    """Neither a plan nor an up of another hypervisor may look as if that were all."""
    assert shell("up", *fake).returncode == 0
    other = ["--hv", "fake", "--set", f"hypervisor.uri=fake://{tmp_path}/other.json"]
    for verb in ("plan", "up"):
        done = shell(verb, *other)
        assert done.returncode == 2, done.stderr
        assert "testbed 'lab' stands on fake at fake://" in done.stderr
        assert "next: provision down -n lab first" in " ".join(done.stderr.split())
    assert "vm1" not in (tmp_path / "other.json").read_text()
    assert shell("down").returncode == 0
    assert shell("up", *other).returncode == 0


def test_the_testbed_meant_is_that_of_the_spec_in_the_folder(
    shell: Shell, fake: list[str], tmp_path: Path
) -> None:
    for name in ("lab", "rack7"):
        assert shell("up", *fake, "-n", name).returncode == 0
    (tmp_path / "provision.yml").write_text("name: rack7\n")
    down = shell("down")
    assert (down.returncode, down.stdout[:6]) == (0, "rack7:"), down.stderr
    done = shell("down")
    assert done.returncode == 2
    assert "no testbed 'rack7', which ./provision.yml is about; there are: lab" in done.stderr
    assert "next:  -n lab" in done.stderr
    assert shell("down", "-n", "lab").returncode == 0


def test_plan_shows_fields_and_how_disturbing(shell: Shell, fake: list[str]) -> None:
    shell("up", *fake, "--vms", "1")
    done = shell("plan", "--set", "guests.cpu.weight=512", "--detailed-exitcode")
    assert done.returncode == 3
    assert done.stdout == "~ guest/vm1  [live]\n    weight: 256 -> 512\n1 to change\n"
    done = shell("plan", "--set", "guests.memory=2GiB")
    assert "~ guest/vm1  [restart]\n    memory_mib: 1024 -> 2048\n" in done.stdout
    done = shell("plan", "--switch", "ovs")
    assert "! guest/vm1  [recreate]  (switch/" in done.stdout


def test_flags_stay_with_the_testbed(shell: Shell, fake: list[str]) -> None:
    shell("up", *fake, "--vms", "2", "--nic", "e1000")
    assert "nothing to change" in shell("up", "--vms", "2").stdout
    assert "- guest/vm2" in shell("plan", "--vms", "1").stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["up", "--hv", "kvn"], 2, "did you mean 'kvm'"),
        (["up", "--hv", "fake", "--nic", "virtoi"], 2, "did you mean 'virtio'"),
        (["up", "--hv", "fake", "--vms", "0"], 2, "--vms"),
        (["up", "--hv", "fake", "--set", "guests.memroy=1GiB"], 2, "did you mean 'memory'"),
        (["up", "--hv", "fake", "--set", "guests"], 2, "PATH=VALUE"),
        (["up", "-f", "nowhere.yml"], 2, "nowhere.yml"),
        (["up", "--hv", "fake", "--set", "uplinks=[eth1]"], 2, "load_generator"),
        (["up", "--hv", "fake", "--set", "network.subnet=198.19.0.0/16"], 2, "overlap"),
        (["verify"], 2, "provision up"),
        (["statsu"], 2, "status"),
        (["report"], 2, "provision run"),
        (["report", "-n", "lab"], 2, "no run of testbed 'lab' yet"),
        (["report", "20"], 2, "no run begins with '20'"),
        (["report", "."], 2, "no run is kept here: results.jsonl: No such file"),
        (["image", "rm", "0f"], 2, "no image begins with '0f'"),
    ],
)
def test_mistakes_are_told_in_words(shell: Shell, words: list[str], code: int, said: str) -> None:
    done = shell(*words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_error_is_json_too_where_json_was_asked(shell: Shell) -> None:
    done = shell("up", "--hv", "fake", "--nic", "virtoi", "--json")
    told = json.loads(done.stdout)
    assert (told["exit_code"], done.returncode) == (2, 2)
    assert "virtoi" in told["error"]


def test_a_fault_is_partial_and_down_still_works(shell: Shell, fake: list[str]) -> None:
    done = shell("up", *fake, "--vms", "2", PROVISION_FAKE="fail=5")
    assert done.returncode == 6
    assert "told to fail" in done.stderr
    assert "provision down" in done.stderr
    assert shell("down").returncode == 0
    assert shell("status").stdout.startswith("no testbed")


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("die", range(1, 8))
def test_killed_at_any_call_then_down(
    shell: Shell, fake: list[str], tmp_path: Path, die: int, after: int
) -> None:
    shell("up", *fake, "-n", "other")
    before = world(tmp_path)
    fault = f"die={die}&after={after}"
    assert shell("up", *fake, "-n", "lab", PROVISION_FAKE=fault).returncode == -signal.SIGKILL
    shell("down", "-n", "lab", PROVISION_FAKE=f"die=2&after={after}")
    done = shell("down", "-n", "lab") if "lab" in shell("status").stdout else None
    assert done is None or done.returncode == 0, done.stderr
    assert world(tmp_path) == before


def test_killed_then_up_goes_on(shell: Shell, fake: list[str]) -> None:
    killed = shell("up", *fake, "--vms", "2", PROVISION_FAKE="die=6&after=1")
    assert killed.returncode == -signal.SIGKILL
    assert shell("up").returncode == 0
    status = json.loads(shell("status", "--json").stdout)
    assert {t["state"] for t in status["things"]} == {"as asked"}


@pytest.mark.parametrize("die", [3, 7])
def test_a_down_cut_short_is_seen_and_up_goes_on(
    shell: Shell, fake: list[str], tmp_path: Path, die: int
) -> None:
    shell("up", *fake, "-n", "other")
    before = world(tmp_path)
    shell("up", *fake, "--vms", "2", "-n", "lab")
    assert shell("down", "-n", "lab", PROVISION_FAKE=f"die={die}&after=1").returncode < 0
    status = shell("status", "-n", "lab")
    assert status.returncode == 7
    assert "gone" in status.stdout
    assert "provision up -n lab" in status.stderr
    assert shell("up", "-n", "lab").returncode == 0
    assert shell("status", "-n", "lab").returncode == 0
    assert shell("down", "-n", "lab").returncode == 0
    assert world(tmp_path) == before


def test_status_of_a_lab_alone_asks_for_no_guests(shell: Shell, fake: list[str]) -> None:
    assert shell("lab", "up", *fake, "--vms", "2").returncode == 0
    status = shell("status")
    assert status.returncode == 0, status.stdout
    assert "guest/" not in status.stdout
    shell("up", "--vms", "2")
    assert "guest/vm2" in shell("status").stdout


def test_a_ctrl_c_says_what_to_do_about_that_very_verb(
    fake: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from provision import proving, running
    from provision.cli import cli
    from provision.errors import Interrupted

    def stopped(*_: object) -> None:
        raise Interrupted("stopped")

    monkeypatch.setenv("PROVISION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["up", *fake, "--vms", "1"]).exit_code == 0
    monkeypatch.setattr(running, "run", stopped)
    monkeypatch.setattr(proving, "verify", stopped)
    for verb, hint in (("run", "the same command runs it again"), ("verify", "")):
        error = CliRunner().invoke(cli, [verb]).exception
        assert isinstance(error, Interrupted)
        assert error.hint.startswith(hint)
        assert bool(error.hint) == bool(hint)


def test_two_ups_at_once_one_is_told(shell: Shell, fake: list[str], tmp_path: Path) -> None:
    from provision.journal import lease

    with lease(tmp_path / "state", "lab"):
        done = shell("up", *fake)
    assert done.returncode == 5
    assert f"process {os.getpid()}" in done.stderr


def test_events_are_json_lines(shell: Shell, fake: list[str]) -> None:
    done = shell("up", *fake, "--events", "--json")
    lines = done.stdout.splitlines()
    events = [json.loads(line) for line in lines if line.startswith('{"at"')]
    assert {e["status"] for e in events} >= {"start", "done"}
    assert all(e["subject"] and e["elapsed_s"] >= 0 for e in events)


def test_init_validate_schema(shell: Shell, tmp_path: Path) -> None:
    assert shell("init").returncode == 0
    assert shell("validate", "-f", "provision.yml").returncode == 0
    assert shell("init").returncode == 2
    assert json.loads(shell("schema").stdout)["$schema"]
    broken = (tmp_path / "provision.yml").read_text().replace("guests:", "guestss:", 1)
    (tmp_path / "provision.yml").write_text(broken)
    done = shell("validate")
    assert done.returncode == 2
    assert "provision.yml:" in done.stderr
    assert "did you mean 'guests'" in done.stderr


def test_a_spec_on_standard_input(shell: Shell) -> None:
    done = shell("validate", "-f", "-", stdin="guests: {count: 3}\nhypervisor: fake\n")
    assert done.stdout == "lab: 3 guests on fake: sound\n"
    done = shell("validate", "-f", "-", stdin="guests: {cuont: 3}\n")
    assert "stdin:1:10: guests.cuont" in done.stderr


def test_a_state_folder_that_cannot_be_made(shell: Shell, fake: list[str]) -> None:
    done = shell("up", *fake, PROVISION_STATE_DIR="/proc/nowhere")
    assert done.returncode == 1
    assert "/proc/nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_quick_and_light(shell: Shell) -> None:
    code = "import sys; from provision.cli import cli; print(*sys.modules)"
    root = str(Path(__file__).parents[2])
    loaded = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True,
                            check=True).stdout.split()  # fmt: skip
    heavy = {"pydantic", "rich", "ruamel", "libvirt", "ansible_runner", "scipy", "sqlite3", "lxml"}
    assert not heavy & set(loaded)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shell("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"--help: {after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.3f} s")
