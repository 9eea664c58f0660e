"""What guests are made of: a template or VM that vSphere has, found by name or path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from drivers.vsphere.api import vim
from drivers.vsphere.connect import Session
from drivers.vsphere.place import Place
from drivers.vsphere.read import everything, get
from drivers.vsphere.spec import disks
from provision.errors import UserError, did_you_mean

HAS = (
    "name", "config.template", "config.guestId", "config.version", "config.firmware",
    "config.hardware", "snapshot", "runtime.powerState", "guest.toolsVersionStatus2",
)  # fmt: skip
NO_TOOLS = "guestToolsNotInstalled"


@dataclass(frozen=True, slots=True)
class Source:
    """A template, or a VM, as it was when first looked at.

    ``snapshot`` is its current one, None = it has none; ``devices`` are those of that snapshot.
    ``tools`` says whether VMware Tools were seen in it, None = not known.
    """

    ref: Any
    name: str
    template: bool
    guest_id: str
    hardware: str
    firmware: str
    snapshot: Any | None
    devices: Sequence[Any]
    running: bool
    tools: bool | None


@dataclass(slots=True)
class Sources:
    """Looked up once each, for all guests."""

    session: Session
    place: Place
    _known: dict[str, Source] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def find(self, name: str) -> Source:
        """By name, or by path from the root as ``DC/vm/folder/name``.

        Raises UserError with what there is, and faults.
        """
        with self._lock:
            if name not in self._known:
                self._known[name] = self._look(name)
            return self._known[name]

    def _look(self, name: str) -> Source:
        index = self.session.content.searchIndex
        if "/" in name:
            ref = index.FindByInventoryPath(name.strip("/"))
        else:
            ref = index.FindChild(self.place.vm_folder, name)
        if not isinstance(ref, vim.VirtualMachine):
            ref = self._search(name)
        has = get(self.session, ref, *HAS)
        if "config.hardware" not in has:
            raise UserError(f"guests.image: {name!r} has no configuration: the host has lost it")
        shots = has.get("snapshot")
        snapshot = shots.currentSnapshot if shots is not None else None
        hardware = has["config.hardware"]
        if snapshot is not None:
            hardware = get(self.session, snapshot, "config.hardware").get(
                "config.hardware", hardware
            )
        if not disks(hardware.device):
            raise UserError(f"guests.image: {name!r} has no disk")
        tools = has.get("guest.toolsVersionStatus2")
        return Source(
            ref=ref,
            name=name,
            template=bool(has.get("config.template")),
            guest_id=str(has["config.guestId"]),
            hardware=str(has.get("config.version", "")),
            firmware=str(has.get("config.firmware") or "bios"),
            snapshot=snapshot,
            devices=tuple(hardware.device),
            running=str(has["runtime.powerState"]) != "poweredOff",
            tools=None if tools is None else str(tools) != NO_TOOLS,
        )

    def _search(self, name: str) -> Any:
        """In all folders. Raises UserError where it is in none, or in several."""
        found = everything(self.session, vim.VirtualMachine, "name", "config.template")
        last = name.rpartition("/")[2]
        hits = [f.ref for f in found if "/" not in name and f.has.get("name") == last]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise UserError(
                f"guests.image: {len(hits)} VMs are called {name!r}",
                hint=f"give its path: {self.place.datacenter_path}/vm/FOLDER/{name}",
            )
        raise UserError(
            f"guests.image: no template or VM {name!r}{_others(name, found)}",
            hint="the name of a template, or the path of a qcow2, raw or vmdk file",
        )


def _others(name: str, found: Sequence[Any]) -> str:
    """What a wrong name could have meant."""
    named = [str(f.has.get("name", "")) for f in found]
    templates = sorted(str(f.has["name"]) for f in found if f.has.get("config.template"))
    shown = templates[:10]
    there = f"templates: {', '.join(shown)}" if shown else "there are no templates"
    return f"{did_you_mean(name, named)}; {there}"
