"""From a VM's properties to the guest that it is: pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from drivers.vsphere import spec as wording
from drivers.vsphere.read import Properties
from provision.resources import Guest, Vnic

_RESERVED = "config.memoryAllocation.reservation"
_SHAPE = (
    "config.cpuAllocation", _RESERVED, "config.cpuAffinity", "config.latencySensitivity",
    "runtime.powerState",
)  # fmt: skip
_PATH = "config.files.vmPathName"
PATHS = ("config.hardware", "config.extraConfig", _PATH, *_SHAPE)
_CPUS, _MEMORY = "config.hardware.numCPU", "config.hardware.memoryMB"
_CARDS = "summary.config.numEthernetCards"
_EXTRA = {key: f'config.extraConfig["{key}"]' for key in (wording.MARK, wording.RECORD)}
FIRST_SLOT = 4000  # the key of a VM's first vNIC
ON, OFF = "poweredOn", "poweredOff"


@dataclass(frozen=True, slots=True)
class Seen:
    """A VM as it is. ``mark`` is the testbed it says it belongs to, "" = none.

    ``guest`` has no rates: those are the port groups'. ``cloned`` is how it came about; ``secret``
    whether it still bears the identity that it was handed; that and ``path`` where it was read
    whole.
    """

    ref: Any
    mark: str
    guest: Guest
    cards: tuple[Any, ...]
    path: str
    state: str
    cloned: str
    secret: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A VM of ours that is to go. ``path`` is its configuration's file."""

    ref: Any
    state: str
    path: str


@dataclass(frozen=True, slots=True)
class Raw:
    """A VM's properties, however they were asked for."""

    vcpus: int
    memory_mib: int
    cards: tuple[Any, ...]
    extra: Mapping[str, str]
    has: Properties


def whole(has: Properties) -> Raw | None:
    """From ``PATHS``; None where the VM has no configuration yet, or none any more."""
    hardware = has.get("config.hardware")
    if hardware is None:
        return None
    extra = {o.key: str(o.value) for o in has.get("config.extraConfig", ())}
    cards = tuple(wording.cards(hardware.device))
    return Raw(int(hardware.numCPU), int(hardware.memoryMB), cards, extra, has)


def brief_paths(slots: Iterable[int]) -> tuple[str, ...]:
    """As ``PATHS``, but of devices only the vNICs in these slots, and of options only ours."""
    return (*_SHAPE, _CPUS, _MEMORY, _CARDS, *_EXTRA.values(), *map(_slot, slots))


def brief(has: Properties, slots: Collection[int]) -> Raw | None:
    """From ``brief_paths``; None where that is not all there is to know."""
    cards = tuple(has.get(_slot(n)) for n in slots)
    extra = {key: has.get(path) for key, path in _EXTRA.items()}
    if None in (*cards, *extra.values()) or has.get(_CARDS) != len(slots):
        return None
    texts = {key: str(option.value) for key, option in extra.items() if option is not None}
    return Raw(int(has[_CPUS]), int(has[_MEMORY]), cards, texts, has)


def held_paths() -> tuple[str, ...]:
    """All that it takes to end a VM: whose it is, whether it runs, where its files are."""
    return (_EXTRA[wording.MARK], "runtime.powerState", _PATH)


def held(ref: Any, has: Properties, testbed: str) -> Held | None:
    """From ``held_paths``; None where it is not seen to be the testbed's."""
    mark = has.get(_EXTRA[wording.MARK])
    if mark is None or str(mark.value) != testbed:
        return None
    return Held(ref, str(has["runtime.powerState"]), str(has.get(_PATH, "")))


def _slot(number: int) -> str:
    return f"config.hardware.device[{number}]"


@dataclass(frozen=True, slots=True)
class _Record:
    """What we wrote down; ``nics`` are (address, MTU) by MAC, the management NIC first."""

    image: str
    cloned: str
    nics: Mapping[str, tuple[str, int]]


def parse(ref: Any, name: str, raw: Raw, mhz: int, network: Callable[[Any], str]) -> Seen:
    """The guest of that name. ``network`` names what a vNIC's backing is on."""
    has, vcpus = raw.has, raw.vcpus
    record = _record(raw.extra.get(wording.RECORD, ""))
    vnics = {v.mac: v for v in (_vnic(card, record, network) for card in raw.cards)}
    first = next(iter(record.nics), "")
    management = vnics.pop(first, None) or Vnic("", "", first, "")
    order = [mac for mac in record.nics if mac in vnics]
    order += [mac for mac in vnics if mac not in record.nics]
    cpu = has["config.cpuAllocation"]
    kept = has.get(_RESERVED) or 0
    latency = has.get("config.latencySensitivity")
    guest = Guest(
        name=name,
        vcpus=vcpus,
        memory_mib=raw.memory_mib,
        image=record.image,
        management=management,
        nics=tuple(vnics[mac] for mac in order),
        accel=ACCEL,
        pins=wording.pins(has.get("config.cpuAffinity"), vcpus),
        weight=wording.weight(cpu.shares, vcpus),
        cap_percent=wording.percent(cpu.limit, mhz),
        reserve_percent=wording.percent(cpu.reservation, mhz),
        memory_reserve_mib=int(kept) or None,
        latency="high" if latency is not None and str(latency.level) == "high" else "normal",
        running=str(has["runtime.powerState"]) == ON,
    )
    return Seen(
        ref=ref,
        mark=raw.extra.get(wording.MARK, ""),
        guest=guest,
        cards=raw.cards,
        path=str(has.get(_PATH, "")),
        state=str(has["runtime.powerState"]),
        cloned=record.cloned,
        secret=raw.extra.get(wording.USERDATA, "") not in ("", "---"),
    )


def as_made(ref: Any, testbed: str, guest: Guest) -> Seen:
    """One that was just made as asked, and not looked at."""
    return Seen(ref, testbed, guest, (), "", OFF, "", secret=True)


#: what executes guests: there is nothing else on an ESXi host
ACCEL = "esxi"


def _vnic(card: Any, record: _Record, network: Callable[[Any], str]) -> Vnic:
    mac = str(card.macAddress or "").lower()
    address, mtu = record.nics.get(mac, ("", 1500))
    return Vnic(network(card.backing), wording.model(card), mac, address, mtu)


def _record(text: str) -> _Record:
    """What of it is as we write it; a guest can overwrite its own copy."""
    try:
        data = json.loads(text)
        nics = {str(mac): (str(address), int(mtu)) for mac, address, mtu in data["nics"]}
        return _Record(str(data["image"]), str(data["cloned"]), nics)
    except (ValueError, TypeError, KeyError):
        return _Record("", "", {})
