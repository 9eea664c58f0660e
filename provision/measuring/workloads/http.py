"""HTTP through a reverse proxy in the guest, one request per connection: pure.

Each pair has an origin and a client on the load generator, and HAProxy in its guest between them.
How many requests reached the origin is counted there, by the load generator's clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

from provision.measuring.capture import Capture, Link, Output, Series, Stream, number
from provision.measuring.counters import AGREE_PERCENT, Asked
from provision.measuring.window import Window, payload_mbit
from provision.measuring.workload import Figures, Flow, Options, Order, Pair, Workload, stream
from provision.measuring.workloads.http_words import (
    NEEDED,
    PROXY_PORT,
    TIMEOUT_S,
    ab_latency_us,
    counter,
    latency_us,
    origin,
    parts,
    read_ab,
    read_arrivals,
)

KIB = 1024
SHORT_S = 0.5  # a client may end that much earlier than asked
SILENT_S = 1.0  # without any request at the origin
LATE_US = 10_000  # a connection that began so late says something of the load generator
#: client and origin each open, carry and close a connection: SYN, what is asked or answered, FIN
PACKETS = 4
AB_REQUESTS_PER_S = 40_000  # more than it can do: what ends it is the time


@dataclass(frozen=True, slots=True)
class Http(Workload):
    """``load`` is closed, a fixed number of clients that wait, or open, a fixed rate."""

    load: Literal["closed", "open"]
    object_kib: int | None = None
    ready: ClassVar[str] = "http.yml"

    def series(self, options: Options) -> tuple[Http, ...]:
        return tuple(replace(self, name=f"{self.name}-{kib}k", object_kib=kib)
                     for kib in dict.fromkeys(options.object_kib))  # fmt: skip

    @property
    def size(self) -> int:
        """Of each object, in bytes."""
        return KIB * (self.object_kib or 0)

    def order(self, pairs: Sequence[Pair], options: Options) -> Order:
        flows = self.flows(pairs)
        streams = [
            stream(
                f, self._argv(options), asks="haproxy", port=PROXY_PORT,
                counter=counter(f.pair.client, f.pair.data_port), brings=f"{f.name}.csv",
            )
            for f in flows
        ]  # fmt: skip
        helpers = [
            origin(f"origin of {f.name}", f.pair.client, f.pair.data_port, self.size) for f in flows
        ]
        if self.load == "closed":
            return Order({"nginx": ["-v"], "ab": ["-V"]}, streams, helpers)
        files = {"arrivals.py": _arrivals()}
        return Order({"nginx": ["-v"], "python3": ["-V"]}, streams, helpers, files)

    def _argv(self, options: Options) -> list[str]:
        if self.load == "closed":
            # -n after -t, which would set it to 50000
            return [
                "ab", "-q", "-r", "-t", str(options.length_s),
                "-n", str(AB_REQUESTS_PER_S * options.length_s), "-c", str(options.clients),
                "-s", str(TIMEOUT_S), "-e", "{folder}/{brings}",
                "http://{server}:{port}/object",
            ]  # fmt: skip
        return [
            "python3", "{folder}/arrivals.py", "{server}", "{port}", "/object",
            "--rate", str(options.arrivals_per_s), "--seconds", str(options.length_s),
            "--size", str(self.size), "--timeout", str(TIMEOUT_S),
        ]  # fmt: skip

    def read(self, text: str) -> Output:
        return read_ab(text) if self.load == "closed" else read_arrivals(text)

    def begins(self, capture: Capture) -> Mapping[str, float]:
        return {s.pair: s.started_s for s in capture.streams if s.started_s is not None}

    def figures(self, capture: Capture, asked: Asked, window: Window) -> Figures:
        streams = {s.pair: s for s in capture.streams}
        rates = {
            f.name: _rate(streams[f.name].counter, window) if f.name in streams else 0.0
            for f in asked.flows
        }
        counted: dict[str, float] = {}
        off: dict[str, float] = {}
        for flow in asked.flows:
            link, one = capture.links.get(flow.pair.port_nic), streams.get(flow.name)
            if link is None or one is None:
                continue
            seen = payload_mbit(link, window, received=True)
            if seen is not None:
                counted[flow.name] = seen
            if (apart := _off_percent(one)) is not None:
                off[flow.name] = apart
        return Figures(
            rates_mbit={name: rate * self.size * 8 / 1e6 for name, rate in rates.items()},
            counted_mbit=counted,
            off_percent=off,
            reasons=tuple(
                f"{s.pair}: {words}"
                for s in capture.streams
                for words in self._against(s, capture, asked, window)
            ),
            warnings=tuple(w for s in capture.streams for w in self._late(s, window)),
            per_s=rates,
            unit="conn/s",
            latency_us={s.pair: self._latency(s, window) for s in capture.streams},
        )

    def _latency(self, one: Stream, window: Window) -> dict[str, float]:
        """Ab tells those of its whole run; of our arrivals they are the window's."""
        closed = self.load == "closed"
        return ab_latency_us(one.output) if closed else latency_us(parts(one.raw), window)

    def _against(
        self, one: Stream, capture: Capture, asked: Asked, window: Window
    ) -> Iterator[str]:
        """What is wrong with one client, by its own word, the origin's count and the NIC's."""
        if one.fault:
            yield one.fault
            return
        told = _closed if self.load == "closed" else _open
        yield from told(one, asked, window, self.size)
        flow = next((f for f in asked.flows if f.name == one.pair), None)
        if one.counter is None or not one.counter.values:
            yield "the origin never told its count"
            return
        yield from _served(one.counter, asked, window)
        off = _off_percent(one)
        if off is not None and abs(off) > AGREE_PERCENT + _open_percent(one, asked):
            yield (
                f"{number(one.output, 'done') or 0:.0f} connections were answered, the origin "
                f"was asked {_grown(one.counter):.0f} times"
            )
        if flow is not None:
            yield from _carried(flow, capture, _rate(one.counter, window), self.size, window)

    def _late(self, one: Stream, window: Window) -> Iterator[str]:
        if self.load == "open":
            late_us = max((p.late_us for p in parts(one.raw) if p.begin_s >= window.begin_s
                           and p.end_s <= window.end_s), default=0)  # fmt: skip
            if late_us > LATE_US:
                yield (
                    f"{one.pair}: the load generator began connections up to "
                    f"{late_us / 1000:.0f} ms late, which is within their latencies"
                )


