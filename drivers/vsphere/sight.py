"""One testbed's VMs as they are, asked for briefly, and what is known of them meanwhile.

A VM is all of some hundred elements of XML; its guest is a few of them, which a server that finds
array elements by key gives alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

from drivers.vsphere.api import Gone, vim, vmodl
from drivers.vsphere.connect import Session
from drivers.vsphere.networks import Networks
from drivers.vsphere.parse import (
    FIRST_SLOT,
    PATHS,
    Held,
    Raw,
    Seen,
    brief,
    brief_paths,
    held,
    held_paths,
    parse,
    whole,
)
from drivers.vsphere.place import Place
from drivers.vsphere.read import Found, Part, Properties, many, retrieve, spec, step
from drivers.vsphere.spec import MARK
from drivers.vsphere.together import Together

MANY = 100
RECENT_S = 2


@dataclass(frozen=True, slots=True)
class Known:
    """A VM that was seen; ``slots`` are the keys of its vNICs.

    ``alike`` is what it was made of and how many it has, until it has been looked at.
    """

    ref: Any
    slots: tuple[int, ...]
    alike: tuple[str, int] | None = None


@dataclass(slots=True)
class Sight:
    """Looks at VMs of ``testbed`` in the place's folder; all raise faults."""

    session: Session
    together: Together
    place: Place
    networks: Networks
    testbed: str
    _known: dict[str, Known] = field(default_factory=dict)
    _ended: dict[str, Any] = field(default_factory=dict)
    _likely: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    _absent: set[str] = field(default_factory=set)
    _by_key: bool = True
    _looking: Lock = field(default_factory=Lock)
    _surveyed_until: float = 0.0
    _surveyed: dict[str, Held] = field(default_factory=dict)

    def name(self, guest: str) -> str:
        return f"{self.testbed}-{guest}"

    def at(
        self, guest: str, *, all_of_it: bool = False, beside: Sequence[Part] = ()
    ) -> tuple[Any | None, Raw | None, list[Properties]]:
        """The VM of that name, whoever's it is; what is seen of it is None where that is nothing.

        ``beside`` is asked for in the same call; it is not answered where there is no such VM.
        """
        found = self._look(guest, all_of_it, beside)
        if found[0] is None:
            self._absent.add(guest)
        else:
            self._absent.discard(guest)
        return found

    def never_was(self, guest: str) -> bool:
        """Whether it was not there when last looked for; the next look is a real one."""
        there = guest not in self._absent
        self._absent.discard(guest)
        self._ended.pop(guest, None)
        return not there

    def made(self, guest: str, ref: Any, vnics: int, like: str) -> None:
        """One that we have just made: its vNICs are likely to be where those of others made so are.

        The server chooses their keys, the same for the same devices.
        """
        alike = (like, vnics)
        slots = tuple(range(FIRST_SLOT, FIRST_SLOT + vnics))
        self._known[guest] = Known(ref, slots, alike)
        self._ended.pop(guest, None)
        self._absent.discard(guest)

    def gone(self, guest: str, ref: Any) -> None:
        """It was just ended: to see that, the next look is for that very VM."""
        self._known.pop(guest, None)
        self._ended[guest] = ref

    def seen(self, ref: Any, guest: str, raw: Raw) -> Seen:
        """The guest that it is; from now on known."""
        slots = tuple(card.key for card in raw.cards)
        if (before := self._known.get(guest)) is not None and before.alike is not None:
            self._likely[before.alike] = slots
        self._known[guest] = Known(ref, slots)
        return parse(ref, guest, raw, self.place.mhz, self.networks.name)

    def look(self, guests: Collection[str]) -> dict[str, Seen]:
        """Those of the guests that there are: one call for those that are known. Raises faults."""
        found, doubted, unknown = self._known_of(guests)
        if unknown:
            listed = {guest: f.ref for guest, f in self._listed().items() if guest in unknown}
            self._absent |= unknown - listed.keys()
            doubted |= listed
        return found | self._seen({ref: guest for guest, ref in doubted.items()})

    def all(self) -> dict[str, Seen]:
        """All guests of the testbed. Raises faults."""
        return self._seen({found.ref: guest for guest, found in self._listed().items()})

    def held(self, guest: str) -> Held | None:
        """What it takes to end it, as of moments ago; None where it takes a whole look to know.

        Those that were not seen yet are looked at all at once, which costs less than to find some.
        """
        if not self._by_key:
            return None
        with suppress(Gone, vmodl.query.InvalidProperty):
            if (known := self._known.get(guest)) is not None:
                has = self.together.get(known.ref, *held_paths())
                return held(known.ref, has, self.testbed)
            with self._looking:
                if self._surveyed_until < monotonic():
                    self._surveyed = {}
                    for name, found in self._listed(*held_paths()).items():
                        if (one := held(found.ref, found.has, self.testbed)) is not None:
                            self._surveyed[name] = one
                    self._surveyed_until = monotonic() + RECENT_S
                return self._surveyed.pop(guest, None)
        return None

    def _listed(self, *paths: str) -> dict[str, Found]:
        """Each VM that has a name of the testbed's, by the guest's name."""
        prefix = self.name("")
        child = step("child", vim.Folder, "childEntity")
        wanted = spec(
            self.place.vm_folder, ("name", *paths), through=[child], kind=vim.VirtualMachine
        )
        named = [(f, str(f.has.get("name"))) for f in retrieve(self.session, [wanted])]
        return {name.removeprefix(prefix): f for f, name in named if name.startswith(prefix)}

    def _known_of(
        self, guests: Collection[str]
    ) -> tuple[dict[str, Seen], dict[str, Any], set[str]]:
        """Those seen again; VMs that take a whole look; and guests that are to be looked for.

        What was seen to be gone is in none.
        """
        known = {g: k for g in guests if (k := self._known.get(g)) is not None}
        if not self._by_key:
            return {}, {}, {*guests}
        self._learn(known)
        slots = {g: self._slots(k) for g, k in known.items()}
        ended = {g: ref for g in guests if (ref := self._ended.pop(g, None)) is not None}
        parts: list[Part] = [(k.ref, brief_paths(slots[g])) for g, k in known.items()]
        parts += [(ref, ("name",)) for ref in ended.values()]
        try:
            has = many(self.session, parts)
        except vmodl.query.InvalidProperty:
            self._by_key = False
            return {}, {}, {*guests}
        found: dict[str, Seen] = {}
        doubted: dict[str, Any] = {}
        for guest, k in known.items():
            if k.ref not in has:
                self._known.pop(guest, None)
            elif (raw := brief(has[k.ref], slots[guest])) is None:
                self._known.pop(guest, None)
                doubted[guest] = k.ref
            elif raw.extra.get(MARK) == self.testbed:
                found[guest] = self.seen(k.ref, guest, raw)
        gone = {guest for guest, ref in ended.items() if ref not in has}
        self._absent |= gone
        return found, doubted, {*guests} - found.keys() - doubted.keys() - gone

    def _slots(self, known: Known) -> tuple[int, ...]:
        """Where its vNICs are, or are likely to be."""
        return self._likely.get(known.alike, known.slots) if known.alike else known.slots

    def _learn(self, known: Mapping[str, Known]) -> None:
        """Look at one of each sort of which none was looked at yet."""
        for guest, one in known.items():
            if one.alike is not None and one.alike not in self._likely:
                with suppress(Gone):
                    raw = whole(self.together.get(one.ref, *PATHS))
                    if raw is not None:
                        self.seen(one.ref, guest, raw)

    def _seen(self, refs: Mapping[Any, str]) -> dict[str, Seen]:
        """Those of the VMs that are the testbed's, by the guest's name."""
        return {
            refs[ref]: self.seen(ref, refs[ref], raw)
            for ref, raw in self._each(refs)
            if raw.extra.get(MARK) == self.testbed
        }

    def _each(self, refs: Mapping[Any, str]) -> Iterator[tuple[Any, Raw]]:
        """Some at a time, so that no answer is too long, each as briefly as may be."""
        shapes: dict[tuple[int, ...], list[Any]] = {}
        for ref, guest in refs.items():
            known = self._known.get(guest) if self._by_key else None
            slots = known.slots if known is not None and known.ref == ref else ()
            shapes.setdefault(slots, []).append(ref)
        whole_ones = shapes.pop((), [])
        for slots, alike in shapes.items():
            for ref, has in self._some(alike, brief_paths(slots)):
                if (raw := brief(has, slots)) is not None:
                    yield ref, raw
                else:
                    whole_ones.append(ref)
        for ref, has in self._some(whole_ones, PATHS):
            if (raw := whole(has)) is not None:
                yield ref, raw

    def _some(
        self, refs: Sequence[Any], paths: tuple[str, ...]
    ) -> Iterator[tuple[Any, Properties]]:
        """One that vanishes meanwhile is left out."""
        for first in range(0, len(refs), MANY):
            some = refs[first : first + MANY]
            yield from many(self.session, [(ref, paths) for ref in some]).items()

    def _look(
        self, guest: str, all_of_it: bool, beside: Sequence[Part]
    ) -> tuple[Any | None, Raw | None, list[Properties]]:
        """One call for a VM that is known, two for another."""
        ended = self._ended.pop(guest, None)
        if ended is not None and not all_of_it:
            try:
                self.together.get(ended, "name")
            except Gone:
                return None, None, []
        known = self._known.get(guest)
        if known is not None:
            try:
                ref, raw, more = self._ask(known, all_of_it, beside)
            except Gone:
                self._known.pop(guest, None)
            else:
                return (ref, raw, more) if raw is not None else self._ask(known, True, beside)
        index = self.session.content.searchIndex
        ref = index.FindChild(self.place.vm_folder, self.name(guest))
        if ref is None or not isinstance(ref, vim.VirtualMachine):
            return None, None, []
        try:
            return self._ask(Known(ref, ()), True, beside)
        except Gone:
            return None, None, []

    def _ask(
        self, known: Known, all_of_it: bool, beside: Sequence[Part]
    ) -> tuple[Any, Raw | None, list[Properties]]:
        """Briefly, where it is known where the vNICs are and the server finds them by key."""
        short = not all_of_it and self._by_key
        slots = self._slots(known)
        paths = brief_paths(slots) if short else PATHS
        try:
            has, *more = self.together.ask([(known.ref, paths), *beside])
        except vmodl.query.InvalidProperty:
            if not short:
                raise
            self._by_key = False
            return self._ask(known, True, beside)
        return known.ref, brief(has, slots) if short else whole(has), more
