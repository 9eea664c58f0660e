"""The host itself: its facts, its counters, and that it restarts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.vms import bad, turn_off
from tests.peers.hyperv.world import World
from tests.peers.powershell.values import PSObject, text

MACHINES = "C:\\ProgramData\\Microsoft\\Windows\\Hyper-V"
ROOT = "C:\\ProgramData\\Microsoft\\Windows\\Virtual Hard Disks"
_WQL = re.compile(r"\s*(\w+)\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|(\w+))\s*")
_STATS = "Win32_PerfRawData_HvStats_HyperVHypervisor"


def get_host(world: World, bound: Bound) -> Iterable[Any]:
    return [PSObject({
        "Name": world.name, "ComputerName": world.name, "FullyQualifiedDomainName": world.name,
        "LogicalProcessorCount": world.processors, "MemoryCapacity": world.memory,
        "VirtualHardDiskPath": ROOT, "VirtualMachinePath": MACHINES,
        "NumaSpanningEnabled": True, "EnableEnhancedSessionMode": False, "IovSupport": False,
        "MacAddressMinimum": "00155D0A0BFF", "MacAddressMaximum": "00155D0A0BFF",
        "SupportedVmVersions": ["8.0", "9.0", "10.0", "11.0"],
    }, "Microsoft.HyperV.PowerShell.VMHost")]  # fmt: skip


def root_processors(world: World) -> int:
    """How many of the CPUs Windows itself sees: all, or as it was booted with."""
    return int(world.booted.get("hypervisorrootproc", str(world.processors)), 0)


def _instances(world: World, name: str) -> list[Mapping[str, Any]] | None:
    used = sum(m.config.memory for m in world.machines if m.state == "Running")
    seen = root_processors(world)
    match name:
        case "Win32_OperatingSystem":
            return [{
                "Version": "10.0.20348", "BuildNumber": "20348", "OSArchitecture": "64-bit",
                "Caption": "Microsoft Windows Server 2022 Datacenter", "CSName": world.name,
                "LastBootUpTime": datetime.fromtimestamp(world.booted_at, UTC),
                "LocalDateTime": datetime.now(UTC), "ProductType": 3,
                "TotalVisibleMemorySize": world.memory >> 10,
                "FreePhysicalMemory": (world.memory - used) >> 10,
            }]  # fmt: skip
        case "Win32_ComputerSystem":
            return [{
                "Name": world.name, "NumberOfLogicalProcessors": seen, "NumberOfProcessors": 1,
                "TotalPhysicalMemory": world.memory, "HypervisorPresent": True,
                "Manufacturer": "Simulated", "Model": "Host", "Domain": "WORKGROUP",
                "PartOfDomain": False,
            }]  # fmt: skip
        case "Win32_Processor":
            return [{
                "Name": "A processor of a simulated host", "NumberOfCores": world.processors,
                "NumberOfLogicalProcessors": seen, "MaxClockSpeed": 2400, "DeviceID": "CPU0",
            }]  # fmt: skip
        case "Win32_LogicalDisk":
            return [{
                "DeviceID": "C:", "DriveType": 3, "FreeSpace": world.volume.free,
                "Size": world.volume.capacity, "FileSystem": "NTFS", "VolumeName": "",
            }]  # fmt: skip
    return _counters(world, name)


def _counters(world: World, name: str) -> list[Mapping[str, Any]] | None:
    """Time in units of 100 ns, by Microsoft's formula for these counters."""
    ticks = int((time.time() - world.booted_at) * 10**7)
    stamps = {"Timestamp_Sys100NS": ticks, "Timestamp_PerfTime": ticks, "Frequency_PerfTime": 10**7}

    def row(instance: str, busy: int) -> Mapping[str, Any]:
        return {
            "Name": instance, "PercentTotalRunTime": busy, "PercentGuestRunTime": busy * 9 // 10,
            "PercentHypervisorRunTime": busy // 10, "PercentIdleTime": ticks - busy, **stamps,
        }  # fmt: skip

    if name == f"{_STATS}LogicalProcessor":
        each = [row(f"Hv LP {n}", ticks // 10) for n in range(world.processors)]
        return [*each, row("_Total", ticks // 10)]
    if name == f"{_STATS}RootVirtualProcessor":
        each = [row(f"Root VP {n}", ticks // 20) for n in range(root_processors(world))]
        return [*each, row("_Total", ticks // 20)]
    if name == f"{_STATS}VirtualProcessor":
        found = []
        for one in world.machines:
            if one.state == "Running":
                ran = int((time.monotonic() - one.started_at) * 10**7) // 10
                found += [row(f"{one.name}:Hv VP {n}", ran) for n in range(one.config.processors)]
        return [*found, row("_Total", 0)]
    return None


def get_cim(world: World, bound: Bound) -> Iterable[Any]:
    name, space = bound.get("ClassName", ""), bound.get("Namespace", "root/cimv2")
    if "Query" in bound or space.lower().replace("\\", "/") != "root/cimv2":
        raise bad(bound, "queries and other namespaces are not simulated")
    found = _instances(world, name)
    if found is None:
        world.complain(f"the CIM class {name} is not simulated")
        message = f"Invalid class {name}"
        raise bound.failed(
            "HRESULT"
            " 0x80041010,Microsoft.Management.Infrastructure.CimCmdlets.GetCimInstanceCommand",
            "MetadataError",
            message,
        )
    if "Filter" in bound:
        parts = [_WQL.fullmatch(p) for p in re.split(r"(?i)\band\b", bound.get("Filter"))]
        for part in parts:
            if part is None:
                raise bound.failed("HRESULT 0x80041017", "InvalidArgument", "Invalid query")
            wanted = next(g for g in part.groups()[1:] if g is not None)
            found = [row for row in found if text(row[part[1]]).lower() == wanted.lower()]
    keep = bound.get("Property")
    shown = [{k: v for k, v in row.items() if not keep or k in keep} for row in found]
    return [
        PSObject(row, f"Microsoft.Management.Infrastructure.CimInstance#root/cimv2/{name}")
        for row in shown
    ]


def restart(world: World, bound: Bound) -> Iterable[Any]:
    """The host goes some time after it has answered; other hosts are not ours to restart."""
    if "ComputerName" in bound or bound.flag("Wait"):
        raise bad(bound, "restarting other hosts is not simulated")
    world.restart()
    return []


def come_back(world: World) -> None:
    """What a restart does to VMs and to settings that waited for it."""
    with world.lock:
        ran = [m for m in world.machines if m.state == "Running"]
        for one in ran:
            turn_off(world, one)
            if one.stop_action == "Save":
                one.state = "Saved"
        world.booted, world.booted_at = dict(world.boot), time.time()
        world.boots += 1
        for one in ran:
            if one.start_action != "Nothing":
                one.state, one.started_at = "Running", time.monotonic()
                if world.guests is not None:
                    world.guests.start(one)
                else:
                    one.ready = True


CMDLETS = {"Get-VMHost": get_host, "Get-CimInstance": get_cim, "Restart-Computer": restart}