WORKLOADS = (
    Http("http-closed", "both", "each guest's proxy serves clients that wait", "closed"),
    Http("http-open", "both", "each guest's proxy serves connections at a fixed rate", "open"),
)


@cache
def _arrivals() -> str:
    return Path(__file__).with_name("arrivals.py").read_text()


def _rate(count: Series | None, window: Window) -> float:
    return (count.rate(window.begin_s, window.end_s) if count else None) or 0.0


def _grown(count: Series) -> float:
    return count.values[-1] - count.values[0]


def _off_percent(one: Stream) -> float | None:
    """By how much the client's own count is off the origin's, over the whole run."""
    done = number(one.output, "done")
    if done is None or one.counter is None or not one.counter.values:
        return None
    seen = _grown(one.counter)
    return 100 * (done - seen) / seen if seen > 0 else 100.0


def _open_percent(one: Stream, asked: Asked) -> float:
    """What may have been under way when a closed load's time was over."""
    return 100 * asked.options.clients / max(number(one.output, "done") or 1.0, 1.0)


def _closed(one: Stream, asked: Asked, window: Window, size: int) -> Iterator[str]:
    output = one.output
    if missing := output.missing(NEEDED):
        yield f"ab did not tell {', '.join(missing)}"
        return
    if output.result["size"] != str(size):
        yield f"the object had {output.result['size']} bytes, not {size}"
    if output.result["clients"] != str(asked.options.clients):
        yield f"{output.result['clients']} clients, not {asked.options.clients}"
    elapsed_s = number(output, "elapsed_s") or 0.0
    if elapsed_s < asked.options.length_s - SHORT_S:
        yield f"ran {elapsed_s:g} s instead of {asked.options.length_s} s"
    if other := int(number(output, "non_2xx") or 0):
        yield f"{other} of {output.result['done']} answers were not 2xx"
    if int(output.result["failed"]):
        kinds = ("connect", "receive", "length", "exceptions")
        said = [f"{k} {output.result[k]}" for k in kinds if output.result.get(k, "0") != "0"]
        yield f"{output.result['failed']} of {output.result['done']} failed: {', '.join(said)}"


def _open(one: Stream, asked: Asked, window: Window, size: int) -> Iterator[str]:
    told = [p for p in parts(one.raw) if p.end_s > window.begin_s and p.begin_s < window.end_s]
    if not told:
        yield "arrivals told nothing during the window"
        return
    if (short_s := window.end_s - told[-1].end_s) > 0:
        yield f"ended {short_s:.2f} s before the window did"
    for what, n in sorted(one.output.result.items()):
        if what.startswith("error "):
            yield f"{n} of {one.output.result['begun']} failed: {what.removeprefix('error ')}"
    rate = sum(p.begun for p in told) / sum(p.interval_s for p in told)
    want = asked.options.arrivals_per_s
    # one more or less at each edge of the parts, and what began late counts on the other side
    late_s = max(p.late_us for p in told) / 1e6
    edges = (2 + want * late_s) / window.length_s
    if abs(rate - want) > want * AGREE_PERCENT / 100 + edges:
        yield f"{rate:.1f} connections/s were begun, not {want:g}"


def _served(count: Series, asked: Asked, window: Window) -> Iterator[str]:
    """Whether requests came all the time."""
    if count.rate(window.begin_s, window.end_s) is None:
        yield "the origin's count was not told over the whole window"
        return
    inside = [(t, v) for t, v in zip(count.at_s, count.values, strict=True)
              if window.begin_s <= t <= window.end_s]  # fmt: skip
    grown = [window.begin_s, *(b[0] for a, b in pairwise(inside) if b[1] > a[1]), window.end_s]
    silent_s = max(b - a for a, b in pairwise(grown))
    if len(grown) == 2:
        yield "nothing was served"
    elif silent_s > max(SILENT_S, 5 / asked.options.arrivals_per_s):
        yield f"no request came to the origin for {silent_s:.1f} s"


def _carried(
    flow: Flow, capture: Capture, per_s: float, size: int, window: Window
) -> Iterator[str]:
    """Each object goes to the guest and comes back, and takes packets each way."""
    link: Link | None = capture.links.get(flow.pair.port_nic)
    nic = f"{flow.pair.port_nic} of the load generator"
    if link is None:
        yield f"{nic} was not watched during the window"
        return
    least = 1 - AGREE_PERCENT / 100
    for received, packets in ((True, link.rx_packets), (False, link.tx_packets)):
        way = "received" if received else "sent"
        frames = packets.rate(window.begin_s, window.end_s) or 0.0
        if frames < per_s * PACKETS * least:
            yield f"{nic} {way} {frames:.0f} packets/s for {per_s:.0f} connections/s"
        mbit = payload_mbit(link, window, received=received) or 0.0
        if mbit < per_s * size * 8 / 1e6 * least:
            want = per_s * size * 8 / 1e6
            yield f"{nic} {way} {mbit:.1f} Mbit/s, the objects are {want:.1f}"
