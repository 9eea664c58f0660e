"""What this QEMU, this libvirt and their host are and can do."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drivers.kvm.xml import shares
from drivers.linux.links import sections
from drivers.linux.net import CHANGE as NET_CHANGE
from drivers.linux.net import FLAVOURS
from drivers.linux.sriov import PASSTHROUGH, SRIOV
from drivers.linux.tuning import NEEDS as TUNING_NEEDS
from provision.capabilities import MODEL, SWITCH, Capabilities
from provision.driver import Change, NicModel, Target
from provision.errors import PreflightError, Unsupported
from provision.host import Host
from provision.resources import Guest
from provision.units import cpus


def _model(name: str, drivers: str, *pci_ids: str, mtu: int = 65535) -> NicModel:
    return NicModel(name, pci_ids, tuple(drivers.split()), mtu)


JUMBO, PLAIN = 9000, 1500  # as their Linux drivers take it


#: the vNIC models that were seen to carry traffic, as Linux sees them; QEMU has more
MODELS: Mapping[str, NicModel] = {
    m.name: m
    for m in (
        _model("virtio", "virtio_net", "1af4:1000", "1af4:1041"),
        _model("e1000", "e1000", "8086:100e", mtu=JUMBO),
        _model("e1000e", "e1000e", "8086:10d3", mtu=JUMBO),
        _model("rtl8139", "8139cp 8139too", "10ec:8139", mtu=PLAIN),
        _model("vmxnet3", "vmxnet3", "15ad:07b0", mtu=JUMBO),
        _model("pcnet", "pcnet32", "1022:2000", mtu=PLAIN),
        _model("tulip", "tulip", "1011:0019", mtu=PLAIN),
        NicModel(SRIOV, (), (), JUMBO, direct=True),
        NicModel(PASSTHROUGH, (), (), JUMBO, direct=True, whole=True),
    )
}
#: vNIC models that a guest takes up when they are plugged in
PLUGGED = frozenset({"virtio", "e1000", "e1000e", "rtl8139", "vmxnet3"})
WORDS = {"paravirtual": "virtio", "emulated": "e1000"}
QEMU_NAMES = {"virtio": "virtio-net-pci", SRIOV: "vfio-pci", PASSTHROUGH: "vfio-pci"}
LIVE = ("weight", "cap_percent", "pins", "emulator_pin")
RESTART = ("vcpus", "memory_mib", "management", "nics", "accel", "running")

#: whatever the host; what else it must have, it is asked for
CAPABILITIES = Capabilities(
    nic_models=MODELS,
    words=WORDS,
    switches=FLAVOURS,
    refused={
        "guests.cpu.reserve_percent": "Linux's scheduler reserves no CPU time; "
        "give the guest CPUs of its own: guests.cpu.pin",
        "guests.memory_reserve_mib": "nothing here keeps memory for one guest; leave the host "
        "enough: without overcommit, all guests' memory fits",
        "guests.latency": "KVM has no such word; give the guest CPUs of its own: guests.cpu.pin",
        "dom0.cap_percent": "the host's own processes have a weight and no cap: dom0.weight",
        "dom0.memory_mib": "the host keeps the memory that guests leave it: guests.memory",
        **{
            f"hypervisor.{word}": "libvirt's URI says all of it: hypervisor.uri"
            for word in ("user", "password", "auth", "tls", "host", "pool", "ssh")
        },
        "hypervisor.storage": "disks lie in the state folder: PROVISION_STATE_DIR",
    },
    depends={
        **TUNING_NEEDS,
        **{f"{MODEL}={model}": "a QEMU that has the model" for model in MODELS},
        f"{MODEL}={PASSTHROUGH}": "an IOMMU in force; no checkpoint",
        f"{MODEL}={SRIOV}": "an IOMMU in force, and uplinks with virtual functions; no checkpoint",
        f"{SWITCH}=ovs": "Open vSwitch on the host",
        "guests.cpu.weight": "a cgroup controller cpu on the host",
        "guests.cpu.cap_percent": "a cgroup controller cpu on the host",
        "guests.nic.rate_mbit": "sch_sfq and act_police in the host's kernel",
    },
)

_DEVICE = re.compile(r'^name "([^"]+)", bus PCI', re.MULTILINE)
# libvirt's own way to hold a vNIC to a rate, tried where it disturbs nobody
_SHAPER = """
tc qdisc add dev lo root handle 1: htb default 1 &&
tc class add dev lo parent 1: classid 1:1 htb rate 1mbit &&
tc qdisc add dev lo parent 1:1 handle 2: sfq perturb 10 &&
tc qdisc add dev lo ingress &&
tc filter add dev lo parent ffff: protocol all u32 match u32 0 0 \\
  police rate 100kbps burst 100kb mtu 64kb drop flowid :1 && echo works
