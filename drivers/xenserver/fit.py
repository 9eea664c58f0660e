"""What a XenServer host can do for a spec, what it cannot, and what serves instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.xenserver import shape
from drivers.xenserver.nets import Nets
from drivers.xenserver.place import BRIDGE, OVS, Place
from drivers.xenserver.sources import Source, Sources
from drivers.xenserver.switches import LEAST_MTU, MOST_MTU
from provision.capabilities import MODEL, SWITCH, Capabilities
from provision.driver import Change
from provision.errors import Unsupported, UserError
from provision.resources import Guest
from provision.units import cpus

if TYPE_CHECKING:
    from provision.image import Image

RESTART = frozenset({
    "vcpus", "memory_mib", "management", "nics", "running", "weight", "cap_percent", "pins",
})  # fmt: skip
_DOM0 = ("vcpus", "pin", "weight", "cap_percent", "memory_mib", "irq_affinity")
_SHELL = "a root shell in dom0 over SSH"
_BOOTS = "the hypervisor's boot options are taken when the host boots"
NOTES = {
    "rate": "nic.rate is a VIF's ratelimit: it holds what a guest sends, not what it gets",
    "pins": "guests' weights, caps and pins are taken when they start: a change restarts them",
}
#: the model of a guest's management NIC: all NICs of a VM are of one
BESIDE = {shape.RTL8139: shape.RTL8139, shape.E1000: shape.E1000}
#: whatever the host; what else it must have, it is asked for
CAPABILITIES = Capabilities(
    nic_models=shape.MODELS,
    words=shape.WORDS,
    switches=(OVS, BRIDGE),
    refused={
        f"{MODEL}=sriov": "not built: XenServer keeps functions as networks of a kind of their own",
        f"{MODEL}=passthrough": "not built: XenAPI gives devices by vGPU and other-config alone",
        "guests.cpu.emulator_pin": "a guest's own device model runs in dom0: dom0.pin",
        "guests.cpu.reserve_percent": "Xen's schedulers reserve nothing; guests.cpu.weight, or "
        "CPUs of their own: guests.cpu.pin",
        "guests.memory_reserve_mib": "all of a guest's memory is its own on Xen anyway",
        "guests.latency": "Xen has no such word; give the guest CPUs of its own: guests.cpu.pin",
        "guests.virt": "the template says whether its guests are PV or HVM",
        "hypervisor.auth": "XenAPI has one way to log in: hypervisor.user and password",
        "hypervisor.accel": "XenServer has one way to run guests",
        "hypervisor.pool": "resource pools are vSphere's; the host is chosen by hypervisor.host",
    },
    reboots={
        "dom0.vcpus": _BOOTS,
        "dom0.pin": _BOOTS,
        "dom0.memory_mib": _BOOTS,
        SWITCH: "one backend makes all networks of a host; another than it has restarts it",
    },
    depends={
        "dom0.vcpus": _SHELL,
        "dom0.pin": _SHELL,
        "dom0.memory_mib": _SHELL,
        "dom0.weight": _SHELL,
        "dom0.cap_percent": _SHELL,
        "dom0.irq_affinity": _SHELL,
        f"{MODEL}={shape.RTL8139}": "an HVM template that boots by BIOS",
        f"{MODEL}={shape.E1000}": "an HVM template that boots by BIOS, and a licence that lets "
        "platform:nic_type through",
    },
    management="guests need an existing network to be reached by: the host's own networking is not "
    "ours to add to; name one: management: {bridge: NETWORK, subnet: ITS SUBNET}",
    most_nics=shape.MOST_NICS - 1,
)


def changes() -> Mapping[tuple[str, str], Change]:
    """How disturbing a change is; a new uplink or image means a new switch or guest."""
    return {("guest", field): Change.RESTART for field in RESTART} | {
        ("switch", "mtu"): Change.RECREATE
    }


def cannot(no_ssh: str) -> dict[str, str]:
    """The spec's words that are refused here; ``no_ssh`` is why dom0 is out of reach, if it is."""
    found = dict(CAPABILITIES.refused)
    if no_ssh:
        reason = f"it takes {_SHELL}, and there is none: {no_ssh}; hypervisor.ssh"
        found |= {f"dom0.{word}": reason for word in _DOM0}
    return found


