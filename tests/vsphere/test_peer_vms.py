"""The peer's VMs: what the vSphere API's reference says and the simulator alone lets pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers import oracle
from tests.peers.oracle import all_of, done, extra_of, host, nics_of
from tests.peers.vcsim import Vcsim, vcsim, vim, vmodl

Fault = vim.fault


@pytest.fixture
def peer() -> Iterator[Vcsim]:
    with vcsim(hosts=2, datastores=2) as found:
        yield found


@pytest.fixture
def si(peer: Vcsim) -> Any:
    return peer.connect()


def test_a_vm_is_refused_and_leaves_nothing(si: Any) -> None:
    oracle.create(si, "one")
    for what, expected in (
        ({"name": "one"}, Fault.DuplicateName),
        ({"name": "two", "nics": [("e1000", "nowhere", "")]}, Fault.InvalidDeviceSpec),
        ({"name": "two", "datastore": "none"}, Fault.InvalidDatastorePath),
    ):
        with pytest.raises(expected):
            oracle.create(si, **what)
    assert list(all_of(si, vim.VirtualMachine)) == ["one"]


def test_extra_config_is_a_map(si: Any) -> None:
    vm = oracle.create(si, "one", extra={"guestinfo.a": "1", "guestinfo.b": "2"})

    def change(**values: str) -> dict[str, str]:
        values = {key.replace("_", "."): value for key, value in values.items()}
        done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=oracle.options(values))))
        keys = [option.key for option in vm.config.extraConfig]
        assert len(keys) == len({*keys})
        return {key: value for key, value in extra_of(vm).items() if key.startswith("guestinfo")}

    assert change(guestinfo_a="3") == {"guestinfo.a": "3", "guestinfo.b": "2"}
    assert change(guestinfo_b="", guestinfo_c="4") == {"guestinfo.a": "3", "guestinfo.c": "4"}
    assert change(guestinfo_d="") == {"guestinfo.a": "3", "guestinfo.c": "4"}


def test_a_running_vm_is_not_resized_and_a_nic_keeps_its_type(si: Any) -> None:
    vm = oracle.create(si, "one", [("vmxnet3", "VM Network", "")])
    (nic,) = nics_of(vm)
    other = vim.vm.device.VirtualE1000(key=nic.key, backing=nic.backing)
    edit = vim.vm.device.VirtualDeviceSpec(operation="edit", device=other)
    with pytest.raises(Fault.InvalidDeviceSpec):
        done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[edit])))
    done(vm.PowerOnVM_Task())
    for spec, expected in (
        (vim.vm.ConfigSpec(numCPUs=2), Fault.CpuHotPlugNotSupported),
        (vim.vm.ConfigSpec(memoryMB=1024), Fault.MemoryHotPlugNotSupported),
    ):
        with pytest.raises(expected):
            done(vm.ReconfigVM_Task(spec))
    done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(numCPUs=1, memoryMB=512)))


def test_what_tools_said_ends_with_the_guest(si: Any) -> None:
    vm = oracle.create(si, "one", [("vmxnet3", "VM Network", "")])
    with pytest.raises(Fault.ToolsUnavailable):
        vm.RebootGuest()
    said = {"SET.guest.ipAddress": "192.0.2.7", "SET.guest.toolsRunningStatus": "guestToolsRunning"}
    for end in ("PowerOffVM_Task", "ResetVM_Task", "RebootGuest", "ShutdownGuest"):
        if vm.runtime.powerState == "poweredOff":
            done(vm.PowerOnVM_Task())
        done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=oracle.options(said))))
        assert vm.guest.ipAddress == "192.0.2.7"
        task = getattr(vm, end)()
        assert task is None or task.info.state == "success"
        assert not vm.guest.ipAddress
        assert vm.guest.toolsRunningStatus == "guestToolsNotRunning"


def clone(vm: Any, name: str, snapshot: Any = None, **more: Any) -> Any:
    move = {"diskMoveType": "createNewChildDiskBacking"} if snapshot else {}
    location = vim.vm.RelocateSpec(**move, **more.pop("location", {}))
    spec = vim.vm.CloneSpec(location=location, snapshot=snapshot, **{"powerOn": False} | more)
    return done(vm.CloneVM_Task(vm.parent, name, spec))


def snapshot(vm: Any, name: str = "base", memory: bool = False) -> Any:
    return done(vm.CreateSnapshot_Task(name, None, memory, False))


def files(vm: Any) -> list[tuple[str, str | None]]:
    disks = [d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)]
    return [(d.backing.fileName, d.backing.parent and d.backing.parent.fileName) for d in disks]


def test_a_linked_clone_demands_a_snapshot(si: Any) -> None:
    vm, other = (oracle.create(si, name, with_disk=True) for name in ("one", "two"))
    location = vim.vm.RelocateSpec(diskMoveType="createNewChildDiskBacking")
    for taken in (None, snapshot(other)):
        spec = vim.vm.CloneSpec(location=location, powerOn=False, template=False, snapshot=taken)
        with pytest.raises(vmodl.fault.InvalidArgument):
            done(vm.CloneVM_Task(vm.parent, "three", spec))
    with pytest.raises(Fault.DuplicateName):
        clone(vm, "two", snapshot(vm))
    assert sorted(all_of(si, vim.VirtualMachine)) == ["one", "two"]


def test_a_clone_is_its_source_at_the_snapshot(si: Any) -> None:
    vm = oracle.create(
        si, "one", [("vmxnet3", "VM Network", ""), ("e1000", "VM Network", "00:50:56:00:00:07")],
        {"guestinfo.a": "1"}, with_disk=True, memory_mib=768, cpus=2,
    )  # fmt: skip
    before = files(vm)
    taken = snapshot(vm)
    later = vim.vm.ConfigSpec(extraConfig=oracle.options({"guestinfo.a": "2"}), memoryMB=1024)
    done(vm.ReconfigVM_Task(later))
    config = vim.vm.ConfigSpec(
        numCPUs=1, annotation="mine", extraConfig=oracle.options({"guestinfo.b": "3"})
    )
    made = clone(vm, "two", taken, powerOn=True, config=config)
    assert made.runtime.powerState == "poweredOn"
    assert (made.config.hardware.memoryMB, made.config.hardware.numCPU) == (768, 1)
    assert made.config.annotation == "mine"
    extra = extra_of(made)
    assert (extra["guestinfo.a"], extra["guestinfo.b"]) == ("1", "3")
    assert [type(n).__name__ for n in nics_of(made)] == [type(n).__name__ for n in nics_of(vm)]
    assert nics_of(made)[0].macAddress != nics_of(vm)[0].macAddress
    assert nics_of(made)[1].macAddress == "00:50:56:00:00:07"  # which is the user's own
    assert files(vm) == before
    assert files(made) == [("[LocalDS_0] two/two.vmdk", before[0][0])]
    done(made.PowerOffVM_Task())
    done(made.Destroy_Task())
    assert files(vm) == before


def test_a_full_clone_goes_where_it_is_told(si: Any) -> None:
    vm = oracle.create(si, "one", with_disk=True)
    _, second = (found for _, found in sorted(all_of(si, vim.HostSystem).items()))
    where = {
        "host": second, "pool": second.parent.resourcePool,
        "datastore": all_of(si, vim.Datastore)["LocalDS_1"],
    }  # fmt: skip
    made = clone(vm, "two", location=where)
    assert made.runtime.host == second
    assert made.runtime.powerState == "poweredOff"
    assert vm.runtime.host == host(si)
    assert files(made) == [("[LocalDS_1] two/two.vmdk", None)]
    made.MarkAsTemplate()
    third = clone(made, "three", location=where)
    assert third.config.template is False
    with pytest.raises(Fault.InvalidState):
        done(made.PowerOnVM_Task())


def test_a_host_alone_has_no_clones() -> None:
    with vcsim("ESX") as peer:
        vm = oracle.create(peer.connect(), "one")
        with pytest.raises(vmodl.fault.NotSupported):
            clone(vm, "two")


def test_a_revert_restores_configuration_and_power(si: Any) -> None:
    vm = oracle.create(si, "one", [("vmxnet3", "VM Network", "")], {"guestinfo.a": "1"})
    done(vm.PowerOnVM_Task())
    cold, warm = snapshot(vm, "cold"), snapshot(vm, "warm", memory=True)
    done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=oracle.options({"guestinfo.a": "2"}))))
    for taken, state in ((cold, "poweredOff"), (warm, "poweredOn")):
        done(
            vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=oracle.options({"guestinfo.a": "2"})))
        )
        assert done(taken.RevertToSnapshot_Task()) is None
        assert vm.runtime.powerState == state
        assert extra_of(vm)["guestinfo.a"] == "1"
    assert vm.snapshot.currentSnapshot == warm
    done(warm.RevertToSnapshot_Task(suppressPowerOn=True))
    assert vm.runtime.powerState == "poweredOff"
    done(warm.RemoveSnapshot_Task(False))
    assert [tree.name for tree in vm.snapshot.rootSnapshotList] == ["cold"]
