"""All workloads that there are, by name; each family has a room of its own here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from provision.errors import UserError, did_you_mean
from provision.measuring.capture import Output
from provision.measuring.workload import Options, Workload
from provision.measuring.workloads import beside, forwarding, http, netperf

WORKLOADS: Mapping[str, Workload] = {w.name: w for w in (*netperf.WORKLOADS, *http.WORKLOADS)}

#: how others are called, which have figures in their names
FORMS = ("forwarding-64B-100M", "forwarding-64B-max", "forwarding-64B-collapse")
#: and how all are that have more to their names than a word
PATTERN = f"^({forwarding.NAME.pattern}|.+(@[1-9][0-9]*|[+]({'|'.join(beside.LOADS)})))$"


def is_file(name: str) -> bool:
    """Whether this names a user's own workload."""
    return name.endswith((".yml", ".yaml"))


def find(name: str) -> Workload:
    """The workload of that name, or the user's own in a file of it.

    Raises UserError with those there are, or with what is wrong with the file.
    """
    if name in WORKLOADS:
        return WORKLOADS[name]
    if is_file(name):
        from provision.spec.own import load

        return load(Path(name))
    if found := beside.named(name, find) or forwarding.named(name):
        return found
    known = ", ".join((*WORKLOADS, *FORMS))
    raise UserError(f"no workload {name!r}{meant(name)}; known: {known}, or a file NAME.yml")


def meant(name: str) -> str:
    """`` (did you mean 'x'?)``, also of a name that looks like a file; "" where none is near."""
    word = name.removesuffix(".yml").removesuffix(".yaml")
    head, at, rest = word.partition("@")
    plain = (*WORKLOADS, *FORMS)
    busy = [f"{one}+{load}" for one in plain for load in beside.LOADS]
    known = (*plain, *busy) if "+" in head else plain
    return did_you_mean(word, [f"{one}{at}{rest}" for one in known])


def is_one(name: str) -> bool:
    """Whether there is a workload of that name."""
    try:
        find(name)
    except UserError:
        return False
    return True


def series(names: Iterable[str], object_kib: Sequence[int]) -> list[Workload]:
    """What is measured one after another for these names."""
    options = Options(object_kib=tuple(object_kib))
    found = [one for name in names for one in find(name).series(options)]
    if twice := [n for n, often in Counter(one.name for one in found).items() if often > 1]:
        raise UserError(f"several workloads are called {', '.join(twice)}")
    return found


def read(name: str, text: str) -> Output:
    """A kept stream's output; of a workload that is not known, only that it said something."""
    plain = beside.plain(name)
    for known in (name, plain, plain.rpartition("-")[0]):  # one of several series has its own end
        if is_one(known):
            return find(known).read(text)
    return Output((), {}, frozenset(), ())
