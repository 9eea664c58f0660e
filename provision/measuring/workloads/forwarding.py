"""Packets that guests forward from one of their NICs to the other: pure.

As in *Performance Comparison of Hardware Virtualization Platforms* (Schlosser, Duelli, Goll,
Würzburg 2011): frames of one size at one rate, what was offered against what came back. Rates are
the wire's, as there: each frame counts with its checksum, preamble and gap.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any, ClassVar

from provision.errors import UserError
from provision.measuring.capture import Capture, Interim, Output
from provision.measuring.counters import AGREE_PERCENT, Asked
from provision.measuring.window import Window
from provision.measuring.workload import TICK_S, Figures, Flow, Options, Order, Pair, Workload
from provision.measuring.workloads.forwarding_words import (
    WIRE_BYTES,
    Told,
    delay_ns,
    parse,
    wire_mbit,
)

PROGRAM = "packets.py"
THREADS = "kpktgend_"  # what the kernel's own generator runs as
PORT = 9009  # of UDP, where nobody listens
FRAMES = (64, 1514)
MOST_SOURCES = 3
OFFERED_PERCENT = 2.0  # by which the generator may miss its target
RESOLUTION, LEAST_PER_S = 0.05, 100.0  # of the search for the collapse point
LOST_PERCENT = 0.1  # and what it lets pass as no loss
NAME = re.compile(r"forwarding-(\d+)B-(?:(\d+(?:\.\d+)?)M|(max|collapse))(?:-(\d)src)?")


@dataclass(frozen=True, slots=True)
class Forwarding(Workload):
    """Frames of ``frame_bytes`` without their checksum, at ``target_mbit`` on the wire.

    0 = as fast as the generator can; None = at the highest rate that is found to lose none, to
    within a twentieth. The rate is that of all ``sources`` together.
    """

    frame_bytes: int
    target_mbit: float | None
    sources: int = 1
    ready: ClassVar[str] = "forward.yml"
    done: ClassVar[str] = "forward-end.yml"
    nics_each: ClassVar[int] = 2
    spins: ClassVar[bool] = True

    @property
    def header_bytes(self) -> int:
        """More than the frame: a wire carries a checksum, a preamble and a gap with each."""
        return -WIRE_BYTES

    @property
    def delay_ns(self) -> float:
        """Between two frames of all sources."""
        return delay_ns(self.frame_bytes, self.target_mbit) if self.target_mbit else 0.0

    def flows(self, pairs: Iterable[Pair]) -> tuple[Flow, ...]:
        """Called as the guest, and held against the link that its frames come back by."""
        return tuple(Flow(one.guest, back, "send", PORT) for one, back in ways(pairs))

    def streams(self, pairs: Iterable[Pair]) -> tuple[str, ...]:
        return (PROGRAM,) if any(True for _ in ways(pairs)) else ()

    def order(self, pairs: Sequence[Pair], options: Options) -> Order:
        found = [self.flow(one, back) for one, back in ways(pairs)]
        return order(found, options, self.search(options, len(found)))

    def flow(self, one: Pair, back: Pair) -> dict[str, Any]:
        """What the program is told of one guest."""
        return {
            "name": one.guest, "out": one.port_nic, "back": back.port_nic, "source": one.client,
            "gateway": one.server, "target": back.client, "frame_bytes": self.frame_bytes,
            "delay_ns": self.delay_ns, "sources": self.sources, "port": PORT,
        }  # fmt: skip

    def search(self, options: Options, flows: int) -> dict[str, float] | None:
        """The search for the one rate of the first ``flows``."""
        if self.target_mbit is not None:
            return None
        return {
            "trial_s": max(1.0, options.duration_s / 4), "lost_percent": LOST_PERCENT,
            "resolution": RESOLUTION, "least": LEAST_PER_S, "flows": flows,
        }  # fmt: skip

    def plan(self, pairs: Sequence[Pair], options: Options) -> dict[str, Any]:
        """A search takes its trials' time more: halvings from 10 million frames a second."""
        plan = Workload.plan(self, pairs, options)
        if search := self.search(options, 1):
            trials = ceil(log2(1e7 / LEAST_PER_S)) + ceil(log2(1 / RESOLUTION))
            plan["deadline_s"] += trials * (search["trial_s"] + 1.5)
        return plan

    def read(self, text: str) -> Output:
        return output(parse(text), self.frame_bytes)

    def begins(self, capture: Capture) -> Mapping[str, float]:
        return {
            s.pair: begun for s in capture.streams if (begun := parse(s.raw).begins_s) is not None
        }

    def figures(self, capture: Capture, asked: Asked, window: Window) -> Figures:
        streams = {s.pair: s for s in capture.streams}
        stream = streams.get(PROGRAM)
        told = parse(stream.raw if stream else "")
        points = [self._point(told, window, one, back) for one, back in ways(asked.pairs)]
        return Figures(
            rates_mbit={p.guest: p.measured_mbit for p in points},
            counted_mbit={p.guest: p.nic_mbit for p in points if p.nic_mbit is not None},
            offered_mbit={p.guest: p.offered_mbit for p in points},
            lost_percent={p.guest: p.lost_percent for p in points},
            off_percent={p.guest: p.off_percent for p in points if p.off_percent is not None},
            reasons=(
                *([f"{stream.fault}"] if stream and stream.fault else []),
                *(words for p in points for words in self._against(p, told, window)),
            ),
            warnings=(*_backlog(told, window, asked), *self._unsteady(points)),
        )

    def _point(self, told: Told, window: Window, one: Pair, back: Pair) -> Point:
        guest, size = one.guest, self.frame_bytes
        sent, counted, arrived = (
            series[guest].rate(window.begin_s, window.end_s) if guest in series else None
            for series in (told.sent, told.counted, told.arrived)
        )
        nic = None if arrived is None else wire_mbit(arrived, size)
        measured = wire_mbit(counted or 0.0, size)
        return Point(
            guest=guest,
            back=back.port_nic,
            out=one.port_nic,
            seen=sent is not None and counted is not None,
            offered_mbit=wire_mbit(sent or 0.0, size),
            measured_mbit=measured,
            nic_mbit=nic,
            off_percent=100 * (measured - nic) / nic if nic else None,
            lost_percent=told.lost_percent(guest),
            dropped=told.growth(told.dropped.get(guest), window),
            lost=told.lost(guest),
        )

    def _unsteady(self, points: Sequence[Point]) -> Iterator[str]:
        """A collapse point that did not hold for the window."""
        for point in points:
            if self.target_mbit is None and point.lost_percent > LOST_PERCENT:
                yield (
                    f"{point.guest}: a rate that lost none in a trial lost some in the window: "
                    "the collapse point is not steady"
                )

    def _against(self, point: Point, told: Told, window: Window) -> Iterator[str]:
        """What speaks against one guest's figures."""
        who = point.guest
        if not point.seen:
            yield f"{who}: what was sent and came back was not watched during the window"
            return
        target = self.target_mbit or None
        off = 100 * (point.offered_mbit / target - 1) if target else 0.0
        if not point.offered_mbit:
            yield f"{who}: nothing was sent by {point.out}"
        elif not point.measured_mbit:
            yield (
                f"{who}: nothing came back by {point.back}: the guest does not forward, or had no "
                "time to"
            )
        elif off < -OFFERED_PERCENT:
            yield (
                f"{who}: limits: {told.generator} sent {point.offered_mbit:.1f} of {target:g} "
                "Mbit/s"
            )
        elif off > OFFERED_PERCENT:
            yield f"{who}: {point.offered_mbit:.1f} Mbit/s went by {point.out}, not {target:g}"
        if point.off_percent is not None and abs(point.off_percent) > AGREE_PERCENT:
            yield (
                f"{who}: {point.measured_mbit:.1f} Mbit/s of its frames were counted, "
                f"{point.back} of the load generator carried {point.nic_mbit:.1f}"
            )
        if point.dropped and point.dropped * 100 >= point.lost:
            yield (
                f"{who}: limits: {point.back} of the load generator dropped {point.dropped:.0f} "
                "frames itself"
            )


