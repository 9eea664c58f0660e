"""What a report calls things: fields in the field's words, like remarks as one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from provision.measuring.results import WORDS

MBIT = "Mbit/s"
NOTES: Mapping[str, str] = {
    "nic_asked": "vNIC as asked for",
    "switch": "switch",
    "started": "how guests were started",
    "guest_kernel": "guests' kernel",
    "generator": "load generator",
}
PAYLOAD = f"{MBIT}: payload summed over all guests"
GENERATOR = "generator_"  # and a program of its
#: what says something of some workloads only, by the beginnings of their names
ONLY: Mapping[str, tuple[str, ...]] = {
    "message_bytes": ("netperf-send", "netperf-receive", "netperf-both"),
    "socket_buffer_bytes": ("netperf-send", "netperf-receive", "netperf-both"),
    "datagram_bytes": ("netperf-udp",),
    "request_bytes": ("netperf-rr", "netperf-crr"),
    "response_bytes": ("netperf-rr", "netperf-crr"),
    "clients": ("http-closed",),
    "arrivals_per_s": ("http-open",),
}
TO = " to "
_NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"
#: a figure that was measured, or its reach: it has a fraction, or its unit follows
FIGURE = re.compile(
    rf"(?<![\w.])(?:{_NUMBER}{TO})?{_NUMBER}(?!\.?\d)"
    r"(?:(?<=\.\d)|(?<=\.\d\d)|(?= (?:%|s|ms|frames|(?:M?bit|packets|conn|trans)\S*)(?!\w)))"
)


def measured(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was measured and how: names and values of a run of the document, for people."""
    names = [s["workload"] for s in run["samples"]]
    for field, value in run["subject"].items():
        only = ONLY.get(field, ("",))
        if value not in (None, "") and any(name.startswith(only) for name in names):
            yield WORDS[field], f"{value:,g}" if isinstance(value, float) else f"{value}"
    for note, value in run["samples"][0]["notes"].items():
        if value != "":
            program = note.removeprefix(GENERATOR)
            there = f"{program} of the load generator" if program != note else note
            yield NOTES.get(note, there), value


def counted(data: Mapping[str, Any]) -> list[str]:
    """What the columns of rates count, of the workloads that there are."""
    series = [w for run in data["runs"] for w in run["workloads"]]
    found = []
    if any(w["unit"] == MBIT and w["offered_mbit"] is None for w in series):
        found.append(PAYLOAD)
    if any(w["offered_mbit"] for w in series):
        found.append(
            f"{MBIT} of forwarding: frames as on the wire, each with its checksum, preamble and "
            "gap (24 bytes), summed over all guests; offered is what was sent to them"
        )
    if units := list(dict.fromkeys(w["unit"] for w in series if w["unit"] != MBIT)):
        found.append(
            f"{', '.join(units)}: counted one by one, and what such a workload is about; its "
            f"{MBIT} are the payload that came with it"
        )
    return found


def grouped(words: Iterable[str]) -> list[str]:
    """Remarks that differ in measured figures alone become one, from the least to the most."""
    return [one for _, one in together(("", one) for one in words)]


def together(words: Iterable[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """The same of remarks about something each: all that one is about, and the remark."""
    found: dict[str, tuple[dict[str, None], list[list[str]]]] = {}
    for about, one in words:
        names, figures = found.setdefault(FIGURE.sub("\0", one), ({}, []))
        names[about] = None
        figures.append(FIGURE.findall(one))
    return [(list(names), _filled(form, zip(*rows, strict=True)))
            for form, (names, rows) in found.items()]  # fmt: skip


def _filled(form: str, columns: Iterable[tuple[str, ...]]) -> str:
    first, *rest = form.split("\0")
    reaches = (_reach(column) for column in columns)
    return first + "".join(f"{reach}{after}" for reach, after in zip(reaches, rest, strict=True))


def _reach(figures: tuple[str, ...]) -> str:
    """A reach that was told already counts with both its ends."""
    ends = [end for figure in figures for end in figure.split(TO)]
    by_size = sorted(ends, key=lambda text: float(text.replace(",", "")))
    least, most = by_size[0], by_size[-1]
    return least if least == most else f"{least}{TO}{most}"
