"""The workloads: what is run for each pair, and what its output says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from math import ceil
from typing import Any, Literal

from provision.errors import UserError

INTERVAL_S = 0.2  # of netperf's interim results
TICK_S = 0.1  # of the load generator's counters
#: beyond the run itself, for a slow guest's set-up and the last bytes on their way
PATIENCE_S = 20.0
#: what netperf is asked to tell; a missing one is a fault, for unknown keys are dropped silently
KEYS = (
    "THROUGHPUT", "THROUGHPUT_UNITS", "DIRECTION", "ELAPSED_TIME",
    "LOCAL_BYTES_SENT", "LOCAL_BYTES_RECVD", "REMOTE_BYTES_SENT", "REMOTE_BYTES_RECVD",
    "LOCAL_SEND_SIZE", "LOCAL_RECV_SIZE", "REMOTE_SEND_SIZE", "REMOTE_RECV_SIZE",
    "LSS_SIZE_REQ", "RSS_SIZE_REQ", "LSS_SIZE_END", "LSR_SIZE_END", "RSS_SIZE_END", "RSR_SIZE_END",
    "LOCAL_CPU_UTIL", "REMOTE_CPU_UTIL", "LOCAL_TRANSPORT_RETRANS", "REMOTE_TRANSPORT_RETRANS",
    "TRANSPORT_MSS",
)  # fmt: skip
MEGABIT = "10^6bits/s"
INTERIM = re.compile(r"NETPERF_(INTERIM_RESULT|UNITS|INTERVAL|ENDING)\[(\d+)\]")


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
    """One netperf test; ``direction`` is the guest's, all clients run on the load generator."""

    name: str
    test: str
    direction: Literal["send", "receive"]
    summary: str

    def sizes(self) -> tuple[str, str]:
        """The keys of the message sizes in use: the writer's and the reader's."""
        if self.direction == "send":
            return "REMOTE_SEND_SIZE", "LOCAL_RECV_SIZE"
        return "LOCAL_SEND_SIZE", "REMOTE_RECV_SIZE"


WORKLOADS: Mapping[str, Workload] = {
    w.name: w
    for w in (
        Workload("netperf-send", "TCP_MAERTS", "send", "every guest sends to its own client"),
        Workload("netperf-receive", "TCP_STREAM", "receive", "every guest receives from its own"),
    )
}


def find(name: str) -> Workload:
    """The workload of that name; raises UserError with those there are."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    near = get_close_matches(name, WORKLOADS, 1)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    raise UserError(f"no workload {name!r}{guess}; known: {', '.join(WORKLOADS)}")


def argv(workload: Workload, options: Options) -> list[str]:
    """The command, with places in braces for what differs from pair to pair.

    Message sizes are pairs since one value alone does not reach a far sender (netperf's manual,
    TCP_MAERTS); the negative ``-D`` looks at the clock on every call instead of guessing.
    """
    size, buffer = options.message_bytes, options.socket_buffer_bytes
    return [
        "netperf", "-4", "-H", "{server}", "-L", "{local}", "-p", "{control_port}",
        "-t", workload.test, "-l", str(options.length_s), "-D", f"-{INTERVAL_S}",
        "-P", "0", "-f", "m", "-c", "-C", "--", "-m", f"{size},{size}", "-M", f"{size},{size}",
        "-s", str(buffer), "-S", str(buffer), "-P", ",{data_port}", "-k", ",".join(KEYS),
    ]  # fmt: skip


def plan(workload: Workload, pairs: Iterable[Pair], options: Options) -> dict[str, Any]:
    """What the load generator is to do for one sample, but for where it keeps its files."""
    streams = [
        {
            "pair": p.name, "server": p.server, "local": p.client, "nic": p.port_nic,
            "control_port": p.control_port, "data_port": p.data_port,
        }
        for p in pairs
    ]  # fmt: skip
    return {
        "workload": workload.name,
        "options": asdict(options),
        "argv": argv(workload, options),
        "streams": streams,
        "interval_s": TICK_S,
        "deadline_s": options.length_s + PATIENCE_S,
    }


@dataclass(frozen=True, slots=True)
class Interim:
    """The mean rate over the ``interval_s`` that ended at ``end_s`` (epoch)."""

    end_s: float
    interval_s: float
    rate: float

    @property
    def begin_s(self) -> float:
        return self.end_s - self.interval_s


@dataclass(frozen=True, slots=True)
class Output:
    """What one netperf said: ``result`` by key, ``units`` of all rates, ``words`` for people."""

    interims: tuple[Interim, ...]
    result: Mapping[str, str]
    units: frozenset[str]
    words: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The keys that were asked for and not told."""
        return tuple(k for k in KEYS if k not in self.result)


def parse(text: str) -> Output:
    """Read the output of ``netperf -D -- -k``; cut off anywhere, it gives what is whole."""
    rows: dict[int, dict[str, str]] = {}
    result: dict[str, str] = {}
    words: list[str] = []
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if found := INTERIM.fullmatch(key):
            rows.setdefault(int(found[2]), {})[found[1]] = value
        elif sign and key in KEYS:
            result[key] = value
        elif line.strip():
            words.append(line.strip())
    whole = [row for _, row in sorted(rows.items()) if len(row) == 4]
    interims, units = [], set(filter(None, [result.get("THROUGHPUT_UNITS")]))
    for row in whole:
        try:
            interims.append(
                Interim(float(row["ENDING"]), float(row["INTERVAL"]), float(row["INTERIM_RESULT"]))
            )
        except ValueError:
            words.append(f"not an interim result: {row}")
        units.add(row["UNITS"])
    return Output(tuple(interims), result, frozenset(units), tuple(words))


def number(output: Output, key: str) -> float | None:
    """A figure of the result; None where it is missing or not one."""
    try:
        return float(output.result[key])
    except (KeyError, ValueError):
        return None
