"""What vSphere, this host and its cluster cannot have, in words with the spec's own paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.vsphere.networks import Networks
from drivers.vsphere.place import Place
from drivers.vsphere.sources import Sources
from drivers.vsphere.spec import MODELS, MOST_SHARES, SRIOV, WORDS, shares
from drivers.vsphere.switches import FLAVOUR, LEAST_MTU, MOST_MTU
from provision.capabilities import MODEL, Capabilities
from provision.driver import Change
from provision.errors import Unsupported, UserError
from provision.resources import Guest
from provision.units import cpus

if TYPE_CHECKING:
    from provision.image import Image

MEMORY_STEP_MIB = 4
LIVE = frozenset({"weight", "cap_percent", "reserve_percent", "memory_reserve_mib", "pins"})
RESTART = frozenset({"vcpus", "memory_mib", "management", "nics", "latency", "running"})
_DOM0 = "ESXi has no dom0: the VMkernel schedules itself; "
_KEEP = "what serves instead: guests.cpu.pin, guests.cpu.reserve_percent, guests.latency: high"
MANAGEMENT = (
    "guests need an existing port group to be reached by: the host's own networking is not ours "
    "to add to; name one: management: {bridge: PORT GROUP, subnet: ITS SUBNET}"
)
NOTES = {
    "rate": "nic.rate is the port group's shaping: it holds what a guest sends, not what it gets",
    "usage": "vSphere's own counters come in samples of 20 s, too coarse for a run: none are kept",
}
#: whatever the host and its cluster; what else they must have, they are asked for
CAPABILITIES = Capabilities(
    nic_models=MODELS,
    words=WORDS,
    switches=(FLAVOUR,),
    refused={
        **{
            f"dom0.{word}": f"{_DOM0}{_KEEP}"
            for word in ("vcpus", "pin", "weight", "cap_percent", "memory_mib", "irq_affinity")
        },
        "guests.cpu.emulator_pin": f"a VM's own threads share its CPUs; {_KEEP}",
        "hypervisor.auth": "vSphere has one way to log in: hypervisor.user and password",
        "hypervisor.accel": "ESXi has one way to run guests",
        "hypervisor.ssh": "ESXi has no dom0: all goes through its API",
    },
    depends={
        f"{MODEL}={SRIOV}": "SR-IOV enabled on the uplinks, and all of a guest's memory kept",
        "guests.cpu.pin": "DRS that is no more than partially automated",
    },
    management=MANAGEMENT,
    most_nics=9,  # ten a VM (configmax.esp.vmware.com), its management's included
)


def changes() -> Mapping[tuple[str, str], Change]:
    """How disturbing a change is; a new uplink or image means a new switch or guest."""
    found = {("guest", field): Change.LIVE for field in LIVE}
    found |= {("guest", field): Change.RESTART for field in RESTART}
    return found | {("switch", "mtu"): Change.LIVE}


def cannot(place: Place) -> dict[str, str]:
    """The spec's words that are refused here, with the reason and what would work."""
    found = dict(CAPABILITIES.refused)
    if place.drs:
        found["guests.cpu.pin"] = f"{place.drs}; set DRS to partially automated"
    return found


