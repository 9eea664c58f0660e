"""Faults of several fields together, each naming every field that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from provision import meaning, units
from provision.measuring.workloads import FORMS, WORKLOADS, is_file, is_one, meant
from provision.spec.faults import Fault, show

if TYPE_CHECKING:
    from provision.spec import Spec

COUNT, UPLINKS = ("guests", "count"), ("uplinks",)
EACH = ("guests", "nics_each")
GENERATOR, PORTS = ("load_generator",), ("load_generator", "ports")
NETWORK, MANAGEMENT = ("network", "subnet"), ("management", "subnet")
PREFIX = ("network", "prefix")
OS, NETSERVER = ("guests", "os"), ("guests", "netserver")
HOSTNAME = 15  # letters of a NetBIOS name


def faults(spec: Spec) -> Iterator[Fault]:
    """Every one, in no order."""
    yield from _uplinks(spec)
    yield from _load_generator(spec)
    yield from _links(spec)
    yield from _management(spec)
    yield from _cpu(spec)
    yield from _repetitions(spec)
    yield from _windows(spec)


def _windows(spec: Spec) -> Iterator[Fault]:
    from provision.measuring.workloads import find, is_file

    guests = spec.guests
    if guests.os != "windows":
        if guests.netserver is not None:
            yield Fault("is for Windows guests: Linux ones have a package", (NETSERVER, OS))
        return
    if len(last := f"{guests.name}{guests.count}") > HOSTNAME:
        what = f"{last!r} is too long for Windows, which takes {HOSTNAME} letters"
        yield Fault(what, (("guests", "name"), COUNT, OS))
    for i, name in enumerate(spec.run.workloads):
        if is_file(name) or not find(name).windows:
            what = f"{name} needs more of its guests than a netserver: not on Windows"
            yield Fault(what, (("run", "workloads", i), OS))


def _repetitions(spec: Spec) -> Iterator[Fault]:
    run = spec.run
    if run.within_percent is not None and run.most < run.repeat:
        what = f"{run.most} repetitions at most are fewer than the {run.repeat} made anyway"

        yield Fault(what, (("run", "most"), ("run", "repeat")))


def workloads(
    asked: Sequence[str], path_of: Callable[[str], str]
) -> tuple[tuple[str, ...], list[Fault]]:
    """A list of workloads, files as paths, and all that is wrong; the places are within the list.

    ``path_of`` raises ValueError where there is no such file.
    """
    found: list[str] = []
    faults = [] if asked else [Fault("names no workload", ((),))]
    for i, name in enumerate(asked):
        try:
            found.append(_workload(name, path_of))
        except ValueError as e:
            faults.append(Fault(str(e), ((i,),)))
        else:
            if found[-1] in found[:-1]:
                faults.append(Fault(f"{name} is in the list already", ((i,),)))
    return tuple(found), faults


def _workload(name: str, path_of: Callable[[str], str]) -> str:
    """Raises ValueError with what was meant, if that can be guessed."""
    if is_file(name):
        try:
            return path_of(name)
        except ValueError as e:
            raise ValueError(f"{e}{meant(name)}") from None
    if not is_one(name):
        known = ", ".join((*WORKLOADS, *FORMS))
        raise ValueError(f"no workload {show(name)}; known: {known}{meant(name)}")
    return name


def _uplinks(spec: Spec) -> Iterator[Fault]:
    guests, uplinks = spec.guests, spec.uplinks
    if not uplinks:
        return
    if guests.links > len(uplinks):
        each = "an uplink" if guests.nics_each == 1 else f"{guests.nics_each} uplinks"
        some = "1 guest wants" if guests.count == 1 else f"{guests.count} guests want"
        what = f"{some} {each}{' each' * (guests.count > 1)}; there are {len(uplinks)}"
        yield Fault(what, (COUNT, EACH, UPLINKS))
    for i, uplink in enumerate(uplinks):
        if uplink in uplinks[:i]:
            first = f"{guests.name}{uplinks.index(uplink) // guests.nics_each + 1}"
            yield Fault(f"{uplink} is already the uplink of {first}", ((*UPLINKS, i),))
    if spec.lab.rate_mbit is not None:
        what = "only the emulated lab has a rate; uplinks have that of their cables"
        yield Fault(what, (("lab", "rate"), UPLINKS))


def _load_generator(spec: Spec) -> Iterator[Fault]:
    generator, uplinks = spec.load_generator, spec.uplinks
    if generator is None:
        if uplinks:
            what = "need a load_generator (ssh, ports) at their far ends"
            yield Fault(what, (UPLINKS, GENERATOR))
        return
    if not uplinks:
        what = "without uplinks the lab is emulated, and has its own load generator"
        yield Fault(what, (GENERATOR, UPLINKS))
        return
    if len(generator.ports) != len(uplinks):
        what = f"one port for each uplink: {len(uplinks)}, not {len(generator.ports)}"
        yield Fault(what, (PORTS, UPLINKS))
    for i, port in enumerate(generator.ports):
        if port in generator.ports[:i]:
            yield Fault(f"{port} is in the list already", ((*PORTS, i),))


def _links(spec: Spec) -> Iterator[Fault]:
    count, net, prefix = spec.guests.links, spec.network.subnet, spec.network.prefix
    have = 2 ** (prefix - net.prefixlen) - 1 if prefix >= net.prefixlen else 0
    if count > have:
        some = units.counted(have, "guest" if spec.guests.nics_each == 1 else "link")
        what = f"{net} has /{prefix} subnets for {some}, not {count} (the first is left out)"
        yield Fault(what, (NETWORK, PREFIX, COUNT, EACH))
    if (last := spec.network.port + 2 * count - 1) > 65535:
        pairs = units.counted(count, "pair")
        what = f"{pairs} from port {spec.network.port} on would end at port {last}"
        yield Fault(what, (("network", "port"), COUNT, EACH))
    if net.overlaps(management := meaning.management_subnet(spec)):
        what = f"{net} of the links and {management} of the management overlap"
        yield Fault(what, (MANAGEMENT, NETWORK, ("name",)))


def _management(spec: Spec) -> Iterator[Fault]:
    if spec.management.bridge is not None and spec.management.subnet is None:
        what = "an existing bridge needs management.subnet: the guests' addresses there"
        yield Fault(what, (("management", "bridge"), MANAGEMENT))
        return
    management = meaning.management_subnet(spec)
    have = max(management.num_addresses - 1 - meaning.FIRST_GUEST, 0)
    if spec.guests.count > have:
        some = units.counted(have, "guest")
        what = f"{management} has addresses for {some}, not {spec.guests.count}"
        yield Fault(what, (MANAGEMENT, COUNT))


def _cpu(spec: Spec) -> Iterator[Fault]:
    guests, cpu, dom0 = spec.guests, spec.guests.cpu, spec.dom0
    if isinstance(cpu.pin, tuple) and len(cpu.pin) != guests.count:
        what = f"one CPU list for each guest: {guests.count}, not {len(cpu.pin)}"
        yield Fault(what, (("guests", "cpu", "pin"), COUNT))
    if cpu.cap_percent is not None and cpu.cap_percent > 100 * guests.vcpus:
        most = f"{guests.vcpus} vCPUs can use" if guests.vcpus > 1 else "1 vCPU can use"
        what = f"should be at most {100 * guests.vcpus}: all that {most}"
        yield Fault(what, (("guests", "cpu", "cap_percent"), ("guests", "vcpus")))
    if isinstance(dom0.irq_affinity, tuple) and len(dom0.irq_affinity) != guests.links:
        what = f"one CPU list for each uplink: {guests.links}, not {len(dom0.irq_affinity)}"
        yield Fault(what, (("dom0", "irq_affinity"), COUNT, EACH))
    if dom0.vcpus is not None and dom0.pin and len(units.cpus(dom0.pin)) != dom0.vcpus:
        have = len(units.cpus(dom0.pin))
        what = f"counts {have} CPUs, and dom0.vcpus is {dom0.vcpus}; give one of the two"
        yield Fault(what, (("dom0", "pin"), ("dom0", "vcpus")))
