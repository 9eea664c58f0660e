"""What the load generator recorded of one sample, read back: streams, ticks and what stopped it."""

from __future__ import annotations

import json
import signal
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.errors import WorkloadError

FORMAT = 1
OURS = (signal.SIGTERM, signal.SIGKILL)  # by which the load generator ends what still runs
SILENT_S = 2.0


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
    """What one program said: ``result`` by key, ``units`` of all rates, ``words`` for people.

    ``interims`` are its results of short parts of its run, by its own clock; () = it tells none.
    """

    interims: tuple[Interim, ...]
    result: Mapping[str, str]
    units: frozenset[str]
    words: tuple[str, ...]

    def missing(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Those of the keys that were not told."""
        return tuple(k for k in keys if k not in self.result)


def number(output: Output, key: str) -> float | None:
    """A figure of the result; None where it is missing or not one."""
    try:
        return float(output.result[key])
    except (KeyError, ValueError):
        return None


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
class Stream:
    """One program as it ran, called as its flow; ``started_s`` (epoch) is just before its exec.

    ``fault`` says in words how it ended badly; "" = well. ``counter`` is what its server counted
    meanwhile, None = nothing was asked; ``nic`` is the load generator's.
    """

    pair: str
    started_s: float | None
    output: Output
    raw: str
    fault: str
    counter: Series | None = None
    ended_s: float | None = None
    nic: str = ""


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
    CPU, ``clients`` the CPU seconds of all that ran for the sample: the streams' programs with what
    they started, what served meanwhile, the recorder. ``versions`` is by program.
    """

    host: str
    kernel: str
    versions: Mapping[str, str]
    released_s: float
    ended_s: float
    stopped: str | None
    streams: tuple[Stream, ...]
    links: Mapping[str, Link]
    cpus: tuple[Series, ...]
    clients: Series
    clock_jump_s: float


def load(path: Path, read: Callable[[str], Output]) -> Capture:
    """Read streams.json, and each stream's output by ``read``.

    Raises WorkloadError where it is not whole or of a newer format.
    """
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise WorkloadError(f"{path}: the load generator's record cannot be read: {e}") from e
    if data.get("format") != FORMAT:
        raise WorkloadError(f"{path}: format {data.get('format')!r}; this version reads {FORMAT}")
    try:
        return _capture(data, read)
    except (KeyError, TypeError, IndexError) as e:
        raise WorkloadError(f"{path}: the load generator's record lacks {e}") from e


def _capture(data: Mapping[str, Any], read: Callable[[str], Output]) -> Capture:
    ticks = data["ticks"]
    at: list[float] = ticks["epoch"]
    drift = [e - m for e, m in zip(at, ticks["monotonic"], strict=True)]
    # the first records knew of the streams' own processes alone
    ours = [*data["streams"], *data.get("helpers", ()), *filter(None, [data.get("recorder")])]
    clients = [sum(column) for column in zip(*(one["cpu_s"] for one in ours), strict=True)]
    # the first records knew but one program
    programs = data["programs"] if "programs" in data else {"netperf": data["netperf"]}
    return Capture(
        host=data["host"],
        kernel=data["kernel"],
        versions={name: one["version"] for name, one in programs.items()},
        released_s=data["released"][0],
        ended_s=at[-1],
        stopped=data["stopped"],
        streams=tuple(_stream(s, data["stopped"] or "", read) for s in data["streams"]),
        links={n: Link(*(Series(at, column) for column in zip(*rows, strict=True)))
               for n, rows in ticks["links"].items()},
        cpus=tuple(Series(at, column) for column in zip(*ticks["cpu_s"], strict=True)),
        clients=Series(at, clients),
        clock_jump_s=max(drift) - min(drift),
    )  # fmt: skip


def _stream(data: Mapping[str, Any], stopped: str, read: Callable[[str], Output]) -> Stream:
    raw = data["stdout"] + data.get("brought", "")
    output = read(raw)
    rows = data.get("counted")
    return Stream(
        pair=data["pair"],
        started_s=data["exec"][0] if data["exec"] else None,
        output=output,
        raw=raw,
        fault=_fault(data, output, stopped),
        counter=None if rows is None else Series([r[0] for r in rows], [r[1] for r in rows]),
        ended_s=data["ended"][0] if data["ended"] else None,
        nic=data["nic"],
    )


def _fault(data: Mapping[str, Any], output: Output, stopped: str) -> str:
    """How it ended badly; ``stopped`` is why the load generator ended what still ran."""
    if data["exit"] == 0:
        return ""
    program = Path(data["argv"][0]).name
    ran_s = data["ended"][1] - data["exec"][1] if data["ended"] and data["exec"] else 0.0
    words = " / ".join([*output.words, *data["stderr"].split("\n")]).strip(" /")
    by_itself = data["pair"] in stopped.removesuffix(" failed").split(", ")
    if by_itself or not stopped or data["signal"] not in OURS:
        how = f"exit {data['exit']}" if data["signal"] is None else f"signal {data['signal']}"
        return f"{program} ended with {how} after {ran_s:.1f} s: {words or 'no words'}"
    fault = f"{program} was still running after {ran_s:.1f} s and was stopped"
    last_s = output.interims[-1].end_s if output.interims else data["exec"][0]
    if (silent_s := data["ended"][0] - last_s) > SILENT_S:
        fault += f"; it had told nothing for {silent_s:.1f} s: was the guest paused, or cut off?"
    return f"{fault} ({words})" if words else fault
