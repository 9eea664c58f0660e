"""A guest's clean state: a checkpoint with its memory where it can be had, and the way back to it.

XenAPI: VM.checkpoint, VM.snapshot, VM.revert. A revert makes a VM's VIFs, VBDs and disks anew: all
references that were known before it lead nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivers.xenserver.api import Failure, Record, code
from drivers.xenserver.tasks import Say
from drivers.xenserver.vms import SUSPENDED, Vm, Vms
from provision.errors import DriverError

CLEAN = "provision-clean"
#: a guest's memory cannot be kept: no PV drivers in it, no licence, no room
NO_MEMORY = frozenset({
    "VM_MISSING_PV_DRIVERS", "VM_LACKS_FEATURE", "VM_LACKS_FEATURE_SUSPEND", "LICENCE_RESTRICTION",
    "OPERATION_NOT_ALLOWED", "VM_NO_SUSPEND_SR", "VM_OLD_PV_DRIVERS",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Of one testbed's VMs. All raise failures."""

    vms: Vms

    def take(self, vm: Vm, guest: str, token: str) -> None:
        """Remember the guest as it is, in place of what was remembered.

        ``token`` is of this call alone: a snapshot that bears it already is of a try whose answer
        was lost.
        """
        name = f"{CLEAN} {token}"
        found = self._named(vm)
        if not any(has["name_label"] == name for has in found.values()):
            self._take(vm.ref, name)
        for ref, has in found.items():
            if has["name_label"] != name:
                self.vms.remove(ref, guest)

    def kept(self, vm: Vm) -> bool:
        """Whether ``back`` would find one."""
        return bool(self._named(vm))

    def forget(self, vm: Vm, guest: str) -> None:
        """No error where there is nothing to forget."""
        for ref in self._named(vm):
            self.vms.remove(ref, guest)

    def back(self, vm: Vm, guest: str, say: Say) -> bool:
        """Whether it runs again with its memory, else it has booted.

        Raises DriverError where nothing is remembered.
        """
        found = self._named(vm)
        if not found:
            raise DriverError(
                f"guest {guest} has no checkpoint", hint="provision reset --level recreate"
            )
        newest = max(found, key=lambda ref: str(found[ref]["snapshot_time"]))
        self.vms.tasks.run("VM.revert", newest, say=say)
        if self.vms.session.call("VM.get_power_state", vm.ref) == SUSPENDED:
            self.vms.wake("VM.resume", vm.ref, False, False, say=say)
            return True
        self.vms.start(vm.ref, say)
        return False

    def _take(self, ref: str, name: str) -> None:
        try:
            self.vms.tasks.run("VM.checkpoint", ref, name)
        except Failure as e:
            if code(e) not in NO_MEMORY:
                raise
            self.vms.tasks.run("VM.snapshot", ref, name, [])

    def _named(self, vm: Vm) -> dict[str, Record]:
        call = self.vms.session.call
        found = {ref: call("VM.get_record", ref) for ref in call("VM.get_snapshots", vm.ref)}
        return {r: has for r, has in found.items() if str(has["name_label"]).startswith(CLEAN)}
