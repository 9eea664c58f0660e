"""What ``doctor`` says of vSphere beyond the facts: privileges, clock, room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import time
from typing import Any

from drivers.vsphere.api import Fault, vim, vmodl, words
from drivers.vsphere.connect import Session
from drivers.vsphere.place import Place
from provision.driver import Check

ROOM_MIB = 10 * 1024
CLOCK_S = 5
#: which work needs each privilege, by the object it is needed on; the vSphere API's reference names
#: them method by method ("Required Privileges")
HOST, NETWORK, DATASTORE, POOL, FOLDER = "host", "network", "datastore", "pool", "folder"
PRIVILEGES: Mapping[str, Mapping[str, str]] = {
    HOST: {"Host.Config.Network": "switches and port groups"},
    NETWORK: {"Network.Assign": "vNICs"},
    DATASTORE: {
        "Datastore.AllocateSpace": "disks",
        "Datastore.Browse": "images",
        "Datastore.FileManagement": "images, and disks on them",
    },
    POOL: {"Resource.AssignVMToPool": "guests"},
    FOLDER: {
        "VirtualMachine.Inventory.Create": "guests on images or ESXi",
        "VirtualMachine.Inventory.CreateFromExisting": "guests cloned from templates",
        "VirtualMachine.Inventory.Delete": "removing guests",
        "VirtualMachine.Inventory.Unregister": "removing guests on images or ESXi",
        "VirtualMachine.Provisioning.DeployTemplate": "guests cloned from templates",
        "VirtualMachine.Provisioning.Clone": "guests cloned from VMs",
        "VirtualMachine.Config.AddNewDisk": "disks",
        "VirtualMachine.Config.AddExistingDisk": "disks on ESXi",
        "VirtualMachine.Config.AddRemoveDevice": "vNICs",
        "VirtualMachine.Config.EditDevice": "vNICs",
        "VirtualMachine.Config.CPUCount": "guests.vcpus",
        "VirtualMachine.Config.Memory": "guests.memory",
        "VirtualMachine.Config.Resource": "weights, caps, reservations, pins",
        "VirtualMachine.Config.Settings": "guests.latency",
        "VirtualMachine.Config.AdvancedConfig": "marks, and guests' identities",
        "VirtualMachine.Interact.PowerOn": "starting guests",
        "VirtualMachine.Interact.PowerOff": "stopping guests",
        "VirtualMachine.State.CreateSnapshot": "checkpoints",
        "VirtualMachine.State.RevertToSnapshot": "reset",
        "VirtualMachine.State.RemoveSnapshot": "checkpoints",
    },
}


def examine(session: Session, place: Place) -> Iterator[Check]:
    """Each thing that is needed; what is asked for changes nothing."""
    yield from _privileges(session, place)
    yield _clock(session)
    free_mib, name = place.datastore.free_mib, place.datastore.name
    yield Check(
        f"datastore {name}",
        free_mib >= ROOM_MIB,
        f"{free_mib >> 10} GiB free, {place.datastore.type}",
        "" if free_mib >= ROOM_MIB else "free some, or choose another: hypervisor.storage",
    )


def _privileges(session: Session, place: Place) -> Iterator[Check]:
    on = {
        HOST: place.host,
        NETWORK: place.network_folder,
        DATASTORE: place.datastore.ref,
        POOL: place.pool,
        FOLDER: place.vm_folder,
    }
    lacking = []
    for what, wanted in PRIVILEGES.items():
        try:
            missing = _missing(session, on[what], list(wanted))
        except Fault as e:
            yield Check("privileges", ok=False, detail=f"the {what}'s: {words(e)}", needed=False)
            return
        lacking += [(what, name, wanted[name]) for name in missing]
    for what, name, why in lacking:
        fix = f"add {name} to the login's role on the {what}"
        yield Check(f"privilege {name}", ok=False, detail=f"lacking on the {what}: {why}", fix=fix)
    if not lacking:
        count = sum(map(len, PRIVILEGES.values()))
        yield Check("privileges", ok=True, detail=f"all {count} that may be needed")


def _missing(session: Session, entity: Any, names: list[str]) -> list[str]:
    manager = session.content.authorizationManager
    for found in manager.HasPrivilegeOnEntities([entity], session.key, names):
        return [p.privId for p in found.privAvailability if not p.isGranted]
    return []


def _clock(session: Session) -> Check:
    try:
        now = vim.ServiceInstance("ServiceInstance", session).CurrentTime()
    except (Fault, vmodl.RuntimeFault) as e:
        return Check("clock", ok=False, detail=words(e), needed=False)
    off_s = now.timestamp() - time()
    ok = abs(off_s) <= CLOCK_S
    fix = "" if ok else "set NTP on the host, and on this machine"
    return Check("clock", ok, f"{off_s:+.1f} s from this machine's", fix, needed=False)
