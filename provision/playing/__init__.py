"""Runs one playbook by ansible-runner, in a process of its own with a clean environment.

A process since ansible-runner writes down the whole environment that it sees, takes over signal
handlers, and reports a run that never began by the figures of the run before.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any

from provision.errors import Interrupted, PreflightError, Unreachable, WorkloadError
from provision.playing.events import Played, TaskEvent, note
from provision.state import full, writing

HERE = Path(__file__).parent.parent
POLL_S = 0.2  # between looks at the cancel flag, and of ansible-runner at its own
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: all that a play may see of the controller's environment
KEPT = ("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "SSH_AUTH_SOCK")


@dataclass(frozen=True, slots=True)
class Player:
    """Plays on one inventory; ``folder`` keeps the artifacts of each play, by its ident.

    ``cancelled`` is asked a few times a second; once true, the play and what it runs is ended.
    """

    folder: Path
    inventory: Mapping[str, Any]
    on_event: Callable[[TaskEvent], None] = lambda _event: None
    cancelled: Callable[[], bool] = lambda: False

    def play(
        self, playbook: str, ident: str, extravars: Mapping[str, Any], timeout_s: float = 600
    ) -> Played:
        """Run ``playbook`` to its end; an ident is used once.

        ``extravars`` must hold no secret: they are written down. Raises Unreachable,
        WorkloadError with every host's own words, or Interrupted; none of them leaves a process.
        """
        artifacts = self.folder / "artifacts" / ident
        if artifacts.exists():
            raise WorkloadError(f"{artifacts}: this play has been run before")
        self._prepare(extravars)
        process = subprocess.Popen(
            self._argv(playbook, ident), env=environment(_count(self.inventory)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        played = Played()
        try:
            self._follow(process, played, time.monotonic() + timeout_s)
        finally:
            _end(process)
        _check(playbook, artifacts, played)
        return played

    def _prepare(self, extravars: Mapping[str, Any]) -> None:
        settings = {"pexpect_timeout": POLL_S, "suppress_ansible_output": False}
        for name, data in {
            "inventory/hosts.json": self.inventory,
            "env/extravars": extravars,
            "env/settings": settings,
        }.items():
            path = self.folder / name
            with writing(path):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.write_text(json.dumps(data, indent=1))

    def _argv(self, playbook: str, ident: str) -> list[str]:
        return [
            sys.executable, str(HERE / "playing" / "guard.py"),
            sys.executable, "-m", "ansible_runner", "run", str(self.folder), "--json",
            "--project-dir", str(playbooks()), "--playbook", playbook, "--ident", ident,
        ]  # fmt: skip

    def _follow(self, process: subprocess.Popen[bytes], played: Played, deadline: float) -> None:
        """Take in events until the runner closes its output."""
        assert process.stdout is not None
        began: dict[tuple[str, str], float] = {}
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if self.cancelled():
                    raise Interrupted("the play was stopped")
                if time.monotonic() > deadline:
                    raise WorkloadError("the play did not end in its time and was stopped")
                if not selector.select(POLL_S):
                    continue
                if not (part := os.read(process.stdout.fileno(), 1 << 16)):
                    return
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    for event in note(line, played, began):
                        self.on_event(event)


def playbooks() -> Path:
    """Where the playbooks are: in the package, or beside it in a checkout."""
    inside = HERE / "playbooks"
    return inside if inside.is_dir() else HERE.parent / "playbooks"


def environment(hosts: int) -> dict[str, str]:
    """What ansible-runner runs with; of the caller's own only a few words pass."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    scripts = sysconfig.get_path("scripts")
    return kept | {
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",  # events as they happen
        "ANSIBLE_CONFIG": str(playbooks() / "ansible.cfg"),
        "ANSIBLE_FORKS": str(max(hosts, 1)),  # fewer would start hosts one batch after another
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner turns it off where nobody says so
    }


def _count(inventory: Mapping[str, Any]) -> int:
    """Hosts of an inventory, at most: those named in several groups count again."""
    return sum(
        len(group.get("hosts") or {}) + _count(group.get("children") or {})
        for group in inventory.values()
        if group
    )


def _check(playbook: str, artifacts: Path, played: Played) -> None:
    """Raise unless the play did all that it was for.

    The exit code comes from its file: the runner's own is 0 after many a failure.
    """
    if played.unreachable:
        raise Unreachable("\n".join(played.unreachable), hint="provision status")
    if played.failed:
        raise WorkloadError("\n".join(played.failed))
    try:
        code = int((artifacts / "rc").read_text())
    except (OSError, ValueError):
        code = -1
    if code == 127:
        raise PreflightError(
            "ansible-playbook could not be started", hint="pip install 'ansible-core>=2.19,<2.20'"
        )
    if code and any(os.strerror(ENOSPC) in words for words in played.words):
        raise full(artifacts)
    if code:
        words = _last_words(played.words) or f"see {artifacts / 'stdout'}"
        raise WorkloadError(f"{playbook}: ended with code {code}: {words}")
    if played.unmatched or not played.hosts:
        plays = ", ".join(played.unmatched) or playbook
        raise WorkloadError(f"{plays}: no host in the inventory is meant by it")


def _last_words(words: Sequence[str]) -> str:
    """The first error that Ansible tells, else the last it said."""
    lines = [line.strip() for word in words for line in COLOUR.sub("", word).splitlines()]
    errors = [n for n, line in enumerate(lines) if "ERROR" in line]
    return " / ".join(lines[errors[0] :][:4] if errors else lines[-4:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """See that neither the runner nor anything it started goes on: the guard hears of its end."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
