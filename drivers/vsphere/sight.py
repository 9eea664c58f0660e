"""One testbed's VMs as they are, asked for briefly, and what is known of them meanwhile.

A VM is all of some hundred elements of XML; its guest is a few of them, which a server that finds
array elements by key gives alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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
from drivers.vsphere.read import Properties, retrieve, spec, step
from drivers.vsphere.spec import MARK
from drivers.vsphere.together import Part, Together

MANY = 100


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
        slots = self._likely.get(alike) or tuple(range(FIRST_SLOT, FIRST_SLOT + vnics))
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

    def look(self, guests: Iterable[str]) -> dict[str, Seen]:
        """Those of the guests that there are, and all others of the testbed. Raises faults."""
        prefix = self.name("")
        child = step("child", vim.Folder, "childEntity")
        wanted = spec(self.place.vm_folder, ("name",), through=[child], kind=vim.VirtualMachine)
        listed = retrieve(self.session, [wanted])
        refs = {f.ref: name for f in listed if (name := str(f.has.get("name"))).startswith(prefix)}
        found: dict[str, Seen] = {}
        for ref, raw in self._each({r: name.removeprefix(prefix) for r, name in refs.items()}):
            if raw.extra.get(MARK) == self.testbed:
                guest = refs[ref].removeprefix(prefix)
                found[guest] = self.seen(ref, guest, raw)
        there = {name.removeprefix(prefix) for name in refs.values()}
        self._absent |= {*guests} - there
        return found

    def held(self, guest: str) -> Held | None:
        """What it takes to end it; None where it takes a whole look to know."""
        known = self._known.get(guest)
        if known is not None and self._by_key:
            with suppress(Gone, vmodl.query.InvalidProperty):
                has = self.together.get(known.ref, *held_paths())
                return held(known.ref, has, self.testbed)
        return None

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
            try:
                yield from zip(some, self.together.ask([(r, paths) for r in some]), strict=True)
            except Gone:
                for ref in some:
                    with suppress(Gone):
                        yield ref, self.together.get(ref, *paths)

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
        paths = brief_paths(known.slots) if short else PATHS
        try:
            has, *more = self.together.ask([(known.ref, paths), *beside])
        except vmodl.query.InvalidProperty:
            if not short:
                raise
            self._by_key = False
            return self._ask(known, True, beside)
        return known.ref, brief(has, known.slots) if short else whole(has), more
