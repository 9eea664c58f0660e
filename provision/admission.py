"""What a host cannot honour of a spec, said before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from provision.driver import Facts
from provision.errors import PreflightError, did_you_mean
from provision.meaning import (
    LAB_MANAGEMENT,
    dom0,
    irq_affinity,
    is_direct,
    management_subnet,
    nic_model,
    pins,
)
from provision.units import cpu_list, cpus

if TYPE_CHECKING:
    from provision.spec import Spec


def unfit(spec: Spec, facts: Facts) -> Iterator[str]:
    """Every word that this host cannot honour, with the reason; nothing where all is well."""
    hv, guests, host = facts.hypervisor, spec.guests, f"the host {facts.host}"
    model = nic_model(guests.nic.model, facts)
    if model is None:
        known = [*facts.words, *facts.nic_models]
        yield (
            f"guests.nic.model: {hv} has no vNIC model {guests.nic.model!r}"
            f"{did_you_mean(guests.nic.model, known)}; it has: {', '.join(sorted(set(known)))}"
            f"{_why(facts.cannot.get(f'guests.nic.model={guests.nic.model}'))}"
        )
    elif spec.switch.mtu > (most := facts.nic_models[model].mtu):
        yield f"switch.mtu: {hv}'s {guests.nic.model} carries at most {most}, not {spec.switch.mtu}"
    if guests.virt is not None and (why := facts.virts.get(guests.virt, "there is no choice")):
        yield f"guests.virt: {guests.virt}: not on {hv}: {why}"
    if guests.nics_each > facts.most_nics:
        yield f"guests.nics_each: {hv} gives a guest at most {facts.most_nics} besides management"
    if spec.switch.type is not None and facts.switch_flavours and is_direct(spec, facts):
        yield f"switch.type: {hv}'s {guests.nic.model} is on the uplink itself, with no switch"
    elif spec.switch.type is not None and spec.switch.type not in facts.switch_flavours:
        have = ", ".join(facts.switch_flavours) or "none at all"
        yield f"switch.type: {hv} has no switch of type {spec.switch.type!r}; it has: {have}"
    for path, reason in ({"guests.os": facts.windows} | dict(facts.cannot)).items():
        if reason and _asked(spec, path):
            yield f"{_as_written(path)}: not on {hv}: {reason}"
    irqs = {cpu for one in irq_affinity(spec, 1) for cpu in cpus(one)}
    lists = {"dom0.pin": spec.dom0.pin, "dom0.irq_affinity": cpu_list(irqs) or None}
    lists["guests.cpu.emulator_pin"] = guests.cpu.emulator_pin
    pinned = {cpu for n in range(guests.count) for one in pins(spec, facts, n) for cpu in cpus(one)}
    lists["guests.cpu.pin"] = cpu_list(pinned) or None
    for path, value in lists.items():
        if value and (beyond := [c for c in cpus(value) if c >= facts.cpus]):
            yield f"{path}: {host} has CPUs 0-{facts.cpus - 1}, not {beyond[0]}"
    if spec.dom0.vcpus is not None and spec.dom0.vcpus > facts.cpus:
        yield f"dom0.vcpus: {host} has {facts.cpus} CPUs, not {spec.dom0.vcpus}"
    if facts.management and spec.management.bridge is None:
        yield f"management.bridge: {facts.management}"
    yield from _admitted(spec, facts)


def commitment(spec: Spec, facts: Facts) -> tuple[float, float]:
    """All vCPUs per CPU that dom0 leaves them, and all guests' memory per memory of the host."""
    guests, kept = spec.guests, len(cpus(dom0(spec).cpus or ""))
    free = max(facts.cpus - kept, 0) or facts.cpus
    return guests.count * guests.vcpus / free, guests.count * guests.memory_mib / facts.memory_mib


def _admitted(spec: Spec, facts: Facts) -> Iterator[str]:
    """A lab that is emulated shares its CPUs with its own load generator: it is never refused."""
    cpu, memory = commitment(spec, facts)
    count, host = spec.guests.count, f"the host {facts.host}"
    let = "overcommit: true lets them"
    vcpus, memory_mib = count * spec.guests.vcpus, count * spec.guests.memory_mib
    want = "1 guest wants" if count == 1 else f"{count} guests want"
    if spec.guests.vcpus > facts.cpus:
        yield f"guests.vcpus: {host} has {facts.cpus} CPUs, not {spec.guests.vcpus}"
    elif cpu > 1 and spec.uplinks and not spec.overcommit:
        have = round(vcpus / cpu)
        yield f"guests.vcpus: {want} {vcpus} CPUs; {host} has {have} for them; {let}"
    if memory > 1 and not spec.overcommit:
        have = facts.memory_mib
        yield f"guests.memory: {want} {memory_mib} MiB; {host} has {have}; {let}"


def _asked(spec: Spec, path: str) -> bool:
    """Whether the spec says anything but the default at a dotted path."""
    here: object = spec
    default: object = type(spec)()
    for part in path.split("."):
        here, default = getattr(here, part, None), getattr(default, part, None)
    return here != default


def _as_written(path: str) -> str:
    from provision.spec.words import path as in_yaml

    return in_yaml(path)


def _why(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def check_free(spec: Spec, facts: Facts) -> None:
    """Raise PreflightError where guests' management would have a subnet that the host has."""
    if spec.management.bridge is not None:
        return
    taken = {
        IPv4Interface(address).network: f"{address} of {link}"
        for link, addresses in facts.addresses.items()
        for address in addresses
    }
    wanted = management_subnet(spec)
    if hits := [what for net, what in taken.items() if net.overlaps(wanted)]:
        chosen = "" if spec.management.subnet else ", which the testbed's name chooses,"
        others = LAB_MANAGEMENT.subnets(new_prefix=24)
        free = next((n for n in others if not any(n.overlaps(net) for net in taken)), None)
        raise PreflightError(
            f"management.subnet: {wanted}{chosen} is in use on {facts.host}: {', '.join(hits)}",
            hint=f"--set management.subnet={free}"
            if free
            else "set management.subnet to a free one",
        )
