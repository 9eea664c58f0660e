"""libvirt's domain XML, and what the host says beside it, back into a Guest; pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from drivers.kvm.xml import FIRST_SLOT, KB_PER_MBIT, TYPES
from drivers.libvirt import hostdev
from drivers.libvirt.marks import address, functions, marked
from drivers.linux.slices import from_cpu_weight
from provision.resources import Guest, Vnic
from provision.units import cpu_list, cpus

#: for what is set, but not as we would: unlike any wish
ODD = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A domain of ours. ``active`` is a QEMU process, which may be paused all the same.

    ``asked`` is the Guest that was put, as plain data; ``disk`` is the overlay's path, ``backing``
    the disks below it; ``taps`` are the host's ends of the vNICs, management's first, "" = it is
    hardware; ``functions`` are the PCI addresses of what NICs gave.
    """

    guest: Guest
    testbed: str
    asked: Mapping[str, Any]
    active: bool
    started: str
    machine: str
    disk: str | None
    backing: tuple[tuple[str, str], ...]
    taps: tuple[str, ...] = ()
    functions: Mapping[str, str] = field(default_factory=dict)


def parse(text: str, cpu_count: int, cgroup: int | None) -> Seen | None:
    """None where the domain has no mark of ours, or a mark that is not its own."""
    root = ET.fromstring(text)
    ours = marked(root)
    if ours is None:
        return None
    mark, asked = ours
    active = root.get("id") is not None
    backing = _backing(root.find("devices/disk"))
    lowest = backing[-1][0] if backing else ""
    devices = [*root.findall("devices/interface"), *root.findall("devices/hostdev")]
    interfaces = _in_order(devices)
    given = {pci: nic for nic, pci in functions(mark).items()}
    nics = [_vnic(found, asked, given) for found in interfaces]
    vcpus = int(_attr(root, "vcpu", "current") or root.findtext("vcpu") or 0)
    guest = Guest(
        name=mark.get("name", ""),
        vcpus=vcpus,
        memory_mib=int(root.findtext("memory", "0")) // 1024,
        image=asked["image"] if lowest == mark.get("base") else lowest,
        management=nics[0] if nics else Vnic("", "", "", ""),
        nics=tuple(nics[1:]),
        accel=next((a for a, t in TYPES.items() if t == root.get("type")), root.get("type", "")),
        pins=_pins(root, vcpus, cpu_count, asked),
        emulator_pin=_emulator_pin(root, cpu_count, asked),
        weight=_weight(root.findtext("cputune/shares"), cgroup),
        cap_percent=_cap(
            int(root.findtext("cputune/global_quota", "-1")),
            int(root.findtext("cputune/global_period", "1")),
        ),
        running=active,
    )
    return Seen(
        guest=guest,
        testbed=mark.get("testbed", ""),
        asked=asked,
        active=active,
        started=mark.get("started", ""),
        machine=_attr(root, "os/type", "machine"),
        disk=_attr(root, "devices/disk/source", "file") or None,
        backing=backing,
        functions=functions(mark),
        taps=tuple(_attr(found, "target", "dev") for found in interfaces),
    )


def effective(
    guest: Guest,
    scheduler: Mapping[str, int],
    affinity: Sequence[Sequence[bool]],
    cgroup: int | None,
) -> Guest:
    """The guest with what the kernel holds now in place of what libvirt was told.

    ``scheduler`` are libvirt's scheduler parameters; ``affinity`` has the CPUs that each vCPU's
    thread may use. Those of an unpinned guest are the host's own affair.
    """
    if "cpu_shares" in scheduler:
        guest = replace(guest, weight=_weight(str(scheduler["cpu_shares"]), cgroup))
    if "global_quota" in scheduler:
        cap = _cap(scheduler["global_quota"], scheduler["global_period"])
        guest = replace(guest, cap_percent=cap)
    if guest.pins and len(affinity) == guest.vcpus:
        now = tuple(cpu_list(n for n, may in enumerate(row) if may) for row in affinity)
        guest = replace(guest, pins=now)
    return guest


def _attr(root: ET.Element, path: str, name: str) -> str:
    found = root.find(path)
    return "" if found is None else found.get(name, "")


def _in_order(interfaces: list[ET.Element]) -> list[ET.Element]:
    return sorted(interfaces, key=lambda i: int(_attr(i, "address", "slot") or "0", 16))


def _vnic(found: ET.Element, asked: Mapping[str, Any], given: Mapping[str, str]) -> Vnic:
    """Its address is inside the guest, out of libvirt's sight: the one that was asked for."""
    mac = _attr(found, "mac", "address")
    slot = int(_attr(found, "address", "slot") or "0", 16) - FIRST_SLOT
    if (hardware := hostdev.vnic(found, slot, asked, given)) is not None:
        return hardware
    return Vnic(
        switch=_attr(found, "source", "bridge"),
        model=_attr(found, "model", "type"),
        mac=mac,
        address=address(mac, slot, asked),
        mtu=int(_attr(found, "mtu", "size") or ODD),
        rate_mbit=_rate(found),
    )


def _rate(found: ET.Element) -> int | None:
    ways = {_attr(found, f"bandwidth/{way}", "average") for way in ("inbound", "outbound")}
    if ways == {""}:
        return None
    rate, rest = divmod(int(ways.pop() or 0), KB_PER_MBIT)
    return ODD if ways or rest else rate


def _backing(disk: ET.Element | None) -> tuple[tuple[str, str], ...]:
    found = []
    here = None if disk is None else disk.find("backingStore")
    while here is not None and here.find("source") is not None:
        found.append((_attr(here, "source", "file"), _attr(here, "format", "type")))
        here = here.find("backingStore")
    return tuple(found)


def _weight(text: str | None, cgroup: int | None) -> int:
    if text is None or cgroup is None:
        return 256
    if cgroup == 2:
        return from_cpu_weight(int(text))
    weight, rest = divmod(int(text), 4)
    return ODD if rest else weight


def _cap(quota_us: int, period_us: int) -> int | None:
    if quota_us <= 0:  # no limit
        return None
    percent, rest = divmod(quota_us * 100, period_us)
    return ODD if rest else percent


def _pins(
    root: ET.Element, vcpus: int, cpu_count: int, asked: Mapping[str, Any]
) -> tuple[str, ...]:
    """The wish where libvirt has what it comes to: unpinned is the same as pinned to all."""
    every = cpu_list(range(cpu_count))
    told = {p.get("vcpu"): p.get("cpuset", "") for p in root.findall("cputune/vcpupin")}
    now = tuple(_canonical(told.get(str(v), every)) for v in range(vcpus))
    wish = tuple(asked["pins"])
    if now == (wish or (every,) * vcpus):
        return wish
    return now


def _emulator_pin(root: ET.Element, cpu_count: int, asked: Mapping[str, Any]) -> str | None:
    every = cpu_list(range(cpu_count))
    now = _canonical(_attr(root, "cputune/emulatorpin", "cpuset") or every)
    wish: str | None = asked["emulator_pin"]
    return wish if now == (wish or every) else now


def _canonical(cpuset: str) -> str:
    return cpu_list(cpus(cpuset))
