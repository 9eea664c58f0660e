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
from provision.measuring.counters import Asked, cables, counters, strayed
from provision.measuring.netperf import (
    INTERVAL_S,
    LATENCY,
    MEGABIT,
    TRANSACTIONS,
    Kind,
    number,
)
from provision.measuring.window import Load, Window, common, header_bytes, load, mean_rate
from provision.measuring.workload import Flow, Options

SHORT_S = 0.5  # a stream may be shorter than asked by this
GAP = 5  # intervals between two interim results
BUSY_PERCENT = 90.0
OTHERS_PERCENT, OTHERS_SHARE = 20.0, 0.1  # of one CPU; of all that was busy on the host
JUMP_S = 0.05  # of the load generator's clock


@dataclass(frozen=True, slots=True)
class Finding:
    """What one sample says. It is valid where there are no ``reasons`` against it.

    Rates are payload over the window: ``guests_mbit`` by guest, ``links_mbit`` by flow (empty in
    results of versions that knew one NIC a guest); of transactions, which count by themselves,
    they are what the NICs carried. ``counters_mbit`` is the latter from the load
    generator's NICs, ``uplinks_mbit`` from the hypervisor's; ``disagreement_percent`` is netperf
    against the former. CPU figures are per cent of one CPU, over the same window:
    ``clients_percent`` is all netperf clients together, ``others_percent`` what the hypervisor's
    host did for neither guests nor netperf, None = not known. ``dom0_percent`` is by dom0's vCPU,
    ``irqs_per_s`` by the CPU, of dom0 or of the host, that served the devices' interrupts; () = not
    known. ``latency_us`` has netperf's own figures and ``lost_percent`` the datagrams that never
    came, both by flow over the whole run, for no interim result tells them.
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
    others_percent: float | None = None
    dom0_percent: tuple[float, ...] = ()
    irqs_per_s: tuple[float, ...] = ()
    links_mbit: Mapping[str, float] = field(default_factory=dict)
    transactions_per_s: Mapping[str, float] = field(default_factory=dict)
    latency_us: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lost_percent: Mapping[str, float] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        return not self.reasons

    @property
    def streams_mbit(self) -> Mapping[str, float]:
        """The rate of each stream by its pair's name, whatever version wrote this."""
        return self.links_mbit or self.guests_mbit

    @property
    def unit(self) -> str:
        """What ``aggregate`` counts."""
        return "trans/s" if self.transactions_per_s else "Mbit/s"

    @property
    def aggregate(self) -> float:
        """What the workload is about: all flows' transactions, else their payload."""
        return sum(self.transactions_per_s.values()) or self.aggregate_mbit

    @property
    def shares(self) -> Mapping[str, float]:
        """The same by flow."""
        return self.transactions_per_s or self.streams_mbit

    @property
    def disturbed(self) -> bool:
        """Whether others had so much of the host that the rates may be theirs to explain."""
        others = self.others_percent or 0.0
        return others > max(OTHERS_PERCENT, OTHERS_SHARE * sum(self.host_percent))


