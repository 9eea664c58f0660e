"""The rest of a Windows guest: CIM, files, services, processes and the task scheduler."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.world import MARKS, matches
from tests.peers.powershell.errors import Unsupported
from tests.peers.powershell.values import PSObject, text
from tests.peers.windows.machine import Machine
from tests.peers.windows.state import Task

CIM = "Microsoft.Management.Infrastructure.CimInstance"
NORMAL = (4, 5, 6)  # priorities of tasks at which a process is like any other


def instances(here: Machine, bound: Bound) -> Iterable[Any]:
    match bound.get("ClassName", "").lower():
        case "win32_computersystem":
            return [PSObject({
                "DNSHostName": here.state.hostname, "Name": here.state.hostname.upper()[:15],
                "NumberOfLogicalProcessors": here.cpus, "NumberOfProcessors": 1,
                "TotalPhysicalMemory": here.memory_mib * (1 << 20) - (1 << 22),
            }, f"{CIM}#root/cimv2/Win32_ComputerSystem")]  # fmt: skip
        case "win32_operatingsystem":
            return [PSObject({
                "Caption": "Microsoft Windows Server 2025 Datacenter Evaluation",
                "Version": "10.0.26100", "LastBootUpTime": here.booted,
            }, f"{CIM}#root/cimv2/Win32_OperatingSystem")]  # fmt: skip
    raise Unsupported(f"Get-CimInstance {bound.get('ClassName')}")


def volumes(here: Machine, bound: Bound) -> Iterable[Any]:
    kind = f"{CIM}#ROOT/Microsoft/Windows/Storage/MSFT_Volume"
    rows = [("C", "", "Fixed"), *([("D", "cidata", "CD-ROM")] if here.drives._dvd else [])]
    wanted = bound.get("FileSystemLabel", ["*"])
    found = [
        PSObject({"DriveLetter": letter, "FileSystemLabel": label, "DriveType": sort}, kind)
        for letter, label, sort in rows if any(matches(w, label) for w in wanted)
    ]  # fmt: skip
    if not found:
        bound.call.error(bound.failed(
            "CmdletizationQuery_NotFound_FileSystemLabel", "ObjectNotFound",
            f"No MSFT_Volume objects found with property 'FileSystemLabel' equal to '{wanted[0]}'.",
        ).record)  # fmt: skip
    return found


def file_hash(here: Machine, bound: Bound) -> Iterable[Any]:
    if bound.get("Algorithm", "SHA256").upper() != "SHA256":
        raise Unsupported(f"Get-FileHash {bound.get('Algorithm')}")
    return [PSObject({
        "Algorithm": "SHA256", "Path": path,
        "Hash": hashlib.sha256(here.drives.read(path)).hexdigest().upper(),
    }, "Microsoft.Powershell.Utility.FileHash") for path in bound.get("LiteralPath")]  # fmt: skip


def move(here: Machine, bound: Bound) -> Iterable[Any]:
    (path,) = bound.get("LiteralPath")
    to = bound.get("Destination")
    if here.drives.is_file(to) and not bound.flag("Force"):
        raise bound.failed("MoveFileInfoItemIOError", "WriteError",
                           "Cannot create a file when that file already exists.")  # fmt: skip
    if any(r.task.execute.lower() == to.lower() for r in here.alive()):
        raise bound.failed("MoveFileInfoItemUnauthorizedAccessError", "PermissionDenied",
                           "Access to the path is denied.")  # fmt: skip
    here.drives.move(path, to)
    return []


def service(here: Machine, bound: Bound) -> Iterable[Any]:
    """Set- and Restart-Service, of sshd alone."""
    names = bound.get("Name")
    for name in names if isinstance(names, list) else [names]:
        if name.lower() not in here.state.services:
            raise bound.failed("NoServiceFoundForGivenName", "ObjectNotFound",
                               f"Cannot find any service with service name '{name}'.")  # fmt: skip
        if "StartupType" in bound:
            here.state.services[name.lower()] = text(bound.get("StartupType"))
        if bound.name == "Restart-Service":
            here.sshd = True
    return []


def processes(here: Machine, bound: Bound) -> Iterable[Any]:
    found = [
        PSObject({
            "Name": "netserver", "ProcessName": "netserver", "Id": r.process.pid,
            "Path": r.task.execute,
        }, "System.Diagnostics.Process")
        for r in here.alive()
        if any(matches(n, "netserver") for n in bound.get("Name", ["*"]))
    ]  # fmt: skip
    if not found and "Name" in bound:
        bound.call.error(bound.failed(
            "NoProcessFoundForGivenName", "ObjectNotFound",
            f'Cannot find a process with the name "{bound.get("Name")[0]}".',
        ).record)  # fmt: skip
    return found


def kill(here: Machine, bound: Bound) -> Iterable[Any]:
    for running in here.alive():
        if running.process.pid in bound.get("Id", []):
            here.end(running.task.name)
    return []


def part(_here: Machine, bound: Bound) -> Iterable[Any]:
    """New-ScheduledTaskAction, -Principal and -SettingsSet."""
    kind = bound.name.removeprefix("New-ScheduledTask")
    return [PSObject(dict(bound.values), f"{CIM}#Root/Microsoft/Windows/TaskScheduler/{kind}")]


def register(here: Machine, bound: Bound) -> Iterable[Any]:
    name = bound.get("TaskName")
    if name in here.state.tasks and not bound.flag("Force"):
        raise bound.failed("HRESULT 0x800700b7", "ResourceExists",
                           "Cannot create a file when that file already exists.")  # fmt: skip
    (action,) = bound.get("Action")
    settings = bound.get("Settings")
    told = {} if settings is None else dict(settings.properties.items())
    user = bound.get("Principal").properties["UserId"] if "Principal" in bound else ""
    limit = told.get("ExecutionTimeLimit") or timedelta(days=3)
    task = Task(
        name, action.properties["Execute"], action.properties["Argument"] or "",
        limit.total_seconds(), told.get("Priority", 7), user,
    )  # fmt: skip
    if task.priority not in NORMAL:
        here.complain(f"the task {name} runs below what is normal: {task.priority}")
    if user != "S-1-5-18":
        here.complain(f"the task {name} needs somebody who is logged on: {user!r}")
    here.state.tasks[name] = task
    return [_shown(task)]


def _shown(task: Task) -> PSObject:
    kind = f"{CIM}#Root/Microsoft/Windows/TaskScheduler/MSFT_ScheduledTask"
    return PSObject({"TaskName": task.name, "TaskPath": "\\"}, kind)


def _tasks(here: Machine, bound: Bound) -> list[Task]:
    asked = bound.get("TaskName", ["*"])
    found = []
    for name in asked if isinstance(asked, list) else [asked]:
        some = [t for t in here.state.tasks.values() if matches(name, t.name)]
        if not some and not MARKS & set(name):
            bound.call.error(bound.failed(
                "CmdletizationQuery_NotFound_TaskName", "ObjectNotFound",
                f"No MSFT_ScheduledTask objects found with property 'TaskName' equal to '{name}'.",
            ).record)  # fmt: skip
        found += some
    return found


def tasks(here: Machine, bound: Bound) -> Iterable[Any]:
    return [_shown(task) for task in _tasks(here, bound)]


def run(here: Machine, bound: Bound) -> Iterable[Any]:
    """Start-, Stop- and Unregister-ScheduledTask."""
    if bound.name == "Unregister-ScheduledTask":
        bound.sure(bound.name)
    for task in _tasks(here, bound):
        if bound.name.startswith("Start"):
            here.begin(task)
        elif bound.name.startswith("Stop"):
            here.end(task.name)
        else:
            del here.state.tasks[task.name]
    return []


CMDLETS = {
    "Get-CimInstance": instances, "Get-Volume": volumes, "Get-FileHash": file_hash,
    "Move-Item": move, "Set-Service": service, "Restart-Service": service,
    "Get-Process": processes, "Stop-Process": kill, "New-ScheduledTaskAction": part,
    "New-ScheduledTaskPrincipal": part, "New-ScheduledTaskSettingsSet": part,
    "Register-ScheduledTask": register, "Get-ScheduledTask": tasks, "Start-ScheduledTask": run,
    "Stop-ScheduledTask": run, "Unregister-ScheduledTask": run,
}  # fmt: skip
