"""Makes up what a load generator would have recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from provision.measuring.capture import Capture, Interim, Link, Output, Series, Stream
from provision.measuring.counters import Asked
from provision.measuring.results import Sample, Subject
from provision.measuring.verdict import Finding
from provision.measuring.workload import HEADER_BYTES, Options, Pair
from provision.measuring.workloads import WORKLOADS
from provision.measuring.workloads.netperf_words import KEYS, MEGABIT

OPTIONS = Options(duration_s=10, ramp_s=2)
START_S = 1_800_000_000.0
PAIRS = tuple(
    Pair(f"vm{n}", f"198.18.{n}.2", f"198.18.{n}.1", 12863 + 2 * n, 12864 + 2 * n, f"c{n}", f"u{n}")
    for n in (1, 2)
)
SEGMENT_BYTES = 1448
RESULT = {
    **dict.fromkeys(KEYS["stream"], "0"),
    "THROUGHPUT": "100.00", "THROUGHPUT_UNITS": MEGABIT, "DIRECTION": "Receive",
    "ELAPSED_TIME": "14.00",
    "LOCAL_SEND_SIZE": "8192", "LOCAL_RECV_SIZE": "8192", "REMOTE_SEND_SIZE": "8192",
    "REMOTE_RECV_SIZE": "8192", "LSS_SIZE_REQ": "65536", "RSS_SIZE_REQ": "65536",
    "LSS_SIZE_END": "131072", "LSR_SIZE_END": "131072", "RSS_SIZE_END": "131072",
    "RSR_SIZE_END": "131072",
}  # fmt: skip


def interims(
    rates: Sequence[float], begin_s: float = START_S, step_s: float = 0.2
) -> list[Interim]:
    return [Interim(begin_s + (n + 1) * step_s, step_s, rate) for n, rate in enumerate(rates)]


def stream(guest: str, rates: Sequence[float], begin_s: float = START_S) -> Stream:
    """One that sent at these rates, 0.2 s each."""
    output = Output(tuple(interims(rates, begin_s)), RESULT, frozenset({MEGABIT}), ())
    return Stream(guest, begin_s, output, "", "")


def with_result(made: Stream, **changes: str) -> Stream:
    return replace(made, output=replace(made.output, result=RESULT | changes))


def link(made: Stream) -> Link:
    """A NIC that received exactly what the stream says, in full frames, read every 0.1 s."""
    inside = made.output.interims
    at = [START_S - 5 + 0.1 * n for n in range(300)]
    octets = []
    for moment in at:
        parts = (i.rate * max(0.0, min(moment, i.end_s) - i.begin_s) for i in inside)
        octets.append(sum(parts) * 1e6 / 8)
    packets = [o / SEGMENT_BYTES for o in octets]
    frames = [o + p * HEADER_BYTES for o, p in zip(octets, packets, strict=True)]
    still = [0.0] * len(at)
    return Link(Series(at, frames), Series(at, packets), Series(at, still), Series(at, still))


def capture(
    streams: Sequence[Stream], links: Mapping[str, Link] | None = None, busy: float = 0.1
) -> Capture:
    at = [START_S - 5 + 0.1 * n for n in range(300)]
    cpu = Series(at, [busy * (t - at[0]) for t in at])
    carried = {p.port_nic: link(s) for p in PAIRS for s in streams if s.pair == p.name}
    return Capture(
        host="lg", kernel="6.1", versions={"netperf": "2.7.0"}, released_s=START_S,
        ended_s=at[-1], stopped=None, streams=tuple(streams), links=carried | dict(links or {}),
        cpus=(cpu, cpu), clients=cpu, clock_jump_s=0.0,
    )  # fmt: skip


def asked(**changes: object) -> Asked:
    return replace(Asked(WORKLOADS["netperf-send"], OPTIONS, PAIRS, True), **changes)  # type: ignore[arg-type]


SUBJECT = Subject(
    hypervisor="kvm", version="8.0", host="here", accel="tcg", nic="virtio", guests=2, vcpus=1,
    image="0f1e", netperf="2.7.0", duration_s=10, ramp_s=2, message_bytes=8192,
    socket_buffer_bytes=65536,
)  # fmt: skip


def sample(
    workload: str,
    aggregate_mbit: float,
    repetition: int,
    *,
    attempt: int = 1,
    reasons: tuple[str, ...] = (),
) -> Sample:
    """One of two guests, of which vm1 has three fifths."""
    shares = {"vm1": 0.6 * aggregate_mbit, "vm2": 0.4 * aggregate_mbit}
    finding = Finding(
        reasons=reasons, warnings=(), begin_s=START_S, window_s=10, skew_ms=3.0 + repetition,
        aggregate_mbit=aggregate_mbit, guests_mbit=shares, counters_mbit=shares,
        disagreement_percent={"vm1": 0.1, "vm2": -0.3}, uplinks_mbit=shares, retransmits=7,
        host_percent=(40.0, 20.0), guest_percent={"vm1": 30.0, "vm2": 20.0},
        generator_percent=(10.0,), clients_percent=5.0,
    )  # fmt: skip
    raw = f"raw/{workload}-{repetition:02}-try-{attempt}"
    direction = WORKLOADS[workload].direction
    return Sample(workload, direction, repetition, attempt, "2027-01-15T08:00:00Z", raw, SUBJECT,
                  finding, {"nic_asked": "paravirtual"})  # fmt: skip
