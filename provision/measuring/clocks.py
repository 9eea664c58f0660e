"""Whether the guests' clocks kept time while a sample was taken.

No figure rests on a guest's clock. But a guest whose clock was stepped, or that stood still, was
not left alone, and what it ran may have waited for that clock.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from provision.host import DIE_WITH_US, Host

ASKED = 5  # times at each look, of which the least round trip counts
ENOUGH_S, ANSWER_S = 2.0, 10.0  # fewer times where a guest takes so long; for all answers
STEP_S = 0.05
#: by which two clocks may part: the kernel slews each by 500 ppm at most (adjtimex(2))
DRIFT = 0.001
#: bash tells the time by itself; on a loaded, emulated CPU it takes half a second to start date
SCRIPT = """
LC_ALL=C; export LC_ALL
if [ -n "$(bash -c 'echo $EPOCHREALTIME' 2> /dev/null)" ]; then
  exec bash -c 'while read -r _; do echo $EPOCHREALTIME; done'
fi
while read -r _; do date +%s.%N; done
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """A guest's clock (epoch) at ``at_s`` of the controller's monotonic one.

    ``ahead_s`` is by how much it is ahead of the controller's epoch; all are right within
    ``bound_s``, half of the round trip.
    """

    at_s: float
    epoch_s: float
    ahead_s: float
    bound_s: float


Readings = Mapping[str, Reading]


@dataclass(slots=True)
class Clocks:
    """Asks guests for the time over a session each, begun at the first look and held open."""

    hosts: Mapping[str, Host]
    _sessions: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def close(self) -> None:
        for name in list(self._sessions):
            self._end(name)

    def look(self) -> dict[str, Reading]:
        """Each guest's clock now; without those that do not tell it."""
        for name in [n for n, session in self._sessions.items() if session.poll() is not None]:
            self._end(name)  # the guest was made anew meanwhile
        fresh = self.hosts.keys() - self._sessions.keys()
        for name in fresh:
            self._begin(name)
        with ThreadPoolExecutor(max(len(self.hosts), 1), thread_name_prefix="clock") as pool:
            readings = pool.map(lambda name: self._read(name, name in fresh), self.hosts)
            found = dict(zip(self.hosts, readings, strict=True))
        for name in [n for n, reading in found.items() if reading is None]:
            self._end(name)  # the next look begins another
        return {name: reading for name, reading in found.items() if reading is not None}

    def _begin(self, name: str) -> None:
        # by the thread that lives longest: the session dies with it
        self._sessions[name] = subprocess.Popen(
            [*DIE_WITH_US, *self.hosts[name].argv("sh", "-c", SCRIPT)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0, bufsize=0,
        )  # fmt: skip

    def _end(self, name: str) -> None:
        session = self._sessions.pop(name)
        session.kill()
        session.wait()
        for pipe in (session.stdin, session.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self, name: str, fresh: bool) -> Reading | None:
        """The one of the least round trip; None where it does not answer in time."""
        readings: list[Reading] = []
        try:
            if fresh:  # what a session takes to begin is no round trip
                _exchange(self._sessions[name], time.monotonic() + ANSWER_S)
            begun_s = time.monotonic()
            while len(readings) < ASKED and (not readings or time.monotonic() < begun_s + ENOUGH_S):
                readings.append(_exchange(self._sessions[name], begun_s + ANSWER_S))
        except (OSError, ValueError):  # it is gone, or says something else
            return None
        return min(readings, key=lambda r: r.bound_s)


def _exchange(session: subprocess.Popen[bytes], deadline: float) -> Reading:
    assert session.stdin is not None
    assert session.stdout is not None
    asked_s = time.monotonic()
    session.stdin.write(b"\n")
    told = b""
    while not told.endswith(b"\n"):
        left_s = max(0.0, deadline - time.monotonic())
        if not select.select([session.stdout], [], [], left_s)[0]:
            raise TimeoutError
        told += os.read(session.stdout.fileno(), 64) or _closed()
    answered_s, epoch_s = time.monotonic(), time.time()
    bound_s = (answered_s - asked_s) / 2
    guest_s = float(told)
    return Reading(asked_s + bound_s, guest_s, guest_s - (epoch_s - bound_s), bound_s)


def _closed() -> bytes:
    raise ConnectionResetError


def moved_s(before: Reading, after: Reading) -> float:
    """By how much a guest's clock went further than the controller's between two readings."""
    return (after.epoch_s - before.epoch_s) - (after.at_s - before.at_s)


def stepped(before: Readings, after: Readings) -> Iterator[str]:
    """The guests whose clocks moved by more than drift and round trips explain."""
    for name in before.keys() & after.keys():
        first, last = before[name], after[name]
        explained_s = first.bound_s + last.bound_s + DRIFT * (last.at_s - first.at_s)
        if abs(step_s := moved_s(first, last)) > STEP_S + explained_s:
            yield (
                f"{name}: its clock was stepped by {step_s:+.2f} s during the sample"
                f"{', or it stood still' if step_s < 0 else ''}"
            )
