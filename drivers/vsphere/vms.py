"""One testbed's VMs: found by name and mark, powered, ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from drivers.vsphere.api import Fault, Gone, vim
from drivers.vsphere.connect import Session
from drivers.vsphere.parse import OFF, ON, Held, Seen
from drivers.vsphere.place import Place
from drivers.vsphere.read import Part, Properties, get
from drivers.vsphere.sight import Sight
from drivers.vsphere.spec import MARK
from drivers.vsphere.tasks import Tasks
from provision.errors import DriverError, Foreign

#: folder in a datastore for what we put together ourselves, and for disks that were uploaded
STORE = "provision"


@dataclass(frozen=True, slots=True)
class Vms:
    """Those of ``testbed`` in the place's folder; their names begin with its."""

    session: Session
    place: Place
    tasks: Tasks
    sight: Sight
    testbed: str

    def name(self, guest: str) -> str:
        return self.sight.name(guest)

    def folder(self, guest: str) -> str:
        """Where the files are of a VM that we put together ourselves."""
        return self.place.datastore.path(STORE, self.name(guest))

    def find(
        self, guest: str, *, all_of_it: bool = False, beside: Sequence[Part] = ()
    ) -> tuple[Any | None, Seen | None, list[Properties]]:
        """As ``Sight.at``, but what is seen of a VM is None where it is not ours. Raises faults."""
        ref, raw, more = self.sight.at(guest, all_of_it=all_of_it, beside=beside)
        if ref is not None and raw is None:  # it is just being made, or the host has lost it
            self._settle(ref)
            ref, raw, more = self.sight.at(guest, all_of_it=all_of_it, beside=beside)
        if ref is None or raw is None or raw.extra.get(MARK) != self.testbed:
            return ref, None, more
        return ref, self.sight.seen(ref, guest, raw), more

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
        found = self.sight.held(guest)
        if found is None:
            seen = self.own(guest, all_of_it=True)
            if seen is None:
                return False
            found = Held(seen.ref, seen.state, seen.path)
        if found.state != OFF:
            self.power_off(found.ref)
        with suppress(Gone):
            if PurePosixPath(found.path).parent == PurePosixPath(self.folder(guest)):
                # "destroy" would follow the disk to the image that it stands on
                found.ref.UnregisterVM()
                self.sweep(guest)
            else:
                self.tasks.run(found.ref.Destroy_Task)
        self.sight.gone(guest, found.ref)
        return True

    def sweep(self, guest: str) -> None:
        """Remove the files of a VM that we put together; no error where there are none."""
        manager, path = self.session.content.fileManager, self.folder(guest)
        with suppress(vim.fault.FileNotFound):
            self.tasks.run(lambda: manager.DeleteDatastoreFile_Task(path, self.place.datacenter))

    def again(
        self, guest: str, work: Callable[[], object], source: Callable[[], Any] = lambda: None
    ) -> None:
        """As ``Session.again``, of work on the VM of that name, which is made of ``source()``.

        A task that was started, with its reply lost, is the VM's, or the folder's or the source's
        as long as there is no VM; to look before it ends would be to start it twice.
        """

        def settle() -> None:
            self.sight.never_was(guest)  # what was seen before the call holds no more
            index = self.session.content.searchIndex
            ref = index.FindChild(self.place.vm_folder, self.name(guest))
            for one in (ref, self.place.vm_folder, source()):
                if one is not None:
                    self._settle(one)

        self.session.again(work, settle)

    def _settle(self, ref: Any) -> None:
        """Wait for what is being done to a VM."""
        with suppress(Fault):
            for task in get(self.session, ref, "recentTask").get("recentTask", ()):
                with suppress(Fault):
                    self.tasks.wait(task)
