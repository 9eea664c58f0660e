"""A run's figures beside those that were published; these are marks, never samples. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from provision.measuring.results import Sample
from provision.measuring.stats import interval

COLUMNS = ("workload", "figure", "ours", "published")


def published(
    preset: Mapping[str, Any], samples: Sequence[Sample], beside: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Each mark of the run's preset by what it is about, with ours; None where it had none.

    ``ours`` is the mean of the valid samples with ``ours_low`` and ``ours_high``, its 95 %
    interval; None = not measured.
    """
    if not preset:
        return None
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for mark in preset["marks"]:
        key = (mark["workload"], mark["what"])
        if key not in rows:
            ours, low, high = _ours(*key, samples, beside)
            rows[key] = {"workload": key[0], "figure": key[1], "ours": ours, "ours_low": low,
                         "ours_high": high, "published": []}  # fmt: skip
        rows[key]["published"].append({k: mark[k] for k in ("system", "low", "high", "note")})
    head = {k: preset[k] for k in ("name", "source", "summary", "scale", "remarks")}
    return {**head, "rows": list(rows.values())}


Figure = tuple[float | None, float | None, float | None]
UNKNOWN: Figure = (None, None, None)


def _ours(
    workload: str, what: str, samples: Sequence[Sample], beside: Sequence[Mapping[str, Any]]
) -> Figure:
    if what == "share of the wire %":
        return _share([s for s in samples if s.workload == workload and s.valid])
    if what == "connections/s":
        return _mean([s.finding.aggregate for s in samples if s.workload == workload and s.valid])
    one = next((b for b in beside if b["workload"] == workload), None)
    if one is None:
        return UNKNOWN
    if what == "change %":
        return one["change_percent"], one["low_percent"], one["high_percent"]
    pairs = list(one["neighbours_mbit"].values())
    way = 0 if what.startswith("neighbour offered") else 1
    return (pairs[0][way], None, None) if pairs else UNKNOWN


def _share(valid: Sequence[Sample]) -> Figure:
    """Of the wire speed of all NICs in use, as far as that is known."""
    shares = [
        100 * s.finding.aggregate_mbit / (s.subject.wire_mbit * len(s.finding.streams_mbit))
        for s in valid
        if s.subject.wire_mbit and s.finding.streams_mbit
    ]
    return _mean(shares)


def _mean(values: Sequence[float]) -> Figure:
    """With its interval, where there is one."""
    if not values:
        return UNKNOWN
    found = interval(values)
    if found.half is None:
        return found.mean, None, None
    return found.mean, found.mean - found.half, found.mean + found.half


def cells(found: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The same as a table's rows."""
    for row in found["rows"]:
        ours = "-" if row["ours"] is None else f"{row['ours']:.1f}"
        if row["ours_low"] is not None:
            ours += f" ({row['ours_low']:.1f} to {row['ours_high']:.1f})"
        theirs = ", ".join(f"{p['system']} {_range(p)}" for p in row["published"])
        yield dict(zip(COLUMNS, (row["workload"], row["figure"], ours, theirs), strict=True))


def _range(mark: Mapping[str, Any]) -> str:
    low, high = f"{mark['low']:g}", f"{mark['high']:g}"
    return low if low == high else f"{low} to {high}"


def title(found: Mapping[str, Any]) -> str:
    scale = "" if found["scale"] == 1 else f" at scale {found['scale']:g}"
    return f"{found['name']}{scale}: beside what {found['source']} published"
