"""How cmdlets show what there is: objects with the properties of the module's classes."""

from __future__ import annotations

import time
from datetime import timedelta

from tests.peers.hyperv.model import Adapter, Drive, Machine, Snapshot, enum, state
from tests.peers.hyperv.model import Switch as VSwitch
from tests.peers.hyperv.world import World
from tests.peers.powershell.values import PSObject

KINDS = ("Private", "Internal", "External")
TYPE = "Microsoft.HyperV.PowerShell"


def machine(world: World, one: Machine) -> PSObject:
    """A VirtualMachine."""
    config, running = one.config, one.state in ("Running", "Paused")
    beats = running and one.ready and config.services.get("Heartbeat", True)
    heartbeat = "OkApplicationsUnknown" if beats else "NoContact" if running else "Disabled"
    parent = next((s for s in one.snapshots if s.id == one.current), None)
    up_s = time.monotonic() - one.started_at if running else 0
    dynamic = config.dynamic_memory
    return PSObject({
        "Name": one.name, "VMName": one.name, "Id": one.id, "VMId": one.id,
        "State": state(one.state), "Status": "Operating normally", "Generation": one.generation,
        "Version": "11.0", "ProcessorCount": config.processors,
        "MemoryStartup": config.memory, "MemoryMinimum": 512 << 20 if dynamic else config.memory,
        "MemoryMaximum": 1 << 40 if dynamic else config.memory,
        "MemoryAssigned": config.memory if running else 0, "DynamicMemoryEnabled": dynamic,
        "Notes": one.notes, "Path": one.path, "ConfigurationLocation": one.path,
        "SnapshotFileLocation": one.path, "CheckpointFileLocation": one.path,
        "SmartPagingFilePath": one.path, "ComputerName": world.name, "IsDeleted": False,
        "IsClustered": False, "CreationTime": one.created, "Uptime": timedelta(seconds=up_s),
        "CPUUsage": 0, "Heartbeat": enum("VMHeartbeatStatus", heartbeat),
        "IntegrationServicesState": "Up to date" if beats else "",
        "CheckpointType": enum("CheckpointType", one.checkpoint_type),
        "AutomaticCheckpointsEnabled": one.auto_checkpoints,
        "AutomaticStopAction": enum("StopAction", one.stop_action),
        "AutomaticStartAction": enum("StartAction", one.start_action),
        "AutomaticStartDelay": config.settings.get("AutomaticStartDelay", 0),
        "ParentSnapshotId": parent.id if parent else None,
        "ParentSnapshotName": parent.name if parent else None,
        "ParentCheckpointId": parent.id if parent else None,
        "ParentCheckpointName": parent.name if parent else None,
        "NetworkAdapters": [adapter(world, one, a) for a in config.adapters],
        "HardDrives": [drive(world, one, d) for d in config.drives if not d.dvd],
        "DVDDrives": [drive(world, one, d) for d in config.drives if d.dvd],
        "PrimaryStatusDescription": "Operating normally", "ReplicationState": None,
    }, f"{TYPE}.VirtualMachine")  # fmt: skip


def processor(one: Machine) -> PSObject:
    """A VMProcessor."""
    settings = one.config.settings
    return PSObject({
        "VMName": one.name, "VMId": one.id, "Count": one.config.processors,
        "RelativeWeight": one.config.weight, "Maximum": one.config.maximum,
        "Reserve": one.config.reserve, "Id": f"Microsoft:{one.id}\\b637f346", "Name": "Processor",
        "HwThreadCountPerCore": settings.get("HwThreadCountPerCore", 0),
        "ExposeVirtualizationExtensions": settings.get("ExposeVirtualizationExtensions", False),
        "CompatibilityForMigrationEnabled": settings.get("CompatibilityForMigrationEnabled", False),
        "ResourcePoolName": "Primordial",
    }, f"{TYPE}.VMProcessor")  # fmt: skip


def memory(one: Machine) -> PSObject:
    """A VMMemory."""
    config = one.config
    return PSObject({
        "VMName": one.name, "VMId": one.id, "DynamicMemoryEnabled": config.dynamic_memory,
        "Startup": config.memory, "Minimum": config.memory, "Maximum": config.memory,
        "Priority": config.settings.get("Priority", 50), "Buffer": 20, "Name": "Memory",
    }, f"{TYPE}.VMMemory")  # fmt: skip


