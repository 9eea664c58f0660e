"""What a host has: the state that cmdlets read and change."""

from __future__ import annotations

import copy
import ntpath
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from tests.peers.powershell.values import EnumValue

NO_MAC = "0" * 12
#: Microsoft.HyperV.PowerShell.VMState
STATES = {
    "Other": 1, "Running": 2, "Off": 3, "Stopping": 4, "Saved": 6, "Paused": 9, "Starting": 10,
    "Reset": 11, "Saving": 32773, "Pausing": 32776, "Resuming": 32777,
}  # fmt: skip


def guid() -> uuid.UUID:
    return uuid.uuid4()


def enum(type: str, name: str, number: int = 0) -> EnumValue:
    return EnumValue(f"Microsoft.HyperV.PowerShell.{type}", name, number)


def state(name: str) -> EnumValue:
    return enum("VMState", name, STATES[name])


@dataclass
class Nic:
    """A physical NIC. ``switch`` is the id of the switch that has it; ``device`` the real one.

    ``addresses`` have prefixes; ``jumbo`` is the driver's *JumboPacket: a frame, headers and all.
    """

    name: str
    description: str
    mac: str
    index: int
    device: str = ""
    speed_mbit: int = 1000
    enabled: bool = True
    plugged: bool = True
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    jumbo: int = 1514
    rsc: bool = True
    team: str = ""
    switch: uuid.UUID | None = None
    unbound: set[str] = field(default_factory=set)
    guid: uuid.UUID = field(default_factory=guid)


@dataclass
class Switch:
    """``nic`` is the name of its physical NIC, "" = it has none."""

    name: str
    type: str
    nic: str = ""
    management: bool = False
    notes: str = ""
    bandwidth: str = "Absolute"
    iov: bool = False
    addresses: tuple[str, ...] = ()
    id: uuid.UUID = field(default_factory=guid)


@dataclass
class Adapter:
    """A virtual NIC of a VM; ``switch`` is an id. ``settings`` are those without a field."""

    name: str
    legacy: bool = False
    switch: uuid.UUID | None = None
    mac: str = NO_MAC
    dynamic: bool = True
    maximum_bits: int = 0
    minimum_weight: int = 0
    minimum_bits: int = 0
    settings: dict[str, object] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    id: uuid.UUID = field(default_factory=guid)


@dataclass
class Drive:
    """A disk or DVD drive: where it is plugged, and the file in it, "" = it is empty."""

    dvd: bool
    controller: str
    number: int
    location: int
    path: str = ""
    id: uuid.UUID = field(default_factory=guid)


@dataclass
class Config:
    """What a checkpoint keeps of a VM."""

    processors: int = 1
    weight: int = 100
    maximum: int = 100
    reserve: int = 0
    memory: int = 1 << 30
    dynamic_memory: bool = False
    settings: dict[str, object] = field(default_factory=dict)
    secure_boot: bool = True
    boot: tuple[str, ...] = ()
    adapters: list[Adapter] = field(default_factory=list)
    drives: list[Drive] = field(default_factory=list)
    services: dict[str, bool] = field(default_factory=dict)

    def copy(self) -> Config:
        return copy.deepcopy(self)


@dataclass
class Snapshot:
    """``memory``: the VM ran, and that is kept too. ``parent`` is an id."""

    name: str
    config: Config
    memory: bool
    parent: uuid.UUID | None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: uuid.UUID = field(default_factory=guid)


@dataclass
class Machine:
    """A VM."""

    name: str
    generation: int
    path: str
    config: Config = field(default_factory=Config)
    state: str = "Off"
    notes: str = ""
    checkpoint_type: str = "Production"
    auto_checkpoints: bool = False
    stop_action: str = "Save"
    start_action: str = "StartIfRunning"
    snapshots: list[Snapshot] = field(default_factory=list)
    current: uuid.UUID | None = None
    resumes: uuid.UUID | None = None
    ready: bool = False
    busy_s: float = 0
    started_at: float = 0
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: uuid.UUID = field(default_factory=guid)


@dataclass
class Disk:
    """What a VHD file holds; ``parent`` is a path, ``origin`` who it is whatever it is called."""

    kind: str
    size: int
    parent: str = ""
    sector: int = 512
    id: uuid.UUID = field(default_factory=guid)


@dataclass
class File:
    """``data`` of a plain file, ``disk`` of a VHD; a VHD has a size on disk all the same."""

    path: str
    data: bytes = b""
    disk: Disk | None = None
    length: int = 0
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def size(self) -> int:
        return self.length or len(self.data)


@lru_cache(maxsize=4096)
def normal(path: str) -> str:
    """A Windows path as it is compared."""
    return ntpath.normpath(path.replace("/", "\\")).lower().rstrip("\\")
