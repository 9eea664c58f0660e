"""One testbed's VMs: found by name and mark, powered, ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from drivers.vsphere.api import Fault, Gone, vim, vmodl
from drivers.vsphere.connect import Session
from drivers.vsphere.networks import Networks
from drivers.vsphere.parse import (
    FIRST_SLOT,
    OFF,
    ON,
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
from drivers.vsphere.read import Properties, get, retrieve, spec, step
from drivers.vsphere.spec import MARK
from drivers.vsphere.tasks import Tasks
from drivers.vsphere.together import Part, Together
from provision.errors import DriverError, Foreign

#: folder in a datastore for what we put together ourselves, and for disks that were uploaded
STORE = "provision"
MANY = 100


@dataclass(frozen=True, slots=True)
class Known:
    """A VM that was seen; ``slots`` are the keys of its vNICs."""

    ref: Any
    slots: tuple[int, ...]


@dataclass(slots=True)
class Vms:
    """Those of ``testbed`` in the place's folder; their names begin with its."""

    session: Session
    together: Together
    place: Place
    tasks: Tasks
    networks: Networks
    testbed: str
    _known: dict[str, Known] = field(default_factory=dict)
    _absent: set[str] = field(default_factory=set)
    _by_key: bool = True

    def name(self, guest: str) -> str:
        return f"{self.testbed}-{guest}"

    def folder(self, guest: str) -> str:
        """Where the files are of a VM that we put together ourselves."""
        return self.place.datastore.path(STORE, self.name(guest))

    def find(
        self, guest: str, *, all_of_it: bool = False, beside: Sequence[Part] = ()
    ) -> tuple[Any | None, Seen | None, list[Properties]]:
        """The VM of that name; what is seen of it is None where it is not ours. Raises faults.

        ``beside`` is asked for in the same call; it is not answered where there is no such VM.
        """
        ref, raw, more = self._look(guest, all_of_it, beside)
        if ref is not None and raw is None:  # it is just being made, or the host has lost it
            self._settle(ref)
            ref, raw, more = self._look(guest, all_of_it, beside)
        if ref is None:
            self._absent.add(guest)
            return None, None, more
        self._absent.discard(guest)
        if raw is None or raw.extra.get(MARK) != self.testbed:
            return ref, None, more
        return ref, self._keep(ref, guest, raw), more

    def never_was(self, guest: str) -> bool:
        """Whether it was not there when last looked for; the next look is a real one."""
        there = guest not in self._absent
        self._absent.discard(guest)
        return not there

    def own(self, guest: str, *, all_of_it: bool = False) -> Seen | None:
        """As ``find``, but raises Foreign where the VM is another's."""
        ref, seen, _ = self.find(guest, all_of_it=all_of_it)
        if ref is not None and seen is None:
            raise Foreign(
                f"VM {self.name(guest)} exists in {self.place.datacenter_path} without our mark",
                hint=f"look at it: its extraConfig has no {MARK}={self.testbed}",
            )
        return seen

    def there(self, guest: str) -> Seen:
        """All of it, as ``own``, but raises DriverError where there is none."""
        seen = self.own(guest, all_of_it=True)
        if seen is None:
            raise DriverError(f"guest {guest} does not exist, and has no checkpoint")
        return seen

    def made(self, guest: str, ref: Any, vnics: int) -> None:
        """One that we have just made: where its vNICs are likely to be."""
        self._known[guest] = Known(ref, tuple(range(FIRST_SLOT, FIRST_SLOT + vnics)))
        self._absent.discard(guest)

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
                found[guest] = self._keep(ref, guest, raw)
        there = {name.removeprefix(prefix) for name in refs.values()}
        self._absent |= {*guests} - there
        return found

    def power_on(self, ref: Any) -> None:
        """No error where it runs already. Raises faults."""
        try:
            self.tasks.run(ref.PowerOnVM_Task)
        except vim.fault.InvalidPowerState as e:
            if str(e.existingState) != ON:
                raise

    def power_off(self, ref: Any) -> None:
        """At once; no error where it does not run, or is gone. Raises faults."""
        try:
            self.tasks.run(ref.PowerOffVM_Task)
        except Gone:
            return
        except vim.fault.InvalidPowerState as e:
            if str(e.existingState) != OFF:
                raise

    def vanish(self, guest: str) -> bool:
        """End the VM with all of its files, and nothing else; whether there was one.

        Raises Foreign where it is another's, faults.
        """
        found = self._held(guest)
        if found is None:
            return False
        if found.state != OFF:
            self.power_off(found.ref)
        self._known.pop(guest, None)
        with suppress(Gone):
            if PurePosixPath(found.path).parent == PurePosixPath(self.folder(guest)):
                # "destroy" would follow the disk to the image that it stands on
                found.ref.UnregisterVM()
                self.sweep(guest)
            else:
                self.tasks.run(found.ref.Destroy_Task)
        return True

    def _held(self, guest: str) -> Held | None:
        known = self._known.get(guest)
        if known is not None and self._by_key:
            with suppress(Gone, vmodl.query.InvalidProperty):
                has = self.together.get(known.ref, *held_paths())
                if (found := held(known.ref, has, self.testbed)) is not None:
                    return found
        seen = self.own(guest, all_of_it=True)
        return Held(seen.ref, seen.state, seen.path) if seen is not None else None

    def sweep(self, guest: str) -> None:
        """Remove the files of a VM that we put together; no error where there are none."""
        manager, path = self.session.content.fileManager, self.folder(guest)
        with suppress(vim.fault.FileNotFound):
            self.tasks.run(lambda: manager.DeleteDatastoreFile_Task(path, self.place.datacenter))

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
        """One that vanishes meanwhile is left out: a call fails for all where one is gone."""
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

    def _keep(self, ref: Any, guest: str, raw: Raw) -> Seen:
        self._known[guest] = Known(ref, tuple(card.key for card in raw.cards))
        return parse(ref, guest, raw, self.place.mhz, self.networks.name)

    def _settle(self, ref: Any) -> None:
        """Wait for what is being done to a VM."""
        with suppress(Fault):
            for task in get(self.session, ref, "recentTask").get("recentTask", ()):
                with suppress(Fault):
                    self.tasks.wait(task)
