"""The sections of a spec: every field's default, kind and description."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import (
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from provision.measuring.workloads import FORMS, PATTERN, WORKLOADS
from provision.resources import Latency, Os, StartMode, Virt
from provision.spec import checks as speccheck
from provision.spec.faults import Fault, faults_error
from provision.spec.section import Section
from provision.spec.types import (
    Arrivals,
    Bridge,
    Bytes,
    Clients,
    Count,
    CpuList,
    CpuLists,
    DatagramBytes,
    Fingerprint,
    HttpUrl,
    Image,
    Login,
    MemoryMib,
    Model,
    Mtu,
    NicAddress,
    NicsEach,
    ObjectKib,
    Path,
    Percent,
    Pin,
    Prefix,
    RateMbit,
    Seconds,
    SshTarget,
    Subnet,
    Weight,
    path_of,
)

Workload = Annotated[
    str,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(WORKLOADS)},
                {"type": "string", "pattern": r"\.ya?ml$"},
                {"type": "string", "pattern": PATTERN},
            ]
        }
    ),
]


class Nic(Section):
    short = "model"
    model: Model = Field(
        default="paravirtual",
        description="The vNIC's model: `paravirtual`, `emulated`, or one of the hypervisor's own "
        "(KVM: `virtio`, `e1000`, `e1000e`, `rtl8139`, `vmxnet3`, `sriov`, "
        "`passthrough`; vSphere: `vmxnet3`, `vmxnet2`, `e1000`, `e1000e`, `sriov`; VirtualBox: "
        "`virtio`, `82540EM`, `82543GC`, `82545EM`, `Am79C970A`, `Am79C973`).",
    )
    rate_mbit: RateMbit | None = Field(
        default=None,
        validation_alias="rate",
        description="The most that a guest may send, and receive.",
    )


class Cpu(Section):
    pin: Pin = Field(
        default=None,
        description="Host CPUs: one list for every vCPU (`0-3`), one list per guest (`[0, 1]`), or "
        "`spread`: every vCPU has one CPU, in turn, leaving out dom0's.",
    )
    weight: Weight = Field(
        default=256, description="Share of the CPU when guests compete; 256 is normal."
    )
    cap_percent: Count | None = Field(
        default=None, description="The most CPU that a guest may use; 100 is one whole CPU."
    )
    reserve_percent: Count | None = Field(
        default=None, description="The CPU that is kept for a guest; 100 is one whole CPU."
    )
    emulator_pin: CpuList | None = Field(
        default=None,
        description="Host CPUs of the hypervisor's own threads for a guest (QEMU, vhost).",
    )


class Netserver(Section):
    file: Path | None = Field(default=None, description="Where the program is: a file here,")
    url: HttpUrl | None = Field(default=None, description="or where it is fetched from.")
    sha256: Fingerprint = Field(description="The SHA-256 of its bytes: no others are run.")

    @model_validator(mode="after")
    def _one(self) -> Netserver:
        if (self.file is None) == (self.url is None):
            raise faults_error(
                [Fault("one of file and url says where it is", (("file",), ("url",)))]
            )
        return self


class Guests(Section):
    count: Count = Field(default=1, description="How many guests.")
    name: Prefix = Field(default="vm", description="What their names begin with: `vm1`, `vm2`, …")
    nics_each: NicsEach = Field(
        default=1,
        description="vNICs of each guest that are measured, each with an uplink, a subnet and a "
        "stream of its own.",
    )
    vcpus: Count = Field(default=1, description="Virtual CPUs of each guest.")
    memory_mib: MemoryMib = Field(
        default=1024, validation_alias="memory", description="Memory of each guest."
    )
    memory_reserve_mib: MemoryMib | None = Field(
        default=None,
        validation_alias="memory_reserve",
        description="Host memory that is kept for each guest.",
    )
    latency: Latency = Field(
        default="normal",
        description="`high` asks the hypervisor to schedule guests for latency (vSphere).",
    )
    virt: Virt | None = Field(
        default=None,
        description="How the guests are virtualized where there is a choice (Xen: `pv`, `pvh`, "
        "`hvm`; native: `host`, the NICs where they are, or `namespace`, a network namespace for "
        "each guest's); empty is what the hypervisor usually does.",
    )
    os: Os = Field(
        default="linux",
        description="The guests' system. `windows` (Hyper-V) needs cloudbase-init and Windows' own "
        "OpenSSH server in the image; netperf alone is run on it.",
    )
    netserver: Netserver | None = Field(
        default=None, description="The netserver that Windows guests are given."
    )
    image: Image = Field(
        default="debian12",
        description="The guests' disk: the name of an image that `provision image build` makes "
        "(vSphere, OpenVZ: of a template; Hyper-V: of a VHDX on the host; VirtualBox: of a VM that "
        "has a snapshot), or the path of a disk file with cloud-init in it.",
    )
    user: Login = Field(
        default="root",
        description="The login user in the guests; `debian` in Debian's cloud images. On Windows "
        "`root` means `Administrator`.",
    )
    start: StartMode = Field(
        default="auto",
        description="`restore` starts guests from one saved, booted image, `boot` boots each; "
        "`auto` restores where that is sound.",
    )
    ready_s: Seconds = Field(
        default=300,
        validation_alias="ready",
        description="How long a guest may take until it answers by SSH.",
    )
    nic: Nic = Field(default=Nic(), description="The vNIC that is measured.")
    cpu: Cpu = Field(default=Cpu(), description="How the hypervisor schedules each guest.")

    @property
    def login(self) -> str:
        """The login user, as the guests' system calls it."""
        return "Administrator" if self.os == "windows" and self.user == "root" else self.user

    @property
    def links(self) -> int:
        """How many uplinks, subnets and streams all guests together have."""
        return self.count * self.nics_each