@dataclass(frozen=True, slots=True)
class Fit:
    """What of guests can be."""

    place: Place
    nets: Nets
    sources: Sources
    image: Image | None

    def unfit(self, guest: Guest) -> Iterator[str]:
        """Each objection to a guest, with the spec's path; looks, and changes nothing."""
        source = None
        if self.image is not None:
            yield (
                "guests.image: XenServer's guests are clones of a template, not of a disk file; "
                "import the disk there, and name the template: docs/xenserver.md"
            )
        else:
            try:
                source = self.sources.find(guest.image)
                self.sources.storage(source)
            except UserError as e:
                yield str(e)
        yield from self._management(guest.management.switch)
        yield from self._objections(guest, source)

    def refuse(self, want: Guest) -> Source:
        """Raise Unsupported for a guest that cannot be here, before anything changes.

        Returns what it is made of.
        """
        for vnic in (want.management, *want.nics):
            if vnic.model not in shape.MODELS:
                has = ", ".join(shape.MODELS)
                raise Unsupported(
                    f"guest {want.name}: XenServer has no vNIC model {vnic.model!r}; it has: {has}"
                )
        source = self.sources.find(want.image)
        if faults := [*self._objections(want, source)]:
            raise Unsupported(f"guest {want.name}: {'; '.join(faults)}")
        return source

    def _management(self, word: str) -> Iterator[str]:
        nets = self.nets.all()
        found = self.nets.named(word, nets)
        if len(found) == 1:
            return
        if found:
            yield f"management.bridge: {len(found)} networks are called {word!r}; give one's UUID"
            return
        there = ", ".join(sorted(n.has["name_label"] for n in nets.values() if n.was is None))
        yield f"management.bridge: {self.place.name} has no network {word!r}; it has: {there}"

    def _objections(self, want: Guest, source: Source | None) -> Iterator[str]:
        yield from self._cpus(want)
        yield from self._nics(want)
        if source is not None:
            yield from self._models(want, source)

    def _cpus(self, want: Guest) -> Iterator[str]:
        if want.pins and len(want.pins) != want.vcpus:
            yield f"guests.cpu.pin: {len(want.pins)} lists for {want.vcpus} vCPUs"
        last = max((n for pin in want.pins for n in cpus(pin)), default=0)
        if last >= self.place.cpus:
            yield (
                f"guests.cpu.pin: {self.place.name} has CPUs 0-{self.place.cpus - 1}, not {last}"
            )
        if not 1 <= want.weight <= shape.MOST_WEIGHT:
            yield f"guests.cpu.weight: {want.weight}; Xen takes 1 to {shape.MOST_WEIGHT}"
        if want.cap_percent is not None and not 0 < want.cap_percent <= 100 * want.vcpus:
            yield (
                f"guests.cpu.cap_percent: {want.cap_percent}; {want.vcpus} vCPUs are "
                f"{100 * want.vcpus} % at most"
            )
        if want.vcpus > self.place.cpus:
            yield f"guests.vcpus: {self.place.name} has {self.place.cpus} CPUs, not {want.vcpus}"
        for word, value in (
            ("cpu.emulator_pin", want.emulator_pin), ("cpu.reserve_percent", want.reserve_percent),
            ("memory_reserve", want.memory_reserve_mib),
        ):  # fmt: skip
            if value is not None:
                yield f"guests.{word}: not on XenServer"

    def _nics(self, want: Guest) -> Iterator[str]:
        if (count := 1 + len(want.nics)) > shape.MOST_NICS:
            yield f"guests.nics_each: a VM has {shape.MOST_NICS} NICs at most, not {count}"
        for nic in want.nics:
            if not LEAST_MTU <= nic.mtu <= MOST_MTU:
                yield f"switch.mtu: {nic.mtu}; it is {LEAST_MTU} to {MOST_MTU} here"

    def _models(self, want: Guest, source: Source) -> Iterator[str]:
        models = {v.model for v in (want.management, *want.nics)}
        if len(models) > 1:
            yield (
                f"guests.nic.model: all NICs of a VM are of one model on XenServer, not of "
                f"{' and '.join(sorted(models))}"
            )
        emulated = models - {shape.NETFRONT}
        if not emulated:
            return
        word = "guests.nic.model"
        if not source.hvm:
            yield f"{word}: {source.name!r} is a PV template, and has no emulated NICs: netfront"
        elif source.uefi:
            yield (
                f"{word}: {source.name!r} boots by UEFI, where a guest cannot be kept from its PV "
                "drivers; use a template that boots by BIOS, or netfront"
            )
        if shape.E1000 in emulated and self.place.filters_platform:
            yield (
                f"{word}: the licence of {self.place.name} drops platform:nic_type, so that the "
                "NIC would be another; rtl8139 or netfront"
            )
