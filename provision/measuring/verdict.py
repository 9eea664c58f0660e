"""Whether a sample can be trusted, and what it says: pure.

A sample is valid only if every stream ran over the whole window, together, as asked, and as the
NICs' own counters say; whatever speaks against that is a reason in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from provision.driver import Usage
from provision.measuring.capture import Capture, Stream
from provision.measuring.window import Window, common, load, mean_rate, payload_mbit
from provision.measuring.workload import INTERVAL_S, MEGABIT, Options, Pair, Workload, number

AGREE_PERCENT = 2.0  # between netperf and the NIC's counters
UPLINK_PERCENT = 5.0  # between the two ends of a cable, whose counters are read at other moments
SHORT_S = 0.5  # a stream may be shorter than asked by this
GAP = 5  # intervals between two interim results
BUSY_PERCENT = 90.0
JUMP_S = 0.05  # of the load generator's clock
STRAY_MBIT, STRAY_PERCENT = 1.0, 1.0  # on links that are not the testbed's


@dataclass(frozen=True, slots=True)
class Finding:
    """What one sample says. It is valid where there are no ``reasons`` against it.

    Rates are payload over the window. ``counters_mbit`` is the same from the load generator's
    NICs, ``uplinks_mbit`` from the hypervisor's; ``disagreement_percent`` is netperf against the
    former. CPU figures are per cent of one CPU, over the same window: ``clients_percent`` is all
    netperf clients together.
    """

    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    begin_s: float
    window_s: float
    skew_ms: float
    aggregate_mbit: float
    guests_mbit: Mapping[str, float]
    counters_mbit: Mapping[str, float]
    disagreement_percent: Mapping[str, float]
    uplinks_mbit: Mapping[str, float] = field(default_factory=dict)
    retransmits: int | None = None
    host_percent: tuple[float, ...] = ()
    guest_percent: Mapping[str, float] = field(default_factory=dict)
    generator_percent: tuple[float, ...] = ()
    clients_percent: float | None = None

    @property
    def valid(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Asked:
    """What the sample was meant to be; ``apart``: the load generator's CPUs are its own."""

    workload: Workload
    options: Options
    pairs: tuple[Pair, ...]
    apart: bool


def judge(capture: Capture, asked: Asked, usages: Sequence[Usage] = ()) -> Finding:
    """The rates, the CPU and the verdict of one sample.

    ``usages`` are the hypervisor's counters, with moments by the load generator's clock.
    """
    window = common(capture.streams, asked.options)
    by_guest = {s.guest: s for s in capture.streams}
    rates = {p.guest: 0.0 for p in asked.pairs}
    rates |= {g: mean_rate(s.output.interims, window) for g, s in by_guest.items()}
    counters, apart = _counters(capture, asked, window)
    begins = [s.output.interims[0].begin_s for s in capture.streams if s.output.interims]
    skew_s = max(begins) - min(begins) if begins else 0.0
    side = load(usages, asked.pairs, window, sent=asked.workload.direction == "send")
    generator = tuple(100 * (c.rate(window.begin_s, window.end_s) or 0.0) for c in capture.cpus)
    clients = capture.clients.rate(window.begin_s, window.end_s)
    reasons = [
        *_started(capture, asked, skew_s),
        *(words for s in capture.streams for words in _ran(s, asked, window)),
        *_counted(rates, counters, apart, asked),
        *_strayed(capture, asked, window, sum(rates.values())),
    ]
    warnings = list(_cables(counters, side.uplinks_mbit))
    _bottleneck(asked, generator, reasons if asked.apart else warnings)
    return Finding(
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        begin_s=window.begin_s,
        window_s=window.length_s,
        skew_ms=1000 * skew_s,
        aggregate_mbit=sum(rates.values()),
        guests_mbit=rates,
        counters_mbit=counters,
        disagreement_percent=apart,
        uplinks_mbit=side.uplinks_mbit,
        retransmits=_retransmits(capture.streams),
        host_percent=side.host_percent,
        guest_percent=side.guest_percent,
        generator_percent=generator,
        clients_percent=None if clients is None else 100 * clients,
    )


def _started(capture: Capture, asked: Asked, skew_s: float) -> Iterator[str]:
    if capture.stopped:
        yield f"stopped early: {capture.stopped}"
    if capture.clock_jump_s > JUMP_S:
        yield f"the load generator's clock was stepped by {1000 * capture.clock_jump_s:.0f} ms"
    if skew_s > asked.options.ramp_s:
        yield f"started {skew_s:.2f} s apart, more than the ramp of {asked.options.ramp_s:g} s"
    there = {s.guest for s in capture.streams}
    yield from (f"{p.guest}: no stream" for p in asked.pairs if p.guest not in there)


def _ran(stream: Stream, asked: Asked, window: Window) -> Iterator[str]:
    """What is wrong with one stream by its own word."""
    guest, output = stream.guest, stream.output
    if stream.fault:
        yield f"{guest}: {stream.fault}"
        return
    if output.missing:
        yield f"{guest}: netperf did not tell {', '.join(output.missing)}"
        return
    if not output.interims:
        yield f"{guest}: no interim results"
        return
    yield from (f"{guest}: {words}" for words in _whole(stream, asked, window))
    yield from (f"{guest}: {words}" for words in _as_asked(stream, asked))


