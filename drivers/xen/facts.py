"""What this Xen and its dom0 are and can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drivers.dom0 import xl
from drivers.dom0.look import State, state
from drivers.libvirt.marks import vnics
from drivers.linux.links import sections
from drivers.linux.net import FLAVOURS
from drivers.linux.sriov import PASSTHROUGH, SRIOV
from drivers.xen.xml import HVM, NETFRONT, PV, PVH
from provision.capabilities import MODEL, SWITCH, Capabilities
from provision.driver import Change, NicModel, Target
from provision.errors import PreflightError, Unsupported
from provision.host import Host
from provision.resources import Guest
from provision.units import cpus

#: the vNIC models of Xen, as Linux sees them; the emulated ones are QEMU's
MODELS: Mapping[str, NicModel] = {
    NETFRONT: NicModel(NETFRONT, (), ("vif",)),
    "rtl8139": NicModel("rtl8139", ("10ec:8139",), ("8139cp", "8139too"), 1500),
    "e1000": NicModel("e1000", ("8086:100e",), ("e1000",), 9000),
    SRIOV: NicModel(SRIOV, (), (), 9000, direct=True),
    PASSTHROUGH: NicModel(PASSTHROUGH, (), (), 9000, direct=True, whole=True),
}
EMULATED = frozenset({"rtl8139", "e1000"})
WORDS = {"paravirtual": NETFRONT, "emulated": "rtl8139"}
LIVE = ("weight", "cap_percent", "pins")
RESTART = ("vcpus", "memory_mib", "management", "nics", "accel", "running")
MAC_PREFIX = "00:16:3e"
_BOOTS = "the hypervisor's boot options are taken when the host boots"
_GRUB = "GRUB and update-grub in dom0"
_SCHED = "the scheduler credit2 or credit"
_QEMU = "HVM guests: a CPU with VT-x or SVM, and Xen's QEMU in dom0"
_GIVES = "an IOMMU that Xen uses, and xen-pciback in dom0"
#: whatever the host; what else it must have, it is asked for
CAPABILITIES = Capabilities(
    nic_models=MODELS,
    words=WORDS,
    switches=FLAVOURS,
    refused={
        "guests.cpu.emulator_pin": "what works for guests is in dom0: dom0.pin",
        "guests.cpu.reserve_percent": "Xen's schedulers reserve no CPU time; give the guest CPUs "
        "of its own: guests.cpu.pin",
        "guests.memory_reserve_mib": "all memory of a guest is its own already",
        "guests.latency": "Xen has no such word; give the guest CPUs of its own: guests.cpu.pin",
        **{
            f"hypervisor.{word}": "libvirt's URI says all of it: hypervisor.uri"
            for word in ("user", "password", "auth", "tls", "host", "pool", "ssh")
        },
        "hypervisor.storage": "disks lie in the state folder: PROVISION_STATE_DIR",
        "hypervisor.accel": "guests.virt says how guests are virtualized",
    },
    reboots={
        "dom0.vcpus": _BOOTS,
        "dom0.pin": "0-N is an option that the hypervisor boots with; other lists are live",
        "dom0.memory_mib": _BOOTS,
    },
    depends={
        "dom0.vcpus": _GRUB,
        "dom0.memory_mib": _GRUB,
        **{
            word: _SCHED
            for word in (
                "guests.cpu.weight", "guests.cpu.cap_percent", "dom0.weight", "dom0.cap_percent",
            )
        },
        "dom0.irq_affinity": "uplinks with interrupts of their own; irqbalance is stopped",
        f"{SWITCH}=ovs": "Open vSwitch in dom0",
        **{f"{MODEL}={model}": _QEMU for model in sorted(EMULATED)},
        f"{MODEL}={SRIOV}": f"{_GIVES}, and uplinks with virtual functions; no checkpoint",
        f"{MODEL}={PASSTHROUGH}": f"{_GIVES}; no checkpoint",
    },
)  # fmt: skip
_PROBE = """
echo @@root; id -u
echo @@caps; xl info virt_caps 2>/dev/null || xl info | sed -n 's/^virt_caps *: *//p'
echo @@qemu; command -v qemu-img || :
echo @@cpu; grep -m1 '^model name' /proc/cpuinfo || :
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """The hypervisor's host; ``dom0`` is as it was when we came.

    ``virts`` are the ways to virtualize guests, each with what hinders it; ``caps`` are the words
    of Xen's virt_caps.
    """

    name: str
    cpus: int
    memory_mib: int
    version: str
    dom0: State
    virts: Mapping[str, str]
    root: bool
    qemu_img: bool
    caps: frozenset[str] = frozenset()


