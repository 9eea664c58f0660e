"""What the load generator recorded of one sample, read back: streams, ticks and what stopped it."""

from __future__ import annotations

import json
import signal
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.errors import WorkloadError
from provision.measuring.netperf import Output, parse

FORMAT = 1
OURS = (signal.SIGTERM, signal.SIGKILL)  # by which the load generator ends what still runs
SILENT_S = 2.0


@dataclass(frozen=True, slots=True)
class Stream:
    """One netperf as it ran, called as its pair; ``started_s`` (epoch) is just before its exec.

    ``fault`` says in words how it ended badly; "" = well.
    """

    pair: str
    started_s: float | None
    output: Output
    raw: str
    fault: str


@dataclass(frozen=True, slots=True)
class Series:
    """A counter that only grows, seen at moments (epoch)."""

    at_s: Sequence[float]
    values: Sequence[float]

    def at(self, moment_s: float) -> float | None:
        """Its value then, by straight lines between the readings; None outside of them."""
        at = self.at_s
        if not at or not at[0] <= moment_s <= at[-1]:
            return None
        right = min(bisect_right(at, moment_s), len(at) - 1)
        left = max(right - 1, 0)
        if at[right] == at[left]:
            return self.values[right]
        part = (moment_s - at[left]) / (at[right] - at[left])
        return self.values[left] + part * (self.values[right] - self.values[left])

    def rate(self, begin_s: float, end_s: float) -> float | None:
        """Its growth per second between two moments; None where not both were seen."""
        first, last = self.at(begin_s), self.at(end_s)
        if first is None or last is None or end_s <= begin_s:
            return None
        return (last - first) / (end_s - begin_s)


@dataclass(frozen=True, slots=True)
class Link:
    """A NIC's counters: received and sent bytes and packets."""

    rx_bytes: Series
    rx_packets: Series
    tx_bytes: Series
    tx_packets: Series


@dataclass(frozen=True, slots=True)
class Capture:
    """One sample as the load generator saw it; all moments are of its own clock, epoch.

    ``clock_jump_s`` is how far that clock was stepped meanwhile; ``cpus`` has busy seconds by
    CPU, ``clients`` the CPU seconds of all netperf clients together.
    """

    host: str
    kernel: str
    netperf: Mapping[str, str]
    released_s: float
    ended_s: float
    stopped: str | None
    streams: tuple[Stream, ...]
    links: Mapping[str, Link]
    cpus: tuple[Series, ...]
    clients: Series
    clock_jump_s: float


def load(path: Path) -> Capture:
    """Read streams.json; raises WorkloadError where it is not whole or of a newer format."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise WorkloadError(f"{path}: the load generator's record cannot be read: {e}") from e
    if data.get("format") != FORMAT:
        raise WorkloadError(f"{path}: format {data.get('format')!r}; this version reads {FORMAT}")
    try:
        return _capture(data)
    except (KeyError, TypeError, IndexError) as e:
        raise WorkloadError(f"{path}: the load generator's record lacks {e}") from e


def _capture(data: Mapping[str, Any]) -> Capture:
    ticks = data["ticks"]
    at: list[float] = ticks["epoch"]
    drift = [e - m for e, m in zip(at, ticks["monotonic"], strict=True)]
    clients = [sum(column) for column in zip(*(s["cpu_s"] for s in data["streams"]), strict=True)]
    return Capture(
        host=data["host"],
        kernel=data["kernel"],
        netperf=data["netperf"],
        released_s=data["released"][0],
        ended_s=at[-1],
        stopped=data["stopped"],
        streams=tuple(_stream(s, data["stopped"] or "") for s in data["streams"]),
        links={n: Link(*(Series(at, column) for column in zip(*rows, strict=True)))
               for n, rows in ticks["links"].items()},
        cpus=tuple(Series(at, column) for column in zip(*ticks["cpu_s"], strict=True)),
        clients=Series(at, clients),
        clock_jump_s=max(drift) - min(drift),
    )  # fmt: skip


def _stream(data: Mapping[str, Any], stopped: str) -> Stream:
    output = parse(data["stdout"])
    return Stream(
        pair=data["pair"],
        started_s=data["exec"][0] if data["exec"] else None,
        output=output,
        raw=data["stdout"],
        fault=_fault(data, output, stopped),
    )


def _fault(data: Mapping[str, Any], output: Output, stopped: str) -> str:
    """How it ended badly; ``stopped`` is why the load generator ended what still ran."""
    if data["exit"] == 0:
        return ""
    ran_s = data["ended"][1] - data["exec"][1] if data["ended"] and data["exec"] else 0.0
    words = " / ".join([*output.words, *data["stderr"].split("\n")]).strip(" /")
    by_itself = data["pair"] in stopped.removesuffix(" failed").split(", ")
    if by_itself or not stopped or data["signal"] not in OURS:
        how = f"exit {data['exit']}" if data["signal"] is None else f"signal {data['signal']}"
        return f"netperf ended with {how} after {ran_s:.1f} s: {words or 'no words'}"
    fault = f"netperf was still running after {ran_s:.1f} s and was stopped"
    last_s = output.interims[-1].end_s if output.interims else data["exec"][0]
    if (silent_s := data["ended"][0] - last_s) > SILENT_S:
        fault += f"; it had told nothing for {silent_s:.1f} s: was the guest paused, or cut off?"
    return f"{fault} ({words})" if words else fault
