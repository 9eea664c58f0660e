"""A workload on some guests while the others are idle, computing, or forwarding: pure.

As in *Performance Comparison of Hardware Virtualization Platforms* (Schlosser, Duelli, Goll,
Würzburg 2011), tables 1 to 3: what a neighbour costs the guest that is measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from provision.errors import UserError
from provision.measuring.capture import Capture, Output
from provision.measuring.counters import Asked
from provision.measuring.window import Window
from provision.measuring.workload import (
    Before,
    Figures,
    Flow,
    Meanwhile,
    Options,
    Order,
    Pair,
    Workload,
)
from provision.measuring.workloads import forwarding
from provision.measuring.workloads.forwarding_words import Told, parse, wire_mbit

IDLE = "idle"
#: what stress is told, in the paper's words: "--cpu 1", "--cpu 8 --vm 4"
STRESS = {"light": ("--cpu", "1"), "heavy": ("--cpu", "8", "--vm", "4")}
#: the share of a neighbour's own maximum at which it forwards
SHARE = {"forward-50": 0.50, "forward-95": 0.95}
LOADS = (IDLE, *STRESS, *SHARE)
FRAME_BYTES = 64  # of what neighbours forward
LINGER_S = 60  # by which a load outlives its sample, should nobody end it
NAME = re.compile(rf"(.+?)(?:@(\d+|neighbour))?(?:\+({'|'.join(LOADS)}))?")


@dataclass(frozen=True, slots=True)
class Beside(Workload):
    """``inner`` on ``count`` guests from ``first`` (0 = the first of all); the others have a load.

    ``load`` is one of LOADS. ``maximum_mbit`` is what a neighbour forwards at most without loss,
    None = not measured yet.
    """

    inner: Workload
    count: int = 1
    first: int = 0
    load: str = IDLE
    maximum_mbit: float | None = None

    @property
    def forwards(self) -> bool:
        return self.load in SHARE

    @property
    def before(self) -> tuple[Before, ...]:
        mine = self.inner.before
        more: tuple[Before, ...] = ((forwarding.Forwarding.ready, {}),) if self.forwards else ()
        if self.load in STRESS:
            more = (("neighbour-ready.yml", {}),)
        return (*mine, *(one for one in more if one not in mine))

    @property
    def after(self) -> tuple[str, ...]:
        more = (forwarding.Forwarding.done,) if self.forwards else ()
        return tuple(dict.fromkeys((*self.inner.after, *more)))

    @property
    def nics_each(self) -> int:  # type: ignore[override]
        return max(self.inner.nics_each, 2 if self.forwards else 1)

    @property
    def guests(self) -> int:  # type: ignore[override]
        return self.first + self.count + (self.load != IDLE)

    @property
    def windows(self) -> bool:  # type: ignore[override]
        return self.inner.windows and self.load == IDLE

    @property
    def spins(self) -> bool:  # type: ignore[override]
        return self.inner.spins or self.forwards

    @property
    def header_bytes(self) -> int:
        return self.inner.header_bytes

    def wants(self) -> Workload | None:
        """A neighbour's own maximum, measured while all others are idle."""
        if not self.forwards or self.maximum_mbit is not None:
            return None
        found = forwarding.of(FRAME_BYTES, None)
        return _named(found, 1, first=self.count)

    def given(self, aggregate_mbit: float) -> Workload:
        return replace(self, maximum_mbit=aggregate_mbit)

    def series(self, options: Options) -> tuple[Beside, ...]:
        return tuple(
            _named(one, self.count, self.first, self.load) for one in self.inner.series(options)
        )

    def flows(self, pairs: Iterable[Pair]) -> tuple[Flow, ...]:
        return self.inner.flows(self._split(pairs)[0])

    def streams(self, pairs: Iterable[Pair]) -> tuple[str, ...]:
        mine = self.inner.streams(self._split(pairs)[0])
        return tuple(dict.fromkeys((*mine, *([forwarding.PROGRAM] if self.forwards else []))))

    def order(self, pairs: Sequence[Pair], options: Options) -> Order:
        mine, others = self._split(pairs)
        if not self.forwards:
            return self.inner.order(mine, options)
        theirs = [self._load().flow(*way) for way in forwarding.ways(others)]
        if isinstance(self.inner, forwarding.Forwarding):
            own = [self.inner.flow(*way) for way in forwarding.ways(mine)]
            return forwarding.order([*own, *theirs], options, self.inner.search(options, len(own)))
        one, two = self.inner.order(mine, options), forwarding.order(theirs, options)
        programs = {**one.programs, **two.programs}
        return Order(programs, [*one.streams, *two.streams], one.helpers, one.files)

    def meanwhile(self, pairs: Sequence[Pair], options: Options) -> Meanwhile | None:
        if self.load not in STRESS:
            return None
        hosts = list(dict.fromkeys(p.guest for p in self._split(pairs)[1]))
        lifetime_s = ceil(self.plan(pairs, options)["deadline_s"]) + LINGER_S
        told = {"neighbour_hosts": hosts, "neighbour_words": list(STRESS[self.load]),
                "neighbour_lifetime_s": lifetime_s}  # fmt: skip
        return Meanwhile("neighbour.yml", "neighbour-end.yml", told)

    def plan(self, pairs: Sequence[Pair], options: Options) -> dict[str, Any]:
        inner = self.inner.plan(self._split(pairs)[0], options)
        return Workload.plan(self, pairs, options) | {"deadline_s": inner["deadline_s"]}

    def read(self, text: str) -> Output:
        if self.forwards and text.startswith('{"generator"'):
            return self._load().read(text)
        return self.inner.read(text)

    def begins(self, capture: Capture) -> Mapping[str, float]:
        return self.inner.begins(self._own(capture))

    def figures(self, capture: Capture, asked: Asked, window: Window) -> Figures:
        mine, others = self._split(asked.pairs)
        own = replace(asked, workload=self.inner, pairs=tuple(mine))
        found = self.inner.figures(self._own(capture), own, window)
        if not self.forwards:
            return found
        stream = next((s for s in capture.streams if s.pair == forwarding.PROGRAM), None)
        told = parse(stream.raw if stream else "")
        names = [one.guest for one, _ in forwarding.ways(others)]
        rates = {name: _rates(told, name, window) for name in names}
        fault = stream.fault if stream and self._own(capture) is not capture else ""
        reasons = [*([fault] if fault else []), *self._missed(rates)]
        return replace(found, neighbours_mbit=rates, reasons=(*found.reasons, *reasons))

    def _missed(self, rates: Mapping[str, tuple[float, float]]) -> Iterator[str]:
        target = self._load().target_mbit or 0.0
        for name, (offered, _) in rates.items():
            if abs(offered - target) > target * forwarding.OFFERED_PERCENT / 100:
                yield f"{name} beside it was sent {offered:.1f} Mbit/s, not {target:.1f}"

    def _load(self) -> forwarding.Forwarding:
        """What the neighbours forward; until their maximum is known, as much as comes."""
        rate = SHARE[self.load] * (self.maximum_mbit or 0.0)
        return forwarding.of(FRAME_BYTES, round(rate, 3))

    def _own(self, capture: Capture) -> Capture:
        """Without the program that sends to neighbours alone."""
        if isinstance(self.inner, forwarding.Forwarding) or not self.forwards:
            return capture
        mine = tuple(s for s in capture.streams if s.pair != forwarding.PROGRAM)
        return replace(capture, streams=mine)

    def _split(self, pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
        """The pairs of the guests that are measured, and of all others."""
        every = list(pairs)
        names = list(dict.fromkeys(p.guest for p in every))
        mine = names[self.first : self.first + self.count]
        return [p for p in every if p.guest in mine], [p for p in every if p.guest not in mine]


def _rates(told: Told, guest: str, window: Window) -> tuple[float, float]:
    """Offered and measured, of the wire."""
    sent, counted = (
        of[guest].rate(window.begin_s, window.end_s) if guest in of else None
        for of in (told.sent, told.counted)
    )
    return wire_mbit(sent or 0.0, FRAME_BYTES), wire_mbit(counted or 0.0, FRAME_BYTES)


def _named(inner: Workload, count: int, first: int = 0, load: str = IDLE) -> Beside:
    name = inner.name if load != IDLE and count == 1 else f"{inner.name}@{count}"
    words = "the first guest" if count == 1 else f"the first {count} guests"
    if first:
        name, words = f"{inner.name}@neighbour", "a neighbour"
    summary = f"{inner.summary}, of {words} alone"
    if load != IDLE:
        name, summary = f"{name}+{load}", f"{inner.summary}, of {words} beside a {load} one"
    return Beside(name, inner.direction, summary, inner, count, first, load)


def plain(name: str) -> str:
    """The name of the workload alone."""
    found = NAME.fullmatch(name)
    return found[1] if found else name


def idle(name: str) -> str | None:
    """The same workload beside idle neighbours; None where it is beside no busy ones."""
    found = NAME.fullmatch(name)
    if found is None or found[3] in (None, IDLE):
        return None
    return f"{found[1]}@{found[2] or 1}"


def named(name: str, find: Callable[[str], Workload]) -> Beside | None:
    """What a name such as ``netperf-send+heavy`` or ``netperf-send@2`` means; None = no such name.

    ``find`` gives the workload of the part before. ``+idle`` is the same as ``@1``.
    """
    found = NAME.fullmatch(name)
    if found is None or not (found[2] or found[3]):
        return None
    inner = find(found[1])
    if found[2] == "0" or isinstance(inner, Beside):
        raise UserError(f"{name}: at least one guest is measured")
    if found[2] == "neighbour":
        return _named(inner, 1, first=1)
    return _named(inner, int(found[2] or 1), load=found[3] or IDLE)
