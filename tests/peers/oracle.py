"""What a test itself asks and does over its own connection to a vSphere peer: bare pyvmomi."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.peers.vcsim import vim

MODELS: Mapping[str, Any] = {
    "e1000": vim.vm.device.VirtualE1000,
    "e1000e": vim.vm.device.VirtualE1000e,
    "vmxnet3": vim.vm.device.VirtualVmxnet3,
}
Add = vim.vm.device.VirtualDeviceSpec.Operation.add
Nic = tuple[str, str, str]  # model, port group, MAC ("" = the server's choice)


def all_of(si: Any, kind: Any) -> dict[str, Any]:
    """Every object of the kind by its name."""
    content = si.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    try:
        return {found.name: found for found in view.view}
    finally:
        view.Destroy()


def host(si: Any) -> Any:
    """The first host by name."""
    return next(found for _, found in sorted(all_of(si, vim.HostSystem).items()))


def done(task: Any) -> Any:
    """The result of a task, which has ended when the simulator names it; raises its fault."""
    if task.info.state == "error":
        raise task.info.error
    assert task.info.state == "success"
    return task.info.result


def bond(*devices: str, mtu: int | None = None, **more: Any) -> Any:
    """A vSwitch's spec with these uplinks."""
    kinds = vim.host.VirtualSwitch
    bridge = kinds.BondBridge(nicDevice=[*devices]) if devices else None
    return kinds.Specification(numPorts=128, mtu=mtu, bridge=bridge, **more)


def group(name: str, switch: str, vlan: int = 0, mbit: int | None = None) -> Any:
    """A port group's spec; ``mbit`` shapes what its guests send."""
    policy = vim.host.NetworkPolicy()
    if mbit is not None:
        policy.shapingPolicy = vim.host.NetworkPolicy.TrafficShapingPolicy(
            enabled=True, averageBandwidth=mbit * 10**6, peakBandwidth=mbit * 10**6,
            burstSize=100_000,
        )  # fmt: skip
    return vim.host.PortGroup.Specification(
        name=name, vlanId=vlan, vswitchName=switch, policy=policy
    )


def options(values: Mapping[str, str]) -> list[Any]:
    return [vim.option.OptionValue(key=key, value=value) for key, value in values.items()]


def card(nic: Nic, key: int = -1) -> Any:
    """An added vNIC."""
    model, network, mac = nic
    device = MODELS[model](
        key=key, addressType="manual" if mac else "generated", macAddress=mac or None,
        backing=vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network),
        connectable=vim.vm.device.VirtualDevice.ConnectInfo(
            startConnected=True, connected=True, allowGuestControl=True
        ),
    )  # fmt: skip
    return vim.vm.device.VirtualDeviceSpec(operation=Add, device=device)


def disk(kib: int = 1 << 20) -> list[Any]:
    """An added disk of its own, and its controller."""
    devices = vim.vm.device
    controller = devices.ParaVirtualSCSIController(key=-100, busNumber=0, sharedBus="noSharing")
    drive = devices.VirtualDisk(
        key=-101, controllerKey=-100, unitNumber=0, capacityInKB=kib,
        backing=devices.VirtualDisk.FlatVer2BackingInfo(
            fileName="", diskMode="persistent", thinProvisioned=True
        ),
    )  # fmt: skip
    create = devices.VirtualDeviceSpec.FileOperation.create
    return [
        devices.VirtualDeviceSpec(operation=Add, device=controller),
        devices.VirtualDeviceSpec(operation=Add, device=drive, fileOperation=create),
    ]


def create(
    si: Any,
    name: str,
    nics: Sequence[Nic] = (),
    extra: Mapping[str, str] | None = None,
    *,
    datastore: str = "LocalDS_0",
    memory_mib: int = 512,
    cpus: int = 1,
    with_disk: bool = False,
) -> Any:
    """Make a VM on the first host; raises the task's fault."""
    on = host(si)
    changes = [card(nic, -1 - number) for number, nic in enumerate(nics)]
    spec = vim.vm.ConfigSpec(
        name=name, numCPUs=cpus, memoryMB=memory_mib, guestId="otherLinux64Guest",
        files=vim.vm.FileInfo(vmPathName=f"[{datastore}]"), extraConfig=options(extra or {}),
        deviceChange=[*changes, *(disk() if with_disk else [])],
    )  # fmt: skip
    (datacenter,) = all_of(si, vim.Datacenter).values()
    return done(datacenter.vmFolder.CreateVM_Task(spec, on.parent.resourcePool, on))


def extra_of(vm: Any) -> dict[str, str]:
    return {option.key: option.value for option in vm.config.extraConfig}


def nics_of(vm: Any) -> list[Any]:
    kind = vim.vm.device.VirtualEthernetCard
    return [device for device in vm.config.hardware.device if isinstance(device, kind)]


def await_value(si: Any, vm: Any, path: str, wanted: Any, timeout_s: float = 120) -> None:
    """Return when a property of the VM has that value; fails after ``timeout_s``."""
    kinds = vim.PropertyCollector
    collector = si.RetrieveContent().propertyCollector.CreatePropertyCollector()
    try:
        prop = kinds.PropertySpec(type=vim.VirtualMachine, pathSet=[path])
        target = kinds.FilterSpec(objectSet=[kinds.ObjectSpec(obj=vm)], propSet=[prop])
        collector.CreateFilter(target, False)
        deadline = time.monotonic() + timeout_s
        value, version = None, ""
        while value != wanted:
            left = deadline - time.monotonic()
            assert left > 0, f"{path} is {value!r}, not {wanted!r}, after {timeout_s:g} s"
            options = kinds.WaitOptions(maxWaitSeconds=min(60, int(left) + 1))
            if update := collector.WaitForUpdatesEx(version, options):
                version = update.version
                for change in update.filterSet[0].objectSet[0].changeSet:
                    value = change.val
    finally:
        collector.DestroyPropertyCollector()
