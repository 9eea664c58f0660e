"""Starts jobs as AWX does: a copied project, extra variables in a file, no terminal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
PROJECT = ("ansible.cfg", "playbooks", "inventories")
#: what AWX itself sets for a job and provision must not be led astray by
SET_BY_AWX = {
    "ANSIBLE_FORCE_COLOR": "True",
    "ANSIBLE_HOST_KEY_CHECKING": "False",
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
    "AWX_HOST": "https://towerhost",
    "INVENTORY_ID": "1",
    "JOB_ID": "7",
    "PROJECT_REVISION": "0123456789abcdef0123456789abcdef01234567",
}


@dataclass(frozen=True, slots=True)
class Job:
    """How a job ended: ``said`` by its failed tasks, ``artifacts`` left by set_stats."""

    rc: int
    changed: int
    said: str
    artifacts: Mapping[str, Any]
    output: str


@dataclass(frozen=True, slots=True)
class Controller:
    """One AWX with an execution environment where the ``provision`` command is found."""

    folder: Path
    timeout_s: float = 120
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("home", "bin"):
            (self.folder / name).mkdir(parents=True)
        self.command('exec $provision "$@"')
        places = (self.folder / "bin", Path(sys.executable).parent, os.environ["PATH"])
        own = {"PATH": ":".join(map(str, places)), "HOME": str(self.folder / "home")}
        self.env.update(SET_BY_AWX | own)
        self.env["PROVISION_STATE_DIR"] = str(self.folder / "state")

    def command(self, script: str) -> None:
        """Make ``provision`` this shell script; $provision is the real one."""
        path = self.folder / "bin" / "provision"
        real = f"env PYTHONPATH={REPOSITORY} {sys.executable} -P -m provision"
        path.write_text(f"#!/bin/sh\nprovision='{real}'\n{script}\n")
        path.chmod(0o755)

    def launch(self, template: str, *arguments: str, **extravars: object) -> Job:
        """Run playbooks/jobs/TEMPLATE.yml by ansible-runner; ``arguments`` go to Ansible."""
        number = len(list(self.folder.glob("job-*")))
        private = self.folder / f"job-{number}"
        self._project(private)
        for name, content in {
            "inventory/hosts": "",  # a demo inventory: jobs need none
            "env/extravars": json.dumps(extravars),
            "env/cmdline": " ".join(arguments),
        }.items():
            (private / name).parent.mkdir(exist_ok=True)
            (private / name).write_text(content)
        words = ["-m", "ansible_runner", "run", str(private), "--ident", "1", "-p",
                 f"playbooks/jobs/{template}.yml"]  # fmt: skip
        done = self.start([sys.executable, *words], private)
        return _job(private / "artifacts/1", done)

    def sync(self, **source_vars: str) -> subprocess.CompletedProcess[str]:
        """Update the inventory source inventories/provision.yml; its JSON is on stdout."""
        private = self.folder / "sync"
        if not private.exists():
            self._project(private)
        source = private / "project/inventories/provision.yml"
        words = ["ansible-inventory", "--list", "--export", "-i", str(source),
                 "--playbook-dir", str(source.parent)]  # fmt: skip
        return self.start([str(Path(sys.executable).with_name(words[0])), *words[1:]],
                           private / "project", **source_vars)  # fmt: skip

    def _project(self, private: Path) -> None:
        for name in PROJECT:
            source, target = REPOSITORY / name, private / "project" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy(source, target, follow_symlinks=False)

    def start(
        self, words: list[str], folder: Path, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a job's environment, without a terminal."""
        return subprocess.run(
            words, env=self.env | more, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, start_new_session=True, timeout=self.timeout_s, check=False,
        )  # fmt: skip


def _job(artifacts: Path, done: subprocess.CompletedProcess[str]) -> Job:
    files = sorted(
        (artifacts / "job_events").glob("*.json"), key=lambda p: int(p.name.split("-")[0])
    )
    events = [json.loads(path.read_text()) for path in files]
    data = [(e["event"], e.get("event_data", {})) for e in events]
    failed = [d["res"].get("msg", "") for kind, d in data if kind == "runner_on_failed"]
    stats: dict[str, Any] = next((d for kind, d in data if kind == "playbook_on_stats"), {})
    return Job(
        rc=int((artifacts / "rc").read_text()),
        changed=sum(stats.get("changed", {}).values()),
        said="\n".join(failed),
        artifacts=stats.get("artifact_data", {}),
        output=done.stdout + done.stderr,
    )