def look(conn: Any, host: Host) -> Machine:
    """Ask libvirt, then dom0. Raises PreflightError where it is no Xen, libvirt's own errors."""
    if conn.getType() != "Xen":
        raise PreflightError(
            f"{conn.getHostname()} does not run Xen: libvirt's driver there is {conn.getType()}",
            hint="hypervisor.uri: xen+ssh://root@HOST/system",
        )
    now, seen = state(host), sections(host.run("sh", "-c", _PROBE))
    return Machine(
        name=conn.getHostname(),
        cpus=now.info.cpus,
        memory_mib=now.info.memory_mib - now.memory_mib,
        version=f"Xen {now.info.version}, {now.info.scheduler}, libvirt {_dotted(conn)}",
        dom0=now,
        virts=virts(seen["caps"]),
        root=seen["root"] == "0",
        qemu_img=bool(seen["qemu"]),
        caps=frozenset(seen["caps"].split()),
    )


def virts(caps: str) -> dict[str, str]:
    """From ``xl info``'s virt_caps; PV first, which dom0 itself is."""
    words = caps.split()
    hvm = "" if HVM in words else "the host's CPU has no VT-x or SVM, or its firmware has it off"
    pv = "" if PV in words else "this Xen was built without PV guests"
    return {PV: pv, PVH: hvm, HVM: hvm}


def changes() -> dict[tuple[str, str], Change]:
    """How disturbing a change of a guest's field is; a new image means a new guest."""
    found = {("guest", field): Change.LIVE for field in LIVE}
    return found | {("guest", field): Change.RESTART for field in RESTART}


def cannot(machine: Machine, boot: str) -> dict[str, str]:
    """The spec's words that are refused here, with the reason and what would work.

    ``boot`` is why boot options cannot be set.
    """
    found = dict(CAPABILITIES.refused)
    if machine.dom0.info.scheduler not in xl.SCHED:
        reason = (
            f"Xen's scheduler {machine.dom0.info.scheduler} has no weights and caps; boot it with "
            "sched=credit2 or sched=credit"
        )
        found |= {w: reason for w in ("guests.cpu.weight", "guests.cpu.cap_percent")}
        found |= {"dom0.weight": reason, "dom0.cap_percent": reason}
    if boot:
        found |= {"dom0.vcpus": boot, "dom0.memory_mib": boot}
    return found


def unfit(guest: Guest, machine: Machine, target: Target) -> Iterator[str]:
    """What no single word of the spec is to blame for."""
    if len(bridge := guest.management.switch) > 15 or " " in bridge:
        yield f"management.bridge: {bridge!r}: a bridge's name has at most 15 letters, no space"
    if target.start == "restore":
        yield "guests.start: Xen's guests are booted: their memory is not kept; auto boots them"
    if reason := machine.virts.get(guest.accel, "unknown here"):
        yield f"guests.virt: {guest.accel}: not on xen: {reason}"
    if guest.accel != HVM and (strange := sorted({v.model for v in guest.nics} & EMULATED)):
        yield (
            f"guests.nic.model: {', '.join(strange)} is emulated, and a {guest.accel} guest has no "
            "such devices; guests.virt: hvm has them, netfront is the one of all"
        )
    image = target.image
    if image is not None and image.kernel is None and guest.accel == PVH:
        yield "guests.virt: a disk that boots itself is started as pv (by pygrub) or as hvm"
    if image is not None and image.kernel is not None and not image.packed and guest.accel == HVM:
        yield (
            "guests.virt: hvm: Xen's QEMU loads a packed kernel only, which this image was built "
            f"without: provision image rm {image.digest[:16]}; provision image build"
        )


def refuse(want: Guest, machine: Machine) -> None:
    """Raise Unsupported for a guest that cannot be here, before anything changes."""
    name = want.name
    for vnic in vnics(want):
        if vnic.model not in MODELS:
            has = ", ".join(MODELS)
            raise Unsupported(f"guest {name}: no vNIC model {vnic.model!r} here; there are: {has}")
        if vnic.model in EMULATED and want.accel != HVM:
            raise Unsupported(f"guest {name}: {vnic.model} is emulated: only HVM guests have it")
    if reason := machine.virts.get(want.accel, "unknown here"):
        raise Unsupported(f"guest {name}: {want.accel}: {reason}")
    if want.pins and len(want.pins) != want.vcpus:
        raise Unsupported(f"guest {name}: {len(want.pins)} pins for {want.vcpus} vCPUs")
    for text in want.pins:
        if (last := max(cpus(text), default=0)) >= machine.cpus:
            has = f"the host {machine.name} has CPUs 0-{machine.cpus - 1}"
            raise Unsupported(f"guest {name}: {has}, not {last}")
    if not 1 <= want.weight <= xl.MOST_WEIGHT:
        raise Unsupported(f"guest {name}: weight {want.weight}: Xen takes 1 to {xl.MOST_WEIGHT}")
    if want.cap_percent is not None and not 1 <= want.cap_percent <= 100 * want.vcpus:
        most = 100 * want.vcpus
        raise Unsupported(f"guest {name}: cap {want.cap_percent}: Xen takes up to {most}")


def _dotted(conn: Any) -> str:
    number = conn.getLibVersion()
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
