"""What neighbours cost the guest that is measured, within one run: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from provision.measuring.compare import compare, rates
from provision.measuring.results import Sample
from provision.measuring.workloads.beside import idle


def neighbours(samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    """Each workload beside a busy neighbour, against the same beside an idle one.

    ``change_percent`` with ``low_percent`` and ``high_percent`` (95 %) is of the aggregate, None =
    not known; ``neighbours_mbit`` is offered and measured by guest, the mean of the valid samples.
    """
    for name in dict.fromkeys(s.workload for s in samples):
        if (alone := idle(name)) is None:
            continue
        found = compare(rates(samples, alone), rates(samples, name))
        yield {
            "workload": name,
            "against": alone,
            "words": found.words() if found else None,
            **_percents(asdict(found) if found else {}),
            "neighbours_mbit": _forwarded([s for s in samples if s.workload == name and s.valid]),
        }


def _percents(found: Mapping[str, float | None]) -> dict[str, float | None]:
    names = {"ratio": "change_percent", "low": "low_percent", "high": "high_percent"}
    return {
        name: None if (value := found.get(key)) is None else 100 * (value - 1)
        for key, name in names.items()
    }


def _forwarded(valid: Sequence[Sample]) -> dict[str, list[float]]:
    guests = dict.fromkeys(g for s in valid for g in s.finding.neighbours_mbit)
    return {
        guest: [
            sum(way) / len(way)
            for way in zip(*(s.finding.neighbours_mbit[guest] for s in valid), strict=True)
        ]
        for guest in guests
    }


def words(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for one in found:
        if one["words"]:
            yield f"{one['workload']} against {one['against']}: {one['words']}"
        for guest, (offered, measured) in one["neighbours_mbit"].items():
            yield (
                f"{one['workload']}: its neighbour {guest} was sent {offered:.1f} Mbit/s and "
                f"forwarded {measured:.1f}"
            )
