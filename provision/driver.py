"""The contract that every hypervisor driver fulfils."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from provision.capabilities import NO_WINDOWS
from provision.resources import Guest, Key, Resource, StartMode, Tuning

if TYPE_CHECKING:
    from provision.capabilities import Capabilities
    from provision.host import Host
    from provision.image import Image
    from provision.seed import Identity

LOOKS_AT_ONCE = 4  # each is a command on the host, or more


class Change(StrEnum):
    """How much a change of one field disturbs what runs."""

    LIVE = "live"
    RESTART = "restart"
    RECREATE = "recreate"
    REBOOT = "restarts the host"


@dataclass(frozen=True, slots=True)
class NicModel:
    """A vNIC model and what proves it inside a guest.

    ``pci_ids`` are ``vendor:device`` in hex, () where the NIC is no PCI function or a piece of
    whatever hardware the host has; ``drivers`` as ``ethtool -i`` and Windows name them, () where
    that depends on the hardware too. ``mtu`` is the most it carries; ``direct``: a piece of
    its uplink itself, with no switch between, and with a state that no checkpoint has;
    ``whole``: all of its uplink, with that one's own MAC.
    """

    name: str
    pci_ids: tuple[str, ...]
    drivers: tuple[str, ...]
    mtu: int = 65535
    direct: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class UplinkFacts:
    """A NIC of the hypervisor's host that could be an uplink, or why not.

    ``used_by`` says in words what uses it; "" = nothing. ``irqs`` are the NIC's interrupts, ``vfs``
    is how many virtual functions it has.
    """

    name: str
    mac: str
    pci: str | None = None
    up: bool = False
    mtu: int = 1500
    addresses: tuple[str, ...] = ()
    used_by: str = ""
    irqs: tuple[int, ...] = ()
    vfs: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that ``doctor`` looked at; ``fix`` is what would mend it.

    ``needed``: whether work stops without it.
    """

    what: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Dom0:
    """What a spec wants of dom0, or of the host itself; None = left alone.

    ``pin`` is a CPU list, ``weight`` 256 is normal, ``cap_percent`` is of one CPU;
    ``irq_affinity`` has one CPU list for each uplink, or nothing; ``network_backend`` is the type
    of switch that the spec names.
    """

    vcpus: int | None = None
    pin: str | None = None
    weight: int | None = None
    cap_percent: int | None = None
    memory_mib: int | None = None
    irq_affinity: tuple[str, ...] = ()
    network_backend: str | None = None

    @property
    def cpus(self) -> str | None:
        """The CPUs that are kept from guests: those of ``pin``, else the first ``vcpus``."""
        if self.pin is not None or self.vcpus is None:
            return self.pin
        return "0" if self.vcpus == 1 else f"0-{self.vcpus - 1}"


def irq_tunings(dom0: Dom0, uplinks: Iterable[UplinkFacts]) -> Iterator[Tuning]:
    """One knob for each interrupt of the uplinks; nothing where none is to be moved."""
    for uplink, cpus in zip(uplinks, dom0.irq_affinity, strict=False):
        yield from (Tuning(f"irq/{irq}", cpus) for irq in uplink.irqs)


def host_tunings(dom0: Dom0, uplinks: tuple[UplinkFacts, ...]) -> Iterator[Tuning]:
    """The knobs of a host that is its own dom0: set while it runs."""
    if dom0.cpus is not None:
        yield Tuning("dom0.cpus", dom0.cpus)
    if dom0.weight is not None:
        yield Tuning("dom0.weight", str(dom0.weight))
    yield from irq_tunings(dom0, uplinks)


