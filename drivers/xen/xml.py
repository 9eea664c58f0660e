"""A guest as libvirt's domain XML for Xen, there and back; pure.

https://libvirt.org/drvxen.html, formatdomain.html. Weight and cap have no place in it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Any

from drivers.libvirt import hostdev
from drivers.libvirt.marks import (
    address,
    domain_name,
    domain_uuid,
    functions,
    mark,
    marked,
    metadata,
    vnics,
)
from drivers.linux.sriov import HARDWARE, PASSTHROUGH
from provision.resources import Guest, Vnic
from provision.units import cpu_list, cpus

PV, PVH, HVM = "pv", "pvh", "hvm"
#: how libvirt says each: machine, and the type of system
TYPES: Mapping[str, tuple[str, str]] = {
    PV: ("xenpv", "linux"),
    PVH: ("xenpvh", "xenpvh"),
    HVM: ("xenfv", "hvm"),
}
NETFRONT = "netfront"
KB_PER_MBIT = 125  # libvirt's bandwidth is in 1000 bytes a second
ROOT, SEED = "xvda", "xvdb"
#: libxl's scripts put it behind a vif's name for the tap of an emulated NIC
EMULATED_END = "-emu"
#: a guest with PV drivers takes its emulated NICs away as it boots, and leaves them alone where it
#: is told to take the disks only; libxl gives each a PV twin of the same MAC, which it must not
#: drive: Linux's Documentation/admin-guide/kernel-parameters
KEEP_NICS = ("xen_emul_unplug=ide-disks", "module_blacklist=xen_netfront")


@dataclass(frozen=True, slots=True)
class Body:
    """What a domain has besides its Guest; files are on dom0.

    ``base`` is the image's disk, below the overlay ``disk``; ``ovs`` are the switches that are
    Open vSwitch's; ``kernel`` None = the disk boots itself; ``functions`` are the PCI addresses of
    what NICs give, by their names.
    """

    testbed: str
    disk: str
    base: str
    seed: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str = ""
    ovs: frozenset[str] = field(default_factory=frozenset)
    functions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """A domain of ours, as libvirt tells it. ``active``: there is one, which may be paused.

    ``asked`` is the Guest that was put, as plain data; ``taps`` are dom0's ends of the vNICs that
    frames go by, "" = it is hardware; ``functions`` as Body's.
    """

    guest: Guest
    testbed: str
    asked: Mapping[str, Any]
    active: bool
    base: str
    disk: str
    taps: tuple[str, ...]
    functions: Mapping[str, str]


def vif(testbed: str, guest: str, number: int) -> str:
    """The name of a vNIC's device in dom0; EMULATED_END has room within the kernel's 15 letters."""
    digest = blake2s(f"{testbed}/{guest}".encode(), digest_size=4).digest()
    return f"pv{b32encode(digest).decode()[:6].lower()}n{number}"


def domain(guest: Guest, body: Body) -> str:
    """The whole domain."""
    root = ET.Element("domain", type="xen")
    _sub(root, "name", domain_name(body.testbed, guest.name))
    _sub(root, "uuid", str(domain_uuid(body.testbed, guest.name)))
    root.append(metadata(mark(guest, body.testbed, "booted", body.base, body.functions)))
    _sub(root, "memory", str(guest.memory_mib * 1024), unit="KiB")
    _sub(root, "vcpu", str(guest.vcpus))
    if guest.pins:
        tune = _sub(root, "cputune")  # <vcpu cpuset> is not heeded
        for vcpu, cpuset in enumerate(guest.pins):
            _sub(tune, "vcpupin", vcpu=str(vcpu), cpuset=cpuset)
    _boot(root, guest, body)
    if guest.accel == HVM:
        features = _sub(root, "features")
        for feature in ("acpi", "apic", "pae"):
            _sub(features, feature)
    elif guest.accel == PV and body.functions:
        # room for the device's own memory, as xl makes it by itself
        _sub(_sub(_sub(root, "features"), "xen"), "e820_host", state="on")
    _sub(root, "on_crash", "destroy")
    devices = _sub(root, "devices")
    _disk(devices, ROOT, body.disk, "qcow2")
    if body.seed is not None:
        # QEMU 7.2's back end refuses disks that are read-only
        _disk(devices, SEED, body.seed, "raw")
    for number, vnic in enumerate(vnics(guest)):
        devices.append(_interface(vnic, guest.name, number, body))
    _sub(devices, "serial" if guest.accel == HVM else "console", type="pty")
    return ET.tostring(root, encoding="unicode")


def parse(text: str, cpu_count: int) -> Seen | None:
    """None where the domain has no mark of ours, or a mark that is not its own."""
    root = ET.fromstring(text)
    ours = marked(root)
    if ours is None:
        return None
    found, asked = ours
    active = root.get("id", "-1") != "-1"
    interfaces = _in_order(root, asked)
    given = {pci: nic for nic, pci in functions(found).items()}
    nics = [_vnic(one, number, asked, given) for number, one in enumerate(interfaces)]
    machine = _attr(root, "os/type", "machine")
    vcpus = int(root.findtext("vcpu") or 0)
    testbed, name = found.get("testbed", ""), found.get("name", "")
    guest = Guest(
        name=name,
        vcpus=vcpus,
        memory_mib=int(root.findtext("memory", "0")) // 1024,
        image=asked["image"],
        management=nics[0] if nics else Vnic("", "", "", ""),
        nics=tuple(nics[1:]),
        accel=next((a for a, (m, _) in TYPES.items() if m == machine), machine),
        pins=_pins(root, vcpus, cpu_count, asked),
        weight=asked["weight"],
        cap_percent=asked["cap_percent"],
        running=active,
    )
    return Seen(
        guest, testbed, asked, active, found.get("base", ""),
        _attr(root, "devices/disk/source", "file"),
        tuple(map(_end, interfaces)), functions(found),
    )  # fmt: skip


def console(cmdline: str, accel: str) -> str:
    """The kernel's words with the console that the guest has: PV and PVH guests have Xen's own."""
    if accel == HVM:
        return cmdline
    words = [w for w in cmdline.split() if not w.startswith("console=")]
    return " ".join(["console=hvc0", *words])


def _boot(root: ET.Element, guest: Guest, body: Body) -> None:
    boot = _sub(root, "os")
    machine, kind = TYPES[guest.accel]
    _sub(boot, "type", kind, arch="x86_64", machine=machine)
    if body.kernel is not None:
        _sub(boot, "kernel", body.kernel)
        if body.initrd is not None:
            _sub(boot, "initrd", body.initrd)
        emulated = any(_emulated(v.model) for v in vnics(guest))
        words = [console(body.cmdline, guest.accel), *(KEEP_NICS if emulated else ())]
        _sub(boot, "cmdline", " ".join(words))
    elif guest.accel == HVM:
        _sub(boot, "boot", dev="hd")
    else:
        root.insert(list(root).index(boot), _text("bootloader", "pygrub"))


def _interface(vnic: Vnic, guest: str, number: int, body: Body) -> ET.Element:
    if vnic.model in HARDWARE:
        return hostdev.element(vnic, body.functions[vnic.switch])
    nic = ET.Element("interface", type="bridge")
    _sub(nic, "mac", address=vnic.mac)
    _sub(nic, "source", bridge=vnic.switch)
    if vnic.switch in body.ovs:
        _sub(nic, "virtualport", type="openvswitch")
    if vnic.rate_mbit is not None:
        bandwidth = _sub(nic, "bandwidth")
        _sub(bandwidth, "outbound", average=str(vnic.rate_mbit * KB_PER_MBIT))
    _sub(nic, "target", dev=vif(body.testbed, guest, number))
    _sub(nic, "model", type=vnic.model)
    _sub(nic, "mtu", size=str(vnic.mtu))
    return nic


def _disk(devices: ET.Element, name: str, path: str, form: str) -> None:
    disk = _sub(devices, "disk", type="file", device="disk")
    _sub(disk, "driver", name="qemu", type=form)
    _sub(disk, "source", file=path)
    _sub(disk, "target", dev=name, bus="xen")


def _in_order(root: ET.Element, asked: Mapping[str, Any]) -> list[ET.Element]:
    """As they were asked for: libvirt has whole devices apart from interfaces."""
    nets, whole = root.findall("devices/interface"), root.findall("devices/hostdev")
    found = []
    for vnic in (asked["management"], *asked["nics"]):
        found += [kind.pop(0) for kind in [whole if vnic["model"] == PASSTHROUGH else nets] if kind]
    return [*found, *nets, *whole]


def _vnic(
    found: ET.Element, number: int, asked: Mapping[str, Any], given: Mapping[str, str]
) -> Vnic:
    if (hardware := hostdev.vnic(found, number, asked, given)) is not None:
        return hardware
    mac = _attr(found, "mac", "address")
    rate = _attr(found, "bandwidth/outbound", "average")
    return Vnic(
        switch=_attr(found, "source", "bridge"),
        model=_attr(found, "model", "type") or NETFRONT,
        mac=mac,
        address=address(mac, number, asked),
        mtu=int(_attr(found, "mtu", "size") or 0),
        rate_mbit=int(rate) // KB_PER_MBIT if rate else None,
    )


def _emulated(model: str) -> bool:
    return model not in ("", NETFRONT, *HARDWARE)


def _end(found: ET.Element) -> str:
    """dom0's end of a vNIC. An emulated one has a vif too, which nobody is at."""
    name = _attr(found, "target", "dev")
    return name and name + (EMULATED_END if _emulated(_attr(found, "model", "type")) else "")


def _pins(
    root: ET.Element, vcpus: int, cpu_count: int, asked: Mapping[str, Any]
) -> tuple[str, ...]:
    """The wish where libvirt has what it comes to: unpinned is the same as pinned to all."""
    every = cpu_list(range(cpu_count))
    told = {p.get("vcpu"): p.get("cpuset", "") for p in root.findall("cputune/vcpupin")}
    now = tuple(cpu_list(cpus(told.get(str(v)) or every)) for v in range(vcpus))
    wish = tuple(asked["pins"])
    return wish if now == (wish or (every,) * vcpus) else now


def _attr(root: ET.Element, path: str, name: str) -> str:
    found = root.find(path)
    return "" if found is None else found.get(name, "")


def _text(tag: str, text: str) -> ET.Element:
    found = ET.Element(tag)
    found.text = text
    return found


def _sub(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    found = ET.SubElement(parent, tag, attributes)
    found.text = text
    return found
