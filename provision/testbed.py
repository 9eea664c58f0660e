"""From the spec and the host's facts to every name, address and resource: deterministic, pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from provision.driver import Dom0, Facts, UplinkFacts
from provision.errors import PreflightError, SpecError
from provision.resources import (
    Cable,
    Guest,
    Namespace,
    Port,
    Resource,
    Switch,
    Tuning,
    Uplink,
    Vnic,
)
from provision.units import cpu_list, cpus

if TYPE_CHECKING:
    from provision.spec import Spec

LAB_MANAGEMENT = IPv4Network("198.19.0.0/16")
NICS_EACH = 16  # at most, its management's included, in a testbed's run of MACs
FIRST_GUEST = 10  # in the management subnet: .1 is the host's own address


@dataclass(frozen=True, slots=True)
class Link:
    """A guest's NIC's own way to the load generator; addresses are with their prefix.

    ``number`` counts all links of the testbed, ``nic`` those of the guest, both from 1; ``switch``
    is the uplink itself where none is between.
    """

    number: int
    guest: str
    uplink: str
    switch: str
    port: str
    guest_address: str
    client_address: str
    control_port: int
    nic: int = 1


@dataclass(frozen=True, slots=True)
class Testbed:
    """What a spec means on one host. ``namespace`` is the emulated load generator, else None."""

    name: str
    hypervisor: str
    namespace: str | None
    links: tuple[Link, ...]
    resources: tuple[Resource, ...]

    @property
    def guests(self) -> tuple[Guest, ...]:
        return tuple(r for r in self.resources if isinstance(r, Guest))


def tag(name: str) -> str:
    """Four characters that stand for the testbed where names must be short (NICs: 15)."""
    number = int.from_bytes(sha256(name.encode()).digest()[:5])
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "".join(digits[number // 36**n % 36] for n in range(4))


def namespace_of(name: str) -> str:
    """The network namespace that is the testbed's emulated load generator."""
    return f"pv-{name}-lg"


def mac(prefix: str, testbed: str, guest: int, nic: int) -> str:
    """The address of a guest's NIC (0 is its management's) after three octets.

    A testbed has a run of addresses, which its name chooses, so that none is there twice. Only the
    prefix's lower quarter is used: the part of VMware's that is set by hand. Without a prefix a NIC
    keeps its own: "".
    """
    if not prefix:
        return ""
    first = int.from_bytes(sha256(testbed.encode()).digest()[-3:])
    number = (first + NICS_EACH * guest + nic) % (1 << 22)
    return ":".join([prefix, *(f"{b:02x}" for b in number.to_bytes(3))])


def management_subnet(spec: Spec) -> IPv4Network:
    """The subnet asked for, or a /24 of 198.19.0.0/16 that the testbed's name chooses."""
    if spec.management.subnet is not None:
        return IPv4Network(spec.management.subnet)
    number = sha256(spec.name.encode()).digest()[0]
    return list(LAB_MANAGEMENT.subnets(new_prefix=24))[number]


def expand(spec: Spec, facts: Facts, image: str) -> Testbed:
    """All that the spec means on this host; ``image`` is the golden image's digest.

    Raises SpecError with every word that this hypervisor cannot honour, PreflightError with every
    uplink that is not free. Nothing is touched.
    """
    if problems := list(_unfit(spec, facts)):
        raise SpecError(problems, hint=f"provision doctor --hv {facts.hypervisor}")
    _refuse_taken(spec, facts)
    links = tuple(_links(spec, _uplinks(spec, facts), direct=is_direct(spec, facts)))
    namespace = None if spec.uplinks else namespace_of(spec.name)
    guests = tuple(_guest(spec, facts, image, own) for own in of_guests(links).values())
    if problems := list(dict.fromkeys(w for guest in guests for w in facts.unfit(guest))):
        raise SpecError(problems, hint=f"provision doctor --hv {facts.hypervisor}")
    # some hosts' NICs have no state of ours, nor has one that is a guest's whole
    uplinks = () if Uplink.kind not in facts.kinds or _is_whole(spec, facts) else links
    resources = (
        *_tunings(spec, facts, links),
        *_lab(spec, namespace, links),
        *(_uplink(spec, facts, link) for link in uplinks),
        *_switches(spec, facts, links),
        *guests,
    )
    return Testbed(spec.name, facts.hypervisor, namespace, links, resources)


def _uplink(spec: Spec, facts: Facts, link: Link) -> Uplink:
    """One virtual function for a guest that has it, else as many as there are."""
    made = next((u.vfs for u in facts.uplinks if u.name == link.uplink), 0)
    model = facts.nic_models.get(nic_model(spec.guests.nic.model, facts) or "")
    hardware = model is not None and model.direct
    return Uplink(link.uplink, spec.switch.mtu, up=True, vfs=1 if hardware else made)


