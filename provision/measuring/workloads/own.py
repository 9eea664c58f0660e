"""A user's own workload: a program, a role and where the figure is in what the program says: pure.

``provision.spec.own`` reads its description from a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from provision.measuring.capture import Capture, Output, Stream, number
from provision.measuring.counters import Asked
from provision.measuring.window import Window, payload_mbit
from provision.measuring.workload import Figures, Flow, Options, Order, Pair, Workload, stream

MEGABIT = "Mbit/s"
#: between a program and the NIC: it may count its own set-up, or bytes that are on their way
AGREE_PERCENT = 5.0
FIGURE = "figure"
LITTLE = 0.1  # of the most that a NIC carried between two looks


@dataclass(frozen=True, slots=True)
class Own(Workload):
    """``figure`` and ``latency_us`` are patterns with one group; the last match counts.

    ``program`` has places in braces: those of a stream in the load generator's plan, and {seconds}.
    ``asks`` is the place with the port at which the guest's server has to answer before the start,
    "" = none; ``generator`` says that the role has tasks for the load generator as well.
    """

    role: str
    generator: bool
    program: tuple[str, ...]
    version: tuple[str, ...]
    figure: str
    unit: str
    scale: float
    compare: bool
    asks: str
    latency_us: tuple[tuple[str, str], ...]
    ready: ClassVar[str] = "own.yml"

    @property
    def extravars(self) -> Mapping[str, Any]:
        return {"own_role": self.role, "own_generator": self.generator}

    def order(self, pairs: Sequence[Pair], options: Options) -> Order:
        name = self.program[0]
        seconds = str(options.length_s)
        argv = [word.replace("{seconds}", seconds) for word in self.program]
        streams = []
        for flow in self.flows(pairs):
            one = stream(flow, argv)
            if self.asks:
                one |= {"asks": f"the server of {self.name}", "port": one[self.asks]}
            streams.append(one)
        return Order({name: self.version}, streams)

    def read(self, text: str) -> Output:
        patterns = {FIGURE: self.figure, **dict(self.latency_us)}
        found = {
            name: matches[-1]
            for name, pattern in patterns.items()
            if (matches := re.findall(pattern, text, re.MULTILINE))
        }
        words = () if FIGURE in found else tuple(text.strip().splitlines()[-2:])
        return Output((), found, frozenset(), words)

    def begins(self, capture: Capture) -> Mapping[str, float]:
        """A program that is compared began when its NIC did: it may have prepared itself before."""
        if not self.compare:
            return {s.pair: s.started_s for s in capture.streams if s.started_s is not None}
        found = {s.pair: self._moved(s, capture) for s in capture.streams}
        return {name: moved.begin_s for name, moved in found.items() if moved is not None}

    def _moved(self, one: Stream, capture: Capture) -> Window | None:
        """From when to when its NIC carried more than a little."""
        link = capture.links.get(one.nic)
        if link is None:
            return None
        count = link.tx_bytes if self.direction == "receive" else link.rx_bytes
        grown = [b - a for a, b in pairwise(count.values)]
        busy = [n for n, octets in enumerate(grown) if octets > LITTLE * max(grown)]
        return Window(count.at_s[busy[0]], count.at_s[busy[-1] + 1]) if busy else None

    def figures(self, capture: Capture, asked: Asked, window: Window) -> Figures:
        streams = {s.pair: s for s in capture.streams}
        said, counted, off, reasons = {}, {}, {}, []
        for flow in asked.flows:
            one = streams.get(flow.name)
            told = number(one.output, FIGURE) if one else None
            said[flow.name] = (told or 0.0) * self.scale
            seen = _payload(flow, capture, window)
            if seen is not None:
                counted[flow.name] = seen
            if one is None:
                continue
            reasons += [f"{flow.name}: {words}" for words in self._ran(one, told, window)]
            if self.compare and told is not None and not one.fault:
                whole = self._moved(one, capture)
                carried = (_payload(flow, capture, whole) if whole else None) or 0.0
                apart = 100 * (said[flow.name] - carried) / carried if carried > 0 else 100.0
                off[flow.name] = apart
                if abs(apart) > AGREE_PERCENT:
                    reasons.append(
                        f"{flow.name}: {self.program[0]} says {said[flow.name]:.1f} {MEGABIT}, "
                        f"{flow.pair.port_nic} of the load generator carried {carried:.1f}"
                    )
        megabit = self.unit == MEGABIT
        return Figures(
            rates_mbit=said if megabit and not self.compare else counted,
            counted_mbit=counted,
            off_percent=off,
            reasons=tuple(reasons),
            per_s={} if megabit else said,
            unit=self.unit,
            latency_us=self._latencies(capture.streams),
        )

    def _ran(self, one: Stream, told: float | None, window: Window) -> Iterator[str]:
        if one.fault:
            yield one.fault
            return
        if told is None:
            yield f"nothing in its output is like {self.figure!r}"
        elif told <= 0:
            yield f"its figure is {told:g}"
        if one.ended_s is not None and (short_s := window.end_s - one.ended_s) > 0:
            yield f"ended {short_s:.2f} s before the window did"

    def _latencies(self, streams: Sequence[Stream]) -> dict[str, dict[str, float]]:
        names = [name for name, _ in self.latency_us]
        return {
            s.pair: {n: v for n in names if (v := number(s.output, n)) is not None} for s in streams
        } if names else {}  # fmt: skip


def _payload(flow: Flow, capture: Capture, window: Window) -> float | None:
    link = capture.links.get(flow.pair.port_nic)
    return payload_mbit(link, window, received=flow.received) if link else None
