"""What a guest is in vSphere's own terms: pure building of specs and their reading back.

vSphere API: VirtualMachineConfigSpec, ResourceAllocationInfo, VirtualEthernetCard.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drivers.vsphere.api import vim
from provision.driver import NicModel
from provision.resources import Guest, Vnic
from provision.units import cpu_list, cpus

if TYPE_CHECKING:
    from provision.seed import Identity

MARK = "guestinfo.provision.testbed"
RECORD = "guestinfo.provision.guest"
USERDATA, METADATA = "guestinfo.userdata", "guestinfo.metadata"
NORMAL_WEIGHT = 256
NORMAL_SHARES = 1000  # of one vCPU: SharesInfo
MOST_SHARES = 1_000_000
SRIOV = "sriov"
_DEVICE = vim.vm.device
_CARDS: Mapping[str, Any] = {
    "vmxnet3": _DEVICE.VirtualVmxnet3,
    "e1000": _DEVICE.VirtualE1000,
    "e1000e": _DEVICE.VirtualE1000e,
    "vmxnet2": _DEVICE.VirtualVmxnet2,
    SRIOV: _DEVICE.VirtualSriovEthernetCard,
}
_MODELS = {card: model for model, card in _CARDS.items()}
#: the vNIC types, as a Linux guest sees them; a virtual function is whatever the NIC's maker sells
MODELS: Mapping[str, NicModel] = {
    "vmxnet3": NicModel("vmxnet3", ("15ad:07b0",), ("vmxnet3",)),
    "e1000": NicModel("e1000", ("8086:100f",), ("e1000",)),
    "e1000e": NicModel("e1000e", ("8086:10d3",), ("e1000e",)),
    "vmxnet2": NicModel("vmxnet2", ("15ad:0720",), ("vmxnet",)),
    SRIOV: NicModel(SRIOV, (), ()),
}
WORDS = {"paravirtual": "vmxnet3", "emulated": "e1000"}


def shares(weight: int, vcpus: int) -> int:
    """A weight as shares of the whole VM; 256 is what vSphere calls normal."""
    return round(NORMAL_SHARES * vcpus * weight / NORMAL_WEIGHT)


def weight(info: Any, vcpus: int) -> int:
    """The weight that such SharesInfo comes from."""
    levels = {"low": NORMAL_WEIGHT // 2, "normal": NORMAL_WEIGHT, "high": 2 * NORMAL_WEIGHT}
    if str(info.level) in levels:
        return levels[str(info.level)]
    return round(int(info.shares) * NORMAL_WEIGHT / (NORMAL_SHARES * vcpus))


def mhz(percent: int | None, of: int) -> int | None:
    """A share of one CPU in MHz."""
    return None if percent is None else round(percent * of / 100)


def percent(value: int | None, of: int) -> int | None:
    """The share of one CPU that MHz are; nothing, or -1 for no limit, is None."""
    return round(value * 100 / of) if value is not None and value > 0 else None


def cpu(want: Guest, of: int) -> Any:
    """The whole of it: what is left out of an allocation may be reset."""
    normal = want.weight == NORMAL_WEIGHT
    level = vim.SharesInfo.Level
    limit = mhz(want.cap_percent, of)
    return vim.ResourceAllocationInfo(
        reservation=mhz(want.reserve_percent, of) or 0,
        limit=-1 if limit is None else limit,
        shares=vim.SharesInfo(
            level=level.normal if normal else level.custom,
            shares=shares(want.weight, want.vcpus),
        ),
    )


def memory(want: Guest) -> Any:
    """The whole of it; shares are left at normal."""
    normal = vim.SharesInfo(level=vim.SharesInfo.Level.normal, shares=10 * want.memory_mib)
    return vim.ResourceAllocationInfo(
        reservation=want.memory_reserve_mib or 0, limit=-1, shares=normal
    )


def affinity(pins: Sequence[str]) -> Any:
    """One set for all vCPUs, which is all that vSphere has; empty lifts it."""
    numbers = sorted({n for one in pins for n in cpus(one)})
    return vim.vm.AffinityInfo(affinitySet=numbers)


def pins(info: Any, vcpus: int) -> tuple[str, ...]:
    """A CPU list for each vCPU; () where there is no affinity."""
    numbers = tuple(info.affinitySet or ()) if info is not None else ()
    return (cpu_list(numbers),) * vcpus if numbers else ()


def resources(want: Guest, of: int, have: Guest | None = None) -> Any:
    """All that can change while a guest runs."""
    found = vim.vm.ConfigSpec(cpuAllocation=cpu(want, of), memoryAllocation=memory(want))
    if want.pins != (have.pins if have is not None else ()):
        found.cpuAffinity = affinity(want.pins)
    return found


def shape(want: Guest, of: int, have: Guest | None = None) -> Any:
    """``resources``, and what a guest has to be off for."""
    found = resources(want, of, have)
    found.numCPUs, found.numCoresPerSocket = want.vcpus, 1
    found.memoryMB = want.memory_mib
    locked = any(nic.model == SRIOV for nic in want.nics)
    found.memoryReservationLockedToMax = locked
    if want.latency != (have.latency if have is not None else "normal"):
        found.latencySensitivity = vim.LatencySensitivity(level=want.latency)
    return found


def card(vnic: Vnic, backing: Any, key: int, function: str = "") -> Any:
    """A vNIC to add. ``function`` is the PCI address of an uplink that gives it a virtual one."""
    made = _CARDS[vnic.model](
        key=key,
        backing=backing,
        addressType="manual",
        macAddress=vnic.mac,
        wakeOnLanEnabled=False,
        connectable=_DEVICE.VirtualDevice.ConnectInfo(
            startConnected=True, connected=True, allowGuestControl=False
        ),
    )
    if vnic.model == SRIOV:
        passed = _DEVICE.VirtualPCIPassthrough.DeviceBackingInfo(
            id=function, deviceId="0", systemId="BYPASS", vendorId=0, deviceName=""
        )
        made.allowGuestOSMtuChange = True
        made.sriovBacking = _DEVICE.VirtualSriovEthernetCard.SriovBackingInfo(
            physicalFunctionBacking=passed
        )
    return made


def model(device: Any) -> str:
    """The type of a vNIC as it is, in vSphere's own word where we have none."""
    kind = type(device)
    return _MODELS.get(kind) or kind.__name__.rpartition(".")[2].removeprefix("Virtual").lower()


