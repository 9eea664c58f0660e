"""What the NICs counted, beside what netperf says: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from provision.measuring.capture import Capture, Link
from provision.measuring.window import Window, header_bytes, mean_rate, payload_mbit
from provision.measuring.workload import Flow, Options, Pair, Workload

AGREE_PERCENT = 2.0  # between netperf and the NIC's counters
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


@dataclass(frozen=True, slots=True)
class Counted:
    """By flow: the NIC's payload rate, and by how many per cent netperf's rate is off it.

    For transactions, whose payload says little, the latter is how far the NIC's packets fall short
    of one each way for each.
    """

    rates_mbit: Mapping[str, float]
    off_percent: Mapping[str, float]

    def disagreements(
        self, said: Mapping[str, float], capture: Capture, asked: Asked
    ) -> Iterator[str]:
        """Where netperf and the NICs differ; what socket buffers may hold back is allowed for.

        Of a stream that is missing or ended badly nothing is said: that is a reason already.
        """
        sound = {s.pair for s in capture.streams if not s.fault}
        buffered_mbit = 2 * asked.options.socket_buffer_bytes * 8 / 1e6 / asked.options.duration_s
        unit = "transactions/s" if asked.workload.transacts else "Mbit/s"
        for pair, nic in ((f.name, f.pair.port_nic) for f in asked.flows if f.name in sound):
            seen = self.rates_mbit.get(pair)
            if seen is None:
                yield f"{pair}: {nic} of the load generator was not watched during the window"
            elif pair not in self.off_percent:
                yield f"{pair}: no interim result within the window to compare with {nic}"
            elif abs(self.off_percent[pair]) > AGREE_PERCENT + (
                100 * buffered_mbit / seen if seen > 0 else 0.0
            ):
                yield (
                    f"{pair}: netperf says {said[pair]:.1f} {unit}, {nic} of the load "
                    f"generator carried {seen:.1f}{' Mbit/s' if asked.workload.transacts else ''}"
                )


def counters(capture: Capture, asked: Asked, window: Window) -> Counted:
    """The comparison is made over whole interim results, so that none has to be cut."""
    rates, off = {}, {}
    streams = {s.pair: s for s in capture.streams}
    header = header_bytes(asked.workload.kind)
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
        if asked.workload.transacts:
            off[flow.name] = _short_percent(link, own, said)
            continue
        seen = payload_mbit(link, own, received=flow.received, header=header)
        if seen is not None:
            off[flow.name] = 100 * (said - seen) / seen if seen > 0 else 100.0
    return Counted(rates, off)


def _short_percent(link: Link, window: Window, transactions_per_s: float) -> float:
    """Each transaction is a packet each way at least; more are acknowledgements."""
    ways = [s.rate(window.begin_s, window.end_s) or 0.0 for s in (link.rx_packets, link.tx_packets)]
    if transactions_per_s <= 0:
        return 100.0
    return max(0.0, 100 * (1 - min(ways) / transactions_per_s))


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
