"""The host as VirtualBox sees it: its version, its networks, the VMs that can be cloned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from drivers.linux.links import sections
from drivers.virtualbox.manage import Manage
from drivers.virtualbox.parse import marked, readable
from provision.driver import UplinkFacts
from provision.errors import DriverError, HostError, PreflightError

LEAST = (6, 1)
_ASK = r"""
command -v VBoxManage >/dev/null || { echo @@missing; echo yes; exit 0; }
echo @@host; hostname
echo @@cpus; grep -c '^processor' /proc/cpuinfo
echo @@memory; grep -m1 MemTotal /proc/meminfo
echo @@device; ls /dev/vboxdrv /dev/vboxnetctl 2>&1 || :
echo @@version; VBoxManage --version || exit
echo @@properties; VBoxManage list systemproperties || exit
echo @@bridged; VBoxManage list bridgedifs || exit
echo @@hostonly; VBoxManage list hostonlyifs || exit
VBoxManage list vms | sed -n 's/.* {\([0-9a-f-]*\)}$/\1/p' | while read -r id; do
  echo "@@vm $id"
  VBoxManage showvminfo "$id" --machinereadable 2>/dev/null |
    grep -E '^(name|groups|nic[0-9]+|bridgeadapter[0-9]+|CurrentSnapshotUUID)="' || :
done
"""
_VERSION = re.compile(r"^(\d+)\.(\d+)\.\d+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Place:
    """``root`` is the folder of machines; ``bases`` maps VMs to their current snapshots' UUIDs.

    ``riders`` maps a NIC to the VMs of others that are bridged to it; ``device`` is what is wrong
    with VirtualBox's kernel modules, "" = nothing.
    """

    name: str
    cpus: int
    memory_mib: int
    version: str
    root: str
    bridged: tuple[str, ...]
    hostonly: tuple[str, ...]
    bases: Mapping[str, str]
    riders: Mapping[str, tuple[str, ...]]
    device: str

    def attachment(self, network: str) -> str:
        """VirtualBox's word for how a vNIC is plugged into that."""
        return "hostonly" if network in self.hostonly else "bridged"


def look(manage: Manage, testbed: str, storage: str) -> Place:
    """Ask the host once; changes nothing. Raises PreflightError where VirtualBox is not fit."""
    try:
        seen = sections(manage.sh(_ASK))
    except HostError as e:
        raise PreflightError(f"VirtualBox does not answer: {e}", hint="VBoxManage list vms") from e
    if "missing" in seen:
        raise PreflightError(
            f"{manage.host.name} has no VBoxManage",
            hint="install VirtualBox there: https://www.virtualbox.org/wiki/Linux_Downloads",
        )
    version = _VERSION.search(seen["version"])
    if version is None or (int(version[1]), int(version[2])) < LEAST:
        raise PreflightError(
            f"{seen['host']}: VirtualBox {seen['version'][-40:] or '(no version)'} is too old",
            hint="VirtualBox 6.1 or newer",
        )
    root = storage or _field(seen["properties"], "Default machine folder")
    if not root.startswith("/"):
        raise PreflightError(f"hypervisor.storage: {root!r} is no folder of a Linux host")
    vms = [readable(text) for name, text in seen.items() if name.startswith("vm ")]
    return Place(
        name=seen["host"], cpus=int(seen["cpus"]),
        memory_mib=int(seen["memory"].split()[1]) // 1024,
        version=f"VirtualBox {seen['version'].splitlines()[-1]}", root=root.rstrip("/"),
        bridged=_names(seen["bridged"]), hostonly=_names(seen["hostonly"]),
        bases={vm["name"]: vm["CurrentSnapshotUUID"] for vm in vms if "CurrentSnapshotUUID" in vm
               and not vm["groups"].startswith("/provision/")},
        riders=_riders(vms, testbed),
        device="" if "cannot access" not in seen["device"] else seen["device"].splitlines()[0],
    )  # fmt: skip


def uplinks(found: Iterable[UplinkFacts], place: Place) -> tuple[UplinkFacts, ...]:
    """The host's NICs that VirtualBox can bridge to, with the VMs that are bridged already."""
    return tuple(
        replace(u, used_by=", ".join(filter(None, (u.used_by, _used(place.riders.get(u.name))))))
        for u in found
        if u.name in place.bridged
    )


def _used(vms: tuple[str, ...] | None) -> str:
    return f"has the VM {', '.join(vms)} bridged to it" if vms else ""


def _riders(vms: Iterable[Mapping[str, str]], testbed: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for vm in vms:
        if marked(vm, testbed):
            continue
        for key, nic in vm.items():
            number = key.removeprefix("bridgeadapter")
            if number != key and vm.get(f"nic{number}") == "bridged":
                found[nic] = (*found.get(nic, ()), vm["name"])
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(
        line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Name:")
    )


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    raise DriverError(f"VBoxManage list systemproperties has no {name!r}")
