"""Where provision keeps its state and its sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provision import state
from provision.errors import PreflightError


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where a user who is not root has sockets."""
    uid = os.getuid() or 12345
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if not os.getuid():
        os.chown(tmp_path, uid, uid)
    return tmp_path / f"provision-{uid}"


def owned(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, os.geteuid(), -1)


def test_sockets_are_in_a_folder_of_ones_own(runtime: Path) -> None:
    owned(runtime)
    assert state.sockets() == runtime


def test_a_folder_that_others_may_write_is_refused(runtime: Path) -> None:
    owned(runtime)
    runtime.chmod(0o777)
    with pytest.raises(PreflightError, match="not this user's alone"):
        state.sockets()


def test_a_link_that_somebody_laid_is_refused(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PreflightError, match="not this user's alone"):
        state.sockets()


def test_sockets_of_a_killed_process_go_with_the_next_ones(runtime: Path) -> None:
    owned(runtime)
    made = """
import os, signal
from provision import state
os.geteuid = lambda: int(os.environ["UID_"])
folder = state.own_sockets()
open(folder.name + "/socket", "w").close()
print(folder.name, flush=True)
signal.pause()
"""
    env = os.environ | {"UID_": str(os.geteuid())}
    with subprocess.Popen([sys.executable, "-c", made], env=env, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().decode().strip())
        with state.own_sockets() as mine:
            assert {p.name for p in runtime.iterdir()} == {left.name, Path(mine).name}
        other.send_signal(signal.SIGKILL)
    assert left.exists()
    with state.own_sockets() as mine:
        assert [p.name for p in runtime.iterdir()] == [Path(mine).name]
    assert not [*runtime.iterdir()]
