"""A guest as XenAPI's fields, there and back: scheduling, memory, vNICs, and the record of it.

XAPI swallows mistakes in VCPUs_params: one that cannot be read means no pin at all, or a default
weight. So all is checked before it is sent. xapi-project/xen-api, xapi_xenops.ml.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from drivers.xenserver.api import Record
from provision.driver import NicModel
from provision.resources import Guest, Vnic
from provision.units import cpu_list, cpus

NETFRONT, RTL8139, E1000 = "netfront", "rtl8139", "e1000"
MODELS: Mapping[str, NicModel] = {
    NETFRONT: NicModel(NETFRONT, (), ("xen_netfront", "vif"), 65535),
    RTL8139: NicModel(RTL8139, ("10ec:8139",), ("8139cp", "8139too"), 1500),
    E1000: NicModel(E1000, ("8086:100e",), ("e1000",), 9000),
}
WORDS = {"paravirtual": NETFRONT, "emulated": RTL8139}
ACCEL = "xen"
RECORD = "provision.guest"
GUEST, SEED = "provision.of", "provision.seed"
NO_PV = "vm-data/disable_pf"
NORMAL_WEIGHT, MOST_WEIGHT = 256, 65535
MOST_NICS = 7  # devices 0 to 6
MIB = 1 << 20
KIB_PER_MBIT = 1_000_000 / 8 / 1024  # qos_algorithm_params: kbps is KiB a second
RATE, KBPS = "ratelimit", "kbps"


@dataclass(frozen=True, slots=True)
class Noted:
    """What we wrote down of a guest: XenAPI itself knows neither addresses nor what a spec says.

    ``nics`` has (address, mtu, switch) by MAC, the management NIC first; ``source`` is how its
    disks came about.
    """

    image: str
    source: str
    nics: Mapping[str, tuple[str, int, str]]


def note(want: Guest, source: str) -> str:
    """The record as text."""
    nics = [[v.mac, v.address, v.mtu, v.switch] for v in (want.management, *want.nics)]
    return json.dumps({"image": want.image, "source": source, "nics": nics})


def noted(has: Record) -> Noted:
    """What of the record is as we write it."""
    try:
        data = json.loads(has["other_config"].get(RECORD, ""))
        nics = {str(m): (str(a), int(t), str(s)) for m, a, t, s in data["nics"]}
        return Noted(str(data["image"]), str(data["source"]), nics)
    except (ValueError, TypeError, KeyError):
        return Noted("", "", {})


def params(want: Guest) -> dict[str, str]:
    """VCPUs_params: weight, cap, and which CPUs each vCPU may run on."""
    found = {"weight": str(want.weight), "cap": str(want.cap_percent or 0)}
    if want.pins:
        lists = [",".join(map(str, cpus(pin))) for pin in want.pins]
        found["mask"] = lists[0] if len(set(lists)) == 1 else ";".join(lists)
    return found


def pins(mask: str, vcpus: int) -> tuple[str, ...]:
    """One CPU list a vCPU; a vCPU without a list of its own has the first one's."""
    if not mask:
        return ()
    try:
        lists = [cpu_list(int(n) for n in part.split(",")) for part in mask.split(";")]
    except ValueError:
        return (f"unreadable: {mask}",)
    return tuple(lists[n] if n < len(lists) else lists[0] for n in range(vcpus))


def number(text: str, normal: int) -> int:
    """As XAPI takes it: what is no number is the default."""
    return int(text) if text.strip().isdecimal() else normal


def model(has: Record) -> str:
    """What all of a VM's NICs are: emulated only where its PV drivers find no platform device."""
    if has["xenstore_data"].get(NO_PV) != "1" or has["domain_type"] != "hvm":
        return NETFRONT
    return str(has["platform"].get("nic_type", RTL8139))


def kbps(rate_mbit: int | None) -> tuple[str, dict[str, str]]:
    """A VIF's qos_algorithm_type and its parameters."""
    if rate_mbit is None:
        return "", {}
    return RATE, {KBPS: str(round(rate_mbit * KIB_PER_MBIT))}


def rate_mbit(vif: Record) -> int | None:
    if vif["qos_algorithm_type"] != RATE:
        return None
    return round(number(vif["qos_algorithm_params"].get(KBPS, ""), 0) / KIB_PER_MBIT)


def guest(
    name: str, has: Record, vifs: Iterable[Record], switch: Mapping[str, tuple[str, ...]]
) -> Guest:
    """The guest that a VM is; ``switch`` has all names of each network, the usual one first."""
    told, kind = noted(has), model(has)
    by_mac = {str(v["MAC"]).lower(): v for v in vifs}
    vnics = {m: _vnic(m, v, told, kind, switch) for m, v in by_mac.items()}
    first = next(iter(told.nics), "")
    management = vnics.pop(first, None) or Vnic("", kind, first, "")
    order = [m for m in told.nics if m in vnics] + [m for m in sorted(vnics) if m not in told.nics]
    vcpus, given = int(has["VCPUs_max"]), has["VCPUs_params"]
    if has["VCPUs_at_startup"] != has["VCPUs_max"]:
        vcpus = int(has["VCPUs_at_startup"])
    return Guest(
        name=name,
        vcpus=vcpus,
        memory_mib=min(int(has["memory_dynamic_min"]), int(has["memory_static_max"])) // MIB,
        image=told.image,
        management=management,
        nics=tuple(vnics[m] for m in order),
        accel=ACCEL,
        pins=pins(given.get("mask", ""), vcpus),
        weight=number(given.get("weight", ""), NORMAL_WEIGHT),
        cap_percent=number(given.get("cap", ""), 0) or None,
        running=has["power_state"] == "Running",
    )


def _vnic(
    mac: str, vif: Record, told: Noted, kind: str, switch: Mapping[str, tuple[str, ...]]
) -> Vnic:
    address, mtu, word = told.nics.get(mac, ("", int(vif["MTU"]), ""))
    names = switch.get(vif["network"], ("",))
    return Vnic(word if word in names else names[0], kind, mac, address, mtu, rate_mbit(vif))


def wanted_nics(want: Guest) -> Iterator[tuple[str, Vnic]]:
    """Each vNIC with its device number, the management NIC first."""
    for device, vnic in enumerate((want.management, *want.nics)):
        yield str(device), vnic
