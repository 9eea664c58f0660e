"""What guests are made of: a template that the pool has, found by name or UUID."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

from drivers.xenserver.api import Record
from drivers.xenserver.connect import Session
from drivers.xenserver.place import MIB, Place, Storage
from provision.errors import UserError, did_you_mean

HVM = "hvm"
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Source:
    """A template. ``disks`` are its VDIs, each with its storage's reference and size."""

    ref: str
    name: str
    kind: str
    uefi: bool
    platform: Mapping[str, str]
    disks: tuple[tuple[str, str, int], ...]

    @property
    def hvm(self) -> bool:
        return self.kind == HVM

    @property
    def size_mib(self) -> int:
        return sum(size for _, _, size in self.disks) // MIB


@dataclass(slots=True)
class Sources:
    """Looked up once each, for all guests."""

    session: Session
    place: Place
    _known: dict[str, Source] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def find(self, name: str) -> Source:
        """Raises UserError with what there is, and failures."""
        with self._lock:
            if name not in self._known:
                self._known[name] = self._look(name)
            return self._known[name]

    def names(self) -> list[str]:
        """The templates that have disks."""
        vms = self.session.call("VM.get_all_records").values()
        return sorted({v["name_label"] for v in vms if _template(v) and not _installs(v)})

    def storage(self, source: Source) -> Storage:
        """Where guests' disks come to lie. Raises UserError where the host cannot reach it."""
        if self.place.storage is not None:
            return self.place.storage
        refs = {sr for _, sr, _ in source.disks}
        found = self.place.stored(next(iter(refs)))
        if len(refs) == 1 and found is not None:
            return found
        if self.place.home is None:
            raise UserError(f"hypervisor.storage: {self.place.name} has no storage for disks")
        return self.place.home

    def clones(self, source: Source) -> bool:
        """Whether guests' disks are copies on write: they stay where the template's are."""
        return {sr for _, sr, _ in source.disks} == {self.storage(source).ref}

    def _look(self, name: str) -> Source:
        vms = self.session.call("VM.get_all_records")
        found = {r: v for r, v in vms.items() if not v["is_a_snapshot"] and not _dom0(v)}
        hits = {r: v for r, v in found.items() if name in (v["name_label"], v["uuid"])}
        templates = {r: v for r, v in hits.items() if v["is_a_template"]}
        if not templates:
            raise UserError(f"guests.image: {self._none(name, hits, found)}")
        if len(templates) > 1:
            uuids = ", ".join(sorted(v["uuid"] for v in templates.values()))
            raise UserError(
                f"guests.image: {len(templates)} templates are called {name!r}: {uuids}",
                hint="give one's UUID",
            )
        ((ref, vm),) = templates.items()
        disks = tuple(self._disks(vm))
        if not disks:
            what = "installs a system" if _installs(vm) else "is empty"
            raise UserError(
                f"guests.image: template {name!r} has no disk: it {what}",
                hint="install a VM, with cloud-init, and make a template of it: docs/xenserver.md",
            )
        uefi = vm["HVM_boot_params"].get("firmware") == "uefi"
        return Source(ref, vm["name_label"], _kind(vm), uefi, dict(vm["platform"]), disks)

    def _none(
        self, name: str, hits: Mapping[str, Record], all_of_them: Mapping[str, Record]
    ) -> str:
        if hits:
            (uuid, *_) = [v["uuid"] for v in hits.values()]
            return (
                f"{name!r} is a VM, no template; copy it, and make a template of the copy: "
                f"xe vm-copy vm={uuid} new-name-label=NAME, xe vm-param-set is-a-template=true"
            )
        there = sorted({v["name_label"] for v in all_of_them.values()
                        if _template(v) and not _installs(v)})  # fmt: skip
        mean = did_you_mean(name, there)
        shown = f"templates with disks: {', '.join(there[:SHOWN])}" if there else "there are none"
        return f"no template {name!r}{mean}; {shown}"

    def _disks(self, vm: Record) -> list[tuple[str, str, int]]:
        found = []
        for ref in vm["VBDs"]:
            vbd = self.session.call("VBD.get_record", ref)
            if vbd["type"] == "Disk" and not vbd["empty"]:
                vdi = self.session.call("VDI.get_record", vbd["VDI"])
                found.append((vbd["VDI"], str(vdi["SR"]), int(vdi["virtual_size"])))
        return found


def _template(vm: Record) -> bool:
    return bool(vm["is_a_template"] and not vm["is_a_snapshot"])


def _installs(vm: Record) -> bool:
    """Whether it is one of those that describe disks to be made and to be installed on."""
    return bool(vm["is_default_template"] or "disks" in vm["other_config"] or not vm["VBDs"])


def _dom0(vm: Record) -> bool:
    return bool(vm["is_control_domain"])


def _kind(vm: Record) -> str:
    """``hvm`` or a sort of PV; older records say it by their boot policy alone."""
    if vm["domain_type"] != "unspecified":
        return str(vm["domain_type"])
    return HVM if vm["HVM_boot_policy"] else "pv"
