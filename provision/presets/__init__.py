"""Published measurements to be done again: their matrix, their figures beside ours. Pure.

A preset says what is run, and what the testbed must have; its published figures are reference
marks, kept in the run's folder beside the samples and never among them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.errors import UserError, did_you_mean
from provision.presets.marks import Mark, haproxy, vmware, wuerzburg

if TYPE_CHECKING:
    from provision.spec import Spec

LEAST_REPEAT = 2  # fewer have no interval
DOCUMENT = "preset"


@dataclass(frozen=True, slots=True)
class Preset:
    """One publication. ``matrix`` gives the workloads at a scale from 0 to 1.

    ``summary`` is the matrix in the paper's words, ``ours`` what that does not say. The testbed
    has ``guests`` and ``nics_each`` at least; ``run`` goes over its spec's section.
    """

    name: str
    summary: str
    ours: str
    guests: int
    nics_each: int
    duration_s: int
    ramp_s: int
    repeat: int
    run: Mapping[str, Any]
    matrix: Callable[[Mapping[str, Any], float], list[str]]
    marks: Callable[[Mapping[str, Any]], list[Mark]]

    @property
    def published(self) -> dict[str, Any]:
        """What the paper says, as data."""
        text = (Path(__file__).parent / f"{self.name}.json").read_text("utf-8")
        return dict(json.loads(text))


@dataclass(frozen=True, slots=True)
class Chosen:
    """A preset at a scale: 1 is as published, less shortens it."""

    preset: Preset
    scale: float = 1.0

    def section(self) -> dict[str, Any]:
        """What goes over the spec's run section."""
        preset, scale = self.preset, self.scale
        short: dict[str, Any] = {"redo": 1} if scale < 1 else {}
        return {
            **preset.run,
            "workloads": preset.matrix(preset.published, scale),
            "duration_s": max(1, round(preset.duration_s * scale)),
            "ramp_s": max(1, round(preset.ramp_s * scale)),
            "repeat": max(min(LEAST_REPEAT, preset.repeat), round(preset.repeat * scale)),
            **short,
        }

    def document(self, spec: Spec) -> dict[str, Any]:
        """What the run's folder keeps of it: what it is, how it was shortened, the marks."""
        published = self.preset.published
        return {
            "name": self.preset.name,
            "source": published["source"],
            "summary": self.preset.summary,
            "scale": self.scale,
            "remarks": [*self._shortened(spec), *_differs(published, spec), self.preset.ours],
            "marks": [asdict(mark) for mark in self.preset.marks(published)],
        }

    def _shortened(self, spec: Spec) -> list[str]:
        preset, run = self.preset, spec.run
        whole = len(preset.matrix(preset.published, 1.0))
        parts = [
            f"{have} of {want} {what}"
            for have, want, what in (
                (len(run.workloads), whole, "workloads"),
                (run.repeat, preset.repeat, "repetitions"),
                (run.duration_s, preset.duration_s, "seconds"),
            )
            if have != want
        ]
        told = f"shortened (scale {self.scale:g}): {', '.join(parts)}"
        return [told] if parts else []


def _differs(published: Mapping[str, Any], spec: Spec) -> list[str]:
    """Where the guests are not the paper's."""
    guest, have = published.get("guest", {}), spec.guests
    found = [
        f"{getattr(have, field)} {words}, not {guest[field]}"
        for field, words in (("vcpus", "vCPU"), ("memory_mib", "MiB"))
        if field in guest and getattr(have, field) != guest[field]
    ]
    return [f"guests have {' and '.join(found)} as in the paper"] if found else []


def choose(name: str, scale: float = 1.0) -> Chosen:
    """The preset of that name; raises UserError with those there are."""
    if name not in PRESETS:
        near = did_you_mean(name, PRESETS)
        raise UserError(f"no preset {name!r}{near}; there are: {', '.join(PRESETS)}")
    if not 0 < scale <= 1:
        raise UserError(f"a preset's scale is above 0 and at most 1, not {scale:g}")
    return Chosen(PRESETS[name], scale)