@dataclass(frozen=True, slots=True)
class Point:
    """One guest in one sample. Rates are the wire's, over the window; losses of the whole run.

    ``nic_mbit`` is what the NIC that frames come back by counted, ``dropped`` frames that it
    dropped itself; ``seen``: the record covers the window.
    """

    guest: str
    out: str
    back: str
    seen: bool
    offered_mbit: float
    measured_mbit: float
    nic_mbit: float | None
    off_percent: float | None
    lost_percent: float
    dropped: float
    lost: float


def order(
    flows: Sequence[Mapping[str, Any]], options: Options, search: Mapping[str, float] | None = None
) -> Order:
    """One program sends for all: the kernel's generator knows no other beside it."""
    if not flows:
        raise UserError("no guest has two NICs to forward between", hint="--set guests.nics_each=2")
    told = {
        "generator": "", "length_s": options.length_s, "tick_s": TICK_S,
        "flows": list(flows), "search": search,
    }  # fmt: skip
    words = base64.b64encode(json.dumps(told).encode()).decode()
    stream = {
        "pair": PROGRAM, "nic": flows[0]["back"], "argv": [PROGRAM, words], "kernel": THREADS,
    }  # fmt: skip
    return Order({PROGRAM: ["check"]}, [stream])


def ways(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Pair]]:
    """Of each guest the pair that it receives by and that which it forwards to."""
    of: dict[str, list[Pair]] = {}
    for pair in pairs:
        of.setdefault(pair.guest, []).append(pair)
    for own in of.values():
        if len(own) > 1:
            yield own[0], own[1]


