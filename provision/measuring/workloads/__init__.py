"""All workloads that there are, by name; each family has a room of its own here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from provision.errors import UserError
from provision.measuring.capture import Output
from provision.measuring.workload import Options, Workload
from provision.measuring.workloads import http, netperf

WORKLOADS: Mapping[str, Workload] = {w.name: w for w in (*netperf.WORKLOADS, *http.WORKLOADS)}


def find(name: str) -> Workload:
    """The workload of that name; raises UserError with those there are."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    near = get_close_matches(name, WORKLOADS, 1)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    raise UserError(f"no workload {name!r}{guess}; known: {', '.join(WORKLOADS)}")


def series(names: Iterable[str], object_kib: Sequence[int]) -> list[Workload]:
    """What is measured one after another for these names."""
    options = Options(object_kib=tuple(object_kib))
    return [one for name in names for one in find(name).series(options)]


def read(name: str, text: str) -> Output:
    """A kept stream's output; of a workload that is not known, only that it said something."""
    for known in (name, name.rpartition("-")[0]):  # one of several series bears its own end
        if known in WORKLOADS:
            return WORKLOADS[known].read(text)
    return Output((), {}, frozenset(), ())
