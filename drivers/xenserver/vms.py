"""One testbed's VMs: found by name and mark, started, stopped, and ended with all of their disks.

A VM that is being made has another name, which is a mark by itself: whatever bears it is ours, even
where we were killed before we could mark it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from drivers.xenserver import shape
from drivers.xenserver.api import GONE, Failure, Record, but, code, gone_is_fine, null
from drivers.xenserver.connect import Session
from drivers.xenserver.place import MARK, TAG, Place
from drivers.xenserver.tasks import Say, Tasks
from provision.errors import DriverError, Foreign

RUNNING, HALTED, SUSPENDED = "Running", "Halted", "Suspended"


@dataclass(frozen=True, slots=True)
class Vm:
    """``has`` is the record as it was when it was looked at."""

    ref: str
    has: Record


@dataclass(frozen=True, slots=True)
class Vms:
    """Those of ``testbed``. All raise failures."""

    session: Session
    place: Place
    tasks: Tasks
    testbed: str

    def name(self, guest: str) -> str:
        return f"{self.testbed}-{guest}"

    def making(self, guest: str) -> str:
        """What a VM is called until it is whole."""
        return f"{TAG}{self.name(guest)} (being made)"

    def find(self, guest: str) -> Vm | None:
        """The VM of that name, whoever's it is; None where there is none.

        Where there are several, ours.
        """
        found = self._named(self.name(guest))
        ours = [vm for vm in found if self.ours(vm.has)]
        return next(iter(ours or found), None)

    def own(self, guest: str) -> Vm | None:
        """As ``find``, but raises Foreign where the VM is another's."""
        found = self.find(guest)
        if found is not None and not self.ours(found.has):
            raise Foreign(
                f"VM {self.name(guest)} of {self.place.name} is not ours: it lacks our mark",
                hint=f"look at it: xe vm-param-list uuid={found.has['uuid']}",
            )
        return found

    def there(self, guest: str) -> Vm:
        """As ``own``, but raises DriverError where there is none."""
        if (found := self.own(guest)) is None:
            raise DriverError(f"guest {guest} does not exist, and has no checkpoint")
        return found

    def half_made(self, guest: str) -> list[Vm]:
        """What an earlier put was cut short at."""
        return self._named(self.making(guest))

    def all(self) -> dict[str, tuple[str, Record]]:
        """Those of the testbed that are whole, by guest."""
        found = {}
        for ref, has in self.session.call("VM.get_all_records").items():
            guest = str(has["name_label"]).removeprefix(f"{self.testbed}-")
            if _plain(has) and self.ours(has) and has["name_label"] == self.name(guest):
                found[guest] = (ref, has)
        return found

    def owned(self) -> set[str]:
        """The guests of which anything is there, half made ones and lone disks included."""
        before, after = self.making("").split(" (being made)")[0], " (being made)"
        found = set(self.all())
        for has in self.session.call("VM.get_all_records").values():
            name = str(has["name_label"])
            if name.startswith(before) and name.endswith(after):
                found.add(name.removeprefix(before).removesuffix(after))
        return found | {guest for guest, _ in self._disks().values()}

    def ours(self, has: Record) -> bool:
        return bool(has["other_config"].get(MARK) == self.testbed)

    def start(self, ref: str, say: Say) -> None:
        """On our host; no error where it runs already."""
        self.wake("VM.start_on", ref, self.place.host, False, False, say=say)

    def wake(self, method: str, ref: str, *args: Any, say: Say) -> None:
        """Have it run, by a call that starts, resumes or unpauses it; none where it runs already.

        One whose answer was lost may have done it meanwhile.
        """
        try:
            self.tasks.run(method, ref, *args, say=say)
        except Failure as e:
            state = self.session.call("VM.get_power_state", ref)
            if code(e) != "VM_BAD_POWER_STATE" or state != RUNNING:
                raise

    def stop(self, ref: str) -> None:
        """At once; no error where it does not run, or is gone."""
        with but("VM_BAD_POWER_STATE", *GONE):
            self.tasks.run("VM.hard_shutdown", ref)

    def vanish(self, guest: str) -> None:
        """End all that there is of a guest: VMs, snapshots, disks. Raises Foreign, failures."""
        found = self.own(guest)
        for vm in [*([found] if found is not None else []), *self.half_made(guest)]:
            self.end(vm.ref, guest)
        for ref, (of, _) in self._disks().items():
            if of == guest:
                with gone_is_fine():
                    self.tasks.run("VDI.destroy", ref)

    def end(self, ref: str, guest: str) -> None:
        """A VM, its snapshots, and the disks of both; what is gone already is no error."""
        self.stop(ref)
        with gone_is_fine():
            for snapshot in self.session.call("VM.get_snapshots", ref):
                self.remove(snapshot, guest)
            self.remove(ref, guest)

    def remove(self, ref: str, guest: str) -> None:
        """A VM or snapshot that does not run, and its disks: the record first, as it goes.

        A disk that somebody else has put in stays; one that is half made has only ours.
        """
        with gone_is_fine():
            half = self.session.call("VM.get_name_label", ref) == self.making(guest)
            disks = self.mark_disks(ref, guest, made=half)
            memory = self.session.call("VM.get_suspend_VDI", ref)
            if not null(memory):  # or nobody would know whose it is once the VM is gone
                self._mark_disk(memory, guest)
                disks.append(memory)
            with gone_is_fine():
                self.tasks.run("VM.destroy", ref)
            for vdi in disks:
                with gone_is_fine():
                    self.tasks.run("VDI.destroy", vdi)

    def mark_disks(self, ref: str, guest: str, *, made: bool = False) -> list[str]:
        """The VM's disks that are ours; ``made``: we have just made them all, and mark them."""
        found = []
        for vbd in self.session.call("VM.get_VBDs", ref):
            record = self.session.call("VBD.get_record", vbd)
            if record["type"] != "Disk" or record["empty"]:
                continue
            vdi = record["VDI"]
            if made:
                self._mark_disk(vdi, guest)
            elif self.session.call("VDI.get_other_config", vdi).get(MARK) != self.testbed:
                continue
            found.append(str(vdi))
        return found

    def _mark_disk(self, vdi: str, guest: str) -> None:
        other = self.session.call("VDI.get_other_config", vdi)
        self.set_keys("VDI", vdi, {MARK: self.testbed, shape.GUEST: guest}, other)

    def set_keys(
        self, cls: str, ref: str, wanted: Mapping[str, str | None], has: Mapping[str, str],
        field: str = "other_config",
    ) -> None:  # fmt: skip
        """Keys of a map, each as wanted, None = absent; others stay as they are."""
        for key, value in wanted.items():
            if has.get(key) == value:
                continue
            if key in has:
                self.session.call(f"{cls}.remove_from_{field}", ref, key)
            if value is not None:
                self.session.call(f"{cls}.add_to_{field}", ref, key, value)

    def settle(self, guest: str, also: Iterable[tuple[str, str]] = ()) -> None:
        """Wait for what is being done to a guest's VMs, and to ``also`` (class, reference)."""
        for vm in (*self._named(self.name(guest)), *self.half_made(guest)):
            self.tasks.idle("VM", vm.ref)
        for cls, ref in also:
            self.tasks.idle(cls, ref)

    def _named(self, name: str) -> list[Vm]:
        found = []
        for ref in self.session.call("VM.get_by_name_label", name):
            try:
                has = self.session.call("VM.get_record", ref)
            except Failure as e:
                if code(e) not in GONE:
                    raise
            else:
                if _plain(has):
                    found.append(Vm(ref, has))
        return found

    def _disks(self) -> dict[str, tuple[str, Record]]:
        """The testbed's disks that no VM has, by reference, each with its guest."""
        found = {}
        for ref, vdi in self.session.call("VDI.get_all_records").items():
            other = vdi["other_config"]
            if other.get(MARK) == self.testbed and shape.GUEST in other and not vdi["VBDs"]:
                found[ref] = (str(other[shape.GUEST]), vdi)
        return found


def _plain(has: Record) -> bool:
    """No snapshot and no dom0. A clone is a template until it is provisioned."""
    return not has["is_a_snapshot"] and not has["is_control_domain"]
