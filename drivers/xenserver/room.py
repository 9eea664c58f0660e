"""Whether guests' disks have room on the storage that they are to lie on."""

from __future__ import annotations

from collections.abc import Sequence

from drivers.xenserver.connect import Session
from drivers.xenserver.place import MIB
from drivers.xenserver.sources import Source, Sources
from provision.errors import PreflightError
from provision.resources import Guest

LEAST_MIB = 16  # of a copy on write and an identity, before anything is written


def check_room(session: Session, sources: Sources, guests: Sequence[Guest]) -> None:
    """Raises PreflightError where the disks of these, not yet made, have none."""
    needs: dict[str, int] = {}
    names: dict[str, str] = {}
    for guest in guests:
        source = sources.find(guest.image)
        storage = sources.storage(source)
        names[storage.ref] = storage.name
        needs[storage.ref] = needs.get(storage.ref, 0) + need_mib(source, sources)
    for ref, need in needs.items():
        sr = session.call("SR.get_record", ref)
        free = (int(sr["physical_size"]) - int(sr["physical_utilisation"])) // MIB
        if free < need:
            raise PreflightError(
                f"storage {names[ref]}: no room for the disks of {len(guests)} guests: {need} MiB "
                f"are needed, {free} are free",
                hint="free some, or choose another: hypervisor.storage",
            )


def need_mib(source: Source, sources: Sources) -> int:
    """What a guest's disks take at first: all of them where they are copied, or cannot be thin."""
    whole = sources.storage(source).thick or not sources.clones(source)
    return LEAST_MIB + (source.size_mib if whole else 0)