def refuse(chosen: Chosen, spec: Spec) -> None:
    """Raise UserError where the standing testbed is not one for it, with what would change it."""
    preset, guests = chosen.preset, spec.guests
    short, words = [], []
    if guests.count < preset.guests:
        short.append(f"{preset.guests} guests, and there are {guests.count}")
        words.append(f"--vms {preset.guests}")
    if guests.nics_each < preset.nics_each:
        short.append(f"{preset.nics_each} NICs in each guest, and there are {guests.nics_each}")
        words.append(f"--set guests.nics_each={preset.nics_each}")
    if short:
        raise UserError(
            f"preset {preset.name} needs {' and '.join(short)}",
            hint=f"provision up -n {spec.name} {' '.join(words)}",
        )


def _every(values: Sequence[Any], scale: float) -> list[Any]:
    """So large a share of the values, spread from the first to the last; two at least."""
    count = max(2, round(len(values) * scale))
    if count >= len(values):
        return list(values)
    last = len(values) - 1
    return [values[round(n * last / (count - 1))] for n in range(count)]


def _vmware(published: Mapping[str, Any], scale: float) -> list[str]:
    """Shorter samples and fewer, of every number of guests."""
    del published, scale
    return [f"netperf-{way}@{n}" for way in ("send", "receive") for n in range(1, 5)]


def _wuerzburg(published: Mapping[str, Any], scale: float) -> list[str]:
    """Where it is shortened, not every rate; every size of frame, source and neighbour."""
    asked = published["workload"]
    sizes, rates = asked["frame_bytes"], _every(asked["target_mbit"], scale)
    busy = [load for load in published["neighbour_loads"] if load != "none"]
    return [
        *(f"forwarding-{size}B-{rate}M@1" for size in sizes for rate in rates),
        *(f"forwarding-{size}B-max-{n}src@1" for size in sizes for n in asked["traffic_sources"]
          if n > 1),
        *(name for size in sizes for name in (
            f"forwarding-{size}B-max@1", *(f"forwarding-{size}B-max+{load}" for load in busy))),
    ]  # fmt: skip


def _haproxy(published: Mapping[str, Any], scale: float) -> list[str]:
    """Shorter samples and fewer, of every size of object."""
    del published, scale
    return ["http-closed@1"]


PRESETS: Mapping[str, Preset] = {
    p.name: p
    for p in (
        Preset(
            "vmware-2007",
            "one netperf/netserver pair per VM, each on its own NIC, subnet and port, all started "
            "together: TCP_STREAM, messages of 8 KB, socket buffers of 64 KB, 1 to 4 VMs",
            "how long a test took and how often it was done is not published: 10 s, three times",
            guests=4, nics_each=1, duration_s=10, ramp_s=1, repeat=3,
            run={"message_bytes": 8192, "socket_buffer_bytes": 65536},
            matrix=_vmware, marks=vmware,
        ),
        Preset(
            "haproxy-2012",
            "HTTP through a reverse proxy in the guest, one request for each TCP connection, "
            "objects of 0 to 64 KiB: connections per second",
            "how many clients there were, how long a test took and how often it was done is not "
            "published: 16 clients, 10 s, three times",
            guests=1, nics_each=1, duration_s=10, ramp_s=1, repeat=3,
            run={"object_kib": [0, 1, 2, 4, 8, 16, 32, 48, 64], "clients": 16},
            matrix=_haproxy, marks=haproxy,
        ),
        Preset(
            "wuerzburg-2011",
            "UDP packet forwarding through the guest: frames of 64, 500, 1000 and 1500 bytes, "
            "10 to 1000 Mbit/s, 1 to 3 sources, nine repetitions; a second guest idle, under "
            "stress, light and heavy, and forwarding 64-byte frames at 50 and 95 % of its maximum",
            "how long a measurement took is not published: 10 s; several sources, and neighbours, "
            "at the most that the generator can, as there where it was too slow (0 ns)",
            guests=2, nics_each=2, duration_s=10, ramp_s=1, repeat=9,
            run={}, matrix=_wuerzburg, marks=wuerzburg,
        ),
    )
}  # fmt: skip