def output(told: Told, frame_bytes: int) -> Output:
    """All guests' frames that came back, as interim results."""
    columns = [series.values for series in told.counted.values()]
    totals = [sum(row) for row in zip(*columns, strict=True)]
    at = next(iter(told.counted.values())).at_s if told.counted else ()
    interims = [
        Interim(end, end - begin, wire_mbit((after - before) / (end - begin), frame_bytes))
        for begin, end, before, after in zip(at, at[1:], totals, totals[1:], strict=False)
        if end > begin
    ]
    result = {"GENERATOR": told.generator} if told.generator else {}
    return Output(tuple(interims), result, frozenset(), told.words)


def _backlog(told: Told, window: Window, asked: Asked) -> Iterator[str]:
    """In an emulated lab, the guests' own bridges are among what this machine's CPUs serve."""
    if told.backlogged and (lost := told.growth(told.backlogged, window)):
        where = "the load generator" if asked.apart else "the load generator's machine"
        yield f"the CPUs of {where} dropped {lost:.0f} frames for want of time"


def named(name: str) -> Forwarding | None:
    """What a name such as ``forwarding-64B-100M-2src`` means; None = it is no such name."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    size, rate, word, several = found.groups()
    target = float(rate) if rate else 0.0 if word == "max" else None
    return of(int(size), target, int(several or 1))


def of(frame_bytes: int, target_mbit: float | None, sources: int = 1) -> Forwarding:
    """One point of the matrix; raises UserError where there is no such frame or rate."""
    least, most = FRAMES
    if not least <= frame_bytes <= most:
        raise UserError(f"frames have {least} to {most} bytes without checksum, not {frame_bytes}")
    if not 1 <= sources <= MOST_SOURCES:
        raise UserError(f"frames come of 1 to {MOST_SOURCES} sources, not {sources}")
    if target_mbit is None:
        rate, words = "collapse", "the highest rate that loses none"
    elif target_mbit:
        rate, words = f"{target_mbit:g}M", f"{target_mbit:g} Mbit/s"
    else:
        rate, words = "max", "all that the generator can"
    name = f"forwarding-{frame_bytes}B-{rate}"
    summary = f"every guest forwards frames of {frame_bytes} bytes, {words}"
    if sources > 1:
        name, summary = f"{name}-{sources}src", f"{summary}, of {sources} sources"
    return Forwarding(name, "send", summary, frame_bytes, target_mbit, sources)