def of_guests(links: Iterable[Link]) -> dict[str, list[Link]]:
    """Each guest's links, in the order of its NICs, by its name."""
    found: dict[str, list[Link]] = {}
    for link in links:
        found.setdefault(link.guest, []).append(link)
    return found


def nic_model(word: str, facts: Facts) -> str | None:
    """The exact model for a word of the vocabulary or of the hypervisor; None = there is none."""
    exact = facts.words.get(word, word)
    return exact if exact in facts.nic_models else None


def _unfit(spec: Spec, facts: Facts) -> Iterator[str]:
    hv, guests, host = facts.hypervisor, spec.guests, f"the host {facts.host}"
    model = nic_model(guests.nic.model, facts)
    if model is None:
        known = [*facts.words, *facts.nic_models]
        yield (
            f"guests.nic.model: {hv} has no vNIC model {guests.nic.model!r}"
            f"{_near(guests.nic.model, known)}; it has: {', '.join(sorted(set(known)))}"
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
    for path, reason in facts.cannot.items():
        if _asked(spec, path):
            yield f"{_as_written(path)}: not on {hv}: {reason}"
    irqs = {cpu for one in _irq_affinity(spec, 1) for cpu in cpus(one)}
    lists = {"dom0.pin": spec.dom0.pin, "dom0.irq_affinity": cpu_list(irqs) or None}
    lists["guests.cpu.emulator_pin"] = guests.cpu.emulator_pin
    pins = {cpu for n in range(guests.count) for one in _pins(spec, facts, n) for cpu in cpus(one)}
    lists["guests.cpu.pin"] = cpu_list(pins) or None
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
    guests, kept = spec.guests, len(cpus(_dom0(spec).cpus or ""))
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


def _near(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _refuse_taken(spec: Spec, facts: Facts) -> None:
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


def _uplinks(spec: Spec, facts: Facts) -> list[str]:
    """The uplinks' own names, from names, PCI addresses or MACs."""
    if not spec.uplinks:
        return [f"pv{tag(spec.name)}u{n}" for n in range(1, spec.guests.links + 1)]
    found: list[UplinkFacts] = []
    problems: list[str] = []
    for n, word in enumerate(spec.uplinks[: spec.guests.links]):
        hits = [u for u in facts.uplinks if word.lower() in (u.name.lower(), u.pci, u.mac)]
        if not hits:
            near = _near(word, [u.name for u in facts.uplinks])
            problems.append(f"uplinks.{n}: the host {facts.host} has no NIC {word!r}{near}")
        elif hits[0] in found:
            problems.append(f"uplinks.{n}: {word!r} is {hits[0].name}, which another NIC has")
        else:
            found.append(hits[0])
    if problems:
        raise SpecError(problems, hint=f"provision doctor --hv {facts.hypervisor}")
    if busy := [f"uplink {u.name} of the host {facts.host} is in use: {u.used_by}"
                for u in found if u.used_by]:  # fmt: skip
        raise PreflightError("\n".join(busy), hint="name a NIC that nothing uses")
    return [u.name for u in found]


def _is_whole(spec: Spec, facts: Facts) -> bool:
    model = facts.nic_models.get(nic_model(spec.guests.nic.model, facts) or "")
    return model is not None and model.whole


def is_direct(spec: Spec, facts: Facts) -> bool:
    """Whether guests are on their uplinks themselves, with no switch of ours between."""
    model = facts.nic_models.get(nic_model(spec.guests.nic.model, facts) or "")
    return Switch.kind not in facts.kinds or (model is not None and model.direct)


def _links(spec: Spec, uplinks: list[str], *, direct: bool) -> Iterator[Link]:
    subnets = IPv4Network(spec.network.subnet).subnets(new_prefix=spec.network.prefix)
    next(subnets)  # the first is left out: with it, link 1 would be subnet 0
    short, each = tag(spec.name), spec.guests.nics_each
    for n, (uplink, subnet) in enumerate(zip(uplinks, subnets, strict=False), 1):
        far = spec.load_generator.ports[n - 1] if spec.load_generator else f"pv{short}c{n}"
        yield Link(
            number=n,
            guest=f"{spec.guests.name}{(n - 1) // each + 1}",
            uplink=uplink,
            switch=uplink if direct else f"pv{short}b{n}",
            port=far,
            guest_address=f"{subnet[2]}/{subnet.prefixlen}",
            client_address=f"{subnet[1]}/{subnet.prefixlen}",
            control_port=spec.network.port + 2 * n - 2,
            nic=(n - 1) % each + 1,
        )


def _tunings(spec: Spec, facts: Facts, links: tuple[Link, ...]) -> Iterator[Tuning]:
    by_name = {u.name: u for u in facts.uplinks}
    used = tuple(by_name.get(link.uplink, UplinkFacts(link.uplink, "")) for link in links)
    if spec.dom0.irq_affinity is not None and not any(u.irqs for u in used):
        raise SpecError(["dom0.irq_affinity: the uplinks have no interrupts of their own to move"])
    yield from facts.tunings(_dom0(spec, len(links)), used)


def _dom0(spec: Spec, uplinks: int = 0) -> Dom0:
    asked = spec.dom0
    return Dom0(
        asked.vcpus, asked.pin, asked.weight, asked.cap_percent, asked.memory_mib,
        _irq_affinity(spec, uplinks), spec.switch.type,
    )  # fmt: skip


def _irq_affinity(spec: Spec, uplinks: int) -> tuple[str, ...]:
    """The CPUs for each uplink's interrupts; () where they are left alone."""
    asked = spec.dom0.irq_affinity
    if isinstance(asked, str):
        return (asked,) * uplinks
    return asked or ()


def _lab(spec: Spec, namespace: str | None, links: tuple[Link, ...]) -> Iterator[Resource]:
    if namespace is not None:
        yield Namespace(namespace)
        for link in links:
            yield Cable(link.uplink, link.port, namespace, spec.lab.rate_mbit)
    for link in links:
        yield Port(link.port, link.client_address, spec.switch.mtu, up=True)


def flavour(spec: Spec, facts: Facts) -> str:
    """What each guest's switch is: as asked, else what the hypervisor usually has."""
    if is_direct(spec, facts):
        return "none"
    return spec.switch.type or facts.switch_flavours[0]


def _switches(spec: Spec, facts: Facts, links: tuple[Link, ...]) -> Iterator[Switch]:
    if facts.bare:
        return
    if spec.management.bridge is None:
        subnet = management_subnet(spec)
        yield Switch(f"pv{tag(spec.name)}m", address=f"{subnet[1]}/{subnet.prefixlen}")
    for link in () if is_direct(spec, facts) else links:
        yield Switch(link.switch, flavour(spec, facts), link.uplink, spec.switch.mtu)


def _pins(spec: Spec, facts: Facts, number: int) -> tuple[str, ...]:
    """One CPU list for each vCPU of the guest with this number, from 0; () = unpinned."""
    pin = spec.guests.cpu.pin
    if pin is None:
        return ()
    if pin == "spread":
        kept = set(cpus(_dom0(spec).cpus or ""))
        free = [c for c in range(facts.cpus) if c not in kept] or list(range(facts.cpus))
        first = number * spec.guests.vcpus
        return tuple(str(free[(first + v) % len(free)]) for v in range(spec.guests.vcpus))
    mine = pin if isinstance(pin, str) else pin[number]
    return (mine,) * spec.guests.vcpus


def _guest(spec: Spec, facts: Facts, image: str, links: Sequence[Link]) -> Guest:
    guests, cpu = spec.guests, spec.guests.cpu
    number = (links[0].number - 1) // len(links)  # from 0
    management = management_subnet(spec)
    model = nic_model(guests.nic.model, facts) or guests.nic.model
    own = {u.name: u.mac for u in facts.uplinks} if _is_whole(spec, facts) else {}
    has_emulator = "guests.cpu.emulator_pin" not in facts.cannot
    at = IPv4Interface((management[FIRST_GUEST + number], management.prefixlen))
    return Guest(
        name=links[0].guest,
        vcpus=guests.vcpus,
        memory_mib=guests.memory_mib,
        image=image,
        management=Vnic(
            switch=spec.management.bridge or ("host" if facts.bare else f"pv{tag(spec.name)}m"),
            model=facts.beside.get(model, facts.words["paravirtual"]),
            mac=mac(facts.mac_prefix, spec.name, number + 1, 0),
            address=str(at),
        ),
        nics=tuple(
            Vnic(
                switch=link.switch,
                model=model,
                mac=own.get(link.uplink) or mac(facts.mac_prefix, spec.name, number + 1, link.nic),
                address=link.guest_address,
                mtu=spec.switch.mtu,
                rate_mbit=guests.nic.rate_mbit,
            )
            for link in links
        ),
        accel=guests.virt or facts.accel,
        pins=_pins(spec, facts, number),
        emulator_pin=cpu.emulator_pin or (_dom0(spec).cpus if has_emulator else None),
        weight=cpu.weight,
        cap_percent=cpu.cap_percent,
        reserve_percent=cpu.reserve_percent,
        memory_reserve_mib=guests.memory_reserve_mib,
        latency=guests.latency,
    )
