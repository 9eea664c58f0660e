"""A Windows guest that runs: its state, its namespace, and what its scheduler began."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from provision.host import DIE_WITH_US, Host
from tests.peers.windows.files import Drives
from tests.peers.windows.state import State, Task


@dataclass
class Running:
    task: Task
    process: subprocess.Popen[bytes]
    ends: threading.Timer


@dataclass
class Machine:
    """``inside`` is its network, ``host`` where its taps are. ``start`` runs what outlives a call.

    ``sshd``: whether somebody started it.
    """

    state: State
    kept: Path
    inside: Host
    host: Host
    drives: Drives
    cpus: int
    memory_mib: int
    complain: Callable[[str], None]
    start: Callable[[list[str]], subprocess.Popen[bytes]]
    booted: datetime = field(default_factory=lambda: datetime.now(UTC))
    sshd: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    running: dict[str, Running] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def keep(self) -> None:
        self.state.save(self.kept)

    def begin(self, task: Task) -> None:
        """Start what a task says, unless it runs."""
        if task.name in self.running and self.running[task.name].process.poll() is None:
            return
        path = self.drives.at(task.execute)
        path.chmod(0o755)
        process = self.start([*self.inside.argv(str(path)), *task.argument.split()])
        ends = threading.Timer(task.limit_s, lambda: _kill(process))
        ends.daemon = True
        ends.start()
        self.running[task.name] = Running(task, process, ends)

    def end(self, name: str) -> None:
        """Kill what a task began, and all that came of it."""
        if found := self.running.pop(name, None):
            found.ends.cancel()
            _kill(found.process)

    def end_all(self) -> None:
        for name in [*self.running]:
            self.end(name)

    def alive(self) -> list[Running]:
        return [r for r in self.running.values() if r.process.poll() is None]

    def listening(self) -> set[tuple[str, int]]:
        """The places of TCP where somebody listens."""
        found = set()
        for line in self.inside.run("cat", "/proc/self/net/tcp").splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                address, port = words[1].split(":")
                octets = [str(int(address[n : n + 2], 16)) for n in (6, 4, 2, 0)]
                found.add((".".join(octets), int(port, 16)))
        return found


def begin(words: list[str]) -> subprocess.Popen[bytes]:
    """In a group of its own, which ends with the thread that called."""
    return subprocess.Popen(
        [*DIE_WITH_US, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, process_group=0,
    )  # fmt: skip


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
