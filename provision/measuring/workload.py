"""The workloads: what is run for each pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from math import ceil
from typing import Any

from provision.errors import UserError
from provision.measuring.netperf import INTERVAL_S, KEYS, Direction, Kind, argv

TICK_S = 0.1  # of the load generator's counters
#: beyond the run itself, for a slow guest's set-up and the last bytes on their way
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A guest's NIC and its partner: the load generator's own address and NIC on that link.

    ``server`` and ``client`` are addresses without prefix; ``uplink`` is the hypervisor's NIC of
    that link, "" = not known; ``nic`` counts the guest's own from 1, 0 = it has but one.
    """

    guest: str
    server: str
    client: str
    control_port: int
    data_port: int
    port_nic: str
    uplink: str = ""
    nic: int = 0

    @property
    def name(self) -> str:
        """What the pair's stream is called: its guest, and which of several links."""
        return f"{self.guest}.link{self.nic}" if self.nic else self.guest


@dataclass(frozen=True, slots=True)
class Options:
    """How a sample is taken. The run is longer than the window by a ramp on either side."""

    duration_s: float = 10.0
    ramp_s: float = 2.0
    message_bytes: int = 8192
    socket_buffer_bytes: int = 65536
    datagram_bytes: int = 1472
    request_bytes: int = 1
    response_bytes: int = 1

    def __post_init__(self) -> None:
        if self.duration_s < 1:
            raise UserError(f"a window of {self.duration_s:g} s is too short; 1 s is the least")
        if self.ramp_s < 2 * INTERVAL_S:
            raise UserError(
                f"a ramp of {self.ramp_s:g} s is too short; {2 * INTERVAL_S:g} s at least"
            )
        if self.message_bytes < 1 or self.socket_buffer_bytes < 1:
            raise UserError("message and socket buffer sizes are at least 1 byte")

    @property
    def length_s(self) -> int:
        """What netperf is told; it takes whole seconds."""
        return ceil(self.duration_s + 2 * self.ramp_s)


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs for each pair; ``direction`` is the guest's, all clients are the load generator's.

    ``both``: as a stream each way, or as what asks and is answered.
    """

    name: str
    kind: Kind
    direction: Direction
    summary: str

    @property
    def transacts(self) -> bool:
        """Whether it counts transactions, not bits."""
        return self.kind in ("request", "connection")

    @property
    def keys(self) -> tuple[str, ...]:
        """What each client has to tell."""
        return KEYS[self.kind]

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


@dataclass(frozen=True, slots=True)
class Flow:
    """What one client carries; ``name`` is its stream's, ``direction`` the guest's."""

    name: str
    pair: Pair
    direction: Direction
    data_port: int

    @property
    def received(self) -> bool:
        """Whether the load generator's NIC receives what is counted."""
        return self.direction != "receive"


WORKLOADS: Mapping[str, Workload] = {
    w.name: w
    for w in (
        Workload("netperf-send", "stream", "send", "every guest sends to its own client"),
        Workload("netperf-receive", "stream", "receive", "every guest receives from its own"),
        Workload("netperf-both", "stream", "both", "every guest sends and receives at once"),
        Workload("netperf-rr", "request", "both", "every guest answers one request after another"),
        Workload("netperf-crr", "connection", "both", "the same, a connection for each request"),
        Workload("netperf-udp-send", "datagram", "send", "every guest sends datagrams"),
        Workload("netperf-udp-receive", "datagram", "receive", "every guest receives datagrams"),
    )
}


def find(name: str) -> Workload:
    """The workload of that name; raises UserError with those there are."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    near = get_close_matches(name, WORKLOADS, 1)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    raise UserError(f"no workload {name!r}{guess}; known: {', '.join(WORKLOADS)}")


def plan(workload: Workload, pairs: Sequence[Pair], options: Options) -> dict[str, Any]:
    """What the load generator is to do for one sample, but for where it keeps its files."""
    streams = [
        {
            "pair": f.name, "server": f.pair.server, "local": f.pair.client,
            "nic": f.pair.port_nic, "control_port": f.pair.control_port, "data_port": f.data_port,
            "argv": argv(workload.kind, f.direction, options),
        }
        for f in workload.flows(pairs)
    ]  # fmt: skip
    return {
        "workload": workload.name,
        "options": asdict(options),
        "argv": ["netperf"],
        "streams": streams,
        "interval_s": TICK_S,
        "deadline_s": options.length_s + PATIENCE_S,
    }
