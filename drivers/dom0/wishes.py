"""From a spec's wishes for dom0 to tunings of a Xen host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drivers.dom0 import boot, knobs
from drivers.dom0.look import State
from provision.driver import Dom0, UplinkFacts
from provision.errors import SpecError
from provision.resources import BOOT, IRQBALANCE, Tuning
from provision.units import cpus


def tunings(
    dom0: Dom0, uplinks: Iterable[UplinkFacts], now: State, base: boot.Words, balancer: str
) -> Iterator[Tuning]:
    """``base`` are the host's boot options without us, ``balancer`` is as ``Knobs.balancer``.

    Raises SpecError with all that cannot be.
    """
    if problems := [*_problems(dom0, now)]:
        raise SpecError(problems)
    if (words := boot.wanted(dom0, base, now)) is not None:
        yield Tuning(BOOT[1], boot.text(words))
    if dom0.pin is not None and (pins := _pins(dom0.pin)) is not None:
        yield Tuning(knobs.PIN, pins)
    if dom0.weight is not None:
        yield Tuning(knobs.WEIGHT, str(dom0.weight))
    if dom0.cap_percent is not None:
        yield Tuning(knobs.CAP, str(dom0.cap_percent))
    if dom0.irq_affinity and balancer:
        yield Tuning(IRQBALANCE[1], knobs.STOPPED)
    for uplink, served_by in zip(uplinks, dom0.irq_affinity, strict=False):
        if uplink.irqs:
            yield Tuning(f"{knobs.IRQ}{uplink.name}", served_by)


def vcpus(dom0: Dom0, now: State) -> int:
    """How many vCPUs dom0 will have."""
    if dom0.vcpus is not None:
        return dom0.vcpus
    return len(cpus(dom0.pin)) if dom0.pin is not None else len(now.vcpus)


def _pins(pin: str) -> str | None:
    """One CPU for each vCPU, in order; None where the boot option says the same."""
    each = cpus(pin)
    return None if each == tuple(range(len(each))) else ";".join(map(str, each))


def _problems(dom0: Dom0, now: State) -> Iterator[str]:
    count = vcpus(dom0, now)
    for word, knob, value in (
        ("dom0.weight", knobs.WEIGHT, dom0.weight),
        ("dom0.cap_percent", knobs.CAP, dom0.cap_percent),
    ):
        if value is not None and (reason := knobs.refused(knob, str(value), now, count)):
            yield f"{word}: {reason}"
    for served_by in dict.fromkeys(dom0.irq_affinity):
        if beyond := [c for c in cpus(served_by) if c >= count]:
            yield f"dom0.irq_affinity: dom0 has vCPUs 0-{count - 1}, not {beyond[0]}"
    memory = now.info.memory_mib
    if dom0.memory_mib is not None and dom0.memory_mib >= memory:
        yield f"dom0.memory: the host has {memory} MiB, not {dom0.memory_mib}"
