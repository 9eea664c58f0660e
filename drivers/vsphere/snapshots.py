"""A guest's clean state: a snapshot with its memory, and the way back to it.

vSphere API: CreateSnapshot_Task, RevertToSnapshot_Task. A snapshot keeps the VM's configuration as
well, so what must not linger in that goes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from drivers.vsphere import spec as wording
from drivers.vsphere.api import Gone, vim
from drivers.vsphere.parse import ON, Seen
from drivers.vsphere.read import get
from drivers.vsphere.vms import Vms
from provision.errors import DriverError

CLEAN = "provision-clean"


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Of one testbed's VMs. All raise faults."""

    vms: Vms

    def take(self, seen: Seen, token: str) -> None:
        """Remember the guest as it is, in place of what was remembered.

        ``token`` is of this call alone: a snapshot that bears it already is of a try whose answer
        was lost. A guest with a device of the host's own is remembered off, and started again.
        """
        if seen.secret:
            self._hide(seen)
        found = self._named(seen.ref)
        if not any(s.description == token for s in found):
            memory = not passes_through(seen)
            if not memory:
                self.vms.power_off(seen.ref)
            start = seen.ref.CreateSnapshot_Task
            self.vms.tasks.run(lambda: start(CLEAN, token, memory, False))
        if passes_through(seen):
            self.vms.power_on(seen.ref)
        self._remove(s for s in found if s.description != token)

    def forget(self, ref: Any) -> None:
        """No error where there is nothing to forget."""
        self._remove(self._named(ref))

    def back(self, seen: Seen) -> bool:
        """Whether it runs now, with its memory; else it is off, its disk as remembered.

        Raises DriverError where nothing is remembered.
        """
        found = self._named(seen.ref)
        if not found:
            raise DriverError(
                f"guest {seen.guest.name} has no checkpoint",
                hint="provision reset --level recreate",
            )
        newest = max(found, key=lambda s: s.id)
        self.vms.tasks.run(newest.snapshot.RevertToSnapshot_Task)
        return (
            str(get(self.vms.session, seen.ref, "runtime.powerState")["runtime.powerState"]) == ON
        )

    def _hide(self, seen: Seen) -> None:
        """The private keys that the guest was handed: it has read them long since."""
        gone = {wording.USERDATA: "", f"{wording.USERDATA}.encoding": ""}
        spec = vim.vm.ConfigSpec(extraConfig=wording.options(gone))
        self.vms.tasks.run(lambda: seen.ref.ReconfigVM_Task(spec))

    def _named(self, ref: Any) -> list[Any]:
        tree = get(self.vms.session, ref, "snapshot").get("snapshot")
        return [s for s in _walk(tree.rootSnapshotList if tree else ()) if s.name == CLEAN]

    def _remove(self, old: Any) -> None:
        for one in list(old):
            with suppress(Gone):
                self.vms.tasks.run(partial(one.snapshot.RemoveSnapshot_Task, False, True))


def passes_through(seen: Seen) -> bool:
    """Whether the guest has a device of the host's, whose state no snapshot can hold."""
    return any(nic.model == wording.SRIOV for nic in seen.guest.nics)


def _walk(tree: Any) -> Iterator[Any]:
    for one in tree or ():
        yield one
        yield from _walk(one.childSnapshotList)
