"""What a sample was meant to be, and traffic where there should be none: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from provision.measuring.capture import Capture
from provision.measuring.window import Window
from provision.measuring.workload import Flow, Options, Pair, Workload

AGREE_PERCENT = 2.0  # between a program and the counters
UPLINK_PERCENT = 5.0  # between the two ends of a cable, whose counters are read at other moments
STRAY_MBIT, STRAY_PERCENT = 1.0, 1.0  # on links that are not the testbed's


@dataclass(frozen=True, slots=True)
class Asked:
    """What the sample was meant to be; ``apart``: the load generator's CPUs are its own."""

    workload: Workload
    options: Options
    pairs: tuple[Pair, ...]
    apart: bool

    @property
    def flows(self) -> tuple[Flow, ...]:
        """One for each client."""
        return self.workload.flows(self.pairs)


def strayed(capture: Capture, asked: Asked, window: Window, aggregate_mbit: float) -> Iterator[str]:
    """Traffic on links that no stream uses."""
    ours = {p.port_nic for p in asked.pairs}
    bound = max(STRAY_MBIT, aggregate_mbit * STRAY_PERCENT / 100)
    for name, link in sorted(capture.links.items()):
        ways = [s.rate(window.begin_s, window.end_s) or 0.0 for s in (link.rx_bytes, link.tx_bytes)]
        if name not in ours and (mbit := sum(ways) * 8 / 1e6) > bound:
            yield f"{mbit:.1f} Mbit/s went by {name}, which is no link of this testbed"


def cables(seen: Mapping[str, float], uplinks: Mapping[str, float]) -> Iterator[str]:
    """Uplinks that carried something else than their far ends."""
    for pair in seen.keys() & uplinks.keys():
        near, far = uplinks[pair], seen[pair]
        if abs(near - far) > max(STRAY_MBIT, far * UPLINK_PERCENT / 100):
            yield f"{pair}: the uplink carried {near:.1f} Mbit/s, its far end {far:.1f}"
