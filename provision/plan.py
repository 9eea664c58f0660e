"""From what should be and what is to the steps between: pure but for the reading it is handed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from provision.driver import Change
from provision.resources import (
    BOOT,
    STATES,
    Among,
    Key,
    Resource,
    Vnic,
    changed,
    key,
    label,
    needs,
)

Read = Callable[[Key], Resource | None]
Classes = Mapping[tuple[str, str], Change]


@dataclass(frozen=True, slots=True)
class Step:
    """Put ``want`` where ``have`` is now; a ``want`` of None drops it.

    ``fields`` are those that differ; ``change`` is the most disturbing class among them, None
    where nothing was there before. ``reason`` says why a thing is made anew although it looks
    right; ``undo`` that the thing goes back to how it was before us.
    """

    key: Key
    have: Resource | None
    want: Resource | None
    fields: tuple[str, ...] = ()
    change: Change | None = None
    reason: str = ""
    undo: bool = False

    @property
    def restarts_host(self) -> bool:
        """Whether the hypervisor's host goes down and comes back."""
        return self.key == BOOT and bool(self.fields)

    @property
    def sign(self) -> str:
        """``+`` make, ``-`` drop, ``~`` change, ``!`` drop and make again."""
        if self.want is None:
            return "-"
        if self.have is None:
            return "+"
        return "!" if self.change is Change.RECREATE else "~"


def steps(
    wants: Iterable[Resource],
    read: Read,
    classes: Classes,
    *,
    originals: Mapping[Key, Resource | None],
    unfinished: Collection[Key] = (),
) -> list[Step]:
    """What is still to do, undoing first, then each after what it needs as given.

    ``originals`` is what the journal holds: a thing in it that is no longer wanted goes back to
    how it was. A thing whose put was cut short is made anew, whatever it looks like.
    """
    wants = list(wants)
    by_key = {key(w): w for w in wants}
    found: list[Step] = []
    found += undoing({k: o for k, o in originals.items() if k not in by_key}, read)
    gone = Among(frozenset(s.key for s in found if s.want is None), frozenset(), {})
    restarts = [step for step in found if step.restarts_host]
    anew: set[Key] = {step.key for step in restarts}
    after = graph([*wants, *(step.want for step in restarts if step.want is not None)])
    for k in TopologicalSorter(after).static_order():
        if k not in by_key:
            continue
        have, want = read(k), by_key[k]
        reason = "" if k[0] in STATES else _doubt(k, originals, unfinished)
        if bad := next((n for n in sorted(after[k]) if n in anew), None):
            reason = f"{label(bad)} {'restarts the host' if bad == BOOT else 'is made anew'}"
        elif have is not None and k[0] not in STATES and (left := needs(have, gone)):
            reason = f"{label(min(left))} goes"
        step = _step(k, have, want, classes, reason, bears=bad != BOOT)
        if step is not None:
            found.append(step)
            if step.change is Change.RECREATE or step.reason or step.restarts_host:
                anew.add(k)
    return found


def _doubt(k: Key, originals: Collection[Key], unfinished: Collection[Key]) -> str:
    """Why a thing cannot be taken for what it looks like, its keys and disks included."""
    if k in unfinished:
        return "an earlier put was cut short"
    return "" if k in originals else "it is not in this journal"


def phases(found: Iterable[Step]) -> tuple[list[Step], list[Step]]:
    """First what goes, then what comes: a thing made anew is in both."""
    found = list(found)
    goes = [s for s in found if s.undo or s.want is None]
    goes += [
        Step(s.key, s.have, None, reason=s.reason) for s in found if s.change is Change.RECREATE
    ]
    comes = [
        replace(s, have=None) if s.change is Change.RECREATE else s
        for s in found
        if not s.undo and s.want is not None
    ]
    return goes, comes


def undoing(originals: Mapping[Key, Resource | None], read: Read) -> list[Step]:
    """The way back to ``originals``, last touched first.

    What was not there is dropped unread: half made, it may not be readable. A state whose bearer
    is gone (a NIC pulled out) cannot be put back: such a step wants None.
    """
    found: list[Step] = []
    for k, original in reversed(list(originals.items())):
        have = read(k) if original is not None else None
        want = None if have is None else original
        fields = changed(have, want) if want is not None else ()
        change = Change.REBOOT if k == BOOT and fields else None
        found.append(Step(k, have, want, fields, change, undo=True))
    return found


def backwards(after: Mapping[Key, frozenset[Key]]) -> dict[Key, frozenset[Key]]:
    """The order of undoing: each waits for those that needed it.

    Only what a restart of the host would lose again is put back after it.
    """
    behind: dict[Key, set[Key]] = {k: set() for k in after}
    for k, needed in after.items():
        for n in needed & behind.keys():
            first, then = (n, k) if n == BOOT and k[0] in STATES else (k, n)
            behind[then].add(first)
    return {k: frozenset(those) for k, those in behind.items()}


def _step(
    k: Key,
    have: Resource | None,
    want: Resource,
    classes: Classes,
    reason: str,
    *,
    bears: bool = True,
) -> Step | None:
    fields = changed(have, want)
    if have is None:
        return Step(k, None, want, fields)
    if reason and k[0] in STATES:  # where its bearer is made anew it starts from nothing again
        return Step(k, None if bears else have, want, fields, None, reason)
    if reason:
        return Step(k, have, want, fields, Change.RECREATE, reason)
    if not fields:
        return None
    if k == BOOT:
        return Step(k, have, want, fields, Change.REBOOT)
    order = list(Change)
    worst = max((_class(k[0], f, classes) for f in fields), key=order.index)
    return Step(k, have, want, fields, worst)


def _class(kind: str, field: str, classes: Classes) -> Change:
    return Change.LIVE if kind in STATES else classes.get((kind, field), Change.RECREATE)


def graph(resources: Iterable[Resource]) -> dict[Key, frozenset[Key]]:
    """What each needs of the others."""
    by_key = {key(r): r for r in resources}
    among = Among.of(by_key)
    return {k: needs(r, among) for k, r in by_key.items()}


def below(keys: Iterable[Key], after: Mapping[Key, frozenset[Key]]) -> frozenset[Key]:
    """These and all that they stand on."""
    found: set[Key] = set()
    todo = set(keys)
    while todo:
        found |= todo
        todo = {n for k in todo for n in after.get(k, frozenset())} - found
    return frozenset(found)


def render(found: Iterable[Step]) -> list[str]:
    """The plan for people: one line a thing, one more a field."""
    lines: list[str] = []
    for step in found:
        why = f"  ({step.reason})" if step.reason else ""
        note = f"  [{step.change}]" if step.change and step.have and step.want else ""
        lines.append(f"{step.sign} {label(step.key)}{note}{why}")
        if step.want is None:
            continue
        for field in step.fields:
            now = getattr(step.want, field)
            if step.have is None:
                lines.append(f"    {field}: {words(now)}")
            else:
                lines.append(f"    {field}: {words(getattr(step.have, field))} -> {words(now)}")
    return lines


def words(value: object) -> str:
    """A field's value for people."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(words(v) for v in value) + "]"
    if isinstance(value, Vnic):
        rate = f" at {value.rate_mbit} Mbit/s" if value.rate_mbit else ""
        return f"{value.model} {value.mac} {value.address} mtu {value.mtu} on {value.switch}{rate}"
    return str(value)
