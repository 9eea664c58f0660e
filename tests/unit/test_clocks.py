"""Guests' clocks over real sessions: read, stepped meanwhile, and those that do not tell."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provision.host import Host
from provision.measuring.clocks import Clocks, Reading, moved_s, stepped


@pytest.fixture
def guest(tmp_path: Path) -> Host:
    """A machine without bash whose clock is ahead by what a file says."""
    (tmp_path / "ahead").write_text("0")
    date = tmp_path / "date"
    date.write_text(
        f'#!/bin/sh\nread -r ahead < {tmp_path}/ahead\nexec /bin/date -d "$ahead seconds" "$@"\n'
    )
    bash = tmp_path / "bash"
    bash.write_text("#!/bin/sh\nexit 127\n")
    for program in (date, bash):
        program.chmod(0o755)
    return Host("vm1", ("env", f"PATH={tmp_path}:{os.environ['PATH']}"))


@pytest.fixture
def clocks(guest: Host) -> Iterator[Clocks]:
    found = Clocks({"vm1": guest, "vm2": Host("vm2", ("env",))})
    yield found
    found.close()


def test_clocks_that_keep_time_are_told_and_held_against_nobody(clocks: Clocks) -> None:
    before, after = clocks.look(), clocks.look()
    assert before.keys() == after.keys() == {"vm1", "vm2"}
    for reading in before.values():
        assert reading.epoch_s == pytest.approx(time.time(), abs=30)
        assert abs(reading.ahead_s) <= reading.bound_s + 0.001
    assert list(stepped(before, after)) == []


@pytest.mark.parametrize(
    ("ahead", "words"), [("3", "during the sample"), ("-2", "during the sample, or it stood still")]
)
def test_a_clock_that_is_stepped_is_told(
    clocks: Clocks, tmp_path: Path, ahead: str, words: str
) -> None:
    before = clocks.look()
    (tmp_path / "ahead").write_text(ahead)
    after = clocks.look()
    assert after["vm1"].ahead_s == pytest.approx(float(ahead), abs=0.5)
    (told,) = stepped(before, after)
    assert told.startswith("vm1: its clock was stepped by ")
    assert float(told.split()[6]) == pytest.approx(float(ahead), abs=0.02)
    assert told.endswith(words)


def test_one_that_does_not_answer_is_left_out_and_asked_anew(clocks: Clocks) -> None:
    mute = Host("vm2", ("false",))
    deaf = Clocks({"vm1": clocks.hosts["vm1"], "vm2": mute, "vm3": Host("vm3", ("echo", "noon"))})
    try:
        assert deaf.look().keys() == {"vm1"}
    finally:
        deaf.close()
    assert clocks.look().keys() == {"vm1", "vm2"}
    clocks._sessions["vm2"].kill()
    clocks._sessions["vm2"].wait()
    assert clocks.look().keys() == {"vm1", "vm2"}


def test_drift_and_round_trips_are_no_step() -> None:
    before = {"vm1": Reading(at_s=100.0, epoch_s=5000.0, ahead_s=0.0, bound_s=0.02)}
    late = replace(before["vm1"], at_s=200.0, epoch_s=5100.18)
    assert moved_s(before["vm1"], late) == pytest.approx(0.18)
    assert list(stepped(before, {"vm1": late})) == []
    assert list(stepped(before, {"vm1": replace(late, at_s=199.98)}))
    assert list(stepped(before, {})) == []