def judge(capture: Capture, asked: Asked, usages: Sequence[Usage] = ()) -> Finding:
    """The rates, the CPU and the verdict of one sample.

    ``usages`` are the hypervisor's counters, with moments by the load generator's clock.
    """
    window = common(capture.streams, asked.options)
    rates = {f.name: 0.0 for f in asked.flows}
    rates |= {s.pair: mean_rate(s.output.interims, window) for s in capture.streams}
    counted = counters(capture, asked, window)
    begins = [s.output.interims[0].begin_s for s in capture.streams if s.output.interims]
    skew_s = max(begins) - min(begins) if begins else 0.0
    side = load(usages, asked.flows, window, header_bytes(asked.workload.kind))
    generator = tuple(100 * (c.rate(window.begin_s, window.end_s) or 0.0) for c in capture.cpus)
    rate = capture.clients.rate(window.begin_s, window.end_s)
    clients = None if rate is None else 100 * rate
    reasons = [
        *_started(capture, asked, skew_s),
        *(words for s in capture.streams for words in _ran(s, asked, window)),
        *counted.disagreements(rates, capture, asked),
        *strayed(capture, asked, window, sum(counted.rates_mbit.values())),
    ]
    warnings = [*cables(counted.rates_mbit, side.uplinks_mbit), *_dom0(side)]
    _bottleneck(asked, generator, reasons if asked.apart else warnings)
    transacts, lost = asked.workload.transacts, _lost(capture, asked)
    carried = dict(counted.rates_mbit if transacts else rates)
    if asked.workload.direction == "receive":  # the interim results tell what was sent
        carried |= {name: rates[name] * (1 - share / 100) for name, share in lost.items()}
    return Finding(
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        begin_s=window.begin_s,
        window_s=window.length_s,
        skew_ms=1000 * skew_s,
        aggregate_mbit=sum(carried.values()),
        guests_mbit=_by_guest(carried, asked),
        links_mbit=carried,
        counters_mbit=counted.rates_mbit,
        disagreement_percent=counted.off_percent,
        uplinks_mbit=side.uplinks_mbit,
        retransmits=_retransmits(capture.streams),
        host_percent=side.host_percent,
        guest_percent=side.guest_percent,
        generator_percent=generator,
        clients_percent=clients,
        others_percent=_others(side, 0.0 if asked.apart else clients),
        dom0_percent=side.dom0_percent,
        irqs_per_s=side.irqs_per_s,
        transactions_per_s=rates if transacts else {},
        latency_us=_latencies(capture) if transacts else {},
        lost_percent=lost,
    )


def _latencies(capture: Capture) -> dict[str, dict[str, float]]:
    """By flow and netperf's own name, such as ``P99``, over its whole run."""
    return {
        s.pair: {
            key.removesuffix("_LATENCY"): value
            for key in LATENCY
            if (value := number(s.output, key)) is not None
        }
        for s in capture.streams
    }


def _lost(capture: Capture, asked: Asked) -> dict[str, float]:
    """By flow, how many per cent of the datagrams never came, over netperf's whole run."""
    if asked.workload.kind != "datagram":
        return {}
    received = asked.workload.direction == "receive"
    ends = ("LOCAL_SEND_CALLS", "REMOTE_RECV_CALLS") if received else (
        "REMOTE_SEND_CALLS", "LOCAL_RECV_CALLS")  # fmt: skip
    found = {}
    for stream in capture.streams:
        sent, came = (number(stream.output, key) for key in ends)
        if sent and came is not None:
            found[stream.pair] = 100 * max(0.0, 1 - came / sent)
    return found


def _by_guest(rates: Mapping[str, float], asked: Asked) -> dict[str, float]:
    """What all of a guest's NICs carried together; a stream of nobody's stands for itself."""
    guests = {f.name: f.pair.guest for f in asked.flows}
    found: dict[str, float] = {}
    for pair, rate in rates.items():
        guest = guests.get(pair, pair)
        found[guest] = found.get(guest, 0.0) + rate
    return found


def _others(side: Load, clients: float | None) -> float | None:
    """What neither guests nor dom0 had of the host's CPU time.

    An emulated lab's netperf clients run there too.
    """
    if clients is None or not side.host_percent or not side.guest_percent:
        return None
    known = sum(side.guest_percent.values()) + sum(side.dom0_percent) + clients
    return max(0.0, sum(side.host_percent) - known)


def _started(capture: Capture, asked: Asked, skew_s: float) -> Iterator[str]:
    if capture.stopped:
        yield f"stopped early: {capture.stopped}"
    if capture.clock_jump_s > JUMP_S:
        yield f"the load generator's clock was stepped by {1000 * capture.clock_jump_s:.0f} ms"
    if skew_s > asked.options.ramp_s:
        yield f"started {skew_s:.2f} s apart, more than the ramp of {asked.options.ramp_s:g} s"
    there = {s.pair for s in capture.streams}
    yield from (f"{f.name}: no stream" for f in asked.flows if f.name not in there)


