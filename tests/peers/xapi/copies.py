"""VMs from VMs: clones, copies, snapshots, checkpoints, and the way back.

A clone takes over its source's VIFs and CDs; a snapshot keeps their MACs. A revert makes VIFs,
VBDs and disks anew: their old references are gone (xapi_vm_clone.ml, xapi_vm_snapshot.ml).
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from tests.peers.xapi import rules
from tests.peers.xapi.core import Handler, World
from tests.peers.xapi.disks import Disks
from tests.peers.xapi.nets import mac_of
from tests.peers.xapi.power import Power
from tests.peers.xapi.store import BACK, Record, now, null
from tests.peers.xapi.values import NULL, Failure

#: of a VM itself, and of no copy
OWN = frozenset({
    "uuid", "current_operations", "allowed_operations", "power_state", "resident_on", "domid",
    "guest_metrics", "metrics", "is_default_template", "suspend_VDI", "snapshot_of",
    "snapshot_time", "is_a_snapshot", "parent", "snapshot_info", "snapshot_metadata",
})  # fmt: skip
#: what a revert leaves as it is (xapi_vm_snapshot.ml, ``do_not_copy``)
KEPT = OWN | {"name_label", "is_a_template", "tags", "affinity", "scheduled_to_be_resident_on"}
_VIF = ("device", "network", "MTU", "other_config", "qos_algorithm_type", "qos_algorithm_params",
        "locking_mode", "ipv4_allowed", "ipv6_allowed")  # fmt: skip
_VBD = ("userdevice", "bootable", "mode", "type", "unpluggable", "empty", "other_config",
        "qos_algorithm_type", "qos_algorithm_params")  # fmt: skip


class Copies:
    def __init__(self, world: World, disks: Disks, power: Power) -> None:
        self.world, self.store = world, world.store
        self.disks, self.power = disks, power

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "VM.clone": self.clone, "VM.copy": self.copy, "VM.snapshot": self.snapshot,
            "VM.checkpoint": self.checkpoint, "VM.revert": self.revert,
            "VM.provision": self.provision, "VM.destroy": self.destroy,
        }  # fmt: skip

    def clone(self, ref: str, name: str) -> str:
        rules.check(self.store, ref, "clone")
        return self._copied(ref, name, self.disks.clone)

    def copy(self, ref: str, name: str, sr: str) -> str:
        rules.check(self.store, ref, "copy")
        if not null(sr):
            self.store.get("SR", sr)
        return self._copied(
            ref, name, lambda vdi: self.disks.copy(
                vdi, self.store.get("VDI", vdi)["SR"] if null(sr) else sr
            )
        )  # fmt: skip

    def snapshot(self, ref: str, name: str, ignored: tuple[str, ...] | list[str] = ()) -> str:
        rules.check(self.store, ref, "snapshot")
        return self._snapshot(ref, name, "Halted", ignored)

    def checkpoint(self, ref: str, name: str) -> str:
        rules.check(self.store, ref, "checkpoint")
        state = self.store.get("VM", ref)["power_state"]
        sr, size = self.power.suspend_room(ref)
        memory = self.disks.make(
            {"SR": sr, "virtual_size": str(size), "type": "suspend", "name_label": "Suspend image"},
            size,
        )  # fmt: skip
        try:
            snap = self._snapshot(ref, name, "Suspended", ())
        except Failure:
            self.disks.destroy(memory)
            raise
        self.store.put("VM", snap, suspend_VDI=memory)
        if state == "Running":
            self.power.renumber(ref)  # it was suspended and resumed
        return snap

    def _snapshot(
        self, ref: str, name: str, state: str, ignored: tuple[str, ...] | list[str]
    ) -> str:
        vm = self.store.get("VM", ref)
        snap = self._copied(
            ref, name, lambda vdi: self.disks.clone(vdi, snapshot=True), snapshot=True,
            ignored=ignored,
        )  # fmt: skip
        self.store.put(
            "VM", snap, is_a_snapshot=True, is_a_template=True, snapshot_of=ref,
            snapshot_time=now(), power_state=state, parent=vm["parent"],
            snapshot_info={"power-state-at-snapshot": vm["power_state"],
                           "disk-snapshot-type": "crash_consistent"},
        )  # fmt: skip
        self.store.put("VM", ref, parent=snap)
        return snap

    def _copied(
        self, ref: str, name: str, disk: Any, *, snapshot: bool = False,
        ignored: tuple[str, ...] | list[str] = (),
    ) -> str:  # fmt: skip
        """A VM with copies of all that the VM has; what was made of it is undone on failure."""
        vm, made = self.store.get("VM", ref), []
        vbds = [(k, v) for k, v in self.store.each("VBD", VM=ref) if v["VDI"] not in ignored]
        try:
            vdis = {}
            for key, vbd in vbds:
                vdis[key] = vbd["VDI"]
                if vbd["type"] == "Disk":
                    vdis[key] = disk(vbd["VDI"])
                    made.append(vdis[key])
        except Failure:
            for vdi in made:
                self.disks.destroy(vdi)
            raise
        new = self._record(vm, name, snapshot=snapshot)
        for key, vbd in vbds:
            self._vbd(vbd, new, vdis[key])
        for _, vif in self.store.each("VIF", VM=ref):
            self._vif(vif, new, vif["MAC"] if snapshot else "")
        return new

    def _record(self, vm: Record, name: str, *, snapshot: bool) -> str:
        given = {k: copy.deepcopy(v) for k, v in vm.items()
                 if k not in OWN and ("VM", k) not in BACK}  # fmt: skip
        other = dict(given["other_config"])
        if not snapshot:
            other.pop("default_template", None)
            other["mac_seed"] = str(uuid.uuid4())
        given |= {"name_label": name, "other_config": other, "domid": "-1"}
        return self.store.new("VM", **given, metrics=self.store.new("VM_metrics"))

    def _vbd(self, vbd: Record, vm: str, vdi: str) -> None:
        self.store.new("VBD", VM=vm, VDI=vdi, **{name: vbd[name] for name in _VBD})

    def _vif(self, vif: Record, vm: str, mac: str) -> None:
        seed = self.store.get("VM", vm)["other_config"].get("mac_seed", "")
        self.store.new(
            "VIF", VM=vm, MAC=mac or mac_of(int(vif["device"]), seed),
            MAC_autogenerated=not mac or vif["MAC_autogenerated"],
            **{name: vif[name] for name in _VIF},
        )  # fmt: skip

    def revert(self, snap: str) -> None:
        rules.check(self.store, snap, "revert")
        shot = self.store.get("VM", snap)
        ref = shot["snapshot_of"]
        if not self.store.has("VM", ref):
            raise Failure("VM_REVERT_FAILED", ref, snap)
        vm = self.store.get("VM", ref)
        if vm["power_state"] != "Halted":
            self.power.stop(ref)
        shots = {self.store.get("VDI", v["VDI"])["snapshot_of"]
                 for _, v in self.store.each("VBD", VM=snap, type="Disk")}  # fmt: skip
        self._clear(ref, shots)
        for _, vbd in self.store.each("VBD", VM=snap):
            vdi = vbd["VDI"]
            if vbd["type"] == "Disk":
                vdi = self._restored(vdi)
            self._vbd(vbd, ref, vdi)
        for _, vif in self.store.each("VIF", VM=snap):
            self._vif(vif, ref, vif["MAC"])
        given = {k: v for k, v in shot.items() if k not in KEPT and ("VM", k) not in BACK}
        self.store.put("VM", ref, **given, parent=snap, power_state=shot["power_state"])
        if not null(shot["suspend_VDI"]):
            memory = self.disks.clone(shot["suspend_VDI"])
            self.store.put("VM", ref, suspend_VDI=memory)

    def _restored(self, shot: str) -> str:
        """A disk as the snapshot has it; all snapshots of the old one are the new one's."""
        new, former = self.disks.clone(shot), self.store.get("VDI", shot)["snapshot_of"]
        for other in self.store.refs("VDI", snapshot_of=former):
            self.store.put("VDI", other, snapshot_of=new)
        return new

    def _clear(self, ref: str, shots: set[str]) -> None:
        """Drop a VM's devices, and the disks that the snapshot has."""
        for vif in self.store.refs("VIF", VM=ref):
            self.store.drop("VIF", vif)
        for key, vbd in self.store.each("VBD", VM=ref):
            self.store.drop("VBD", key)
            if vbd["type"] == "Disk" and vbd["VDI"] in shots and self.store.has("VDI", vbd["VDI"]):
                self.disks.destroy(vbd["VDI"])

    def provision(self, ref: str) -> None:
        """A VM of the template, with the disks that a default template describes."""
        rules.check(self.store, ref, "provision")
        vm = self.store.get("VM", ref)
        other = dict(vm["other_config"])
        if described := other.pop("disks", ""):
            for number, disk in enumerate(ElementTree.fromstring(described).iter("disk")):
                self._make(ref, vm["name_label"], number, disk.attrib)
        other.pop("default_template", None)
        self.store.put(
            "VM", ref, is_a_template=False, is_default_template=False, other_config=other
        )

    def _make(self, ref: str, name: str, number: int, disk: Mapping[str, str]) -> None:
        sr = disk.get("sr") or self.world.pool["default_SR"]
        found = self.store.refs("SR", uuid=sr)
        sr = found[0] if found else sr
        size = int(disk["size"])
        self.store.get("SR", sr)
        vdi = self.disks.make(
            {"SR": sr, "virtual_size": str(size), "type": disk.get("type", "system"),
             "name_label": f"{name} {number}"}, self.disks.cost(sr, size),
        )  # fmt: skip
        self.store.new(
            "VBD", VM=ref, VDI=vdi, userdevice=disk.get("device", str(number)), type="Disk",
            mode="RW", bootable=disk.get("bootable") == "true",
        )  # fmt: skip

    def destroy(self, ref: str) -> None:
        """The record, its VIFs and VBDs, its memory; the disks stay."""
        rules.check(self.store, ref, "destroy")
        vm = self.store.get("VM", ref)
        for cls in ("VIF", "VBD"):
            for one in self.store.refs(cls, VM=ref):
                self.store.drop(cls, one)
        for cls, name in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
            if self.store.has(cls, vm[name]):
                self.store.drop(cls, vm[name])
        if self.store.has("VDI", vm["suspend_VDI"]):
            self.disks.destroy(vm["suspend_VDI"])
        for child in self.store.refs("VM", parent=ref):
            self.store.put("VM", child, parent=vm["parent"] if vm["is_a_snapshot"] else NULL)
        self.store.drop("VM", ref)
