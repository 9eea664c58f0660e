"""From what cmdlets gave back to the guests that there are: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drivers.hyperv import words
from drivers.hyperv.ops import Row
from provision.resources import Guest, Os, Vnic

RUNNING, OFF, SAVED = "Running", "Off", "Saved"
WINDOWS: Os = "windows"
OURS = "provision"  # the name of each of our checkpoints
VM = (
    "Id", "Name", "State", "Generation", "ProcessorCount", "MemoryStartup", "DynamicMemoryEnabled",
    "Notes", "Path", "Heartbeat", "Version",
)  # fmt: skip
PROCESSOR = ("VMId", "RelativeWeight", "Maximum", "Reserve")
RATE = "BandwidthSetting.MaximumBandwidth"
ADAPTER = ("VMId", "Name", "MacAddress", "SwitchName", "IsLegacy", RATE)
DISK = ("VMId", "Path")
SNAPSHOT = ("VMId", "Name", "Id", "CreationTime")


@dataclass(frozen=True, slots=True)
class Seen:
    """A VM of the testbed as it is. ``half``: it was being made when that was cut short.

    ``snapshots`` are the ids of its checkpoints that are ours, the newest last.
    """

    id: str
    guest: Guest
    half: bool
    state: str
    generation: int
    heartbeat: str
    version: str
    snapshots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """What was asked of all the testbed's VMs; ``groups`` are the CPUs of their CPU groups."""

    vms: Sequence[Row]
    processors: Sequence[Row] = ()
    adapters: Sequence[Row] = ()
    disks: Sequence[Row] = ()
    snapshots: Sequence[Row] = ()
    groups: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class World:
    """The testbed's VMs by guest, and the VMs of such names that are another's."""

    ours: Mapping[str, Seen]
    foreign: frozenset[str]


def world(rows: Rows, testbed: str, root: str) -> World:
    """``root`` is the folder of guests' disks: what was made in ours is ours, even unmarked."""
    ours: dict[str, Seen] = {}
    foreign: set[str] = set()
    prefix = words.vm_name(testbed, "")
    parts = {
        name: _by_vm(found)
        for name, found in (
            ("processors", rows.processors), ("adapters", rows.adapters), ("disks", rows.disks),
            ("snapshots", rows.snapshots),
        )
    }  # fmt: skip
    for vm in rows.vms:
        name = str(vm["Name"])
        # one without a processor was removed while we looked
        if not name.lower().startswith(prefix.lower()) or str(vm["Id"]) not in parts["processors"]:
            continue
        guest = name[len(prefix) :]
        told = words.record(vm["Notes"])
        folder = words.files(root, testbed, guest).folder
        marked = told.get("testbed") == testbed
        half = not marked and not vm["Notes"] and words.within(str(vm["Path"] or ""), folder)
        half = half or (marked and bool(told.get("half")))
        if marked or half:
            mine = {k: v.get(str(vm["Id"]), []) for k, v in parts.items()}
            seen = _seen(vm, told, mine, folder, rows.groups)
            ours[guest] = replace(seen, guest=replace(seen.guest, name=guest), half=half)
        else:
            foreign.add(guest)
    return World(ours, frozenset(foreign - ours.keys()))


def _by_vm(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["VMId"]), []).append(row)
    return found


def _seen(
    vm: Row,
    told: Mapping[str, Any],
    parts: Mapping[str, list[Row]],
    folder: str,
    groups: Mapping[str, str] | None,
) -> Seen:
    processor: Row = (parts["processors"] or [{}])[0]
    own_disk = any(words.within(str(d["Path"] or ""), folder) for d in parts["disks"])
    ours = [s for s in parts["snapshots"] if s["Name"] == OURS]
    ours.sort(key=lambda s: str(s["CreationTime"]))
    vcpus = int(vm["ProcessorCount"] or 1)
    management, nics = _nics(parts["adapters"], told)
    cpus = (groups or {}).get(str(vm["Id"]).lower(), "") if groups is not None else None
    pins = tuple(told.get("pins") or ()) if cpus is None else (cpus,) * vcpus if cpus else ()
    guest = Guest(
        name=str(vm["Name"]),
        vcpus=vcpus,
        memory_mib=0 if vm["DynamicMemoryEnabled"] else int(vm["MemoryStartup"]) // words.MIB,
        image=str(told.get("image", "")) if own_disk else "",
        management=management,
        nics=nics,
        accel=words.ACCEL,
        pins=pins,
        weight=words.weight_ours(
            int(processor.get("RelativeWeight") or words.NORMAL_HERE),
            int(told.get("weight") or words.NORMAL),
        ),
        cap_percent=words.share_ours(
            int(processor.get("Maximum", 100)), vcpus, 100, told.get("cap")
        ),
        reserve_percent=words.share_ours(
            int(processor.get("Reserve", 0)), vcpus, 0, told.get("reserve")
        ),
        os=WINDOWS if told.get("os") == WINDOWS else "linux",
        running=vm["State"] == RUNNING,
    )
    return Seen(
        str(vm["Id"]), guest, False, str(vm["State"]), int(vm["Generation"]),
        str(vm["Heartbeat"] or ""), str(vm["Version"] or ""),
        tuple(str(s["Id"]) for s in ours),
    )  # fmt: skip


def _nics(cards: Sequence[Row], told: Mapping[str, Any]) -> tuple[Vnic, tuple[Vnic, ...]]:
    """The management's and the links' vNICs; what the notes know not comes last, as it is."""
    by_mac = {words.mac_ours(str(card["MacAddress"] or "")): card for card in cards}
    found: list[Vnic] = []
    for mac, address, mtu in told.get("nics") or ():
        card = by_mac.pop(str(mac), None)
        if card is not None:
            found.append(_vnic(card, str(mac), str(address), int(mtu)))
        else:
            found.append(Vnic("", "", str(mac), str(address), int(mtu)))
    found += [_vnic(card, mac, "", words.LEAST_MTU) for mac, card in by_mac.items()]
    first = found[0] if found else Vnic("", "", "", "")
    # one that is gone is no vNIC; the management's stays, as what it lacks
    return first, tuple(v for v in found[1:] if v.model)


def _vnic(card: Row, mac: str, address: str, mtu: int) -> Vnic:
    model = words.LEGACY if card["IsLegacy"] else words.SYNTHETIC
    bits = int(card[RATE] or 0)
    return Vnic(str(card["SwitchName"] or ""), model, mac, address, mtu, bits // words.MBIT or None)