def _ran(stream: Stream, asked: Asked, window: Window) -> Iterator[str]:
    """What is wrong with one stream by its own word."""
    pair, output = stream.pair, stream.output
    if stream.fault:
        yield f"{pair}: {stream.fault}"
        return
    if missing := output.missing(asked.workload.keys):
        yield f"{pair}: netperf did not tell {', '.join(missing)}"
        return
    if not output.interims:
        yield f"{pair}: no interim results"
        return
    yield from (f"{pair}: {words}" for words in _whole(stream, asked, window))
    yield from (f"{pair}: {words}" for words in _as_asked(stream, asked))


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
    result, options, kind = stream.output.result, asked.options, asked.workload.kind
    unit = TRANSACTIONS if asked.workload.transacts else MEGABIT
    if units := stream.output.units - {unit}:
        yield f"rates in {', '.join(sorted(units))} instead of {unit}"
    flow = next(f for f in asked.flows if f.name == stream.pair)
    way = "Receive" if flow.received else "Send"
    if asked.workload.transacts:
        way = "Send|Recv" if kind == "request" else "Connect|Send|Recv"
    if result["DIRECTION"] != way:
        yield f"the load generator's direction was {result['DIRECTION']}, not {way}"
    for key, size in _sizes(flow, kind, options):
        if result[key] != str(size):
            yield f"{key} was {result[key]}, not {size}"
    if kind != "stream":
        return
    for key in ("LSS_SIZE_REQ", "RSS_SIZE_REQ"):
        if result[key] != str(options.socket_buffer_bytes):
            yield f"{key} was {result[key]}, not {options.socket_buffer_bytes}"
    # Linux doubles what is asked for, to have room for its own bookkeeping (socket(7))
    fine = {str(options.socket_buffer_bytes), str(2 * options.socket_buffer_bytes)}
    for key in ("LSS_SIZE_END", "LSR_SIZE_END", "RSS_SIZE_END", "RSR_SIZE_END"):
        if result[key] not in fine:
            yield f"{key} became {result[key]} for {options.socket_buffer_bytes} asked"


def _sizes(flow: Flow, kind: Kind, options: Options) -> Iterator[tuple[str, int]]:
    """The keys of the sizes in use, with what was asked."""
    if kind in ("request", "connection"):
        yield "REQUEST_SIZE", options.request_bytes
        yield "RESPONSE_SIZE", options.response_bytes
    elif kind == "datagram":
        yield "REMOTE_SEND_SIZE" if flow.received else "LOCAL_SEND_SIZE", options.datagram_bytes
    elif flow.received:
        yield "REMOTE_SEND_SIZE", options.message_bytes
        yield "LOCAL_RECV_SIZE", options.message_bytes
    else:
        yield "LOCAL_SEND_SIZE", options.message_bytes
        yield "REMOTE_RECV_SIZE", options.message_bytes


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


def _dom0(side: Load) -> Iterator[str]:
    """The vCPUs of dom0 that could do no more: its back ends were the bottleneck."""
    for vcpu, percent in enumerate(side.dom0_percent):
        if percent >= BUSY_PERCENT:
            # without the figure, which is kept by itself: all samples then say the same
            yield f"the bottleneck is dom0: its vCPU {vcpu} was {BUSY_PERCENT:.0f} % busy or more"


def _retransmits(streams: Sequence[Stream]) -> int | None:
    """All streams' retransmitted segments; None where one did not tell."""
    figures = [
        number(s.output, key)
        for s in streams
        for key in ("LOCAL_TRANSPORT_RETRANS", "REMOTE_TRANSPORT_RETRANS")
    ]
    known = [f for f in figures if f is not None and f >= 0]
    return int(sum(known)) if known and len(known) == len(figures) else None
