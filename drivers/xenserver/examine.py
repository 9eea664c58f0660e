"""What ``doctor`` says of XenServer beyond the facts: rights, storage, templates, SSH, clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from time import time

from drivers.xenserver.api import Failure, words
from drivers.xenserver.connect import Session
from drivers.xenserver.place import Place
from drivers.xenserver.sources import Sources
from provision.driver import Check

ROOM_MIB = 10 * 1024
CLOCK_S = 5
SHOWN = 10
#: one call of each thing that we do, and the least role that may (the data model's ``roles``)
RIGHTS = {
    "vm.clone": "guests", "vm.start_on": "starting guests on a host", "vm.revert": "reset",
    "vdi.create": "identities", "network.set_name_label": "switches", "pif.plug": "switches",
    "host.reboot": "dom0's boot options", "host.disable": "dom0's boot options",
}  # fmt: skip
ROLE = "pool-operator"


def examine(session: Session, place: Place, sources: Sources, no_ssh: str) -> Iterator[Check]:
    """Each thing that is needed; what is asked for changes nothing."""
    told = place.has["license_params"]
    edition = place.has["edition"] or told.get("sku_type", "unknown")
    dropped = "; it drops platform:nic_type (no e1000)" if place.filters_platform else ""
    yield Check("licence", ok=True, detail=f"{edition}{dropped}")
    yield from _rights(session)
    yield from _storages(place)
    yield _templates(sources)
    reason = f"no: {no_ssh}; dom0's words are refused, and nothing is counted there"
    yield Check(
        "SSH to dom0", not no_ssh, reason if no_ssh else "root, with xl",
        "hypervisor.ssh: root@HOST, with a key of yours there" if no_ssh else "", needed=False,
    )  # fmt: skip
    yield _clock(session, place)


def _rights(session: Session) -> Iterator[Check]:
    try:
        with session.lent() as ref:
            root = session.call("session.get_is_local_superuser", ref)
            may = {str(p).lower() for p in session.call("session.get_rbac_permissions", ref)}
    except Failure as e:
        yield Check("rights", ok=False, detail=words(e), needed=False)
        return
    if root:
        yield Check("rights", ok=True, detail="all: a local superuser")
        return
    lacking = {call: why for call, why in RIGHTS.items() if call not in may}
    for call, why in lacking.items():
        fix = f"give the login the role {ROLE}"
        yield Check(f"right {call}", ok=False, detail=f"lacking: {why}", fix=fix)
    if not lacking:
        yield Check("rights", ok=True, detail=f"all {len(RIGHTS)} that may be needed")


def _storages(place: Place) -> Iterator[Check]:
    if not place.storages:
        yield Check("storage", ok=False, detail="the host has none for disks", fix="xe sr-create")
    for storage in place.storages:
        ok = storage.free_mib >= ROOM_MIB
        mine = storage is (place.storage or place.home)
        yield Check(
            f"storage {storage.name}", ok, f"{storage.free_mib >> 10} GiB free, {storage.type}",
            "" if ok else "free some, or choose another: hypervisor.storage", needed=mine,
        )  # fmt: skip


def _templates(sources: Sources) -> Check:
    names = sources.names()
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    detail = ", ".join(names[:SHOWN]) + more
    fix = "install a VM, with cloud-init, and make a template of it: docs/xenserver.md"
    return Check("templates", bool(names), detail or "none with disks", "" if names else fix)


def _clock(session: Session, place: Place) -> Check:
    try:
        told = str(session.call("host.get_servertime", place.host))
        at = datetime.strptime(told.rstrip("Z"), "%Y%m%dT%H:%M:%S").replace(tzinfo=UTC)
    except (Failure, ValueError) as e:
        detail = words(e) if isinstance(e, Failure) else str(e)
        return Check("clock", ok=False, detail=detail, needed=False)
    off_s = at.timestamp() - time()
    ok = abs(off_s) <= CLOCK_S
    fix = "" if ok else "set NTP on the host, and on this machine"
    return Check("clock", ok, f"{off_s:+.1f} s from this machine's", fix, needed=False)
