"""The hypervisor's counters are read from before a sample until after it."""

from __future__ import annotations

import time
from threading import Event

import pytest

from provision.driver import Usage
from provision.errors import HostError
from provision.measuring.take import Meter


def _usage(at_s: float) -> Usage:
    return Usage(at_s, (), {}, {})


def test_a_host_that_tells_slowly_is_asked_once_more_after_the_end() -> None:
    """Its one reading meanwhile lies within the window, which it alone would not span."""
    reading, answer = Event(), Event()

    def usage() -> Usage:
        at_s = time.monotonic()
        reading.set()
        answer.wait()
        return _usage(at_s)

    with Meter(usage) as meter:
        reading.wait()
        ended_s = time.monotonic()
        answer.set()
    begun = [u.at_s for u in meter.usages]
    assert begun[0] < ended_s < begun[-1]


def test_a_sample_that_failed_asks_no_more() -> None:
    reading, answer = Event(), Event()
    failed_s: list[float] = []

    def usage() -> Usage:
        at_s = time.monotonic()
        reading.set()
        answer.wait()
        return _usage(at_s)

    def fail() -> None:
        reading.wait()
        failed_s.append(time.monotonic())
        answer.set()
        raise HostError("the load generator is gone")

    meter = Meter(usage)
    with pytest.raises(HostError), meter:
        fail()
    assert [u.at_s < failed_s[0] for u in meter.usages] == [True]


def test_counters_that_cannot_be_read_are_told_once() -> None:
    def usage() -> Usage:
        raise HostError("no route")

    with Meter(usage) as meter:
        pass
    assert meter.faults == ["the hypervisor's counters could not be read: no route"]
    assert not meter.usages
