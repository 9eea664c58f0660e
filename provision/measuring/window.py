"""The common window of a sample, and what rates and counters come to over it: pure.

All streams are cut to one window during which every one of them ran; without that, streams that
start or end apart add up to more than the link ever carried (netperf's manual: skew error).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from provision.driver import Usage
from provision.measuring.capture import Interim, Link, Series
from provision.measuring.workload import HEADER_BYTES, Flow, Options


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when (epoch), by the load generator's clock."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.begin_s


def common(begins: Iterable[float], options: Options) -> Window:
    """The window asked for, opened one ramp after the last stream began.

    The ramp at the end is what the streams' skew may use up.
    """
    begin_s = max(begins, default=0.0) + options.ramp_s
    return Window(begin_s, begin_s + options.duration_s)


def mean_rate(interims: Sequence[Interim], window: Window) -> float:
    """The mean over the window; time that no interim result covers counts as nothing."""
    total = 0.0
    for i in interims:
        overlap_s = min(i.end_s, window.end_s) - max(i.begin_s, window.begin_s)
        total += i.rate * max(0.0, overlap_s)
    return total / window.length_s


def payload_mbit(
    link: Link, window: Window, *, received: bool, header: int = HEADER_BYTES
) -> float | None:
    """Payload per second of one direction of a NIC; None where it was not watched."""
    count, packets = (
        (link.rx_bytes, link.rx_packets) if received else (link.tx_bytes, link.tx_packets)
    )
    octets = count.rate(window.begin_s, window.end_s)
    frames = packets.rate(window.begin_s, window.end_s)
    if octets is None or frames is None:
        return None
    return _payload_mbit(octets, frames, header)


def _payload_mbit(octets: float, frames: float, header: int) -> float:
    # ARP and neighbour discovery are shorter than the headers taken off: never less than nothing
    return max(0.0, octets - header * frames) * 8 / 1e6


@dataclass(frozen=True, slots=True)
class Load:
    """The hypervisor's side of a window: per cent of one CPU, and payload by flow.

    ``dom0_percent`` is by dom0's vCPU, ``irqs_per_s`` by the CPU that served the interrupts.
    """

    host_percent: tuple[float, ...] = ()
    guest_percent: Mapping[str, float] = field(default_factory=dict)
    uplinks_mbit: Mapping[str, float] = field(default_factory=dict)
    dom0_percent: tuple[float, ...] = ()
    irqs_per_s: tuple[float, ...] = ()


def load(usages: Sequence[Usage], flows: Sequence[Flow], window: Window, header: int) -> Load:
    """What the host did meanwhile; nothing where the readings do not span the window."""
    at = [u.at_s for u in usages]

    def rate(values: Sequence[float]) -> float:
        return Series(at, values).rate(window.begin_s, window.end_s) or 0.0

    if Series(at, at).rate(window.begin_s, window.end_s) is None:
        return Load()

    def rates(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
        """By CPU; nothing where CPUs came or went meanwhile."""
        same = len({len(row) for row in rows}) == 1
        return tuple(rate(values) for values in zip(*rows, strict=True)) if same else ()

    busy = {g: [u.guest_busy_s.get(g, 0.0) for u in usages] for g in usages[-1].guest_busy_s}
    uplinks = {}
    for flow in flows:
        if all(flow.pair.uplink in u.nics for u in usages):
            rows = [u.nics[flow.pair.uplink] for u in usages]
            sent = flow.received  # what the load generator's NIC receives leaves by the uplink
            octets, packets = rate([r[sent] for r in rows]), rate([r[2 + sent] for r in rows])
            uplinks[flow.name] = _payload_mbit(octets, packets, header)
    return Load(
        host_percent=tuple(100 * r for r in rates([u.host_busy_s for u in usages])),
        guest_percent={guest: 100 * rate(values) for guest, values in busy.items()},
        uplinks_mbit=uplinks,
        dom0_percent=tuple(100 * r for r in rates([u.dom0_busy_s for u in usages])),
        irqs_per_s=rates([u.irqs for u in usages]),
    )
