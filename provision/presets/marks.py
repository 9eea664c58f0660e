"""Published figures as reference marks, and the figure of ours that each is laid beside: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: what of a workload a mark is about, in its unit
What = Literal["share of the wire %", "connections/s", "change %", "neighbour offered Mbit/s",
               "neighbour measured Mbit/s"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """One published figure. A range has ``low`` and ``high``; a single figure has it in both."""

    workload: str
    what: What
    system: str
    low: float
    high: float
    note: str = ""


def vmware(published: Mapping[str, Any]) -> list[Mark]:
    """Fractions of the wire speed of all NICs in use."""
    found = []
    for row in published["results"]:
        low, high = row.get("low", row.get("value")), row.get("high", row.get("value"))
        if low is None or high is None:
            continue  # a picture that is not read off
        guests = row.get("vms", row.get("nics"))
        found += [
            Mark(f"netperf-{way}@{guests}", "share of the wire %", row["system"],
                 100 * low, 100 * high, row.get("note", ""))
            for way in row["direction"].split(" and ")
        ]  # fmt: skip
    return found


def haproxy(published: Mapping[str, Any]) -> list[Mark]:
    """Connections per second, of the smallest object where the size is not told."""
    found = []
    for row in published["results"]:
        value = row.get("value", row.get("max"))
        kib = row.get("object_bytes", 0) // 1024
        system = row["system"]
        for key in ("nic_model", "host_nic", "switch"):
            if key in row:
                system = f"{system}, {row[key]}"
        notes = [row.get("note", "")]
        notes += ["at most"] if "max" in row else []
        notes += ["the object's size is not told"] if "object_bytes" not in row else []
        note = "; ".join(filter(None, notes))
        name = f"http-closed-{kib}k@1"
        found.append(Mark(name, "connections/s", system, value, value, note))
    return found


def wuerzburg(published: Mapping[str, Any]) -> list[Mark]:
    """Table 1: what a busy neighbour changes; tables 2 and 3: what it forwards itself."""
    return [*_changes(published), *_forwarded(published)]


def _changes(published: Mapping[str, Any]) -> Iterator[Mark]:
    for row in published["table1_throughput_change_percent"]:
        for load in ("light", "heavy"):
            name = f"forwarding-{row['frame_bytes']}B-max+{load}"
            yield Mark(name, "change %", row["system"], row[load], row[load])


def _forwarded(published: Mapping[str, Any]) -> Iterator[Mark]:
    tables = {"forward-50": "table2_second_guest_at_50_percent",
              "forward-95": "table3_second_guest_at_95_percent"}  # fmt: skip
    for load, table in tables.items():
        for row in published[table]:
            name = f"forwarding-{row['frame_bytes']}B-max+{load}"
            offered, measured = row["offered_mbit"], row["measured_mbit"]
            yield Mark(name, "neighbour offered Mbit/s", row["system"], offered, offered)
            yield Mark(name, "neighbour measured Mbit/s", row["system"], measured, measured)
