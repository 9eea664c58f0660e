"""What Hyper-V and this host cannot have, in words with the spec's own paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.hyperv import words
from drivers.hyperv.words import (
    FLAVOUR,
    LEGACY,
    MODELS,
    MOST_WEIGHT_HERE,
    NORMAL,
    NORMAL_HERE,
    WORDS,
)
from provision.capabilities import MODEL, Capabilities
from provision.driver import Change
from provision.errors import Unsupported
from provision.resources import Guest
from provision.units import cpus

if TYPE_CHECKING:
    from provision.image import Image

MEMORY_STEP_MIB = 2
MOST_NICS, MOST_LEGACY = 7, 4  # besides management's, which is one of eight synthetic ones
LIVE = frozenset({"weight", "cap_percent", "pins"})
RESTART = frozenset({"vcpus", "memory_mib", "management", "nics", "reserve_percent", "running"})
_SHARES = (
    "what serves instead: guests.cpu.weight, guests.cpu.reserve_percent, guests.cpu.cap_percent, "
    "and dom0.vcpus"
)
_PIN = (
    "Hyper-V has no affinity; its CPU groups come near, and are Microsoft's CpuGroups.exe's alone, "
    f"which the host has not in its PATH: get it from Microsoft's Download Center; {_SHARES}"
)
MANAGEMENT = (
    "guests need an existing VMSwitch to be reached by: the host's own networking is not ours to "
    "add to; name one: management: {bridge: VMSWITCH, subnet: ITS SUBNET}"
)
NOTES = {
    "rate": "nic.rate is MaximumBandwidth: it holds what a guest sends, not what it gets",
    "lro": "receive segment coalescing of the uplinks is off as long as the testbed stands",
}


def changes() -> Mapping[tuple[str, str], Change]:
    """How disturbing a change is; a new uplink or image means a new switch or guest."""
    found = {("guest", field): Change.LIVE for field in LIVE}
    found |= {("guest", field): Change.RESTART for field in RESTART}
    return found | {("uplink", f): Change.LIVE for f in ("mtu", "up", "ipv6", "lro")}


#: whatever the host; what else it must have, it is asked for
CAPABILITIES = Capabilities(
    nic_models=MODELS,
    words=WORDS,
    switches=(FLAVOUR,),
    refused={
        f"{MODEL}=sriov": "not built: there a function is an offload of a synthetic adapter, which "
        "Windows takes away and gives back as it likes",
        f"{MODEL}=passthrough": "not built: Discrete Device Assignment gives a whole NIC",
        "dom0.pin": "the root partition's CPUs are always the host's first: dom0.vcpus says how "
        "many (minroot)",
        "dom0.weight": "the root partition has no weight of its own: dom0.vcpus keeps CPUs for it",
        "dom0.cap_percent": "the root partition has no cap: dom0.vcpus is the most it gets",
        "dom0.memory_mib": "the root partition keeps what guests leave it: guests.memory",
        "dom0.irq_affinity": "Windows places interrupts itself; dom0.vcpus keeps them to some CPUs",
        "guests.cpu.emulator_pin": "a VM's worker runs in the root partition: dom0.vcpus",
        "guests.memory_reserve_mib": "guests have static memory: all of it is kept for them",
        "guests.latency": f"Hyper-V has no such word; {_SHARES}",
        "hypervisor.accel": "Hyper-V has one way to run guests",
        "hypervisor.host": "the host is the one that hypervisor.uri names",
        "hypervisor.ssh": "Hyper-V's host takes commands by WinRM: hypervisor.uri",
        "hypervisor.pool": "guests are placed by hypervisor.storage, a folder of the host",
    },
    reboots={"dom0.vcpus": "minroot: bcdedit's hypervisorrootproc"},
    depends={"guests.cpu.pin": "Microsoft's CpuGroups.exe; one set of CPUs for a guest"},
    management=MANAGEMENT,
    windows="",
    most_nics=MOST_NICS,
)


def cannot(grouped: bool) -> dict[str, str]:
    """The spec's words that are refused here, with the reason and what would work."""
    found = dict(CAPABILITIES.refused)
    return found if grouped else found | {"guests.cpu.pin": _PIN}


