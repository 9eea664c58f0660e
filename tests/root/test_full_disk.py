"""A state folder without room: nothing is begun there, and down gives all back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.errors import WorkloadError
from provision.playing import Player
from tests.root.machines import marks, sh

pytestmark = marks
Done = subprocess.CompletedProcess[str]


class Shell:
    """``provision`` on the fake host, with its state on a small disk of its own."""

    def __init__(self, folder: Path) -> None:
        self.state, self.world = folder / "state", folder / "world.json"
        kept = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
        root = str(Path(__file__).parents[2])
        self.env = kept | {"PROVISION_STATE_DIR": str(self.state), "PYTHONPATH": root}

    def __call__(self, *words: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "provision", *words], env=self.env, cwd=self.state.parent,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done

    def up(self, *words: str) -> Done:
        uri = f"hypervisor.uri=fake://{self.world}"
        return self("up", "--hv", "fake", "--set", uri, "--vms", "16", "-n", "t", *words)

    def fill(self) -> None:
        """To the last byte."""
        fd = os.open(self.state / "fill", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while True:
                os.write(fd, bytes(4096))
        except OSError as e:
            assert e.strerror == "No space left on device"
        finally:
            os.close(fd)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    found = Shell(tmp_path)
    found.state.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=20m", "none", str(found.state))
    try:
        yield found
    finally:
        sh("umount", str(found.state))


def test_a_full_disk_can_be_looked_at_and_left(shell: Shell) -> None:
    assert shell.up().returncode == 0
    shell.fill()
    status = shell("status", "--json", "-n", "t")
    assert status.returncode == 0, status.stderr
    assert {t["state"] for t in json.loads(status.stdout)["things"]} == {"as asked"}
    run = shell("run", "netperf-send", "-n", "t")
    assert run.returncode == 4, run.stderr
    assert "less than 16 MiB are free on its disk" in run.stderr
    assert f"df -h {shell.state}" in run.stderr
    assert json.loads(shell("inventory", "-n", "t").stdout)["guests"]["hosts"]
    before = shell.world.read_text()
    refused = shell.up("--set", "guests.cpu.weight=512")
    assert refused.returncode == 4, refused.stderr
    assert f"df -h {shell.state}" in refused.stderr
    assert shell.world.read_text() == before
    spec = shell.state / "provision.yml"
    init = shell("init", str(spec))
    assert (init.returncode, f"df -h {shell.state}: free some" in init.stderr) == (2, True)
    assert not spec.exists()
    down = shell("down", "-n", "t")
    assert down.returncode == 0, down.stderr
    assert not json.loads(shell.world.read_text())["marks"]
    assert "no testbed" in shell("status").stdout


def test_without_the_reserve_it_says_what_to_free(shell: Shell) -> None:
    """The fake's guests have no disks that would be freed."""
    assert shell.up().returncode == 0
    (shell.state / "journal.reserve").unlink()
    shell.fill()
    down = shell("down", "-n", "t")
    assert down.returncode == 6, down.stderr
    assert f"df -h {shell.state}" in down.stderr
    (shell.state / "fill").unlink()
    assert shell("down", "-n", "t").returncode == 0
    assert not json.loads(shell.world.read_text())["marks"]


def test_a_play_on_a_full_disk_says_so(shell: Shell) -> None:
    """Not by the last lines of a trace: the runner's own files find no room."""
    shell.fill()
    os.truncate(shell.state / "fill", (shell.state / "fill").stat().st_size - (24 << 10))
    lg = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"all": {"children": {"loadgenerators": {"hosts": {"lg": lg}}}}}
    player = Player(shell.state / "run", hosts)
    with pytest.raises(WorkloadError) as caught:
        player.play("run.yml", "x", {"streams_plan": {}, "streams_output": "x"}, 60)
    where = shell.state / "run" / "artifacts" / "x"
    assert str(caught.value) == f"{where}: cannot be written: No space left on device"
    assert caught.value.hint.startswith(f"df -h {shell.state}/run")