def fits(_guest: Guest) -> Iterable[str]:
    """No objection to any guest."""
    return ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a hypervisor and its host are and can do, known before anything is changed.

    ``words`` maps the vocabulary's words (``paravirtual``) to exact models; the first of
    ``switch_flavours`` is what a spec gets that names none, () = guests are on their uplinks.
    ``cannot`` maps a spec's word to the reason it is refused, ``unfit`` says what no single word is
    to blame for, each with the spec's path; ``management`` is why guests need an existing network
    for it, "" = the driver makes one.
    ``addresses`` are the host's own by link, with their prefixes, but for those of this testbed.
    ``virts`` are the ways to virtualize guests where there is a choice, each with why it cannot be
    had ("" = it can); ``accel`` is the usual one then. ``beside`` is the model of a guest's
    management NIC where that depends on the other's, paravirtual where it is silent.
    ``change`` maps (kind, field) to how disturbing a change is, RECREATE where it is silent;
    ``parallel`` caps concurrent puts of a kind; ``knobs`` are the host's tunings as they are now,
    ``tunings`` those that a spec's wishes for dom0 and its uplinks become; ``most_nics`` is how
    many vNICs a guest may have besides its management's; ``mac_prefix`` is three octets, of which
    guests' MACs use the lower quarter, "" = NICs keep their own; ``simulated`` guests have no
    inside that could be checked. ``checkpoint`` is why guests cannot be brought back to clean, "" =
    they can; ``windows`` is why they cannot be Windows; ``limits`` is what holds guests to their
    CPUs and memory: the machine that each has, or the host's control groups.
    """

    hypervisor: str
    version: str
    host: str
    cpus: int
    memory_mib: int
    accel: str
    nic_models: Mapping[str, NicModel]
    words: Mapping[str, str]
    switch_flavours: tuple[str, ...]
    kinds: frozenset[str]
    uplinks: tuple[UplinkFacts, ...] = ()
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    change: Mapping[tuple[str, str], Change] = field(default_factory=dict)
    parallel: Mapping[str, int] = field(default_factory=dict)
    knobs: Mapping[str, str] = field(default_factory=dict)
    tunings: Callable[[Dom0, tuple[UplinkFacts, ...]], Iterable[Tuning]] = host_tunings
    notes: Mapping[str, str] = field(default_factory=dict)
    unfit: Callable[[Guest], Iterable[str]] = fits
    management: str = ""
    virts: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    most_nics: int = 15
    mac_prefix: str = "52:54:00"
    simulated: bool = False
    checkpoint: str = ""
    windows: str = NO_WINDOWS
    limits: Literal["machine", "groups"] = "machine"

    @property
    def bare(self) -> bool:
        """Whether a guest is the host itself, and has the uplinks with their own addresses."""
        return not self.mac_prefix


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of the hypervisor's host at one moment; all but ``at_s`` only ever grow.

    ``at_s`` is the epoch; ``host_busy_s`` has one figure a CPU, () where the hypervisor does not
    count; ``guest_busy_s`` is CPU time by guest; ``nics`` is (rx_bytes, tx_bytes, rx_packets,
    tx_packets) by uplink. ``dom0_busy_s`` has one figure a vCPU of dom0, () where the host is its
    own; ``irqs`` counts the devices' interrupts that each CPU of dom0, or of the host, served.
    """

    at_s: float
    host_busy_s: tuple[float, ...]
    guest_busy_s: Mapping[str, float]
    nics: Mapping[str, tuple[int, int, int, int]]
    dom0_busy_s: tuple[float, ...] = ()
    irqs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a hypervisor; ``password`` fetches the secret, which is kept nowhere."""

    user: str
    password: Callable[[], str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server proves itself: by a CA, by its own certificate, or not at all.

    ``ca`` None = the system's CAs; ``fingerprint`` is the SHA-256 of the certificate, 64 hex
    digits, and then no CA is asked. ``client_cert`` and ``client_key`` are by which we prove
    ourselves, in PEM, where the login asks for that.
    """

    ca: Path | None = None
    fingerprint: str = ""
    verify: bool = True
    client_cert: Path | None = None
    client_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a driver works and on whose behalf.

    ``testbed`` is the mark that everything made bears, ``tag`` its short form in names; ``uri``
    the hypervisor's address, "" = this machine; ``auth`` is how we log in there, "" = as usual;
    ``host``, ``storage`` and ``pool`` choose among what a manager of several hosts has, "" = the
    only one; ``ssh`` is its host's dom0 as ssh takes it, "" = as usual. ``folder`` is for disks
    and consoles, on the hypervisor's host; ``say`` takes a phase of a long put. ``image`` and
    ``identity`` serve puts of guests only.
    """

    testbed: str
    folder: Path
    uri: str = ""
    image: Image | None = None
    identity: Callable[[Guest], Identity] | None = None
    start: StartMode = "auto"
    accel: str = "auto"
    say: Callable[[Key, str], None] = lambda _key, _phase: None
    tag: str = ""
    login: Login | None = None
    auth: str = ""
    tls: Tls = field(default_factory=Tls)
    host: str = ""
    storage: str = ""
    pool: str = ""
    ssh: str = ""


class Driver(Protocol):
    """Reads a thing and puts a thing; knows nothing of plans, order, undoing or printing.

    All calls may come from several threads, for different keys.
    """

    facts: Facts

    def read(self, key: Key) -> Resource | None:
        """The thing as it is now; None where it does not exist or bears no mark of ours."""

    def put(self, want: Resource) -> None:
        """Make the thing exactly so, whether or not it exists.

        Raises Unsupported, or Foreign where the name is taken by a thing without our mark, before
        anything changes; DriverError or HostError for all else, and then the thing may be half
        made: ``put`` and ``drop`` both cope with that. The tuning ``BOOT`` restarts the host, but
        not where it is so already, nor while guests run that are not of this testbed
        (PreflightError); it returns when the host is back and has been asked what it booted with.
        """

    def drop(self, key: Key) -> None:
        """See that the thing does not exist; no error where it never did.

        A thing of the same name without our mark stays, and raises Foreign.
        """

    def checkpoint(self, key: Key) -> None:
        """Remember this guest, booted, as clean, in place of what was remembered."""

    def revert(self, key: Key) -> None:
        """Back to the checkpoint, running; raises DriverError where there is none."""

    def owned(self) -> Iterable[Key]:
        """Everything on the host that bears the testbed's mark."""

    def usage(self) -> Usage:
        """The counters as they stand now."""

    def evidence(self, key: Key) -> Mapping[str, str]:
        """What a result should record beyond the read-back, such as how the guest was started."""

    def examine(self) -> Iterable[Check]:
        """What ``doctor`` says beyond the facts, such as privileges; changes nothing."""

    def console(self, key: Key) -> str:
        """The last lines of a guest's serial console; "" where there is none."""

    def close(self) -> None:
        """Let go of the connection."""