def adapter(world: World, one: Machine | None, a: Adapter) -> PSObject:
    """A VMNetworkAdapter. ``BandwidthSetting`` is null where no bandwidth was ever set."""
    switch = world.switch(a.switch)
    bandwidth = None
    if a.maximum_bits or a.minimum_weight or a.minimum_bits:
        bandwidth = PSObject({
            "MaximumBandwidth": a.maximum_bits, "MinimumBandwidthWeight": a.minimum_weight,
            "MinimumBandwidthAbsolute": a.minimum_bits, "BurstLimit": 0, "BurstSize": 0,
        }, f"{TYPE}.VMNetworkAdapterBandwidthSetting")  # fmt: skip
    running = one is not None and one.state == "Running"
    shown = {
        "Name": a.name, "Id": f"Microsoft:{one.id if one else ''}\\{a.id}",
        "AdapterId": str(a.id), "IsLegacy": a.legacy, "IsManagementOs": one is None,
        "VMName": one.name if one else None, "VMId": one.id if one else None,
        "SwitchName": switch.name if switch else "", "SwitchId": switch.id if switch else None,
        "MacAddress": a.mac, "DynamicMacAddressEnabled": a.dynamic,
        "Connected": switch is not None, "ComputerName": world.name,
        "IPAddresses": [*a.addresses] if running else [],
        "Status": ["Ok"] if running and one and one.ready else [],
        "BandwidthSetting": bandwidth, "VMSnapshotName": "", "VMSnapshotId": None,
    }  # fmt: skip
    for name, value in _SETTINGS.items():
        shown[name] = a.settings.get(name, value)
    kind = "VMInternalNetworkAdapter" if one is None else "VMNetworkAdapter"
    return PSObject(shown, f"{TYPE}.{kind}")


_ON, _OFF = enum("OnOffState", "On", 0), enum("OnOffState", "Off", 1)
#: of a new adapter
_SETTINGS = {
    "VmqWeight": 100, "VrssEnabled": True, "IovWeight": 0, "MacAddressSpoofing": _OFF,
    "DhcpGuard": _OFF, "RouterGuard": _OFF, "AllowTeaming": _OFF, "DeviceNaming": _OFF,
    "IeeePriorityTag": _OFF,
}  # fmt: skip


def drive(world: World, one: Machine, d: Drive) -> PSObject:
    """A HardDiskDrive or DvdDrive."""
    kind = "DvdDrive" if d.dvd else "HardDiskDrive"
    name = f"{'DVD Drive' if d.dvd else 'Hard Drive'} on {d.controller} controller number"
    shown = {
        "Name": f"{name} {d.number} at location {d.location}", "VMName": one.name, "VMId": one.id,
        "ControllerType": enum("ControllerType", d.controller, int(d.controller == "SCSI")),
        "ControllerNumber": d.number, "ControllerLocation": d.location,
        "Path": d.path or None, "Id": f"Microsoft:{one.id}\\{d.id}", "PoolName": "Primordial",
        "ComputerName": world.name, "IsDeleted": False,
    }  # fmt: skip
    if d.dvd:
        shown["DvdMediaType"] = enum("DvdMediaType", "ISO" if d.path else "None")
    return PSObject(shown, f"{TYPE}.{kind}")


def snapshot(world: World, one: Machine, s: Snapshot) -> PSObject:
    """A VMSnapshot."""
    parent = next((p for p in one.snapshots if p.id == s.parent), None)
    return PSObject({
        "Name": s.name, "Id": s.id, "VMName": one.name, "VMId": one.id,
        "SnapshotType": enum("SnapshotType", "Standard"), "CreationTime": s.created,
        "ParentSnapshotId": s.parent, "ParentSnapshotName": parent.name if parent else None,
        "ParentCheckpointId": s.parent, "ParentCheckpointName": parent.name if parent else None,
        "State": state("Saved" if s.memory else "Off"), "ComputerName": world.name,
        "Notes": "", "IsAutomaticCheckpoint": False, "Path": one.path,
    }, f"{TYPE}.VMSnapshot")  # fmt: skip


def switch(world: World, s: VSwitch) -> PSObject:
    """A VMSwitch, which names its NIC by description and GUID, not by name."""
    nic = world.nic(s.nic) if s.nic else None
    return PSObject({
        "Name": s.name, "Id": s.id, "Notes": s.notes, "ComputerName": world.name,
        "SwitchType": enum("VMSwitchType", s.type, KINDS.index(s.type)),
        "AllowManagementOS": s.management,
        "NetAdapterInterfaceDescription": nic.description if nic else None,
        "NetAdapterInterfaceDescriptions": [nic.description] if nic else [],
        "NetAdapterInterfaceGuid": [nic.guid] if nic else [],
        "BandwidthReservationMode": enum("VMSwitchBandwidthMode", s.bandwidth),
        "IovEnabled": s.iov, "IovSupport": False, "IovSupportReasons": [],
        "EmbeddedTeamingEnabled": False, "PacketDirectEnabled": False, "IsDeleted": False,
        "DefaultFlowMinimumBandwidthWeight": 0, "DefaultFlowMinimumBandwidthAbsolute": 0,
    }, f"{TYPE}.VMSwitch")  # fmt: skip
