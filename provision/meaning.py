"""What a spec's words mean on one host: pure, and the same wherever it is asked."""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from provision.driver import Dom0, Facts
from provision.resources import Switch
from provision.units import cpus

if TYPE_CHECKING:
    from provision.spec import Spec

LAB_MANAGEMENT = IPv4Network("198.19.0.0/16")
FIRST_GUEST = 10  # in the management subnet: .1 is the host's own address


def management_subnet(spec: Spec) -> IPv4Network:
    """The subnet asked for, or a /24 of 198.19.0.0/16 that the testbed's name chooses."""
    if spec.management.subnet is not None:
        return IPv4Network(spec.management.subnet)
    number = sha256(spec.name.encode()).digest()[0]
    return list(LAB_MANAGEMENT.subnets(new_prefix=24))[number]


def nic_model(word: str, facts: Facts) -> str | None:
    """The exact model for a word of the vocabulary or of the hypervisor; None = there is none."""
    exact = facts.words.get(word, word)
    return exact if exact in facts.nic_models else None


def is_whole(spec: Spec, facts: Facts) -> bool:
    """Whether a guest has all of its uplink, with that one's own MAC."""
    model = facts.nic_models.get(nic_model(spec.guests.nic.model, facts) or "")
    return model is not None and model.whole


def is_direct(spec: Spec, facts: Facts) -> bool:
    """Whether guests are on their uplinks themselves, with no switch of ours between."""
    model = facts.nic_models.get(nic_model(spec.guests.nic.model, facts) or "")
    return Switch.kind not in facts.kinds or (model is not None and model.direct)


def flavour(spec: Spec, facts: Facts) -> str:
    """What each guest's switch is: as asked, else what the hypervisor usually has."""
    if is_direct(spec, facts):
        return "none"
    return spec.switch.type or facts.switch_flavours[0]


def dom0(spec: Spec, uplinks: int = 0) -> Dom0:
    """What the spec wants of dom0, for so many uplinks."""
    asked = spec.dom0
    return Dom0(
        asked.vcpus, asked.pin, asked.weight, asked.cap_percent, asked.memory_mib,
        irq_affinity(spec, uplinks), spec.switch.type,
    )  # fmt: skip


def irq_affinity(spec: Spec, uplinks: int) -> tuple[str, ...]:
    """The CPUs for each uplink's interrupts; () where they are left alone."""
    asked = spec.dom0.irq_affinity
    if isinstance(asked, str):
        return (asked,) * uplinks
    return asked or ()


def pins(spec: Spec, facts: Facts, number: int) -> tuple[str, ...]:
    """One CPU list for each vCPU of the guest with this number, from 0; () = unpinned."""
    pin = spec.guests.cpu.pin
    if pin is None:
        return ()
    if pin == "spread":
        kept = set(cpus(dom0(spec).cpus or ""))
        free = [c for c in range(facts.cpus) if c not in kept] or list(range(facts.cpus))
        first = number * spec.guests.vcpus
        return tuple(str(free[(first + v) % len(free)]) for v in range(spec.guests.vcpus))
    mine = pin if isinstance(pin, str) else pin[number]
    return (mine,) * spec.guests.vcpus