def add(device: Any, *, create: bool = False) -> Any:
    """A change that plugs a device in; ``create``: with files made for it."""
    change = _DEVICE.VirtualDeviceSpec(operation="add", device=device)
    if create:
        change.fileOperation = "create"
    return change


def remove(device: Any) -> Any:
    """A change that takes a device out; files stay."""
    return _DEVICE.VirtualDeviceSpec(operation="remove", device=device)


def options(texts: Mapping[str, str]) -> list[Any]:
    """Extra configuration; "" takes a key away."""
    return [vim.option.OptionValue(key=key, value=value) for key, value in texts.items()]


def marks(testbed: str, want: Guest, cloned: str) -> dict[str, str]:
    """Whose it is, and what a hypervisor does not keep of it."""
    vnics = (want.management, *want.nics)
    record = {
        "image": want.image,
        "cloned": cloned,
        "nics": [[v.mac, v.address, v.mtu] for v in vnics],
    }
    return {MARK: testbed, RECORD: json.dumps(record)}


def handed(identity: Identity) -> dict[str, str]:
    """Who the guest is, for cloud-init's datasource VMware, which wipes the user data once read.

    https://docs.cloud-init.io/en/latest/reference/datasources/vmware.html
    """
    from provision.seed import nocloud

    files = nocloud(identity)
    meta = json.loads(files["meta-data"]) | {
        "network": json.loads(files["network-config"]),
        "cleanup-guestinfo": ["userdata"],
    }
    texts = {USERDATA: files["user-data"], METADATA: json.dumps(meta)}
    found = {key: b64encode(text.encode()).decode() for key, text in texts.items()}
    return found | {f"{key}.encoding": "base64" for key in texts}


def cards(devices: Iterable[Any]) -> list[Any]:
    """The vNICs among devices."""
    return [d for d in devices if isinstance(d, _DEVICE.VirtualEthernetCard)]


def disks(devices: Iterable[Any]) -> list[Any]:
    """The disks among devices."""
    return [d for d in devices if isinstance(d, _DEVICE.VirtualDisk)]
