"""From a VM's properties to the guest that it is: pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drivers.vsphere import spec as wording
from drivers.vsphere.read import Properties
from provision.resources import Guest, Vnic

PATHS = (
    "config.hardware", "config.extraConfig", "config.cpuAllocation", "config.memoryAllocation",
    "config.cpuAffinity", "config.latencySensitivity", "config.files.vmPathName",
    "runtime.powerState",
)  # fmt: skip
ON, OFF = "poweredOn", "poweredOff"


@dataclass(frozen=True, slots=True)
class Seen:
    """A VM as it is. ``mark`` is the testbed it says it belongs to, "" = none.

    ``guest`` has no rates: those are the port groups'. ``cloned`` is how it came about; ``secret``
    whether it still bears the identity that it was handed.
    """

    ref: Any
    mark: str
    guest: Guest
    cards: tuple[Any, ...]
    disks: tuple[Any, ...]
    path: str
    state: str
    cloned: str
    secret: bool


@dataclass(frozen=True, slots=True)
class _Record:
    """What we wrote down; ``nics`` are (address, MTU) by MAC, the management NIC first."""

    image: str
    cloned: str
    nics: Mapping[str, tuple[str, int]]


def parse(
    ref: Any, name: str, has: Properties, mhz: int, network: Callable[[Any], str]
) -> Seen | None:
    """None where the VM has no configuration yet, or none any more.

    ``network`` names what a vNIC's backing is on.
    """
    if "config.hardware" not in has:
        return None
    extra = {o.key: str(o.value) for o in has.get("config.extraConfig", ())}
    record = _record(extra.get(wording.RECORD, ""))
    hardware = has["config.hardware"]
    cards = tuple(wording.cards(hardware.device))
    vnics = {v.mac: v for v in (_vnic(card, record, network) for card in cards)}
    first = next(iter(record.nics), "")
    management = vnics.pop(first, None) or Vnic("", "", first, "")
    order = [mac for mac in record.nics if mac in vnics]
    order += [mac for mac in vnics if mac not in record.nics]
    cpu = has["config.cpuAllocation"]
    kept = has["config.memoryAllocation"].reservation or 0
    vcpus = int(hardware.numCPU)
    latency = has.get("config.latencySensitivity")
    guest = Guest(
        name=name,
        vcpus=vcpus,
        memory_mib=int(hardware.memoryMB),
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
        mark=extra.get(wording.MARK, ""),
        guest=guest,
        cards=cards,
        disks=tuple(wording.disks(hardware.device)),
        path=str(has.get("config.files.vmPathName", "")),
        state=str(has["runtime.powerState"]),
        cloned=record.cloned,
        secret=extra.get(wording.USERDATA, "") not in ("", "---"),
    )


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