"""
_PROBE = f"""
echo @@cpus; grep -c '^processor' /proc/cpuinfo
echo @@flags; grep -m1 -owE 'vmx|svm' /proc/cpuinfo || :
echo @@cpu; grep -m1 '^model name' /proc/cpuinfo || :
echo @@memory; grep -m1 MemTotal /proc/meminfo
echo @@v2; cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null || :
echo @@v1; grep -E ' cgroup ([^ ]*,)?cpu[, ]' /proc/mounts || :
echo @@rate; unshare --net sh -c '{_SHAPER}' 2>&1 || :
echo @@devices; [ -z "$1" ] || "$1" -machine none -device help 2>&1 || :
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """The hypervisor's host.

    ``cgroup`` is the version that shares out CPU time; ``rate`` is why libvirt cannot hold vNICs
    to a rate there, "" = it can; ``owner`` labels QEMU's user.
    """

    name: str
    cpus: int
    memory_mib: int
    version: str
    emulator: str | None
    accels: Mapping[str, str]
    owner: str
    cgroup: int | None
    rate: str
    cpu: str
    models: Mapping[str, NicModel]

    @property
    def simulated(self) -> bool:
        """Whether it is libvirt's test driver, whose domains have no inside."""
        return "none" in self.accels


def look(conn: Any, host: Host) -> Machine:
    """Ask libvirt, then the host, in one command. Raises libvirt's and the host's own errors."""
    simulated = conn.getType() == "TEST"
    capabilities = ET.fromstring(conn.getCapabilities())
    guest = _guest(capabilities)
    if guest is None and not simulated:
        raise PreflightError(
            f"{conn.getHostname()}: libvirt has no QEMU for x86_64",
            hint="apt-get install qemu-system-x86",
        )
    emulator = guest.findtext("emulator") if guest is not None else None
    seen = sections(host.run("sh", "-c", _PROBE, "probe", emulator or ""))
    return Machine(
        name=conn.getHostname(),
        cpus=int(seen["cpus"]),
        memory_mib=int(seen["memory"].split()[1]) // 1024,
        version=_version(conn),
        emulator=emulator,
        accels={"none": ""} if simulated else _accels(guest, bool(seen["flags"])),
        owner=_owner(capabilities),
        cgroup=2 if "cpu" in seen["v2"].split() else 1 if seen["v1"] or simulated else None,
        rate="" if simulated or seen["rate"].endswith("works") else _why(seen["rate"]),
        cpu=seen["cpu"],
        models=MODELS if simulated else _models(seen["devices"]),
    )


def choose_accel(machine: Machine, asked: str) -> tuple[str, str]:
    """What will execute guests' instructions, and why not something faster.

    Raises PreflightError where what is asked for is impossible.
    """
    works = [accel for accel, why_not in machine.accels.items() if not why_not]
    why_not = machine.accels.get("kvm", "")
    if asked == "auto":
        return works[0], why_not
    if asked in works:
        return asked, why_not if asked != "kvm" else ""
    reason = machine.accels.get(asked, f"it has {', '.join(works)}")
    raise PreflightError(
        f"the host {machine.name} cannot run guests with {asked}: {reason}",
        hint=f"hypervisor.accel: {works[0]}",
    )


def changes(simulated: bool) -> dict[tuple[str, str], Change]:
    """How disturbing a change of a field is; a new image means a new guest."""
    live = Change.RESTART if simulated else Change.LIVE
    found = {("guest", field): live for field in LIVE}
    return {**NET_CHANGE, **found, **{("guest", field): Change.RESTART for field in RESTART}}


