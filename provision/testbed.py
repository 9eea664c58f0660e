"""From the spec and the host's facts to every name, address and resource: deterministic, pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from provision.admission import check_free, unfit
from provision.driver import Facts, UplinkFacts
from provision.errors import PreflightError, SpecError, did_you_mean
from provision.meaning import (
    FIRST_GUEST,
    dom0,
    flavour,
    is_direct,
    is_whole,
    management_subnet,
    nic_model,
    pins,
)
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

if TYPE_CHECKING:
    from provision.spec import Spec

NICS_EACH = 16  # at most, its management's included, in a testbed's run of MACs


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


def expand(spec: Spec, facts: Facts, image: str) -> Testbed:
    """All that the spec means on this host; ``image`` is the golden image's digest.

    Raises SpecError with every word that this hypervisor cannot honour, PreflightError with every
    uplink that is not free. Nothing is touched.
    """
    if problems := list(unfit(spec, facts)):
        raise SpecError(problems, hint=f"provision doctor --hv {facts.hypervisor}")
    check_free(spec, facts)
    links = tuple(_links(spec, _uplinks(spec, facts), direct=is_direct(spec, facts)))
    namespace = None if spec.uplinks else namespace_of(spec.name)
    guests = tuple(_guest(spec, facts, image, own) for own in of_guests(links).values())
    if problems := list(dict.fromkeys(w for guest in guests for w in facts.unfit(guest))):
        raise SpecError(problems, hint=f"provision doctor --hv {facts.hypervisor}")
    # some hosts' NICs have no state of ours, nor has one that is a guest's whole
    uplinks = () if Uplink.kind not in facts.kinds or is_whole(spec, facts) else links
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


def _uplinks(spec: Spec, facts: Facts) -> list[str]:
    """The uplinks' own names, from names, PCI addresses or MACs."""
    if not spec.uplinks:
        return [f"pv{tag(spec.name)}u{n}" for n in range(1, spec.guests.links + 1)]
    found: list[UplinkFacts] = []
    problems: list[str] = []
    for n, word in enumerate(spec.uplinks[: spec.guests.links]):
        hits = [u for u in facts.uplinks if word.lower() in (u.name.lower(), u.pci, u.mac)]
        if not hits:
            near = did_you_mean(word, [u.name for u in facts.uplinks])
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
    yield from facts.tunings(dom0(spec, len(links)), used)


def _lab(spec: Spec, namespace: str | None, links: tuple[Link, ...]) -> Iterator[Resource]:
    if namespace is not None:
        yield Namespace(namespace)
        for link in links:
            yield Cable(link.uplink, link.port, namespace, spec.lab.rate_mbit)
    for link in links:
        yield Port(link.port, link.client_address, spec.switch.mtu, up=True)


def _switches(spec: Spec, facts: Facts, links: tuple[Link, ...]) -> Iterator[Switch]:
    if facts.bare:
        return
    if spec.management.bridge is None:
        subnet = management_subnet(spec)
        yield Switch(f"pv{tag(spec.name)}m", address=f"{subnet[1]}/{subnet.prefixlen}")
    for link in () if is_direct(spec, facts) else links:
        yield Switch(link.switch, flavour(spec, facts), link.uplink, spec.switch.mtu)


def _guest(spec: Spec, facts: Facts, image: str, links: Sequence[Link]) -> Guest:
    guests, cpu = spec.guests, spec.guests.cpu
    number = (links[0].number - 1) // len(links)  # from 0
    management = management_subnet(spec)
    model = nic_model(guests.nic.model, facts) or guests.nic.model
    own = {u.name: u.mac for u in facts.uplinks} if is_whole(spec, facts) else {}
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
        pins=pins(spec, facts, number),
        emulator_pin=cpu.emulator_pin or (dom0(spec).cpus if has_emulator else None),
        weight=cpu.weight,
        cap_percent=cpu.cap_percent,
        reserve_percent=cpu.reserve_percent,
        memory_reserve_mib=guests.memory_reserve_mib,
        latency=guests.latency,
        os=guests.os,
    )
