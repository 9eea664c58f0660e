"""What VirtualBox has: machines, their adapters and disks, snapshots, and the host's networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Protocol
from uuid import uuid4

CODES = {
    "VBOX_E_OBJECT_NOT_FOUND": 0x80BB0001, "VBOX_E_INVALID_VM_STATE": 0x80BB0002,
    "VBOX_E_VM_ERROR": 0x80BB0003, "VBOX_E_FILE_ERROR": 0x80BB0004,
    "VBOX_E_INVALID_OBJECT_STATE": 0x80BB0007, "VBOX_E_OBJECT_IN_USE": 0x80BB000C,
    "E_INVALIDARG": 0x80070057, "NS_ERROR_FAILURE": 0x80004005, "E_ACCESSDENIED": 0x80070005,
}  # fmt: skip
UNLOCK_S = 0.1  # a machine that went off is locked for some time more
NICS = 8  # of the PIIX3 chipset


class VboxError(Exception):
    """As VirtualBox tells it; ``code`` "" is VBoxManage's own objection."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code

    def told(self) -> str:
        text = f"VBoxManage: error: {self}\n"
        if not self.code:
            return text
        return (
            f"{text}VBoxManage: error: Details: code {self.code} ({CODES[self.code]:#x}), "
            "component MachineWrap, interface IMachine, callee nsISupports\n"
            'VBoxManage: error: Context: "the call" at line 1 of file VBoxManagePeer.cpp\n'
        )


class SyntaxFault(VboxError):
    """A word that the grammar does not have."""


@dataclass
class Nic:
    kind: str = "none"
    bridge: str = ""
    hostonly: str = ""
    type: str = "82540EM"
    mac: str = ""
    connected: bool = True
    limit: str = "none"


@dataclass
class Snapshot:
    """``hardware`` and ``online`` (with memory) are as they were."""

    name: str
    hardware: Hardware
    online: bool
    uuid: str = field(default_factory=lambda: str(uuid4()))
    disk: str = ""


@dataclass
class Hardware:
    """All of a machine that a snapshot holds. ``media`` is by (controller, port, device)."""

    cpus: int = 1
    memory: int = 128
    cap: int = 100
    ioapic: bool = False
    nics: list[Nic] = field(default_factory=lambda: [Nic() for _ in range(NICS)])
    limits: dict[str, tuple[str, int]] = field(default_factory=dict)
    controllers: dict[str, int] = field(default_factory=dict)
    media: dict[tuple[str, int, int], str] = field(default_factory=dict)
    uart: tuple[str, str] = ("", "")


@dataclass
class Machine:
    name: str
    uuid: str
    groups: tuple[str, ...]
    folder: Path
    hardware: Hardware = field(default_factory=Hardware)
    state: str = "poweroff"
    extra: dict[str, str] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    unlocked_at: float = 0.0

    @property
    def settings(self) -> Path:
        return self.folder / f"{self.name}.vbox"

    @property
    def current(self) -> Snapshot | None:
        return self.snapshots[-1] if self.snapshots else None

    @property
    def on(self) -> bool:
        """Whether its own session has it."""
        return self.state in ("running", "paused", "starting", "stopping", "saving", "restoring")

    @property
    def locked(self) -> bool:
        return self.on or time.monotonic() < self.unlocked_at

    def lock(self) -> None:
        """As LockMachine(LockType_Write)."""
        if self.locked:
            raise VboxError(
                f"The machine '{self.name}' is already locked for a session (or being unlocked)",
                "VBOX_E_INVALID_OBJECT_STATE",
            )

    def mutable(self) -> None:
        if self.state not in ("poweroff", "aborted"):
            raise VboxError(
                f"The machine is not mutable (state is {self.state.capitalize()})",
                "VBOX_E_INVALID_VM_STATE",
            )

    def snapshot(self, word: str) -> Snapshot:
        for found in reversed(self.snapshots):
            if word in (found.name, found.uuid):
                return found
        raise VboxError(f"Could not find a snapshot named '{word}'", "VBOX_E_OBJECT_NOT_FOUND")

    def keep(self, name: str) -> Snapshot:
        return Snapshot(name, deepcopy(self.hardware), self.on)

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings.write_text(repr(self))


class Inside(Protocol):
    """What runs in machines that run."""

    def start(self, machine: Machine) -> None: ...
    def stop(self, machine: Machine) -> None: ...
    def snapshot(self, machine: Machine, snapshot: Snapshot) -> None: ...
    def revert(self, machine: Machine, snapshot: Snapshot) -> None: ...
    def remove(self, machine: Machine) -> None: ...


@dataclass
class World:
    """``interfaces`` tells the host's NICs; ``hostonly`` are VirtualBox's own among them."""

    root: Path
    interfaces: Callable[[], list[str]]
    hostonly: list[str] = field(default_factory=list)
    machines: list[Machine] = field(default_factory=list)
    inside: Inside | None = None
    #: files that VirtualBox has open as DVDs
    dvds: set[str] = field(default_factory=set)
    lock: RLock = field(default_factory=RLock, repr=False)

    def machine(self, word: str) -> Machine:
        for found in self.machines:
            if word in (found.name, found.uuid):
                return found
        raise VboxError(
            f"Could not find a registered machine named '{word}'", "VBOX_E_OBJECT_NOT_FOUND"
        )

    def base(self, name: str) -> Machine:
        """A powered off VM with a disk, an empty DVD drive and a snapshot, as a user makes one."""
        made = Machine(name, str(uuid4()), ("/",), self.root / name)
        made.hardware.controllers = {"IDE": 2, "SATA": 1}
        disk = made.folder / f"{name}.vdi"
        made.save()
        disk.write_text("a disk")
        made.hardware.media = {("SATA", 0, 0): str(disk), ("IDE", 1, 0): "emptydrive"}
        made.snapshots.append(made.keep("base"))
        made.save()
        self.machines.append(made)
        return made

    def inventory(self) -> dict[str, object]:
        """All that there is, for comparisons: nothing of it may change but by who owns it."""
        files = sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*"))
        return {
            "machines": {m.uuid: repr((m.name, m.groups, m.hardware, m.state, m.extra,
                                       m.snapshots)) for m in self.machines},
            "files": files, "dvds": set(self.dvds),
        }  # fmt: skip
