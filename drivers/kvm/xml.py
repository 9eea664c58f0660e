"""A guest as libvirt's domain XML (https://libvirt.org/formatdomain.html); pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

from drivers.libvirt import hostdev, marks
from drivers.libvirt.marks import domain_name, domain_uuid, metadata, tap
from drivers.linux.slices import cpu_weight
from drivers.linux.sriov import HARDWARE
from provision.errors import Unsupported
from provision.resources import Guest, Vnic

#: what executes a guest's instructions, and libvirt's word for it; ``none``: its test driver
TYPES: Mapping[str, str] = {"kvm": "kvm", "tcg": "qemu", "none": "test"}
PERIOD_US = 100_000
FIRST_SLOT = 0x10  # NICs have PCI slots of their own, so that no other device can move them
LAST_SLOT = 0x1F
KB_PER_MBIT = 125  # libvirt's bandwidth is in 1000 bytes a second


@dataclass(frozen=True, slots=True)
class Body:
    """What a domain has besides its Guest; files are on the hypervisor's host.

    ``backing`` are the disks below the overlay, nearest first, as (path, format); ``owner`` is
    QEMU's user as libvirt labels it; ``ovs`` are the switches that are Open vSwitch's; ``cgroup``
    is the version that shares out CPU time, None where none does; ``functions`` are the PCI
    addresses of virtual functions, by their NICs.
    """

    testbed: str
    console: str
    disk: str | None = None
    backing: tuple[tuple[str, str], ...] = ()
    seed: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str = ""
    owner: str = ""
    emulator: str | None = None
    ovs: frozenset[str] = field(default_factory=frozenset)
    cgroup: int | None = 1
    started: str = "booted"
    functions: Mapping[str, str] = field(default_factory=dict)


def shares(guest: Guest, cgroup: int | None) -> int | None:
    """The cgroup's figure for the guest's weight, None where no cgroup shares out CPU time.

    Raises Unsupported for a weight that cgroup v2 has no step for.
    """
    if cgroup is None:
        return None
    if cgroup == 1:
        return guest.weight * 4
    try:
        return cpu_weight(guest.weight)
    except Unsupported as e:
        raise Unsupported(
            f"guest {guest.name}: cgroup v2 has no step for weight {guest.weight}", hint=e.hint
        ) from e


def quota_us(guest: Guest) -> int:
    """CPU time of the whole guest in each period of PERIOD_US; -1 = no cap."""
    return -1 if guest.cap_percent is None else guest.cap_percent * PERIOD_US // 100


def mark(guest: Guest, body: Body) -> ET.Element:
    """Our metadata, as ``marks.mark``."""
    base = body.backing[-1][0] if body.backing else ""
    return marks.mark(guest, body.testbed, body.started, base, body.functions)


def domain(guest: Guest, body: Body, bare: bool = False) -> str:
    """The whole domain; ``bare``: without NICs and seed. Raises Unsupported where it cannot be."""
    root = ET.Element("domain", type=TYPES[guest.accel])
    _sub(root, "name", domain_name(body.testbed, guest.name))
    _sub(root, "uuid", str(domain_uuid(body.testbed, guest.name)))
    root.append(metadata(mark(guest, body)))
    _sub(root, "memory", str(guest.memory_mib * 1024), unit="KiB")
    _sub(root, "vcpu", str(guest.vcpus), placement="static")
    _cputune(root, guest, body.cgroup)
    _boot(root, body)
    features = _sub(root, "features")
    _sub(features, "acpi")
    _sub(features, "apic")
    _cpu(root, guest.accel)
    _devices(_sub(root, "devices"), guest, body, bare)
    if body.owner:
        label = _sub(root, "seclabel", type="static", model="dac", relabel="no")
        _sub(label, "label", body.owner)
    return ET.tostring(root, encoding="unicode")


def interface(vnic: Vnic, guest: str, number: int, body: Body) -> ET.Element:
    """One vNIC; ``number`` 0 is management."""
    slot = FIRST_SLOT + number
    if slot > LAST_SLOT:
        most = LAST_SLOT - FIRST_SLOT
        raise Unsupported(f"guest {guest}: a guest has at most {most} vNICs besides management")
    if vnic.model in HARDWARE:
        nic = hostdev.element(vnic, body.functions[vnic.switch])
        _slot(nic, slot)
        return nic
    nic = ET.Element("interface", type="bridge")
    _sub(nic, "mac", address=vnic.mac)
    _sub(nic, "source", bridge=vnic.switch)
    if vnic.switch in body.ovs:
        _sub(nic, "virtualport", type="openvswitch")
    if vnic.rate_mbit is not None:
        bandwidth = _sub(nic, "bandwidth")
        for way in ("inbound", "outbound"):
            _sub(bandwidth, way, average=str(vnic.rate_mbit * KB_PER_MBIT))
    _sub(nic, "target", dev=tap(body.testbed, guest, number))
    _sub(nic, "model", type=vnic.model)
    _sub(nic, "mtu", size=str(vnic.mtu))
    _sub(nic, "rom", enabled="no")  # nothing boots from the network
    _slot(nic, slot)
    return nic


def _slot(nic: ET.Element, slot: int) -> None:
    _sub(nic, "address", type="pci", domain="0x0000", bus="0x00",
         slot=f"{slot:#04x}", function="0x0")  # fmt: skip


def _sub(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    found = ET.SubElement(parent, tag, attributes)
    found.text = text
    return found


def _cputune(root: ET.Element, guest: Guest, cgroup: int | None) -> None:
    tune = ET.Element("cputune")
    if (figure := shares(guest, cgroup)) is not None:
        _sub(tune, "shares", str(figure))
    if guest.cap_percent is not None:
        _sub(tune, "global_period", str(PERIOD_US))
        _sub(tune, "global_quota", str(quota_us(guest)))
    for vcpu, cpuset in enumerate(guest.pins):
        _sub(tune, "vcpupin", vcpu=str(vcpu), cpuset=cpuset)
    if guest.emulator_pin is not None:
        _sub(tune, "emulatorpin", cpuset=guest.emulator_pin)
    if len(tune):
        root.append(tune)


def _boot(root: ET.Element, body: Body) -> None:
    boot = _sub(root, "os")
    # the plain PC: all vNIC models are at home on its one PCI bus, and can be plugged in there
    _sub(boot, "type", "hvm", arch="x86_64", machine="pc")
    if body.kernel is None:
        _sub(boot, "boot", dev="hd")
        return
    _sub(boot, "kernel", body.kernel)
    if body.initrd is not None:
        _sub(boot, "initrd", body.initrd)
    _sub(boot, "cmdline", body.cmdline)


def _cpu(root: ET.Element, accel: str) -> None:
    if accel == "kvm":
        _sub(root, "cpu", mode="host-passthrough", check="none")
        return
    cpu = _sub(root, "cpu", mode="maximum", check="none")
    # emulated, each level of page tables costs time, and no guest here needs the fifth
    _sub(cpu, "feature", policy="disable", name="la57")


def _devices(devices: ET.Element, guest: Guest, body: Body, bare: bool) -> None:
    if body.emulator is not None:
        _sub(devices, "emulator", body.emulator)
    if body.disk is not None:
        _disk(devices, body.disk, body.backing)
    if body.seed is not None and not bare:
        _seed(devices, body.seed)
    _sub(devices, "controller", type="usb", model="none")
    for number, vnic in enumerate(() if bare else (guest.management, *guest.nics)):
        devices.append(interface(vnic, guest.name, number, body))
    serial = _sub(devices, "serial", type="file")
    _sub(serial, "source", path=body.console)
    _sub(serial, "target", port="0")
    channel = _sub(devices, "channel", type="unix")
    _sub(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    _sub(devices, "memballoon", model="none")
    rng = _sub(devices, "rng", model="virtio")
    _sub(rng, "backend", "/dev/urandom", model="random")


def _disk(devices: ET.Element, path: str, backing: tuple[tuple[str, str], ...]) -> None:
    """The overlay is thrown away with the guest, so nothing waits for the host's disk."""
    disk = _sub(devices, "disk", type="file", device="disk")
    _sub(disk, "driver", name="qemu", type="qcow2", cache="unsafe")
    _sub(disk, "source", file=path)
    here = disk
    for file, form in backing:
        here = _sub(here, "backingStore", type="file")
        _sub(here, "format", type=form)
        _sub(here, "source", file=file)
    _sub(here, "backingStore")
    _sub(disk, "target", dev="vda", bus="virtio")


def _seed(devices: ET.Element, path: str) -> None:
    disk = _sub(devices, "disk", type="file", device="disk")
    _sub(disk, "driver", name="qemu", type="raw")
    _sub(disk, "source", file=path)
    _sub(disk, "target", dev="vdb", bus="virtio")
    _sub(disk, "readonly")