@runtime_checkable
class Bulk(Protocol):
    """A driver that reads many things for little more than one."""

    def look(self, keys: Iterable[Key]) -> Mapping[Key, Resource | None]:
        """Each as ``read`` would give it, at one moment after the call."""


@runtime_checkable
class Keeper(Protocol):
    """A driver that can tell which guests have a checkpoint, and keeps it while they are mended."""

    def has_checkpoint(self, key: Key) -> bool:
        """Whether ``revert`` would find one."""


@runtime_checkable
class Roomy(Protocol):
    """A driver that knows beforehand whether guests have room."""

    def check_room(self, guests: Iterable[Guest]) -> None:
        """Raises PreflightError where the disks of these, not yet made, have none."""


@runtime_checkable
class Seated(Protocol):
    """A driver whose hypervisor's host, or dom0, takes commands of ours."""

    @property
    def host(self) -> Host:
        """Where they go."""


def look(driver: Driver, keys: Iterable[Key]) -> Mapping[Key, Resource | None]:
    """Each as the driver's ``read`` gives it: in bulk where it can, else several at once."""
    keys = list(keys)
    if isinstance(driver, Bulk):
        return driver.look(keys)
    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="read") as pool:
        return dict(zip(keys, pool.map(driver.read, keys), strict=True))


class DriverType(Protocol):
    """What the registry holds: how a driver is opened, what its guests boot, what it can do.

    ``takes_image``: that is an image of ours or a disk file, else the name of a template that the
    hypervisor has, or a disk file.
    """

    takes_image: bool
    capabilities: Capabilities

    def __call__(self, target: Target) -> Driver:
        """Connect. Raises Unreachable; nothing on the host is changed."""
