"""netperf: streams, datagrams and transactions between each guest and its own client: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from provision.measuring.capture import Capture, Link, Output, Stream, number
from provision.measuring.counters import AGREE_PERCENT, Asked
from provision.measuring.window import Window, mean_rate, payload_mbit
from provision.measuring.workload import (
    DATAGRAM_HEADER_BYTES,
    HEADER_BYTES,
    INTERVAL_S,
    Direction,
    Figures,
    Flow,
    Options,
    Order,
    Pair,
    Workload,
    stream,
)
from provision.measuring.workloads.netperf_words import (
    KEYS,
    LATENCY,
    MEGABIT,
    TRANSACTIONS,
    Kind,
    argv,
    parse,
)

SHORT_S = 0.5  # a stream may be shorter than asked by this
GAP = 5  # intervals between two interim results


@dataclass(frozen=True, slots=True)
class Netperf(Workload):
    """One netperf for each flow; a ``direction`` of both is a stream each way, or a transaction."""

    kind: Kind
    ready: ClassVar[str] = "install.yml"
    windows: ClassVar[bool] = True

    @property
    def transacts(self) -> bool:
        """Whether it counts transactions, not bits."""
        return self.kind in ("request", "connection")

    @property
    def header_bytes(self) -> int:
        return DATAGRAM_HEADER_BYTES if self.kind == "datagram" else HEADER_BYTES

    def flows(self, pairs: Iterable[Pair]) -> tuple[Flow, ...]:
        """One for each client: of a pair, or of each of its directions."""
        if self.transacts or self.direction != "both":
            return tuple(Flow(p.name, p, self.direction, p.data_port) for p in pairs)
        ways: tuple[Direction, ...] = ("send", "receive")
        # a pair has one port for data: the second client takes any
        return tuple(
            Flow(f"{p.name}.{way}", p, way, p.data_port if way == "send" else 0)
            for p in pairs
            for way in ways
        )

    def order(self, pairs: Sequence[Pair], options: Options) -> Order:
        streams = [
            stream(
                f, argv(self.kind, f.direction, options),
                asks="netserver", port=f.pair.control_port,
            )
            for f in self.flows(pairs)
        ]  # fmt: skip
        return Order({"netperf": ["-V"]}, streams)

    def read(self, text: str) -> Output:
        return parse(text)

    def begins(self, capture: Capture) -> Mapping[str, float]:
        return {s.pair: s.output.interims[0].begin_s for s in capture.streams if s.output.interims}

    def figures(self, capture: Capture, asked: Asked, window: Window) -> Figures:
        rates = {f.name: 0.0 for f in asked.flows}
        rates |= {s.pair: mean_rate(s.output.interims, window) for s in capture.streams}
        counted = _counters(capture, asked, self, window)
        lost = _lost(capture, self)
        carried = dict(counted.rates_mbit if self.transacts else rates)
        if self.direction == "receive":  # the interim results tell what was sent
            carried |= {name: rates[name] * (1 - share / 100) for name, share in lost.items()}
        missed = [*counted.missed(asked, self)]
        return Figures(
            rates_mbit=carried,
            counted_mbit=counted.rates_mbit,
            off_percent=counted.off_percent,
            reasons=(
                *(words for s in capture.streams for words in _ran(s, asked, self, window)),
                *counted.disagreements(capture, asked, self),
                *(missed if asked.apart else ()),
            ),
            warnings=() if asked.apart else tuple(missed),
            per_s=rates if self.transacts else {},
            latency_us=_latencies(capture) if self.transacts else {},
            lost_percent=lost,
            retransmits=_retransmits(capture.streams),
        )


WORKLOADS = (
    Netperf("netperf-send", "send", "every guest sends to its own client", "stream"),
    Netperf("netperf-receive", "receive", "every guest receives from its own", "stream"),
    Netperf("netperf-both", "both", "every guest sends and receives at once", "stream"),
    Netperf("netperf-rr", "both", "every guest answers one request after another", "request"),
    Netperf("netperf-crr", "both", "the same, a connection for each request", "connection"),
    Netperf("netperf-udp-send", "send", "every guest sends datagrams", "datagram"),
    Netperf("netperf-udp-receive", "receive", "every guest receives datagrams", "datagram"),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """By flow: the NIC's payload rate, and by how many per cent netperf's rate is off it.

    For transactions, whose payload says little, the latter is how far the NIC's packets fall short
    of one each way for each. ``compared`` is what netperf said and what the NIC carried over the
    whole interim results that this is of.
    """

    rates_mbit: Mapping[str, float]
    off_percent: Mapping[str, float]
    compared: Mapping[str, tuple[float, float]]

    def disagreements(self, capture: Capture, asked: Asked, workload: Netperf) -> Iterator[str]:
        """Where netperf and the NICs differ; what socket buffers may hold back is allowed for.

        Of a stream that is missing or ended badly nothing is said: that is a reason already.
        """
        sound = {s.pair for s in capture.streams if not s.fault}
        unit = "transactions/s" if workload.transacts else "Mbit/s"
        for flow in (f for f in asked.flows if f.name in sound):
            pair, nic = flow.name, flow.pair.port_nic
            if pair not in self.rates_mbit:
                yield f"{pair}: {nic} of the load generator was not watched during the window"
            elif pair not in self.off_percent:
                yield f"{pair}: no interim result within the window to compare with {nic}"
            elif self._differ(pair, asked) and not self._fell_short(flow, asked, workload):
                said, seen = self.compared[pair]
                yield (
                    f"{pair}: netperf says {said:.1f} {unit}, {nic} of the load "
                    f"generator carried {seen:.1f}{' Mbit/s' if workload.transacts else ''}"
                )

    def missed(self, asked: Asked, workload: Netperf) -> Iterator[str]:
        """Datagrams that came as far as the load generator, which had no time for them."""
        for flow in asked.flows:
            if flow.name in self.off_percent and self._fell_short(flow, asked, workload):
                said, seen = self.compared[flow.name]
                yield (
                    f"{flow.name}: limits: the load generator took {said:.1f} Mbit/s of {seen:.1f} "
                    f"that came by {flow.pair.port_nic}"
                )

    def _differ(self, pair: str, asked: Asked) -> bool:
        buffered_mbit = 2 * asked.options.socket_buffer_bytes * 8 / 1e6 / asked.options.duration_s
        seen = self.rates_mbit[pair]
        allowed = AGREE_PERCENT + (100 * buffered_mbit / seen if seen > 0 else 0.0)
        return abs(self.off_percent[pair]) > allowed

    def _fell_short(self, flow: Flow, asked: Asked, workload: Netperf) -> bool:
        return (
            workload.kind == "datagram" and flow.received and self.off_percent[flow.name] < 0
            and self._differ(flow.name, asked)
        )  # fmt: skip


def _counters(capture: Capture, asked: Asked, workload: Netperf, window: Window) -> Counted:
    """The comparison is made over whole interim results, so that none has to be cut."""
    rates, off, compared = {}, {}, {}
    streams = {s.pair: s for s in capture.streams}
    header = workload.header_bytes
    for flow in asked.flows:
        link, stream = capture.links.get(flow.pair.port_nic), streams.get(flow.name)
        if link is None or stream is None:
            continue
        rate = payload_mbit(link, window, received=flow.received, header=header)
        if rate is None:
            continue
        rates[flow.name] = rate
        inside = [i for i in stream.output.interims
                  if i.begin_s >= window.begin_s and i.end_s <= window.end_s]  # fmt: skip
        if not inside:
            continue
        own = Window(inside[0].begin_s, inside[-1].end_s)
        said = mean_rate(inside, own)
        seen = payload_mbit(link, own, received=flow.received, header=header)
        if seen is None:
            continue
        compared[flow.name] = said, seen
        if workload.transacts:
            off[flow.name] = _short_percent(link, own, said)
        else:
            off[flow.name] = 100 * (said - seen) / seen if seen > 0 else 100.0
    return Counted(rates, off, compared)


def _short_percent(link: Link, window: Window, transactions_per_s: float) -> float:
    """Each transaction is a packet each way at least; more are acknowledgements."""
    ways = [s.rate(window.begin_s, window.end_s) or 0.0 for s in (link.rx_packets, link.tx_packets)]
    if transactions_per_s <= 0:
        return 100.0
    return max(0.0, 100 * (1 - min(ways) / transactions_per_s))


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


def _lost(capture: Capture, workload: Netperf) -> dict[str, float]:
    """By flow, how many per cent of the datagrams never came, over netperf's whole run."""
    found = {s.pair: _lost_percent(s, workload) for s in capture.streams}
    return {pair: lost for pair, lost in found.items() if lost is not None}


