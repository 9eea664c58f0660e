"""CPU groups: the only way to keep a VM to some CPUs, and only Microsoft's own tool knows it.

"Virtual Machine Resource Controls" of Windows Server's documentation has CpuGroups.exe. A guest has
a group of its own, of its CPUs; a VM has to leave one group before it may enter another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from uuid import NAMESPACE_OID, uuid5

from drivers.hyperv.ops import Batch, Program
from drivers.hyperv.words import vm_name
from provision.units import cpu_list, cpus

TOOL = "cpugroups"
NONE = "00000000-0000-0000-0000-000000000000"
LOOK = (Program(TOOL, ("GetGroups",), lenient=True), Program(TOOL, ("GetVmGroup",), lenient=True))
_GUID = r"([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"
_GROUP = re.compile(_GUID + r"\s+\d+\s+(\d+(?:,\d+)*)")
_MEMBER = re.compile(_GUID + r"\s+" + _GUID)


def group_id(testbed: str, guest: str) -> str:
    return str(uuid5(NAMESPACE_OID, f"provision/{testbed}/{guest}")).upper()


def bind(batch: Batch, testbed: str, guest: str, pin: str) -> None:
    """A group of these CPUs, and the VM into it."""
    group = f"/GroupId:{group_id(testbed, guest)}"
    affinity = ",".join(str(cpu) for cpu in cpus(pin))
    batch.add(Program(TOOL, ("CreateGroup", group, f"/GroupAffinity:{affinity}")))
    batch.add(Program(TOOL, ("SetVmGroup", f"/VmName:{vm_name(testbed, guest)}", group)))


def unbind(batch: Batch, testbed: str, guest: str) -> None:
    """The VM out of its group, and that away; no error where there is none."""
    name = f"/VmName:{vm_name(testbed, guest)}"
    batch.add(Program(TOOL, ("SetVmGroup", name, f"/GroupId:{NONE}"), lenient=True))
    group = f"/GroupId:{group_id(testbed, guest)}"
    batch.add(Program(TOOL, ("DeleteGroup", group), lenient=True))


def read(groups: str, members: str) -> Mapping[str, str]:
    """The CPU list of each VM that is in a group, by the VM's id in small letters."""
    of = {group.lower(): cpu_list(cpus(found)) for group, found in _GROUP.findall(groups)}
    return {
        vm.lower(): of[group.lower()]
        for vm, group in _MEMBER.findall(members)
        if group.lower() in of
    }