class Switches(Section):
    short = "type"
    type: Literal["bridge", "ovs", "vswitch"] | None = Field(
        default=None,
        description="What each guest's own switch is: a Linux bridge, Open vSwitch, or the "
        "hypervisor's own; empty is what the hypervisor usually has.",
    )
    mtu: Mtu = Field(
        default=1500, description="MTU of each link, from the guest to the load generator."
    )


class Lab(Section):
    rate_mbit: RateMbit | None = Field(
        default=None,
        validation_alias="rate",
        description="Wire speed of the emulated lab's cables.",
    )


class LoadGenerator(Section):
    ssh: SshTarget = Field(
        description="The load generator as SSH is told: `root@10.0.0.9`, `ssh://root@host:2222`."
    )
    ports: tuple[NicAddress, ...] = Field(
        description="Its NICs by name, PCI address or MAC, in the order of the uplinks that they "
        "are cabled to."
    )


class Network(Section):
    subnet: Subnet = Field(
        default=IPv4Network("198.18.0.0/16"),
        description="Where the links have their subnets; the first one is left out.",
    )
    prefix: Annotated[int, Field(strict=True, ge=8, le=30)] = Field(
        default=24, description="Prefix length of each link's own subnet."
    )
    port: Annotated[int, Field(strict=True, ge=1024, le=65535)] = Field(
        default=12865, description="TCP port of the first pair; each pair has two."
    )


class Management(Section):
    bridge: Bridge | None = Field(
        default=None,
        description="An existing bridge or port group of the host to reach the guests by; empty "
        "makes one, where the hypervisor is this machine or is reached over SSH.",
    )
    subnet: Subnet | None = Field(
        default=None,
        description="The guests' management subnet; empty is a /24 of 198.19.0.0/16 that the "
        "testbed's name chooses.",
    )


class Dom0(Section):
    vcpus: Count | None = Field(default=None, description="How many CPUs dom0 (or the host) keeps.")
    pin: CpuList | None = Field(default=None, description="Which CPUs dom0 (or the host) keeps.")
    weight: Weight | None = Field(default=None, description="Its share of the CPU; 256 is normal.")
    cap_percent: Count | None = Field(
        default=None, description="The most CPU that dom0 may use; 100 is one whole CPU (Xen)."
    )
    memory_mib: MemoryMib | None = Field(
        default=None, validation_alias="memory", description="Memory of dom0 (Xen)."
    )
    irq_affinity: CpuLists | None = Field(
        default=None,
        description="The CPUs that may serve the uplinks' interrupts: one list for all (`0-1`), or "
        "one for each uplink (`[0, 1]`).",
    )


class Run(Section):
    workloads: tuple[Workload, ...] = Field(
        default=("netperf-send", "netperf-receive"),
        description="What is run, in this order: "
        + ", ".join(f"`{w}`" for w in WORKLOADS)
        + ", a file that describes one of your own, or what a guest forwards, such as "
        + ", ".join(f"`{w}`" for w in FORMS)
        + "; any of them on some guests alone (`@1`), or beside others (`+heavy`).",
    )
    duration_s: Seconds = Field(
        default=10, validation_alias="duration", description="The window that is measured."
    )
    ramp_s: Seconds = Field(
        default=1, validation_alias="ramp", description="Traffic before and after the window."
    )
    repeat: Count = Field(default=3, description="Valid samples of each workload.")
    within_percent: Percent | None = Field(
        default=None,
        description="Repeat until the 95 % interval of the aggregate is within so many per cent of "
        "the mean, on either side; empty is `repeat` times and no more.",
    )
    most: Count = Field(default=30, description="Repetitions at most, to come within that.")
    redo: Annotated[int, Field(strict=True, ge=0)] = Field(
        default=2, description="How often an invalid sample is taken again, for each repetition."
    )
    message_bytes: Bytes = Field(
        default=8192,
        validation_alias="message",
        description="What each send call hands to the kernel.",
    )
    socket_buffer_bytes: Bytes = Field(
        default=65536, validation_alias="socket_buffer", description="Socket buffers, at both ends."
    )
    datagram_bytes: DatagramBytes = Field(
        default=1472,
        validation_alias="datagram",
        description="Payload of a UDP datagram; the default fills a frame of 1500 bytes.",
    )
    object_kib: tuple[ObjectKib, ...] = Field(
        default=(0, 1, 2, 4, 8, 16, 32, 48, 64),
        min_length=1,
        description="Sizes of HTTP objects, each measured by itself.",
    )
    clients: Clients = Field(
        default=16, description="HTTP clients of each guest that wait for their answers."
    )
    arrivals_per_s: Arrivals = Field(
        default=100,
        validation_alias="arrivals",
        description="HTTP connections begun for each guest every second, where the load is open.",
    )
    request_bytes: Bytes = Field(
        default=1, validation_alias="request", description="What asks in a transaction."
    )
    response_bytes: Bytes = Field(
        default=1, validation_alias="response", description="What answers in a transaction."
    )

    @field_validator("workloads")
    @classmethod
    def _known(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        found, faults = speccheck.workloads(value, lambda name: path_of(name, info))
        if faults:
            raise faults_error(faults)
        return found
