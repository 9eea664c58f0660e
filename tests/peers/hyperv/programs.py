"""Programs of the host: bcdedit, Microsoft's CpuGroups (a download of its own), whoami.

The shape of CpuGroups' tables is that of Microsoft's page on CPU groups; bcdedit's is the one that
everybody knows. Exit codes other than 0 are 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.peers.hyperv.world import Doing, World
from tests.peers.powershell.host import Ended

NO_GROUP = "00000000-0000-0000-0000-000000000000"
DONE = "The operation completed successfully.\r\n"
_KNOWN = {
    "hypervisorrootproc": r"\d+", "hypervisorrootprocpernode": r"\d+",
    "hypervisorschedulertype": "(?i)classic|core|root", "hypervisorlaunchtype": "(?i)auto|off",
}  # fmt: skip
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def find(world: World, name: str) -> Callable[[list[str]], Ended] | None:
    """By name, with or without ``.exe``; None where the host has no such program."""
    bare = name.lower().removesuffix(".exe")
    program = {"bcdedit": bcdedit, "whoami": whoami, "cpugroups": cpu_groups}.get(bare)
    if program is None or (program is cpu_groups and world.groups is None):
        return None

    def run(words: list[str]) -> Ended:
        with world.doing(Doing(bare, {"words": words})):
            return program(world, words)

    return run


def bcdedit(world: World, words: list[str]) -> Ended:
    low = [word.lower() for word in words]
    rest = [word for word in words[1:] if word.lower() != "{current}"]
    if low[:1] == ["/enum"] and not rest:
        rows = {
            "identifier": "{current}", "device": "partition=C:", "path":
            "\\Windows\\system32\\winload.efi", "description": "Windows Server", **world.boot,
        }  # fmt: skip
        lines = "".join(f"{name:<24}{value}\r\n" for name, value in rows.items())
        return Ended(0, f"\r\nWindows Boot Loader\r\n-------------------\r\n{lines}")
    if low[:1] == ["/set"] and len(rest) == 2:
        name, value = rest[0].lower(), rest[1]
        if name not in _KNOWN:
            return Ended(1, "The element data type specified is not recognized, or does not apply"
                         " to the specified entry.\r\n")  # fmt: skip
        if not re.fullmatch(_KNOWN[name], value):
            return Ended(1, "The integer data is not valid as specified.\r\n")
        world.boot[name] = value if value.isdigit() else value.capitalize()
        return Ended(0, DONE)
    if low[:1] == ["/deletevalue"] and len(rest) == 1:
        if world.boot.pop(rest[0].lower(), None) is None:
            return Ended(1, "An error occurred while attempting to delete the specified data"
                         " element.\r\nElement not found.\r\n")  # fmt: skip
        return Ended(0, DONE)
    world.complain(f"bcdedit {' '.join(words)}: not simulated")
    return Ended(1, "The parameter is incorrect.\r\n")


def whoami(world: World, words: list[str]) -> Ended:
    if [w.lower() for w in words] != ["/groups", "/fo", "csv", "/nh"]:
        world.complain(f"whoami {' '.join(words)}: not simulated")
        return Ended(1)
    group = "Mandatory group, Enabled by default, Enabled group"
    rows = [
        ("Everyone", "S-1-1-0"), ("BUILTIN\\Administrators", "S-1-5-32-544"),
        ("BUILTIN\\Users", "S-1-5-32-545"), ("NT AUTHORITY\\NETWORK", "S-1-5-2"),
    ]  # fmt: skip
    lines = (f'"{name}","Well-known group","{sid}","{group}"\r\n' for name, sid in rows)
    return Ended(0, "".join(lines))


def cpu_groups(world: World, words: list[str]) -> Ended:
    assert world.groups is not None
    verb = words[0].lower() if words else ""
    given = {k.lower(): v for k, _, v in (w.lstrip("/").partition(":") for w in words[1:])}
    group = given.get("groupid", "").upper()
    if group and not _GUID.fullmatch(group):
        return Ended(1, f"Invalid group id {group}\r\n")
    match verb:
        case "getgroups":
            head = "CpuGroupId                          CpuCap  LpIndexes\r\n"
            line = "------------------------------------ ------ -----------\r\n"
            rows = (f"{g} {v['cap']:>6} {v['cpus']}\r\n" for g, v in world.groups.items())
            return Ended(0, head + line + "".join(rows))
        case "getvmgroup":
            return Ended(0, _members(world))
        case "creategroup":
            cpus = given.get("groupaffinity", "")
            if group in world.groups or not re.fullmatch(r"\d+(,\d+)*", cpus):
                return Ended(1, "Failed with error 0xc0350071\r\n")
            if any(int(c) >= world.processors for c in cpus.split(",")):
                return Ended(1, "Failed with error 0xc0350005\r\n")
            world.groups[group] = {"cap": 65536, "cpus": cpus}
            return Ended(0)
        case "deletegroup":
            if group not in world.groups or group in world.group_of.values():
                return Ended(1, "Failed with error 0xc0350070\r\n")
            del world.groups[group]
            return Ended(0)
        case "setvmgroup":
            return _enter(world, given.get("vmname", ""), group)
    world.complain(f"CpuGroups {' '.join(words)}: not simulated")
    return Ended(1)


def _members(world: World) -> str:
    dashes = "-" * 36
    head = f"{'VmName':>20} {'VmId':>36} {'CpuGroupId':>36}\r\n{'-' * 20} {dashes} {dashes}\r\n"
    rows = (
        f"{m.name:>20} {str(m.id).upper()} {world.group_of.get(str(m.id), NO_GROUP)}\r\n"
        for m in world.machines if m.state == "Running"
    )  # fmt: skip
    return head + "".join(rows)


def _enter(world: World, name: str, group: str) -> Ended:
    """A VM leaves one group before it enters another one."""
    assert world.groups is not None
    found = [m for m in world.machines if m.name.lower() == name.lower()]
    if not found or (group != NO_GROUP and group not in world.groups):
        return Ended(1, "Failed with error 0x80070490\r\n")
    key = str(found[0].id)
    if group == NO_GROUP:
        world.group_of.pop(key, None)
        return Ended(0)
    if world.group_of.get(key, group) != group:
        return Ended(1, "Failed with error 0xc0350070\r\n")
    world.group_of[key] = group
    return Ended(0)