def cannot(machine: Machine) -> dict[str, str]:
    """The spec's words that are refused here, with the reason and what would work."""
    found = dict(CAPABILITIES.refused)
    if machine.cgroup is None:
        reason = "no cgroup controller 'cpu' is mounted on the host; use guests.cpu.pin"
        found |= {"guests.cpu.weight": reason, "guests.cpu.cap_percent": reason}
    if machine.rate:
        found["guests.nic.rate_mbit"] = (
            f"the host's kernel lacks what libvirt shapes with: {machine.rate}; "
            "in the emulated lab, lab.rate holds the cable to a rate"
        )
    return found


def unfit(guest: Guest, target: Target) -> Iterator[str]:
    """What Linux cannot have, and guests that cannot be restored, as the spec says it."""
    if len(bridge := guest.management.switch) > 15 or " " in bridge:
        yield f"management.bridge: {bridge!r}: a bridge's name has at most 15 letters, no space"
    if target.start != "restore":
        return
    if target.image is not None and target.image.kernel is None:
        yield "guests.start: only the built image can be restored; auto boots guests"
    if strange := {v.model for v in guest.nics} - PLUGGED:
        yield (
            f"guests.start: a {', '.join(strange)} cannot be plugged into a restored guest; auto "
            "boots guests"
        )


def refuse(want: Guest, machine: Machine) -> None:
    """Raise Unsupported for a guest that cannot be here, before anything changes."""
    name = want.name
    for vnic in (want.management, *want.nics):
        if vnic.model not in machine.models:
            has = ", ".join(machine.models)
            raise Unsupported(f"guest {name}: no vNIC model {vnic.model!r} here; there are: {has}")
        if vnic.rate_mbit is not None and machine.rate:
            raise Unsupported(f"guest {name}: no rate for vNICs here: {machine.rate}")
    if machine.accels.get(want.accel, "unknown"):
        raise Unsupported(f"guest {name}: accel {want.accel!r} is not to be had here")
    if want.pins and len(want.pins) != want.vcpus:
        raise Unsupported(f"guest {name}: {len(want.pins)} pins for {want.vcpus} vCPUs")
    for text in (*want.pins, want.emulator_pin or "0"):
        if (last := max(cpus(text), default=0)) >= machine.cpus:
            raise Unsupported(f"guest {name}: the host {machine.name} has no CPU {last}")
    shares(want, machine.cgroup)


def _guest(capabilities: ET.Element) -> ET.Element | None:
    for guest in capabilities.findall("guest"):
        arch = guest.find("arch[@name='x86_64']")
        if arch is not None and guest.findtext("os_type") == "hvm":
            return arch
    return None


def _accels(guest: ET.Element | None, virtualizes: bool) -> dict[str, str]:
    """Each way to execute guests, the best first, with what hinders it; "" = nothing."""
    types = {d.get("type") for d in guest.findall("domain")} if guest is not None else set()
    # a /dev/kvm that opens proves nothing: without these flags, guests hang or abort on it
    kvm = "" if virtualizes else "the CPU shows neither vmx nor svm"
    if not kvm and "kvm" not in types:
        kvm = "libvirt has no KVM: /dev/kvm is missing, or QEMU's user may not open it"
    return {"kvm": kvm, "tcg": ""}


def _version(conn: Any) -> str:
    qemu, libvirt = (_dotted(n) for n in (conn.getVersion(), conn.getLibVersion()))
    return f"{conn.getType()} {qemu}, libvirt {libvirt}"


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _owner(capabilities: ET.Element) -> str:
    """QEMU's user and group, as ``+UID:+GID``; "" where libvirt keeps no such label."""
    for model in capabilities.findall("host/secmodel"):
        if model.findtext("model") == "dac":
            return model.findtext("baselabel") or ""
    return ""


def _models(listing: str) -> dict[str, NicModel]:
    """What this QEMU offers of what we know."""
    there = set(_DEVICE.findall(listing))
    return {name: m for name, m in MODELS.items() if QEMU_NAMES.get(name, name) in there}


def _why(words: str) -> str:
    lines = [line.strip(" .") for line in words.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ") if lines else "no tc"
