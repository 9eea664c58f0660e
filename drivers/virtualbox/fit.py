"""What VirtualBox and this host cannot have, in words with the spec's own paths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drivers.linux.tuning import NEEDS
from drivers.virtualbox.words import MODELS, MOST_NICS, WORDS
from provision.capabilities import MODEL, Capabilities
from provision.driver import Change
from provision.errors import Unsupported
from provision.resources import Guest

HARDWARE = ("sriov", "passthrough")
MOST_CPUS, LEAST_MIB = 64, 128
_SHARES = "VBoxHeadless is a process like any other of the host; guests.cpu.cap_percent serves"
_OWN = "guests are processes of the host's own slices here, and would be held with it"
MANAGEMENT = (
    "guests need an existing network to be reached by: a host-only network "
    "(VBoxManage hostonlyif create; VBoxManage list hostonlyifs) or a NIC or bridge of the host; "
    "name one: management: {bridge: vboxnet0, subnet: ITS SUBNET}"
)
NOTES = {
    "rate": "nic.rate is a bandwidth group: it holds what a guest sends, not what it gets",
    "bridged": "guests are bridged to their uplinks directly: no vSwitch of anybody's is between",
}
LIVE = frozenset({"cap_percent"})
RESTART = frozenset({"vcpus", "memory_mib", "management", "nics", "running"})

#: whatever the host; what else it must have, it is asked for
CAPABILITIES = Capabilities(
    nic_models=MODELS,
    words=WORDS,
    switches=(),
    refused={
        **{f"{MODEL}={m}": "VirtualBox gives no PCI devices to guests since 6.1" for m in HARDWARE},
        "guests.cpu.pin": f"VirtualBox places its vCPUs' threads itself; {_SHARES}",
        "guests.cpu.weight": "VirtualBox has no weight but a class of priority for a whole VM; "
        "guests.cpu.cap_percent holds each to the same",
        "guests.cpu.reserve_percent": "Linux's scheduler reserves no CPU time",
        "guests.cpu.emulator_pin": f"VirtualBox places its threads itself; {_SHARES}",
        "guests.memory_reserve_mib": "all of a VM's memory is locked when it starts",
        "guests.latency": "VirtualBox has no such word",
        "dom0.vcpus": _OWN,
        "dom0.pin": _OWN,
        "dom0.weight": _OWN,
        "dom0.cap_percent": _OWN,
        "dom0.memory_mib": "the host keeps the memory that guests leave it: guests.memory",
        "hypervisor.accel": "VirtualBox has one way to run guests",
        **{
            f"hypervisor.{word}": "hypervisor.uri says all of it: ssh://user@host"
            for word in ("user", "password", "auth", "tls", "host", "pool", "ssh")
        },
    },
    depends={"dom0.irq_affinity": NEEDS["dom0.irq_affinity"]},
    management=MANAGEMENT,
    most_nics=MOST_NICS,
)


def changes() -> dict[tuple[str, str], Change]:
    """How disturbing a change of a guest's field is; a new image means a new guest."""
    found = {("guest", field): Change.LIVE for field in LIVE}
    return found | {("guest", field): Change.RESTART for field in RESTART}


@dataclass(frozen=True, slots=True)
class Fit:
    """What of guests can be. ``networks`` are the host's NICs and host-only networks."""

    host: str
    networks: frozenset[str]
    bases: tuple[str, ...]
    file: bool

    def unfit(self, guest: Guest) -> Iterator[str]:
        """Each objection to a guest, with the spec's path."""
        if self.file:
            yield (
                "guests.image: VirtualBox clones a VM, not a disk file; make one of it on the "
                "host, with a snapshot, and give its name"
            )
        elif guest.image not in self.bases:
            there = ", ".join(self.bases) or "none"
            yield (
                f"guests.image: {self.host} has no VM {guest.image!r} with a snapshot to clone; "
                f"it has: {there} (VBoxManage snapshot VM take base)"
            )
        if guest.management.switch not in self.networks:
            there = ", ".join(sorted(self.networks)) or "none"
            yield (
                f"management.bridge: {self.host} has no NIC or host-only network "
                f"{guest.management.switch!r}; it has: {there}"
            )
        yield from _faults(guest)


def refuse(want: Guest) -> None:
    """Raise Unsupported for a guest that cannot be here, before anything changes."""
    for vnic in (want.management, *want.nics):
        if vnic.model not in MODELS:
            raise Unsupported(
                f"guest {want.name}: VirtualBox has no vNIC model {vnic.model!r}; it has: "
                f"{', '.join(MODELS)}"
            )
    faults = [*_faults(want)]
    if want.pins or want.emulator_pin or want.weight != 256 or want.reserve_percent is not None:
        faults.append("guests.cpu: VirtualBox has neither pins nor weights nor reservations")
    if want.memory_reserve_mib is not None or want.latency != "normal":
        faults.append("guests.memory_reserve, guests.latency: not on VirtualBox")
    if faults:
        raise Unsupported(f"guest {want.name}: {'; '.join(faults)}")


def _faults(guest: Guest) -> Iterator[str]:
    if guest.vcpus > MOST_CPUS:
        yield f"guests.vcpus: VirtualBox gives a guest at most {MOST_CPUS}"
    if guest.memory_mib < LEAST_MIB:
        yield f"guests.memory: at least {LEAST_MIB} MiB"
    if len(guest.nics) > MOST_NICS:
        yield f"guests.nics_each: at most {MOST_NICS} besides management"
    cap = guest.cap_percent
    if cap is not None and cap % guest.vcpus:
        yield (
            f"guests.cpu.cap_percent: VirtualBox caps every vCPU alike, in whole per cent; give "
            f"a multiple of {guest.vcpus}, such as {cap - cap % guest.vcpus or guest.vcpus}"
        )
    elif cap is not None and cap > 100 * guest.vcpus:
        yield f"guests.cpu.cap_percent: {guest.vcpus} vCPUs are {100 * guest.vcpus} % at most"
