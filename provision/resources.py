"""What a testbed is made of: the same frozen types for the wish and for what is there.

``None`` in place of a resource means that it does not exist. A diff is a comparison of fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Literal

StartMode = Literal["auto", "restore", "boot"]
Latency = Literal["normal", "high"]
Virt = Literal["pv", "pvh", "hvm", "host", "namespace"]
Os = Literal["linux", "windows"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """One host knob, such as the CPUs left to dom0 or the CPUs an IRQ may use.

    A knob is never absent, only different; ``value`` is in the knob's own canonical form. The one
    called ``BOOT`` restarts the host: its value is all boot options that are ours to set, as
    ``key=value`` in alphabetical order.
    """

    kind: ClassVar[str] = "tuning"
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace that stands for a machine of the emulated lab."""

    kind: ClassVar[str] = "namespace"
    name: str


@dataclass(frozen=True, slots=True)
class Cable:
    """A veth pair as cross-over cable; ``name`` is the end at the hypervisor (the uplink)."""

    kind: ClassVar[str] = "cable"
    name: str
    far: str
    namespace: str
    rate_mbit: int | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """The load generator's NIC on one link. It is never absent, only without its address.

    The defaults are what a testbed wants: no IPv6 chatter, and ARP answered only for the NIC's
    own address (ip-sysctl(5): arp_ignore 1, arp_announce 2).
    """

    kind: ClassVar[str] = "port"
    name: str
    address: str | None = None
    mtu: int = 1500
    up: bool = False
    ipv6: bool = False
    arp_ignore: int = 1
    arp_announce: int = 2


@dataclass(frozen=True, slots=True)
class Uplink:
    """A physical NIC of the hypervisor host: the state that a testbed changes and puts back.

    ``lro`` is large receive offload, which a kernel turns off, and leaves off, when it bridges;
    ``vfs`` is how many virtual functions it has.
    """

    kind: ClassVar[str] = "uplink"
    name: str
    mtu: int = 1500
    up: bool = False
    ipv6: bool = False
    lro: bool = False
    vfs: int = 0


@dataclass(frozen=True, slots=True)
class Switch:
    """A bridge or vSwitch; ``uplink`` is its one physical NIC, ``address`` the host's own on it."""

    kind: ClassVar[str] = "switch"
    name: str
    flavour: str = "bridge"
    uplink: str | None = None
    mtu: int = 1500
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Vnic:
    """A virtual NIC: ``model`` is the hypervisor's exact word, ``address`` is with its prefix.

    Where a guest has an uplink itself, ``switch`` is that NIC and ``mac`` is "": the NIC's own.
    """

    switch: str
    model: str
    mac: str
    address: str
    mtu: int = 1500
    rate_mbit: int | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """A virtual machine, running or not.

    ``image`` is the digest of the golden image, or the name of the hypervisor's template; ``pins``
    has one CPU list per vCPU, () = unpinned; ``weight`` 256 is normal; ``cap_percent`` and
    ``reserve_percent`` are of one CPU, None = no cap and nothing kept; ``latency`` ``high`` asks
    the hypervisor to schedule for it; ``accel`` is what executes the guest's instructions
    (``kvm``, ``tcg``, …); ``os`` is the sort of system that its seed is for.
    """

    kind: ClassVar[str] = "guest"
    name: str
    vcpus: int
    memory_mib: int
    image: str
    management: Vnic
    nics: tuple[Vnic, ...]
    accel: str
    pins: tuple[str, ...] = ()
    emulator_pin: str | None = None
    weight: int = 256
    cap_percent: int | None = None
    reserve_percent: int | None = None
    memory_reserve_mib: int | None = None
    latency: Latency = "normal"
    os: Os = "linux"
    running: bool = True


