"""Storage: SRs with a real account of their space, VDIs, and VBDs that attach them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.peers.xapi import generic, rules
from tests.peers.xapi.core import Handler, World
from tests.peers.xapi.store import Record, now, null
from tests.peers.xapi.values import NULL, Failure

MIB = 1 << 20
#: what an empty disk takes: a header and tables where it is thin, else all of it
THIN, THIN_BYTES = frozenset({"ext", "nfs", "file", "xfs", "zfs"}), 2 * MIB
NO_SPACE = ("SR_BACKEND_FAILURE_44", "", "There is insufficient space", "")
DEVICES = "abcdefghijklmnop"


class Disks:
    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.store
        self.store.views["SR", "physical_utilisation"] = self.used
        self.store.views["SR", "virtual_allocation"] = self._allocated

    def handlers(self) -> Mapping[str, Handler]:
        found: dict[str, Handler] = {
            "VDI.create": self.create, "VDI.destroy": self.destroy, "VDI.copy": self.copy,
            "VDI.clone": lambda ref, _params=None: self.clone(ref),
            "VDI.snapshot": lambda ref, _params=None: self.clone(ref, snapshot=True),
            "VDI.resize": self.resize, "VBD.create": self.attach, "VBD.destroy": self.detach,
            "VBD.plug": self.plug, "VBD.unplug": self.unplug, "VBD.insert": self.insert,
            "VBD.eject": self.eject, "SR.scan": lambda ref: self.store.get("SR", ref) and None,
        }  # fmt: skip
        for name in ("name_label", "name_description", "read_only", "sharable", "on_boot"):
            found[f"VDI.set_{name}"] = self._setter("VDI", name)
        for name in ("name_label", "name_description", "shared"):
            found[f"SR.set_{name}"] = self._setter("SR", name)
        return found

    def _setter(self, cls: str, name: str) -> Handler:
        return lambda ref, value: generic.change(self.store, cls, ref, "set_", name, value)

    def used(self, sr: str) -> str:
        return str(sum(int(v["physical_utilisation"]) for _, v in self.store.each("VDI", SR=sr)))

    def _allocated(self, sr: str) -> str:
        return str(sum(int(v["virtual_size"]) for _, v in self.store.each("VDI", SR=sr)))

    def room(self, sr: str, size: int, code: tuple[str, ...] = ()) -> None:
        """Raises where so much does not fit: SR_FULL, or what the storage manager itself says."""
        free = int(self.store.get("SR", sr)["physical_size"]) - int(self.used(sr))
        if size > free:
            raise Failure(*code) if code else Failure("SR_FULL", size, free)

    def cost(self, sr: str, virtual: int) -> int:
        """What a new disk without contents takes."""
        thin = self.store.get("SR", sr)["type"] in THIN
        return THIN_BYTES if thin else -(-virtual // (4 * MIB)) * 4 * MIB

    def _live(self, sr: str) -> None:
        if not any(pbd["currently_attached"] for _, pbd in self.store.each("PBD", SR=sr)):
            raise Failure("SR_HAS_NO_PBDS", sr)

    def create(self, record: Record) -> str:
        given = generic.constructor(self.store, "VDI", record)
        size = int(given["virtual_size"])
        self._live(given["SR"])
        if self.store.get("SR", given["SR"])["content_type"] == "iso":
            raise Failure("SR_OPERATION_NOT_SUPPORTED", given["SR"])
        if size <= 0:
            raise Failure("INVALID_VALUE", "virtual_size", size)
        given["virtual_size"] = str(-(-size // (2 * MIB)) * 2 * MIB)  # as VHDs are
        return self.make(given, self.cost(given["SR"], size), NO_SPACE)

    def make(self, given: dict[str, Any], cost: int, code: tuple[str, ...] = ()) -> str:
        """A VDI that takes so many bytes of its SR."""
        self.room(given["SR"], cost, code)
        ref = self.store.new("VDI", **given, physical_utilisation=str(cost), managed=True)
        self.store.put("VDI", ref, location=self.store.get("VDI", ref)["uuid"])
        return ref

    def clone(self, ref: str, *, snapshot: bool = False) -> str:
        """Copy on write, in the same SR: only what differs takes space."""
        source = self.store.get("VDI", ref)
        self._live(source["SR"])
        given = _copied(source)
        if snapshot:
            given |= {"is_a_snapshot": True, "snapshot_of": ref, "snapshot_time": now()}
        new = self.make(given, self.cost(source["SR"], int(source["virtual_size"])))
        self._contents(ref, new, "snapshot" if snapshot else "clone")
        return new

    def copy(self, ref: str, sr: str, _base: str = NULL, into: str = NULL) -> str:
        source = self.store.get("VDI", ref)
        if not null(into):
            raise Failure("NOT_IMPLEMENTED", "VDI.copy into another")
        self._live(sr)
        cost = max(int(source["physical_utilisation"]), self.cost(sr, int(source["virtual_size"])))
        new = self.make({**_copied(source), "SR": sr}, cost)
        self._contents(ref, new, "clone")
        return new

    def _contents(self, source: str, new: str, verb: str) -> None:
        if source in self.world.disks:
            self.world.disks[new] = self.world.disks[source]
        self.world.machines.disk(verb, source, new)

    def resize(self, ref: str, size: str) -> None:
        vdi = self.store.get("VDI", ref)
        self._idle(ref, "resize")
        if int(size) < int(vdi["virtual_size"]):
            raise Failure("INVALID_VALUE", "size", size)
        more = self.cost(vdi["SR"], int(size)) - self.cost(vdi["SR"], int(vdi["virtual_size"]))
        self.room(vdi["SR"], more, NO_SPACE)
        used = str(int(vdi["physical_utilisation"]) + more)
        self.store.put("VDI", ref, virtual_size=size, physical_utilisation=used)

    def write(self, ref: str, data: bytes) -> None:
        """Contents that were uploaded, from the start of the disk."""
        vdi = self.store.get("VDI", ref)
        self._idle(ref, "update")
        if vdi["read_only"]:
            raise Failure("VDI_READONLY", ref)
        if len(data) > int(vdi["virtual_size"]):
            raise Failure("INTERNAL_ERROR", "Caught exception: no space left on the device")
        used = max(int(vdi["physical_utilisation"]), len(data))
        self.room(vdi["SR"], used - int(vdi["physical_utilisation"]), NO_SPACE)
        self.world.disks[ref] = data
        self.store.put("VDI", ref, physical_utilisation=str(used))

    def _idle(self, ref: str, operation: str) -> None:
        for _, vbd in self.store.each("VBD", VDI=ref):
            if vbd["currently_attached"]:
                raise Failure("VDI_IN_USE", ref, operation)

    def destroy(self, ref: str) -> None:
        vdi = self.store.get("VDI", ref)
        self._idle(ref, "destroy")
        self._live(vdi["SR"])
        self.store.drop("VDI", ref)
        self.world.disks.pop(ref, None)
        self.world.machines.disk("destroy", ref)

    def attach(self, record: Record) -> str:
        given = generic.constructor(self.store, "VBD", record)
        vm, kind = given["VM"], given["type"]
        if null(given["VDI"]) != given["empty"]:
            raise Failure("INVALID_VALUE", "empty", given["empty"])
        if given["empty"] and kind != "CD":
            raise Failure("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
        if kind == "CD" and given["mode"] != "RO":
            raise Failure("VBD_CDS_MUST_BE_READONLY")
        writes = given["mode"] == "RW" and not given["empty"]
        if writes and self.store.get("VDI", given["VDI"])["read_only"]:
            raise Failure("VDI_READONLY", given["VDI"])
        taken = {one["userdevice"] for _, one in self.store.each("VBD", VM=vm)}
        place = given["userdevice"]
        if place == "autodetect":
            place = next(str(n) for n in range(16) if str(n) not in taken)
        if not (place.isdigit() and int(place) < 16):
            raise Failure("INVALID_DEVICE", place)
        if place in taken:
            raise Failure("DEVICE_ALREADY_EXISTS", place)
        if given.get("currently_attached"):
            raise Failure("OPERATION_NOT_ALLOWED", "a VBD is attached by its VM's start or by plug")
        return self.store.new("VBD", **{**given, "userdevice": place})

    def detach(self, ref: str) -> None:
        vbd = self.store.get("VBD", ref)
        if vbd["currently_attached"]:
            why = f"VBD '{vbd['uuid']}' still attached to '{vbd['VM']}'"
            raise Failure("OPERATION_NOT_ALLOWED", why)
        self.store.drop("VBD", ref)

    def check_free(self, ref: str, vbd: Record) -> None:
        """Raises where somebody else has the disk, or it is gone."""
        if vbd["empty"]:
            return
        vdi = self.store.get("VDI", vbd["VDI"])
        others = [
            one for other, one in self.store.each("VBD", VDI=vbd["VDI"])
            if other != ref and one["currently_attached"]
        ]  # fmt: skip
        writes = vbd["mode"] == "RW"
        if not vdi["sharable"] and (
            any(one["mode"] == "RW" for one in others) or (writes and others)
        ):
            raise Failure("VDI_IN_USE", vbd["VDI"], "attach")
        if writes and vdi["read_only"]:
            raise Failure("VDI_READONLY", vbd["VDI"])

    def mount(self, ref: str, vbd: Record) -> None:
        """Attached to a running VM."""
        self.check_free(ref, vbd)
        prefix = "xvd"
        device = "" if vbd["empty"] else f"{prefix}{DEVICES[int(vbd['userdevice'])]}"
        self.store.put("VBD", ref, currently_attached=True, device=device)

    def plug(self, ref: str) -> None:
        vbd = self._running(ref)
        if vbd["currently_attached"]:
            raise Failure("DEVICE_ALREADY_ATTACHED", ref)
        self.mount(ref, vbd)
        self.world.machines.changed(vbd["VM"])

    def unplug(self, ref: str) -> None:
        vbd = self._running(ref)
        if not vbd["currently_attached"]:
            raise Failure("DEVICE_ALREADY_DETACHED", ref)
        self.store.put("VBD", ref, currently_attached=False, device="")
        self.world.machines.changed(vbd["VM"])

    def _running(self, ref: str) -> Record:
        vbd = self.store.get("VBD", ref)
        state = self.store.get("VM", vbd["VM"])["power_state"]
        if state != "Running":
            raise Failure("VM_BAD_POWER_STATE", vbd["VM"], "running", state.lower())
        hvm = self.store.get("VM", vbd["VM"])["domain_type"] == "hvm"
        if hvm and vbd["type"] == "CD":
            why = "HVM CDROMs cannot be hotplugged/unplugged, only inserted or ejected"
            raise Failure("OPERATION_NOT_ALLOWED", why)
        if hvm and not rules.has_drivers(self.store, vbd["VM"]):
            raise Failure("VM_MISSING_PV_DRIVERS", vbd["VM"])
        return vbd

    def insert(self, ref: str, vdi: str) -> None:
        vbd = self.store.get("VBD", ref)
        if vbd["type"] != "CD":
            raise Failure("VBD_NOT_REMOVABLE_MEDIA", ref)
        if not vbd["empty"]:
            raise Failure("VBD_NOT_EMPTY", ref)
        self.store.get("VDI", vdi)
        self.store.put("VBD", ref, VDI=vdi, empty=False)

    def eject(self, ref: str) -> None:
        vbd = self.store.get("VBD", ref)
        if vbd["type"] != "CD":
            raise Failure("VBD_NOT_REMOVABLE_MEDIA", ref)
        if vbd["empty"]:
            raise Failure("VBD_IS_EMPTY", ref)
        self.store.put("VBD", ref, VDI=NULL, empty=True)


def _copied(source: Record) -> dict[str, Any]:
    """What a copy of a disk has of its source."""
    names = ("name_label", "name_description", "SR", "virtual_size", "type", "sharable",
             "read_only", "other_config", "xenstore_data", "sm_config", "tags")  # fmt: skip
    return {name: source[name] for name in names}
