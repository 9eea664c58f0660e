"""What a workload is: a family's programs, how they are started, read and judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from provision.errors import UserError

if TYPE_CHECKING:
    from provision.measuring.capture import Capture, Output
    from provision.measuring.counters import Asked
    from provision.measuring.window import Window

INTERVAL_S = 0.2  # of interim results
TICK_S = 0.1  # of the load generator's counters
#: beyond the run itself, for a slow guest's set-up and the last bytes on their way
PATIENCE_S = 20.0
Direction = Literal["send", "receive", "both"]
#: Ethernet, IPv4 and TCP with timestamps. The kernel counts bytes once per packet it handles, be
#: that a frame or a large segment, so payload is bytes less this for each packet. Without
#: timestamps a full frame's payload comes out 0.8 % low, which the gate's tolerance covers.
HEADER_BYTES = 14 + 20 + 32
DATAGRAM_HEADER_BYTES = 14 + 20 + 8


@dataclass(frozen=True, slots=True)
class Pair:
    """A guest's NIC and its partner: the load generator's own address and NIC on that link.

    ``server`` and ``client`` are addresses without prefix; ``uplink`` is the hypervisor's NIC of
    that link, "" = not known; ``nic`` counts the guest's own from 1, 0 = it has but one.
    """

    guest: str
    server: str
    client: str
    control_port: int
    data_port: int
    port_nic: str
    uplink: str = ""
    nic: int = 0

    @property
    def name(self) -> str:
        """What the pair's stream is called: its guest, and which of several links."""
        return f"{self.guest}.link{self.nic}" if self.nic else self.guest


@dataclass(frozen=True, slots=True)
class Options:
    """How a sample is taken. The run is longer than the window by a ramp on either side."""

    duration_s: float = 10.0
    ramp_s: float = 2.0
    message_bytes: int = 8192
    socket_buffer_bytes: int = 65536
    datagram_bytes: int = 1472
    request_bytes: int = 1
    response_bytes: int = 1
    object_kib: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 48, 64)
    clients: int = 16
    arrivals_per_s: int = 100

    def __post_init__(self) -> None:
        if self.duration_s < 1:
            raise UserError(f"a window of {self.duration_s:g} s is too short; 1 s is the least")
        if self.ramp_s < 2 * INTERVAL_S:
            raise UserError(
                f"a ramp of {self.ramp_s:g} s is too short; {2 * INTERVAL_S:g} s at least"
            )
        if self.message_bytes < 1 or self.socket_buffer_bytes < 1:
            raise UserError("message and socket buffer sizes are at least 1 byte")

    @property
    def length_s(self) -> int:
        """What programs are told, which take whole seconds."""
        return ceil(self.duration_s + 2 * self.ramp_s)


@dataclass(frozen=True, slots=True)
class Flow:
    """What one client carries; ``name`` is its stream's, ``direction`` the guest's."""

    name: str
    pair: Pair
    direction: Direction
    data_port: int

    @property
    def received(self) -> bool:
        """Whether the load generator's NIC receives what is counted."""
        return self.direction != "receive"