@dataclass(frozen=True, slots=True)
class Fit:
    """What of guests can be. ``functions`` are how many virtual functions each uplink has."""

    place: Place
    networks: Networks
    sources: Sources
    image: Image | None
    functions: Mapping[str, int]

    def unfit(self, guest: Guest) -> Iterator[str]:
        """Each objection to a guest, with the spec's path; looks, and changes nothing."""
        yield from self._image(guest)
        if self.networks.backing(guest.management.switch) is None:
            there = ", ".join(self.networks.names()) or "none"
            yield (
                f"management.bridge: {self.place.name} has no network "
                f"{guest.management.switch!r}; it has: {there}"
            )
        yield from _sizes(guest)
        yield from _processor(guest)
        yield from self._passed_through(guest)

    def refuse(self, want: Guest) -> None:
        """Raise Unsupported for a guest that cannot be here, before anything changes."""
        for vnic in (want.management, *want.nics):
            if vnic.model not in MODELS:
                has = ", ".join(MODELS)
                raise Unsupported(
                    f"guest {want.name}: vSphere has no vNIC model {vnic.model!r}; it has: {has}"
                )
        if want.pins and len(want.pins) != want.vcpus:
            raise Unsupported(f"guest {want.name}: {len(want.pins)} pins for {want.vcpus} vCPUs")
        last = max((n for pin in want.pins for n in cpus(pin)), default=0)
        if last >= self.place.cpus:
            raise Unsupported(f"guest {want.name}: {self.place.name} has no CPU {last}")
        faults = [*_sizes(want), *_processor(want), *self._passed_through(want)]
        if want.emulator_pin is not None:
            faults.append("guests.cpu.emulator_pin: a VM's own threads share its CPUs")
        if faults:
            raise Unsupported(f"guest {want.name}: {'; '.join(faults)}")

    def _image(self, guest: Guest) -> Iterator[str]:
        if self.image is not None:
            if self.image.kernel is not None:
                yield (
                    "guests.image: an image that `provision image build` makes boots with a kernel "
                    "from outside, which ESXi has no way to do; give a disk that boots by itself"
                )
        elif guest.image:
            try:
                self.sources.find(guest.image)
            except UserError as e:
                yield str(e)

    def _passed_through(self, guest: Guest) -> Iterator[str]:
        if not any(nic.model == SRIOV for nic in (guest.management, *guest.nics)):
            return
        if guest.management.model == SRIOV:
            yield "management.bridge: SR-IOV is for the links, not for management"
        if not self.functions:
            yield (
                f"guests.nic.model: no NIC of {self.place.name} has virtual functions; enable "
                "SR-IOV on the uplinks: Host, Configure, PCI Devices"
            )
        if guest.memory_reserve_mib != guest.memory_mib:
            yield (
                "guests.nic.model: sriov needs all of a guest's memory kept: "
                f"guests.memory_reserve: {guest.memory_mib}MiB"
            )


def _sizes(guest: Guest) -> Iterator[str]:
    if guest.memory_mib % MEMORY_STEP_MIB:
        yield f"guests.memory: vSphere takes multiples of {MEMORY_STEP_MIB} MiB"
    if (guest.memory_reserve_mib or 0) > guest.memory_mib:
        yield f"guests.memory_reserve: more than the guest's {guest.memory_mib} MiB"
    for nic in guest.nics:
        if not LEAST_MTU <= nic.mtu <= MOST_MTU:
            yield f"switch.mtu: {nic.mtu}; a vSwitch takes {LEAST_MTU} to {MOST_MTU}"


def _processor(guest: Guest) -> Iterator[str]:
    whole = 100 * guest.vcpus
    if len(set(guest.pins)) > 1:
        yield (
            "guests.cpu.pin: vSphere has one set of CPUs for all of a guest's vCPUs; give one list "
            "for each guest, such as pin: ['0-1', '2-3'], or guests of one vCPU"
        )
    if shares(guest.weight, guest.vcpus) > MOST_SHARES:
        most = MOST_SHARES * 256 // (1000 * guest.vcpus)
        yield f"guests.cpu.weight: at most {most} for {guest.vcpus} vCPUs"
    if (guest.reserve_percent or 0) > whole:
        yield f"guests.cpu.reserve_percent: {guest.vcpus} vCPUs are {whole} % at most"
    if (cap := guest.cap_percent) is not None and cap < (guest.reserve_percent or 0):
        yield "guests.cpu.cap_percent: less than guests.cpu.reserve_percent"
    if guest.latency == "high" and (
        guest.reserve_percent != whole or guest.memory_reserve_mib != guest.memory_mib
    ):
        yield (
            "guests.latency: high needs all of a guest's CPU and memory kept: "
            f"guests.cpu.reserve_percent: {whole}, guests.memory_reserve: {guest.memory_mib}MiB"
        )
