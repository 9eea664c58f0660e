"""Where provision keeps its state and its sockets."""

from __future__ import annotations

import os
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