def _lost_percent(stream: Stream, workload: Netperf) -> float | None:
    if workload.kind != "datagram":
        return None
    received = workload.direction == "receive"
    ends = ("LOCAL_SEND_CALLS", "REMOTE_RECV_CALLS") if received else (
        "REMOTE_SEND_CALLS", "LOCAL_RECV_CALLS")  # fmt: skip
    sent, came = (number(stream.output, key) for key in ends)
    return 100 * max(0.0, 1 - came / sent) if sent and came is not None else None


def _ran(stream: Stream, asked: Asked, workload: Netperf, window: Window) -> Iterator[str]:
    """What is wrong with one stream by its own word."""
    pair, output = stream.pair, stream.output
    if stream.fault:
        yield f"{pair}: {stream.fault}"
        return
    if missing := output.missing(KEYS[workload.kind]):
        yield f"{pair}: netperf did not tell {', '.join(missing)}"
        return
    if number(output, "THROUGHPUT") == 0 or _lost_percent(stream, workload) == 100:
        yield f"{pair}: nothing was transferred"
        return
    if not output.interims:
        yield f"{pair}: no interim results"
        return
    yield from (f"{pair}: {words}" for words in _whole(stream, asked, window))
    yield from (f"{pair}: {words}" for words in _as_asked(stream, asked, workload))


