"""Where a testbed goes: the pool's host, and the storage that disks are put on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.xenserver.api import Record
from drivers.xenserver.connect import Session
from provision.driver import Target
from provision.errors import PreflightError, UserError, did_you_mean

MIB = 1 << 20
MARK = "provision.testbed"
TAG = "provision:"
OVS, BRIDGE = "ovs", "bridge"
FLAVOURS = {"openvswitch": OVS, "vswitch": OVS, "bridge": BRIDGE}
BACKENDS = {OVS: "openvswitch", BRIDGE: "bridge"}
#: kinds of storage that keep a disk's whole size, whatever of it is in use
THICK = frozenset({"lvm", "lvmoiscsi", "lvmohba", "lvmofcoe"})
ISO, UDEV = "iso", "udev"


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage repository as it was at first."""

    ref: str
    name: str
    uuid: str
    type: str
    size_mib: int
    used_mib: int

    @property
    def free_mib(self) -> int:
        return self.size_mib - self.used_mib

    @property
    def thick(self) -> bool:
        return self.type in THICK


@dataclass(frozen=True, slots=True)
class Place:
    """``has`` is the host's record as it was at first; ``storages`` are those it can use.

    ``storage`` is the one that the spec chooses, None = where the template's disks are; ``home``
    is where disks go that are of no template.
    """

    host: str
    has: Record
    pool: Record
    memory_mib: int
    storage: Storage | None
    home: Storage | None
    storages: tuple[Storage, ...]

    @property
    def name(self) -> str:
        return str(self.has["name_label"])

    @property
    def cpus(self) -> int:
        return int(self.has["cpu_info"].get("cpu_count", "1"))

    @property
    def address(self) -> str:
        return str(self.has["address"])

    @property
    def version(self) -> str:
        told = self.has["software_version"]
        product = told.get("product_brand", "XenServer")
        return f"{product} {told.get('product_version', '')}, Xen {told.get('xen', 'unknown')}"

    @property
    def filters_platform(self) -> bool:
        """Whether the licence lets only listed keys of a VM's ``platform`` through."""
        told = self.has["license_params"]
        return bool(told.get("restrict_platform_filter") == "false")

    def stored(self, ref: str) -> Storage | None:
        return next((s for s in self.storages if s.ref == ref), None)


def flavour(session: Session, host: str) -> str:
    """What the host's networks are made of now."""
    told = session.call("host.get_software_version", host)
    return FLAVOURS.get(told.get("network_backend", "bridge"), BRIDGE)


def find(session: Session, target: Target) -> Place:
    """The place that the target chooses, or the only one.

    Raises UserError where the choice is not there or is needed, PreflightError where the host is
    not fit; nothing is changed.
    """
    (pool,) = session.call("pool.get_all_records").values()
    ref, has = _host(session.call("host.get_all_records"), target.host)
    metrics = session.call("host_metrics.get_record", has["metrics"])
    if not metrics["live"]:
        raise PreflightError(
            f"host {has['name_label']} is halted, or its toolstack does not run",
            hint="start it: xe host-power-on, or: xe-toolstack-restart on it",
        )
    if not has["enabled"] and MARK not in has["other_config"]:
        raise PreflightError(
            f"host {has['name_label']} is in maintenance mode", hint="xe host-enable"
        )
    storages = tuple(_storages(session, ref))
    chosen = _storage(storages, target.storage) if target.storage else None
    default = next((s for s in storages if s.ref == pool["default_SR"]), None)
    dom0 = session.call("VM.get_memory_target", has["control_domain"])
    return Place(
        host=ref,
        has=has,
        pool=pool,
        memory_mib=(int(metrics["memory_total"]) - int(dom0)) // MIB,
        storage=chosen,
        home=chosen or default or (storages[0] if storages else None),
        storages=storages,
    )


def choose(
    what: str, word: str, found: Sequence[tuple[str, Any]], asked: str, fits: Callable[[Any], bool]
) -> Any:
    """The one that is asked for, or the only one. Raises UserError with what there is."""
    names = sorted({name for name, _ in found})
    hits = [thing for _, thing in found if not asked or fits(thing)]
    if len(hits) == 1:
        return hits[0]
    there = ", ".join(names[:20]) or "none"
    if not asked:
        text = (
            f"{word}: which {what}? there are: {there}" if names else f"{word}: there is no {what}"
        )
    elif hits:
        text = f"{word}: {asked!r} fits {len(hits)} of them; give its UUID"
    else:
        mean = did_you_mean(asked, names)
        text = f"{word}: there is no {what} {asked!r}{mean}; there are: {there}"
    raise UserError(text, hint=f"{word}: one of them")


def _host(hosts: Record, asked: str) -> tuple[str, Record]:
    """By its name, its host name, its management address or its UUID."""
    found = [(str(h["name_label"]), (ref, h)) for ref, h in hosts.items()]
    hit: tuple[str, Record] = choose(
        "host", "hypervisor.host", found, asked,
        lambda pair: asked.lower() in {
            str(pair[1][word]).lower() for word in ("name_label", "hostname", "address", "uuid")
        },
    )  # fmt: skip
    return hit


def _storages(session: Session, host: str) -> Iterable[Storage]:
    """Those that the host has attached, and that disks can be made on."""
    attached = {
        pbd["SR"]
        for pbd in session.call("PBD.get_all_records").values()
        if pbd["host"] == host and pbd["currently_attached"]
    }
    for ref, sr in session.call("SR.get_all_records").items():
        if ref in attached and sr["content_type"] != ISO and sr["type"] not in (UDEV, ISO):
            size, used = int(sr["physical_size"]), int(sr["physical_utilisation"])
            yield Storage(ref, sr["name_label"], sr["uuid"], sr["type"], size // MIB, used // MIB)


def _storage(storages: Sequence[Storage], asked: str) -> Storage:
    hit: Storage = choose(
        "storage", "hypervisor.storage", [(s.name, s) for s in storages], asked,
        lambda s: asked in (s.name, s.uuid),
    )  # fmt: skip
    return hit