def _whole(stream: Stream, asked: Asked, window: Window) -> Iterator[str]:
    interims = stream.output.interims
    if (short_s := window.end_s - interims[-1].end_s) > 0:
        yield f"ended {short_s:.2f} s before the window did"
    elapsed_s = number(stream.output, "ELAPSED_TIME") or 0.0
    if elapsed_s < asked.options.length_s - SHORT_S:
        yield f"ran {elapsed_s:g} s instead of {asked.options.length_s} s"
    inside = [i for i in interims if i.end_s > window.begin_s and i.begin_s < window.end_s]
    gaps = [b.end_s - a.end_s for a, b in pairwise(inside)]
    if gaps and max(gaps) > GAP * INTERVAL_S:
        yield f"no interim result for {max(gaps):.2f} s"
    if mean_rate(interims, window) <= 0:
        yield "nothing was transferred"


def _as_asked(stream: Stream, asked: Asked) -> Iterator[str]:
    result, options = stream.output.result, asked.options
    if units := stream.output.units - {MEGABIT}:
        yield f"rates in {', '.join(sorted(units))} instead of {MEGABIT}"
    way = "Receive" if asked.workload.direction == "send" else "Send"
    if result["DIRECTION"] != way:
        yield f"the load generator's direction was {result['DIRECTION']}, not {way}"
    for key in asked.workload.sizes():
        if result[key] != str(options.message_bytes):
            yield f"{key} was {result[key]}, not {options.message_bytes}"
    for key in ("LSS_SIZE_REQ", "RSS_SIZE_REQ"):
        if result[key] != str(options.socket_buffer_bytes):
            yield f"{key} was {result[key]}, not {options.socket_buffer_bytes}"
    # Linux doubles what is asked for, to have room for its own bookkeeping (socket(7))
    fine = {str(options.socket_buffer_bytes), str(2 * options.socket_buffer_bytes)}
    for key in ("LSS_SIZE_END", "LSR_SIZE_END", "RSS_SIZE_END", "RSR_SIZE_END"):
        if result[key] not in fine:
            yield f"{key} became {result[key]} for {options.socket_buffer_bytes} asked"


def _counters(
    capture: Capture, asked: Asked, window: Window
) -> tuple[dict[str, float], dict[str, float]]:
    """By guest: the NIC's payload rate, and by how many per cent netperf's rate is off it.

    The comparison is made over whole interim results, so that none has to be cut.
    """
    rates, off = {}, {}
    streams = {s.guest: s for s in capture.streams}
    received = asked.workload.direction == "send"
    for pair in asked.pairs:
        link, stream = capture.links.get(pair.port_nic), streams.get(pair.guest)
        if link is None or stream is None:
            continue
        rate = payload_mbit(link, window, received=received)
        if rate is None:
            continue
        rates[pair.guest] = rate
        inside = [i for i in stream.output.interims
                  if i.begin_s >= window.begin_s and i.end_s <= window.end_s]  # fmt: skip
        if not inside:
            continue
        own = Window(inside[0].begin_s, inside[-1].end_s)
        seen, said = payload_mbit(link, own, received=received), mean_rate(inside, own)
        if seen is not None:
            off[pair.guest] = 100 * (said - seen) / seen if seen > 0 else 100.0
    return rates, off


def _counted(
    rates: Mapping[str, float], seen: Mapping[str, float], off: Mapping[str, float], asked: Asked
) -> Iterator[str]:
    """Disagreement with the NICs; what socket buffers may hold back is allowed for."""
    buffered_mbit = 2 * asked.options.socket_buffer_bytes * 8 / 1e6 / asked.options.duration_s
    for pair in asked.pairs:
        guest = pair.guest
        if guest not in off:
            yield f"{guest}: {pair.port_nic} was not watched during the window"
            continue
        slack = 100 * buffered_mbit / seen[guest] if seen[guest] > 0 else 0.0
        if abs(off[guest]) > AGREE_PERCENT + slack:
            yield (
                f"{guest}: netperf says {rates[guest]:.1f} Mbit/s, {pair.port_nic} of the load "
                f"generator carried {seen[guest]:.1f}"
            )


def _strayed(
    capture: Capture, asked: Asked, window: Window, aggregate_mbit: float
) -> Iterator[str]:
    ours = {p.port_nic for p in asked.pairs}
    bound = max(STRAY_MBIT, aggregate_mbit * STRAY_PERCENT / 100)
    for name, link in sorted(capture.links.items()):
        ways = [s.rate(window.begin_s, window.end_s) or 0.0 for s in (link.rx_bytes, link.tx_bytes)]
        if name not in ours and (mbit := sum(ways) * 8 / 1e6) > bound:
            yield f"{mbit:.1f} Mbit/s went by {name}, which is no link of this testbed"


def _cables(counters: Mapping[str, float], uplinks: Mapping[str, float]) -> Iterator[str]:
    for guest in counters.keys() & uplinks.keys():
        near, far = uplinks[guest], counters[guest]
        if abs(near - far) > max(STRAY_MBIT, far * UPLINK_PERCENT / 100):
            yield f"{guest}: the uplink carried {near:.1f} Mbit/s, its far end {far:.1f}"


def _bottleneck(asked: Asked, generator: Sequence[float], words: list[str]) -> None:
    if not generator or max(generator) <= BUSY_PERCENT:
        return
    if asked.apart:
        number = generator.index(max(generator))
        words.append(f"CPU {number} of the load generator was {max(generator):.0f} % busy")
    else:
        words.append(
            f"limits: a CPU was {max(generator):.0f} % busy, and the load generator shares it"
        )


def _retransmits(streams: Sequence[Stream]) -> int | None:
    """All streams' retransmitted segments; None where one did not tell."""
    figures = [
        number(s.output, key)
        for s in streams
        for key in ("LOCAL_TRANSPORT_RETRANS", "REMOTE_TRANSPORT_RETRANS")
    ]
    known = [f for f in figures if f is not None and f >= 0]
    return int(sum(known)) if known and len(known) == len(figures) else None