Resource = Tuning | Namespace | Cable | Port | Uplink | Switch | Guest
Key = tuple[str, str]
KINDS: Mapping[str, type[Resource]] = {
    c.kind: c for c in (Tuning, Namespace, Cable, Port, Uplink, Switch, Guest)
}
BOOT: Key = (Tuning.kind, "host.boot")
_FIELDS: Mapping[type, tuple[str, ...]] = {
    c: tuple(f.name for f in fields(c)) for c in (*KINDS.values(), Vnic)
}
#: a host's own balancer of interrupts, which would move them again; ``irq/…`` tunings come after it
IRQBALANCE: Key = (Tuning.kind, "irqbalance")
#: kinds that cannot be absent: to undo is to put back what was there
STATES = frozenset({Tuning.kind, Port.kind, Uplink.kind})


def key(resource: Resource) -> Key:
    return resource.kind, resource.name


def label(k: Key) -> str:
    """The way a resource is written for people: ``guest/vm1``."""
    return f"{k[0]}/{k[1]}"


def changed(have: Resource | None, want: Resource) -> tuple[str, ...]:
    """The fields to put right, in order; all of them where nothing is there yet."""
    names = _FIELDS[type(want)]
    if have is None:
        return names
    return tuple(n for n in names if getattr(have, n) != getattr(want, n))


def dump(resource: Resource | None) -> dict[str, Any] | None:
    """As plain data for JSON; ``load`` gives back an equal resource."""
    return None if resource is None else {"kind": resource.kind} | _plain(resource)


def _plain(thing: Resource | Vnic) -> dict[str, Any]:
    """As ``dataclasses.asdict``, which copies for all eventualities and takes ten times as long."""
    found: dict[str, Any] = {}
    for name in _FIELDS[type(thing)]:
        value = getattr(thing, name)
        if isinstance(value, Vnic):
            value = _plain(value)
        elif isinstance(value, tuple):
            value = tuple(_plain(v) if isinstance(v, Vnic) else v for v in value)
        found[name] = value
    return found


@cache
def _adapter(kind: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(KINDS[kind])


def load(data: Mapping[str, Any] | None) -> Resource | None:
    """Back from plain data; raises KeyError or ValueError (pydantic's) on anything foreign."""
    if data is None:
        return None
    found: Resource = _adapter(data["kind"]).validate_python(
        {k: v for k, v in data.items() if k != "kind"}
    )
    return found


@dataclass(frozen=True, slots=True)
class Among:
    """Resources by what others need of them; ``cables`` are by their far ends' names."""

    keys: frozenset[Key]
    tunings: frozenset[Key]
    cables: Mapping[str, frozenset[Key]]

    @classmethod
    def of(cls, things: Mapping[Key, Resource]) -> Among:
        tunings = frozenset(k for k in things if k[0] == Tuning.kind)
        cables: dict[str, frozenset[Key]] = {}
        for k, thing in things.items():
            if isinstance(thing, Cable):
                cables[thing.far] = cables.get(thing.far, frozenset()) | {k}
        return cls(frozenset(things), tunings, cables)


def needs(resource: Resource, among: Among) -> frozenset[Key]:
    """Those that must be in place before this one."""
    wanted: set[Key] | frozenset[Key]
    match resource:
        case Cable(namespace=namespace):
            wanted = {(Namespace.kind, namespace)}
        case Port(name=name):
            wanted = among.cables.get(name, frozenset())
        case Uplink(name=name):
            wanted = {(Cable.kind, name), BOOT}  # what is set live does not outlive a restart
        case Switch(uplink=uplink):
            wanted = {(Uplink.kind, uplink), BOOT} if uplink is not None else {BOOT}
        case Tuning(name=name) if key(resource) != BOOT:
            wanted = {BOOT, IRQBALANCE} if name.startswith("irq/") else {BOOT}
            wanted |= {(Cable.kind, part) for part in name.split("/")}  # a setting of its near end
        case Guest(management=management, nics=nics):
            # host tuning first: a guest must never run, even for a moment, on CPUs kept from it
            wanted = among.tunings | {
                (kind, nic.switch)
                for nic in (management, *nics)
                for kind in (Switch.kind, Uplink.kind)
            }
        case _:
            wanted = frozenset()
    return among.keys & wanted
