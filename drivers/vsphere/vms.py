"""One testbed's VMs: found by name and mark, powered, ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from drivers.vsphere.api import Fault, Gone, vim
from drivers.vsphere.connect import Session
from drivers.vsphere.networks import Networks
from drivers.vsphere.parse import OFF, ON, PATHS, Seen, parse
from drivers.vsphere.place import Place
from drivers.vsphere.read import Found, Properties, each, get, retrieve, spec, step
from drivers.vsphere.spec import MARK
from drivers.vsphere.tasks import Tasks
from provision.errors import DriverError, Foreign

#: folder in a datastore for what we put together ourselves, and for disks that were uploaded
STORE = "provision"
MANY = 100


@dataclass(slots=True)
class Vms:
    """Those of ``testbed`` in the place's folder; their names begin with its."""

    session: Session
    place: Place
    tasks: Tasks
    networks: Networks
    testbed: str
    _refs: dict[str, Any] = field(default_factory=dict)

    def name(self, guest: str) -> str:
        return f"{self.testbed}-{guest}"

    def folder(self, guest: str) -> str:
        """Where the files are of a VM that we put together ourselves."""
        return self.place.datastore.path(STORE, self.name(guest))

    def find(self, guest: str) -> tuple[Any | None, Seen | None]:
        """The VM of that name; what is seen of it is None where it is not ours. Raises faults."""
        ref, has = self._look(guest)
        if ref is None:
            return None, None
        seen = parse(ref, guest, has, self.place.mhz, self.networks.name)
        if seen is None:  # it is just being made, or the host has lost it
            self._settle(ref)
            ref, has = self._look(guest)
            seen = parse(ref, guest, has, self.place.mhz, self.networks.name) if ref else None
        if seen is not None and seen.mark == self.testbed:
            self._refs[guest] = ref
            return ref, seen
        return ref, None

    def own(self, guest: str) -> Seen | None:
        """As ``find``, but raises Foreign where the VM is another's."""
        ref, seen = self.find(guest)
        if ref is not None and seen is None:
            raise Foreign(
                f"VM {self.name(guest)} exists in {self.place.datacenter_path} without our mark",
                hint=f"look at it: its extraConfig has no {MARK}={self.testbed}",
            )
        return seen

    def there(self, guest: str) -> Seen:
        """As ``own``, but raises DriverError where there is none."""
        seen = self.own(guest)
        if seen is None:
            raise DriverError(f"guest {guest} does not exist, and has no checkpoint")
        return seen

    def made(self, guest: str, ref: Any) -> Seen:
        """One that we have just made. Raises DriverError where it is gone at once, faults."""
        self._refs[guest] = ref
        return self.there(guest)

    def look(self) -> dict[str, Seen]:
        """All guests that there are, by name. Raises faults."""
        prefix = self.name("")
        child = step("child", vim.Folder, "childEntity")
        wanted = spec(self.place.vm_folder, ("name",), through=[child], kind=vim.VirtualMachine)
        listed = retrieve(self.session, [wanted])
        refs = {f.ref: name for f in listed if (name := str(f.has.get("name"))).startswith(prefix)}
        found: dict[str, Seen] = {}
        for vm in self._each([*refs]):
            guest = refs[vm.ref].removeprefix(prefix)
            seen = parse(vm.ref, guest, vm.has, self.place.mhz, self.networks.name)
            if seen is not None and seen.mark == self.testbed:
                found[guest], self._refs[guest] = seen, vm.ref
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

    def vanish(self, guest: str, seen: Seen) -> None:
        """The VM with all of its files, and nothing else. Raises faults."""
        if seen.state != OFF:
            self.power_off(seen.ref)
        self._refs.pop(guest, None)
        with suppress(Gone):
            if self.put_together(guest, seen):
                # "destroy" would follow the disk to the image that it stands on
                seen.ref.UnregisterVM()
                self.sweep(guest)
            else:
                self.tasks.run(seen.ref.Destroy_Task)

    def put_together(self, guest: str, seen: Seen) -> bool:
        """Whether we made it of a disk, instead of the server's cloning it."""
        folder = PurePosixPath(self.folder(guest))
        return PurePosixPath(seen.path).parent == folder

    def sweep(self, guest: str) -> None:
        """Remove the files of a VM that we put together; no error where there are none."""
        manager, path = self.session.content.fileManager, self.folder(guest)
        with suppress(vim.fault.FileNotFound):
            self.tasks.run(lambda: manager.DeleteDatastoreFile_Task(path, self.place.datacenter))

    def _each(self, refs: list[Any]) -> Iterator[Found]:
        """Some at a time, so that no answer is too long; one that vanishes meanwhile is left out.

        A call fails as a whole where one of its objects is gone.
        """
        for first in range(0, len(refs), MANY):
            some = refs[first : first + MANY]
            try:
                yield from each(self.session, some, *PATHS)
            except Gone:
                for ref in some:
                    with suppress(Gone):
                        yield from each(self.session, [ref], *PATHS)

    def _look(self, guest: str) -> tuple[Any | None, Properties]:
        """One call for a VM that is known, two for another."""
        if (known := self._refs.get(guest)) is not None:
            try:
                return known, get(self.session, known, *PATHS)
            except Gone:
                self._refs.pop(guest, None)
        index = self.session.content.searchIndex
        ref = index.FindChild(self.place.vm_folder, self.name(guest))
        if ref is None or not isinstance(ref, vim.VirtualMachine):
            return None, {}
        try:
            return ref, get(self.session, ref, *PATHS)
        except Gone:
            return None, {}

    def _settle(self, ref: Any) -> None:
        """Wait for what is being done to a VM."""
        with suppress(Fault):
            for task in get(self.session, ref, "recentTask").get("recentTask", ()):
                with suppress(Fault):
                    self.tasks.wait(task)
