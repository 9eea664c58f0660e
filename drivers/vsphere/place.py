"""Where guests are to be: one ESXi host, with its datastore, its resource pool, its folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.vsphere.api import vim
from drivers.vsphere.connect import Session
from drivers.vsphere.read import Found, Properties, each, everything, get, retrieve, spec, step
from provision.driver import Target
from provision.errors import PreflightError, UserError, did_you_mean

HOST = (
    "name", "parent", "datastore", "summary.hardware", "config.product", "config.network",
    "config.virtualNicManagerInfo", "config.pciPassthruInfo", "configManager.networkSystem",
    "runtime.connectionState", "runtime.inMaintenanceMode",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Datastore:
    """Where disks lie. Paths in it are ``[name] folder/file``."""

    ref: Any
    name: str
    type: str
    free_mib: int

    def path(self, *parts: str) -> str:
        return f"[{self.name}] {'/'.join(parts)}".rstrip()


@dataclass(frozen=True, slots=True)
class Place:
    """``has`` are the host's properties as they were at first; ``mhz`` is one CPU's.

    ``datacenter_path`` is from the root; ``drs`` says why the cluster does not let VMs keep to
    CPUs, "" = it does.
    """

    host: Any
    name: str
    has: Properties
    datacenter: Any
    datacenter_path: str
    vm_folder: Any
    network_folder: Any
    pool: Any
    datastore: Datastore
    vcenter: bool
    drs: str

    @property
    def cpus(self) -> int:
        return int(self.has["summary.hardware"].numCpuThreads)

    @property
    def mhz(self) -> int:
        return int(self.has["summary.hardware"].cpuMhz)

    @property
    def memory_mib(self) -> int:
        return int(self.has["summary.hardware"].memorySize) >> 20

    @property
    def networks(self) -> Any:
        """The host's HostNetworkSystem."""
        return self.has["configManager.networkSystem"]


def find(session: Session, target: Target) -> Place:
    """The place that the target chooses, or the only one.

    Raises UserError where the choice is not there or is needed, PreflightError where the host is
    not fit; nothing is changed.
    """
    host = _host(session, target.host)
    has = get(session, host.ref, *HOST)
    name = str(has["name"])
    if has["runtime.connectionState"] != "connected" or has["runtime.inMaintenanceMode"]:
        state = has["runtime.connectionState"]
        raise PreflightError(
            f"host {name} is {'in maintenance mode' if state == 'connected' else state}"
        )
    over = get(session, has["parent"], "resourcePool", "configurationEx")
    center, path = _datacenter(session, host.ref)
    return Place(
        host=host.ref,
        name=name,
        has=has,
        datacenter=center.ref,
        datacenter_path=path,
        vm_folder=center.has["vmFolder"],
        network_folder=center.has["networkFolder"],
        pool=_pool(session, over["resourcePool"], target.pool),
        datastore=_datastore(session, has.get("datastore", ()), target.storage),
        vcenter=session.content.about.apiType == "VirtualCenter",
        drs=_drs(over.get("configurationEx")),
    )


def _choose(
    what: str, word: str, found: Sequence[tuple[str, Any]], asked: str, fits: Callable[[str], bool]
) -> Any:
    """The one that is asked for, or the only one. Raises UserError with what there is."""
    names = sorted({name for name, _ in found})
    hits = [thing for name, thing in found if not asked or fits(name)]
    if len(hits) == 1:
        return hits[0]
    there = ", ".join(names) or "none"
    if not asked:
        text = (
            f"{word}: which {what}? there are: {there}" if names else f"{word}: there is no {what}"
        )
    elif hits:
        text = f"{word}: {asked!r} fits several: {there}"
    else:
        mean = did_you_mean(asked, names)
        text = f"{word}: there is no {what} {asked!r}{mean}; there are: {there}"
    raise UserError(text, hint=f"{word}: one of them")


def _host(session: Session, asked: str) -> Found:
    """By its name, the first part of it, or one of its own addresses."""
    found = everything(session, vim.HostSystem, "name")
    exact = [h for h in found if str(h.has["name"]).lower() == asked.lower()]
    if len(exact) == 1:
        return exact[0]
    by_name = [(str(h.has["name"]), h) for h in found]
    if asked and not any(name.lower().split(".")[0] == asked.lower() for name, _ in by_name):
        links = each(session, [h.ref for h in found], "config.network.vnic")
        refs = [
            h.ref for h in links
            if asked in (v.spec.ip.ipAddress for v in h.has.get("config.network.vnic", ()))
        ]  # fmt: skip
        if len(refs) == 1:
            return next(h for h in found if h.ref == refs[0])
    hit: Found = _choose(
        "host", "hypervisor.host", by_name, asked,
        lambda name: asked.lower() in (name.lower(), name.lower().split(".")[0]),
    )  # fmt: skip
    return hit


def _datacenter(session: Session, host: Any) -> tuple[Found, str]:
    """The datacenter above a host, and its path; an ESXi host by itself has one too."""
    up = step("up", vim.ManagedEntity, "parent", "up")
    wanted = spec(host, ("vmFolder", "networkFolder"), through=[up], kind=vim.Datacenter)
    wanted.propSet.append(spec(host, ("name", "parent"), kind=vim.ManagedEntity).propSet[0])
    above = {f.ref: f for f in retrieve(session, [wanted])}
    center = next(f for f in above.values() if "vmFolder" in f.has)
    names, here = [], center
    while (parent := here.has.get("parent")) is not None:  # the root's own name is in no path
        names.append(str(here.has["name"]))
        here = above[parent]
    return center, "/".join(reversed(names))


def _pool(session: Session, root: Any, asked: str) -> Any:
    """A resource pool below the host's root by its name or its path, the root where none is."""
    if not asked:
        return root
    down = step("down", vim.ResourcePool, "resourcePool", "down")
    pools = retrieve(session, [spec(root, ("name", "parent"), through=[down])])
    by_ref = {p.ref: p for p in pools}

    def path(pool: Found) -> str:
        above = by_ref.get(pool.has.get("parent"))
        name = str(pool.has["name"])
        return f"{path(above)}/{name}" if above is not None else name

    found = [(path(p), p.ref) for p in pools]
    if not found and asked == "Resources":
        return root
    return _choose(
        "resource pool", "hypervisor.pool", found, asked,
        lambda at: asked in (at, at.rpartition("/")[2]),
    )  # fmt: skip


def _datastore(session: Session, refs: Sequence[Any], asked: str) -> Datastore:
    found = []
    for one in each(session, refs, "summary"):
        s = one.has["summary"]
        if s.accessible and (s.maintenanceMode or "normal") == "normal":
            found.append((s.name, Datastore(one.ref, s.name, s.type, s.freeSpace >> 20)))
    chosen: Datastore = _choose(
        "datastore", "hypervisor.storage", found, asked, lambda name: name == asked
    )
    return chosen


def _drs(cluster: Any) -> str:
    """DRS that moves VMs by itself forbids them CPUs of their own."""
    drs = getattr(cluster, "drsConfig", None)
    if drs is not None and drs.enabled and drs.defaultVmBehavior == "fullyAutomated":
        return "the cluster's DRS is fully automated, and then vSphere lets no VM keep to CPUs"
    return ""
