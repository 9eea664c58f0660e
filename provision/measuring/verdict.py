"""Whether a sample can be trusted, and what it says: pure.

A sample is valid only if every stream ran over the whole window, together, as asked, and as the
NICs' own counters say; whatever speaks against that is a reason in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from provision.driver import Usage
from provision.measuring.capture import Capture
from provision.measuring.counters import Asked, cables, strayed
from provision.measuring.window import Load, common, load

BUSY_PERCENT = 90.0
OTHERS_PERCENT, OTHERS_SHARE = 20.0, 0.1  # of one CPU; of all that was busy on the host
JUMP_S = 0.05  # of the load generator's clock


@dataclass(frozen=True, slots=True)
class Finding:
    """What one sample says. It is valid where there are no ``reasons`` against it.

    Rates are payload over the window, of what is forwarded the wire's frames: ``guests_mbit`` by
    guest, ``links_mbit`` by flow (empty in results of versions that knew one NIC a guest); of
    transactions, which count by themselves, they are what the NICs carried. ``counters_mbit`` is
    the latter from the load generator's NICs, ``uplinks_mbit`` from the hypervisor's;
    ``disagreement_percent`` is the workload's programs against the former. CPU figures are per cent
    of one CPU, over the same window: ``clients_percent`` is all that ran on the load generator for
    the sample, ``others_percent`` what the hypervisor's host did for neither that nor guests, None
    = not known. ``dom0_percent`` is by dom0's vCPU, ``irqs_per_s`` by the CPU, of dom0 or of the
    host, that served the devices' interrupts; () = not known. ``latency_us`` has the programs' own
    figures and ``lost_percent`` the datagrams that never came, both by flow over the whole run, for
    no interim result tells them. ``counts`` is the unit of ``transactions_per_s``, "" in results of
    versions that knew but one. ``clocks_ms`` is by guest how far its clock was ahead of the
    controller's, and how far it went further meanwhile.
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
    counts: str = ""
    offered_mbit: Mapping[str, float] = field(default_factory=dict)
    neighbours_mbit: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    clocks_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)

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
        return self.counts or ("trans/s" if self.transactions_per_s else "Mbit/s")

    @property
    def forwarded(self) -> bool:
        """Whether rates are the wire's, of frames with checksum, preamble and gap."""
        return bool(self.offered_mbit)

    @property
    def measure(self) -> str:
        """What ``aggregate`` counts, in words."""
        if self.unit != "Mbit/s":
            return self.unit
        return "Mbit/s on the wire" if self.forwarded else "Mbit/s of payload"

    @property
    def aggregate(self) -> float:
        """What the workload is about: all flows' transactions, else their payload."""
        return sum(self.transactions_per_s.values()) or self.aggregate_mbit

    @property
    def shares(self) -> Mapping[str, float]:
        """The same by flow."""
        return self.transactions_per_s or self.streams_mbit

    @property
    def guests(self) -> Mapping[str, float]:
        """And by guest."""
        found: dict[str, float] = {}
        for flow, per_s in self.transactions_per_s.items():
            guest = flow.partition(".")[0]  # of VM1.LINK2 and the like
            found[guest] = found.get(guest, 0.0) + per_s
        return found or self.guests_mbit

    @property
    def disturbed(self) -> bool:
        """Whether others had so much of the host that the rates may be theirs to explain."""
        others = self.others_percent or 0.0
        return others > max(OTHERS_PERCENT, OTHERS_SHARE * sum(self.host_percent))


def judge(capture: Capture, asked: Asked, usages: Sequence[Usage] = ()) -> Finding:
    """The rates, the CPU and the verdict of one sample.

    ``usages`` are the hypervisor's counters, with moments by the load generator's clock.
    """
    begins = asked.workload.begins(capture).values()
    window = common(begins, asked.options)
    figures = asked.workload.figures(capture, asked, window)
    skew_s = max(begins) - min(begins) if begins else 0.0
    side = load(usages, asked.flows, window, asked.workload.header_bytes)
    generator = tuple(100 * (c.rate(window.begin_s, window.end_s) or 0.0) for c in capture.cpus)
    rate = capture.clients.rate(window.begin_s, window.end_s)
    clients = None if rate is None else 100 * rate
    reasons = [
        *_started(capture, asked, skew_s),
        *figures.reasons,
        *strayed(capture, asked, window, sum(figures.counted_mbit.values())),
    ]
    warnings = [
        *figures.warnings,
        *cables(figures.counted_mbit, side.uplinks_mbit),
        *_dom0(side),
    ]
    _bottleneck(asked, generator, reasons if asked.apart else warnings)
    return Finding(
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        begin_s=window.begin_s,
        window_s=window.length_s,
        skew_ms=1000 * skew_s,
        aggregate_mbit=sum(figures.rates_mbit.values()),
        guests_mbit=_by_guest(figures.rates_mbit, asked),
        links_mbit=figures.rates_mbit,
        counters_mbit=figures.counted_mbit,
        disagreement_percent=figures.off_percent,
        uplinks_mbit=side.uplinks_mbit,
        retransmits=figures.retransmits,
        host_percent=side.host_percent,
        guest_percent=side.guest_percent,
        generator_percent=generator,
        clients_percent=clients,
        others_percent=_others(side, 0.0 if asked.apart else clients),
        dom0_percent=side.dom0_percent,
        irqs_per_s=side.irqs_per_s,
        transactions_per_s=figures.per_s,
        counts=figures.unit if figures.per_s else "",
        latency_us=figures.latency_us,
        lost_percent=figures.lost_percent,
        offered_mbit=figures.offered_mbit,
        neighbours_mbit=figures.neighbours_mbit,
    )


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

    What an emulated lab's load generator runs is there too.
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
    wanted = asked.workload.streams(asked.pairs)
    yield from (f"{name}: no stream" for name in wanted if name not in there)


def _bottleneck(asked: Asked, generator: Sequence[float], words: list[str]) -> None:
    if not generator or max(generator) <= BUSY_PERCENT:
        return
    if asked.workload.spins:
        return  # how busy says nothing: whether it kept its rate does
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
