"""Whose CPU time it is that the load generator's programs use: theirs, with all that they start."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "playbooks/roles/streams/files/streams.py"
#: uses CPU, says so, and lives until its standard input ends
BURN = (
    "import sys, time\n"
    "while time.process_time() < {}: pass\n"
    "print('done', flush=True); sys.stdin.read()"
)
#: starts that in a session of its own, as generators do, and waits for its end
START = (
    "import subprocess, sys\n"
    f"subprocess.run([sys.executable, '-c', {BURN.format(0.3)!r}], start_new_session=True)\n"
    "print('waited', flush=True); sys.stdin.read()"
)


@dataclass
class Child:
    pid: int
    kernel: str = ""


@pytest.fixture
def streams() -> ModuleType:
    spec = importlib.util.spec_from_file_location("streams_cpu", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python(words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-S", "-c", words], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def test_what_a_program_starts_counts_as_its_own(streams: ModuleType) -> None:
    with python(START) as starter, python(BURN.format(0.2)) as stranger:
        assert starter.stdin is not None
        assert starter.stdout is not None
        assert stranger.stdout is not None
        processes = streams.Processes()
        child = Child(starter.pid)
        processes.look([child])
        stranger.stdout.readline()
        assert starter.stdout.readline() == "done\n"
        (used,) = processes.look([child]).values()
        assert used >= 0.28
        assert stranger.pid in processes.strangers
        starter.stdin.close()
        assert starter.stdout.readline() == "waited\n"
        assert processes.look([child])[child.pid] >= used - 0.02, "lost with what ended"


def test_kernel_threads_that_work_for_a_program_are_its_own(streams: ModuleType) -> None:
    named = "open('/proc/self/comm', 'w').write('ktest_7')\n"
    with python(BURN.format(0)) as own, python(named + BURN.format(0.3)) as thread:
        assert thread.stdout is not None
        thread.stdout.readline()
        assert streams.Processes().look([Child(own.pid)])[own.pid] < 0.25
        assert streams.Processes().look([Child(own.pid, kernel="ktest_")])[own.pid] >= 0.25
