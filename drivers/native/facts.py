"""What a host without a hypervisor is and can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drivers.linux.cells import LIVE, NEEDS
from drivers.linux.tuning import NEEDS as TUNING_NEEDS
from drivers.linux.tuning import SYSCTL
from provision.capabilities import SAME_KERNEL, Capabilities
from provision.driver import Change, Dom0, NicModel, UplinkFacts, host_tunings
from provision.resources import Tuning

HOST, NAMESPACE = "host", "namespace"
UPLINK = "uplink"
#: each NIC answers ARP for its own address alone, as a guest's does (ip-sysctl(5))
ARP = {"arp_ignore": "1", "arp_announce": "2"}
_ALONE = "a native guest is the host itself: "
CAPABILITIES = Capabilities(
    nic_models={UPLINK: NicModel(UPLINK, (), ())},
    words={"paravirtual": UPLINK},
    switches=(),
    windows=SAME_KERNEL,
    refused={
        "guests.image": f"{_ALONE}it has no disk",
        "guests.start": f"{_ALONE}it runs already",
        "guests.user": f"{_ALONE}its login is root's",
        "guests.cpu.emulator_pin": f"{_ALONE}there is no emulator",
        "guests.cpu.reserve_percent": "Linux's scheduler reserves no CPU time: guests.cpu.pin",
        "guests.memory_reserve_mib": "nothing here keeps memory for one guest",
        "guests.latency": "there is no hypervisor to schedule for it: guests.cpu.pin",
        "guests.nic.rate_mbit": "the guest's NIC is the uplink itself; lab.rate shapes its cable",
        "management.bridge": f"{_ALONE}no bridge is needed to reach it",
        "dom0.cap_percent": "the host's own processes have a weight and no cap: dom0.weight",
        "dom0.memory_mib": "the host keeps the memory that guests leave it: guests.memory",
        "hypervisor.accel": f"{_ALONE}nothing executes its instructions but the CPU",
        **{
            f"hypervisor.{word}": "SSH says all of it: hypervisor.uri: ssh://root@host"
            for word in ("user", "password", "auth", "tls", "host", "pool", "ssh")
        },
        "hypervisor.storage": "there are no disks",
    },
    depends={**TUNING_NEEDS, **NEEDS},
    checkpoint="a native guest has no checkpoint: it is the host itself; "
    "reset --level process or recreate",
)
CHANGE: Mapping[tuple[str, str], Change] = {
    **{("guest", field): Change.LIVE for field in LIVE},
    **{("guest", field): Change.RESTART for field in ("management", "nics", "accel", "running")},
    ("guest", "image"): Change.RESTART,
}


def tunings(dom0: Dom0, uplinks: tuple[UplinkFacts, ...]) -> Iterator[Tuning]:
    """Beside what any host's are: the ARP settings that a guest of its own would have."""
    yield from host_tunings(dom0, uplinks)
    for uplink in uplinks:
        for word, value in ARP.items():
            yield Tuning(f"{SYSCTL}net/ipv4/conf/{uplink.name}/{word}", value)