@dataclass(frozen=True, slots=True)
class Order:
    """What a family wants of the load generator; files/streams.py says what each part has.

    ``programs`` are by name, each with the words that make it tell its version.
    """

    programs: Mapping[str, Sequence[str]]
    streams: Sequence[Mapping[str, Any]]
    helpers: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What other guests do during a sample.

    ``begin`` is a playbook that starts it and comes back, ``end`` one that ends it and is played
    whatever happened; both have ``extravars``.
    """

    begin: str
    end: str
    extravars: Mapping[str, Any]


Before = tuple[str, Mapping[str, Any]]  # a playbook, and what it is played with


@dataclass(frozen=True, slots=True)
class Figures:
    """What a family makes of a sample over the common window, by flow.

    ``rates_mbit`` is the payload carried, ``counted_mbit`` what the load generator's NICs say of
    it, ``off_percent`` by how much the programs are off the counters. ``per_s`` is what is counted
    one by one, in ``unit``; empty where payload is what the workload is about. ``reasons`` speak
    against the sample. ``offered_mbit`` is what was sent to be forwarded, ``neighbours_mbit`` that
    and what came back, by guest beside those that are measured.
    """

    rates_mbit: Mapping[str, float]
    counted_mbit: Mapping[str, float]
    off_percent: Mapping[str, float]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    per_s: Mapping[str, float] = field(default_factory=dict)
    unit: str = "trans/s"
    latency_us: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lost_percent: Mapping[str, float] = field(default_factory=dict)
    retransmits: int | None = None
    offered_mbit: Mapping[str, float] = field(default_factory=dict)
    neighbours_mbit: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workload(ABC):
    """One series of samples; each family is a subclass in ``workloads/``.

    ``direction`` is the guest's; all clients are the load generator's.
    """

    name: str
    direction: Direction
    summary: str
    #: the playbook that readies guests and load generator, played once before the samples
    ready: ClassVar[str]
    #: NICs that each guest must have beside that for management
    nics_each: ClassVar[int] = 1
    #: guests that there must be
    guests: ClassVar[int] = 1
    #: whether its guests may be Windows
    windows: ClassVar[bool] = False
    #: the playbook that is played once after the samples, whatever happened; "" = none
    done: ClassVar[str] = ""
    #: whether its programs keep a CPU busy by design, until the moment to send
    spins: ClassVar[bool] = False

    @property
    def before(self) -> tuple[Before, ...]:
        """All that is played once before the samples."""
        return ((self.ready, self.extravars),)

    @property
    def after(self) -> tuple[str, ...]:
        """And after them."""
        return (self.done,) if self.done else ()

    @property
    def header_bytes(self) -> int:
        """What each packet carries beside its payload."""
        return HEADER_BYTES

    @property
    def extravars(self) -> Mapping[str, Any]:
        """What ``ready`` is played with."""
        return {}

    def series(self, options: Options) -> tuple[Workload, ...]:
        """What is measured one after another under this name."""
        return (self,)

    def flows(self, pairs: Iterable[Pair]) -> tuple[Flow, ...]:
        """One for each client; pairs of guests that do something else have none."""
        return tuple(Flow(p.name, p, self.direction, p.data_port) for p in pairs)

    def streams(self, pairs: Iterable[Pair]) -> tuple[str, ...]:
        """The names of the programs that carry the flows; usually each has one of its own."""
        return tuple(f.name for f in self.flows(pairs))

    def wants(self) -> Workload | None:
        """What has to be measured before, if anything; ``given`` is told what it gave."""
        return None

    def given(self, aggregate_mbit: float) -> Workload:
        """The same, with what was measured before."""
        return self

    @abstractmethod
    def order(self, pairs: Sequence[Pair], options: Options) -> Order:
        """What runs on the load generator for one sample."""

    def meanwhile(self, pairs: Sequence[Pair], options: Options) -> Meanwhile | None:
        """What other guests do during a sample; None = nothing."""
        return None

    @abstractmethod
    def read(self, text: str) -> Output:
        """One stream's output, whole or cut anywhere."""

    @abstractmethod
    def begins(self, capture: Capture) -> Mapping[str, float]:
        """When each stream began to move (epoch), by its name; a silent one is left out."""

    @abstractmethod
    def figures(self, capture: Capture, asked: Asked, window: Window) -> Figures:
        """What the sample says, and what speaks against it."""

    def plan(self, pairs: Sequence[Pair], options: Options) -> dict[str, Any]:
        """The load generator's plan for one sample, but for where it keeps its files."""
        order = self.order(pairs, options)
        return {
            "workload": self.name,
            "options": asdict(options),
            "programs": {name: list(words) for name, words in order.programs.items()},
            "streams": [dict(stream) for stream in order.streams],
            "helpers": [dict(helper) for helper in order.helpers],
            "files": dict(order.files),
            "interval_s": TICK_S,
            "deadline_s": options.length_s + PATIENCE_S,
        }


def stream(flow: Flow, argv: Sequence[str], **more: Any) -> dict[str, Any]:
    """A flow in the load generator's plan; its command has places in braces for its keys."""
    pair = flow.pair
    return {
        "pair": flow.name, "server": pair.server, "local": pair.client, "nic": pair.port_nic,
        "control_port": pair.control_port, "data_port": flow.data_port, "argv": list(argv),
    } | more  # fmt: skip
