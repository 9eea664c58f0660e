"""Several NICs in one guest: a stream over each, and what each link carried."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.conftest import Shell


def each_carries_its_stream(shell: Shell, testbed: str, count: int, rate_mbit: int = 0) -> None:
    """A short run of the testbed's one guest."""
    result = shell.json(
        "run", "netperf-send", "-n", testbed, "--seconds", "1", "--ramp", "1", "--repeat", "1",
        "--redo", "2", code=None,
    )  # fmt: skip
    finding = result["runs"][0]["samples"][-1]["finding"]
    # a load generator that is no machine of its own: its CPUs may be the limit, and without a wire
    # speed that it cannot hold, a second of traffic is counted a little early or late, see below
    allowed = ("of the load generator was", *(() if rate_mbit else ("netperf says",)))
    other = [r for r in finding["reasons"] if not any(words in r for words in allowed)]
    assert not other, other
    streams(finding, count, rate_mbit)


def streams(finding: dict[str, Any], count: int, rate_mbit: int = 0) -> None:
    """The guest's figure is all its links', each as its NICs counted; 0 = no wire speed."""
    links = finding["links_mbit"]
    assert sorted(links) == [f"vm1.link{n}" for n in range(1, count + 1)]
    least, most = (rate_mbit / 2, 1.05 * rate_mbit) if rate_mbit else (1, float("inf"))
    assert all(least < mbit < most for mbit in links.values()), links
    assert finding["counters_mbit"] == pytest.approx(links, rel=0.06)
    uplinks = finding["uplinks_mbit"]  # a busy host's counters are read late
    assert all(uplinks[link] > links[link] / 2 for link in uplinks), uplinks
    assert finding["guests_mbit"] == {"vm1": pytest.approx(sum(links.values()))}
