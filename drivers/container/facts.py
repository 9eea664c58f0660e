"""What containers can do."""

from __future__ import annotations

from collections.abc import Mapping

from drivers.linux.cells import LIVE, NEEDS
from drivers.linux.net import CHANGE as NET_CHANGE
from drivers.linux.net import FLAVOURS
from drivers.linux.tuning import NEEDS as TUNING_NEEDS
from provision.capabilities import SAME_KERNEL, SWITCH, Capabilities
from provision.driver import Change, NicModel

VETH, CONTAINER = "veth", "container"
CAPABILITIES = Capabilities(
    nic_models={VETH: NicModel(VETH, (), (VETH,))},
    words={"paravirtual": VETH},
    switches=FLAVOURS,
    windows=SAME_KERNEL,
    refused={
        "guests.start": "a container starts within a second, and from nothing saved",
        "guests.user": "a container's login is root's",
        "guests.virt": "a container is of its host's own kernel",
        "guests.cpu.emulator_pin": "a container has no emulator: guests.cpu.pin",
        "guests.cpu.reserve_percent": "Linux's scheduler reserves no CPU time; "
        "give the guest CPUs of its own: guests.cpu.pin",
        "guests.memory_reserve_mib": "nothing here keeps memory for one guest; leave the host "
        "enough: without overcommit, all guests' memory fits",
        "guests.latency": "Linux has no such word; give the guest CPUs of its own: guests.cpu.pin",
        "dom0.cap_percent": "the host's own processes have a weight and no cap: dom0.weight",
        "dom0.memory_mib": "the host keeps the memory that guests leave it: guests.memory",
        "hypervisor.accel": "nothing executes a container's instructions but the CPU",
        **{
            f"hypervisor.{word}": "containers run on this machine"
            for word in ("user", "password", "auth", "tls", "host", "pool", "ssh")
        },
        "hypervisor.storage": "disks lie in the state folder: PROVISION_STATE_DIR",
    },
    depends={**TUNING_NEEDS, **NEEDS, f"{SWITCH}=ovs": "Open vSwitch on the host"},
    files=True,
)
CHANGE: Mapping[tuple[str, str], Change] = {
    **NET_CHANGE,
    **{("guest", field): Change.LIVE for field in LIVE},
    **{("guest", field): Change.RESTART for field in ("management", "nics", "running")},
}