@dataclass(frozen=True, slots=True)
class Fit:
    """What of guests can be. ``switches`` are the host's VMSwitches, ``cpus`` its processors."""

    host: str
    switches: tuple[str, ...]
    cpus: int
    grouped: bool
    image: Image | None

    def unfit(self, guest: Guest) -> Iterator[str]:
        """Each objection to a guest, with the spec's path."""
        if self.image is not None:
            yield (
                "guests.image: a disk file is not uploaded through WinRM; copy it to the host, and "
                r"give its path there, such as C:\images\debian-12.vhdx"
            )
        if guest.management.switch not in self.switches:
            there = ", ".join(self.switches) or "none"
            yield (
                f"management.bridge: {self.host} has no VMSwitch {guest.management.switch!r}; "
                f"it has: {there}"
            )
        yield from self._faults(guest)

    def refuse(self, want: Guest) -> None:
        """Raise Unsupported for a guest that cannot be here, before anything changes."""
        for vnic in (want.management, *want.nics):
            if vnic.model not in MODELS:
                has = ", ".join(MODELS)
                raise Unsupported(
                    f"guest {want.name}: Hyper-V has no vNIC model {vnic.model!r}; it has: {has}"
                )
        faults = [*self._faults(want)]
        if want.pins and not self.grouped:
            faults.append(f"guests.cpu.pin: {_PIN}")
        if want.emulator_pin is not None:
            faults.append("guests.cpu.emulator_pin: a VM's worker runs in the root partition")
        if want.memory_reserve_mib is not None or want.latency != "normal":
            faults.append("guests.memory_reserve, guests.latency: not on Hyper-V")
        if faults:
            raise Unsupported(f"guest {want.name}: {'; '.join(faults)}")

    def _faults(self, guest: Guest) -> Iterator[str]:
        yield from _sizes(guest)
        yield from _processor(guest)
        last = max((n for pin in guest.pins for n in cpus(pin)), default=0)
        if last >= self.cpus:
            yield f"guests.cpu.pin: {self.host} has no CPU {last}"
        if guest.management.model == LEGACY:
            yield "management.bridge: a legacy adapter is for the links, not for management"


def _sizes(guest: Guest) -> Iterator[str]:
    if sum(nic.model == LEGACY for nic in guest.nics) > MOST_LEGACY:
        yield f"guests.nics_each: Hyper-V gives a guest at most {MOST_LEGACY} legacy adapters"
    if guest.memory_mib % MEMORY_STEP_MIB:
        yield f"guests.memory: Hyper-V takes multiples of {MEMORY_STEP_MIB} MiB"
    for nic in guest.nics:
        most = MODELS[nic.model].mtu
        if not words.LEAST_MTU <= nic.mtu <= most:
            yield f"switch.mtu: {nic.mtu}; a {nic.model} adapter takes {words.LEAST_MTU} to {most}"
        if nic.model == LEGACY and nic.rate_mbit is not None:
            yield "guests.nic.rate: a legacy adapter has no bandwidth to be held to"


def _processor(guest: Guest) -> Iterator[str]:
    cap, reserve = guest.cap_percent, guest.reserve_percent
    for path, percent in (("cap_percent", cap), ("reserve_percent", reserve)):
        if percent is None:
            continue
        if percent % guest.vcpus:
            yield (
                f"guests.cpu.{path}: Hyper-V counts in whole per cent of all {guest.vcpus} vCPUs; "
                f"give a multiple of {guest.vcpus}, such as "
                f"{percent - percent % guest.vcpus or guest.vcpus}"
            )
        if percent > 100 * guest.vcpus:
            yield f"guests.cpu.{path}: {guest.vcpus} vCPUs are {100 * guest.vcpus} % at most"
    if cap is not None and cap < (reserve or 0):
        yield "guests.cpu.cap_percent: less than guests.cpu.reserve_percent"
    if guest.weight * NORMAL_HERE > MOST_WEIGHT_HERE * NORMAL:
        yield f"guests.cpu.weight: at most {MOST_WEIGHT_HERE * NORMAL // NORMAL_HERE}"
    if len(set(guest.pins)) > 1:
        yield (
            "guests.cpu.pin: Hyper-V has one group of CPUs for all of a guest's vCPUs; give one "
            "list for each guest, such as pin: ['0-1', '2-3'], or guests of one vCPU"
        )
