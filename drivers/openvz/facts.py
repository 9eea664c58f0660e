"""What OpenVZ can do, by what libvirt's driver for it does (src/openvz/openvz_driver.c)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drivers.linux.tuning import NEEDS
from provision.capabilities import SAME_KERNEL, Capabilities
from provision.driver import Change, NicModel
from provision.resources import Guest

VETH, OPENVZ = "veth", "openvz"
_LACKS = "libvirt's OpenVZ driver"
#: all that libvirt's driver changes in a container that runs
LIVE = ("vcpus", "memory_mib")
CAPABILITIES = Capabilities(
    nic_models={VETH: NicModel(VETH, (), (VETH,))},
    words={"paravirtual": VETH},
    switches=("bridge",),
    windows=SAME_KERNEL,
    refused={
        "guests.start": "a container is started from its template, and from nothing saved",
        "guests.user": "a container's login is root's",
        "guests.virt": "a container is of its host's own kernel",
        "guests.cpu.pin": f"{_LACKS} pins no CPUs",
        "guests.cpu.weight": f"{_LACKS} has no CPU weight",
        "guests.cpu.cap_percent": f"{_LACKS} has no CPU cap: guests.vcpus",
        "guests.cpu.reserve_percent": f"{_LACKS} reserves no CPU time",
        "guests.cpu.emulator_pin": "a container has no emulator",
        "guests.memory_reserve_mib": f"{_LACKS} is not asked to keep memory for one guest; leave "
        "the host enough: without overcommit, all guests' memory fits",
        "guests.latency": "there is no hypervisor to schedule for it",
        "guests.nic.rate_mbit": f"{_LACKS} shapes no NIC",
        "dom0.cap_percent": "the host's own processes have a weight and no cap: dom0.weight",
        "dom0.memory_mib": "the host keeps the memory that guests leave it: guests.memory",
        "hypervisor.accel": "nothing executes a container's instructions but the CPU",
        **{
            f"hypervisor.{word}": "SSH says all of it: hypervisor.uri: "
            "openvz+ssh://root@host/system"
            for word in ("user", "password", "auth", "tls", "host", "pool", "ssh")
        },
        "hypervisor.storage": "a container's files are where vz.conf says: VE_PRIVATE",
    },
    depends=NEEDS,
    checkpoint=f"{_LACKS} has no snapshots; reset --level process or recreate",
)
CHANGE: Mapping[tuple[str, str], Change] = {
    **{("guest", field): Change.LIVE for field in LIVE},
    ("guest", "running"): Change.RESTART,
}


def unfit(guest: Guest, cpus: int, *, disk: bool) -> Iterator[str]:
    """What OpenVZ would not do, or not say that it does otherwise."""
    if disk:
        yield "guests.image: OpenVZ makes guests from its templates, not from disk files"
    if guest.vcpus > cpus:  # libvirt's driver gives as many as there are, without a word
        yield f"guests.vcpus: a container has no more CPUs than its host, which has {cpus}"