def _whole(stream: Stream, asked: Asked, window: Window) -> Iterator[str]:
    interims = stream.output.interims
    if (short_s := window.end_s - interims[-1].end_s) > 0:
        yield f"ended {short_s:.2f} s before the window did"
    elapsed_s = number(stream.output, "ELAPSED_TIME") or 0.0
    if elapsed_s < asked.options.length_s - SHORT_S:
        yield f"ran {elapsed_s:g} s instead of {asked.options.length_s} s"
    inside = (i.end_s for i in interims if window.begin_s < i.end_s < window.end_s)
    told = [window.begin_s, *inside, min(interims[-1].end_s, window.end_s)]
    if (silent_s := max(b - a for a, b in pairwise(told))) > GAP * INTERVAL_S:
        yield f"no interim result for {silent_s:.2f} s"
    if mean_rate(interims, window) <= 0:
        yield "nothing was transferred"


def _as_asked(stream: Stream, asked: Asked, workload: Netperf) -> Iterator[str]:
    result, options, kind = stream.output.result, asked.options, workload.kind
    unit = TRANSACTIONS if workload.transacts else MEGABIT
    if units := stream.output.units - {unit}:
        yield f"rates in {', '.join(sorted(units))} instead of {unit}"
    flow = next(f for f in asked.flows if f.name == stream.pair)
    way = "Receive" if flow.received else "Send"
    if workload.transacts:
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


def _retransmits(streams: Sequence[Stream]) -> int | None:
    """All streams' retransmitted segments; None where one did not tell."""
    figures = [
        number(s.output, key)
        for s in streams
        for key in ("LOCAL_TRANSPORT_RETRANS", "REMOTE_TRANSPORT_RETRANS")
    ]
    known = [f for f in figures if f is not None and f >= 0]
    return int(sum(known)) if known and len(known) == len(figures) else None
