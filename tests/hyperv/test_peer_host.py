"""The Hyper-V peer itself: that it refuses what the published rules say is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from winrm.exceptions import WSManFaultError

from provision.seed import identity, iso
from tests.hyperv.shell import CmdletError, Shell, connected, protocol
from tests.peers.hyperv.model import Disk, File
from tests.peers.hyperv.paper import Paper
from tests.peers.hyperv.peer import PARENT, Peer, hyperv_host
from tests.peers.hyperv.world import CmdletTrouble
from tests.peers.powershell.errors import ErrorRecord

MB, GB = 1 << 20, 1 << 30
CHILD = "C:\\Images\\vm1.vhdx"


@pytest.fixture
def peer() -> Iterator[Peer]:
    with hyperv_host(nics=3, cpu_groups=True) as found:
        yield found


@pytest.fixture
def shell(peer: Peer) -> Iterator[Shell]:
    with connected(peer) as found:
        yield found


def refused(shell: Shell, cmdlet: str, **params: Any) -> CmdletError:
    with pytest.raises(CmdletError) as e:
        shell(cmdlet, **params)
    return e.value


def vm(shell: Shell, name: str = "vm1", generation: int = 2, **more: Any) -> None:
    shell("New-VM", Name=name, Generation=generation, MemoryStartupBytes=GB, **more)


def child(shell: Shell, path: str = CHILD) -> str:
    shell("New-VHD", Path=path, ParentPath=PARENT, Differencing=True)
    return path


@pytest.mark.parametrize(
    ("cmdlet", "params", "id"),
    [
        ("Get-VM", {"Nme": "x"}, "NamedParameterNotFound"),
        ("Set-VMProcessor", {"VMName": "x", "Count": "many"}, "CannotConvertArgumentNoMessage"),
        ("Set-VMProcessor", {"Count": 1}, "MissingMandatoryParameter"),
        ("New-VM", {"NoVHD": True, "VHDPath": "x"}, "AmbiguousParameterSet"),
        ("New-VM", {"Generation": 3}, "ParameterArgumentValidationError"),
        ("New-VMSwitch", {"Name": "s", "SwitchType": "External"},
         "ParameterArgumentValidationError"),
        ("New-VMSwitch", {"Name": "", "SwitchType": "Private"},
         "ParameterArgumentValidationErrorEmptyStringNotAllowed"),
        ("Add-VMNetworkAdapter", {"VMName": "x", "IsLegacy": "true"},
         "CannotConvertArgumentNoMessage"),
        ("Stop-VM", {"Name": "x", "TurnOff": "yes"}, "CannotConvertArgumentNoMessage"),
        ("Set-VM", {"Name": "x", "CheckpointType": "None"}, "ParameterArgumentValidationError"),
        ("Get-NetAdapter", {"Name": "a", "InterfaceIndex": 1}, "AmbiguousParameterSet"),
        ("Set-VMNetworkAdapter", {"VMName": "x", "V": 1}, "AmbiguousParameter"),
    ],
)  # fmt: skip
def test_parameters_are_bound_by_the_tables(
    shell: Shell,
    cmdlet: str,
    params: dict[str, Any],
    id: str,
) -> None:
    assert refused(shell, cmdlet, **params).id.startswith(f"{id},")


def test_values_become_what_the_tables_say(shell: Shell, peer: Peer) -> None:
    """A number as text, one for many, a name's beginning and an alias, as PowerShell takes them."""
    shell("New-VM", VMName="vm1", Gen="2", MemoryStartupBytes=str(GB))
    shell("Set-VMProcessor", VMName="vm1", RelativeW=200)
    assert peer.vm("vm1").config.weight == 200
    shell("Get-VMNetworkAdapter", VMName=["vm1"])


def test_unknown_commands_are_complained_of() -> None:
    with hyperv_host(judge=False) as peer, connected(peer) as shell:
        assert refused(shell, "Get-VMNothing").category == "ObjectNotFound"
        assert peer.complaints == ["no such command: Get-VMNothing"]
        vm(shell)
        shell("Get-VM", "Nmae", Name="vm1")
        assert "Nmae" in peer.complaints[-1]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"NetAdapterName": "Ethernet 9"}, "No physical network adapter"),
        ({"NetAdapterName": "Ethernet 3"}, "already bound"),
        ({"NetAdapterName": ["Ethernet 2", "Ethernet 3"]}, "not simulated"),
    ],
)
def test_a_switch_is_refused(shell: Shell, params: dict[str, Any], says: str) -> None:
    shell("New-VMSwitch", Name="one", NetAdapterName="Ethernet 3", AllowManagementOS=False)
    assert says in str(
        refused(shell, "New-VMSwitch", Name="two", AllowManagementOS=False, **params)
    )
    assert [r["Name"] for r in shell("Get-VMSwitch", "Name")] == ["one"]


def test_a_switch_in_use_cannot_go(shell: Shell, peer: Peer) -> None:
    shell("New-VMSwitch", Name="s", NetAdapterName="Ethernet 2", AllowManagementOS=False, Notes="n")
    row = {"SwitchType": "External", "AllowManagementOS": False, "Notes": "n"}
    assert shell("Get-VMSwitch", *row, Name="s") == [row]
    vm(shell, SwitchName="s", VHDPath=child(shell))
    shell("Start-VM", Name="vm1")
    assert refused(shell, "Remove-VMSwitch", Name="s", Force=True).category == "InvalidOperation"
    assert "NonInteractive" in str(refused(shell, "Remove-VMSwitch", Name="s"))
    shell("Stop-VM", Name="vm1", TurnOff=True)
    shell("Remove-VMSwitch", Name="s", Force=True)
    assert peer.vm("vm1").config.adapters[0].switch is None
    shell("New-VMSwitch", Name="s", NetAdapterName="Ethernet 2")


def test_who_takes_the_host_s_own_nic_is_cut_off() -> None:
    with hyperv_host(judge=False) as peer:
        with pytest.raises(requests.exceptions.ConnectionError), connected(peer) as shell:
            shell("New-VMSwitch", Name="s", NetAdapterName="Ethernet 1", AllowManagementOS=False)
        assert "lost its addresses" in peer.complaints[0]


def test_with_an_adapter_of_its_own_the_host_keeps_its_address(shell: Shell) -> None:
    shell("New-VMSwitch", Name="s", NetAdapterName="Ethernet 1", AllowManagementOS=True)
    (row,) = shell("Get-NetIPAddress", "InterfaceAlias", IPAddress="192.0.2.10")
    assert row["InterfaceAlias"] == "vEthernet (s)"
    assert shell("Get-NetAdapter", "Virtual", Name="vEthernet (s)") == [{"Virtual": True}]
    shell("Remove-VMSwitch", Name="s", Force=True)
    (row,) = shell("Get-NetIPAddress", "InterfaceAlias", IPAddress="192.0.2.10")
    assert row["InterfaceAlias"] == "Ethernet 1"


def test_what_changes_while_a_vm_is_off_only(shell: Shell) -> None:
    vm(shell, VHDPath=child(shell))
    shell("Set-VMProcessor", VMName="vm1", Count=2, RelativeWeight=10000, Maximum=50, Reserve=10)
    shell("Start-VM", Name="vm1")
    for cmdlet, params in (
        ("Set-VMProcessor", {"Count": 1}), ("Set-VMProcessor", {"Reserve": 0}),
        ("Set-VMMemory", {"StartupBytes": GB}), ("Set-VMFirmware", {"EnableSecureBoot": "Off"}),
    ):  # fmt: skip
        assert refused(shell, cmdlet, VMName="vm1", **params).category == "InvalidOperation"
    assert refused(shell, "Remove-VM", Name="vm1", Force=True).category == "InvalidOperation"
    shell("Set-VMProcessor", VMName="vm1", RelativeWeight=1, Maximum=100)
    for bad in (
        {"RelativeWeight": 0},
        {"RelativeWeight": 10001},
        {"Maximum": 101},
        {"Reserve": 101},
    ):
        assert refused(shell, "Set-VMProcessor", VMName="vm1", **bad).category == "InvalidArgument"
    shell("Stop-VM", Name="vm1", TurnOff=True)
    shell("Set-VMProcessor", VMName="vm1", Count=1)
    assert refused(shell, "Set-VMProcessor", VMName="vm1", Count=9)
    assert "NonInteractive" in str(refused(shell, "Remove-VM", Name="vm1"))


def test_adapters(shell: Shell, peer: Peer) -> None:
    vm(shell, "old", 1)
    vm(shell, "new", 2)
    assert [r["Name"] for r in shell("Get-VMNetworkAdapter", "Name", VMName="old")] == [
        "Network Adapter"
    ]
    error = refused(shell, "Add-VMNetworkAdapter", VMName="new", IsLegacy=True)
    assert "generation 2" in str(error)
    shell("Add-VMNetworkAdapter", VMName="old", Name="l", IsLegacy=True,
          StaticMacAddress="00:15:5d:00:0a:01")  # fmt: skip
    row = {"MacAddress": "00155D000A01", "IsLegacy": True, "DynamicMacAddressEnabled": False}
    assert shell("Get-VMNetworkAdapter", *row, VMName="old", Name="l") == [row]
    for bad in ("00155D", "01-15-5D-00-00-01", "00:15-5D-00-00-01", "zz155D000001", "000000000000"):
        assert "MAC" in str(
            refused(shell, "Add-VMNetworkAdapter", VMName="new", StaticMacAddress=bad)
        )
    shell("New-VMSwitch", Name="w", SwitchType="Private", MinimumBandwidthMode="Weight")
    shell("New-VMSwitch", Name="n", SwitchType="Private", MinimumBandwidthMode="None")
    shell("Connect-VMNetworkAdapter", VMName="new", SwitchName="n")
    error = refused(shell, "Set-VMNetworkAdapter", VMName="new", MinimumBandwidthWeight=10)
    assert "mode" in str(error)
    shell("Connect-VMNetworkAdapter", VMName="new", SwitchName="w")
    shell("Set-VMNetworkAdapter", VMName="new", MinimumBandwidthWeight=10, MaximumBandwidth=10**8)
    assert peer.vm("new").config.adapters[0].maximum_bits == 10**8
    assert refused(shell, "Set-VMNetworkAdapter", VMName="old", Name="l", VmqWeight=0)
    assert refused(shell, "Connect-VMNetworkAdapter", VMName="new", SwitchName="none")


def test_disks(shell: Shell, peer: Peer) -> None:
    assert refused(shell, "New-VHD", Path=CHILD, ParentPath="C:\\no.vhdx").category == (
        "ObjectNotFound"
    )
    child(shell)
    row = {"ParentPath": PARENT, "VhdType": "Differencing", "Size": 20 * GB, "Attached": False}
    assert shell("Get-VHD", *row, Path=CHILD) == [row]
    assert refused(shell, "New-VHD", Path=CHILD, ParentPath=PARENT).category == "ResourceExists"
    assert refused(shell, "New-VHD", Path="C:\\no\\x.vhdx", ParentPath=PARENT).category == (
        "ObjectNotFound"
    )
    assert "enough space" in str(
        refused(shell, "New-VHD", Path="C:\\big.vhdx", SizeBytes=500 * GB, Fixed=True)
    )
    vm(shell, VHDPath=CHILD)
    vm(shell, "vm2")
    assert "already connected" in str(
        refused(shell, "Add-VMHardDiskDrive", VMName="vm2", Path=CHILD)
    )
    shell("Start-VM", Name="vm1")
    for path in (CHILD, PARENT):
        assert "another process" in str(refused(shell, "Remove-Item", LiteralPath=path))
    shell("Stop-VM", Name="vm1", TurnOff=True)
    shell("Remove-Item", LiteralPath=PARENT)
    assert refused(shell, "Start-VM", Name="vm1").category == "ObjectNotFound"
    assert peer.vm("vm1").state == "Off"


def test_drives_by_generation(shell: Shell) -> None:
    shell.write("C:\\Images\\s.iso", b"x" * 32768)
    vm(shell, "old", 1)
    vm(shell, "new", 2)
    rows = shell("Get-VMDvdDrive", "ControllerType", "ControllerNumber", VMName="old")
    assert rows == [{"ControllerType": "IDE", "ControllerNumber": 1}]
    assert shell("Get-VMDvdDrive", "Path", VMName="new") == []
    shell("Add-VMDvdDrive", VMName="new", Path="C:\\Images\\s.iso")
    shell("Set-VMDvdDrive", VMName="new", Path=None)
    assert shell("Get-VMDvdDrive", "Path", VMName="new") == [{"Path": None}]
    for bad in ("C:\\Images\\no.iso", PARENT):
        assert refused(shell, "Set-VMDvdDrive", VMName="new", Path=bad)
    for _ in range(3):
        shell("Add-VMDvdDrive", VMName="old")
    assert "no free location" in str(refused(shell, "Add-VMDvdDrive", VMName="old"))
    assert "IDE" in str(refused(shell, "Add-VMHardDiskDrive", VMName="new", ControllerType="IDE"))
    assert "generation 2" in str(refused(shell, "Get-VMFirmware", VMName="old"))


def test_checkpoints(shell: Shell, peer: Peer) -> None:
    vm(shell, VHDPath=child(shell))
    shell("Set-VM", Name="vm1", CheckpointType="Standard")
    shell("Start-VM", Name="vm1")
    shell("Checkpoint-VM", Name="vm1", SnapshotName="clean")
    (top,) = shell("Get-VMHardDiskDrive", "Path", VMName="vm1")
    assert top["Path"].endswith(".avhdx")
    shell("Set-VMProcessor", VMName="vm1", RelativeWeight=5)
    assert "NonInteractive" in str(refused(shell, "Restore-VMSnapshot", VMName="vm1", Name="clean"))
    shell("Restore-VMSnapshot", VMName="vm1", Name="clean", Confirm=False)
    assert shell("Get-VM", "State", Name="vm1") == [{"State": "Saved"}]
    assert peer.vm("vm1").config.weight == 100
    shell("Start-VM", Name="vm1")
    shell("Stop-VM", Name="vm1", TurnOff=True)
    shell("Remove-VMSnapshot", VMName="vm1", Name="clean")
    assert shell("Get-VMHardDiskDrive", "Path", VMName="vm1") == [{"Path": CHILD}]
    assert not [p for p in peer.world.volume.paths() if p.endswith(".avhdx")]
    assert refused(shell, "Restore-VMSnapshot", VMName="vm1", Name="clean", Confirm=False)
    assert shell("Get-VMSnapshot", "Name", VMName="vm1") == []


def test_a_production_checkpoint_comes_back_off(shell: Shell) -> None:
    vm(shell, VHDPath=child(shell))
    shell("Start-VM", Name="vm1")
    shell("Checkpoint-VM", Name="vm1", SnapshotName="clean")
    shell("Restore-VMSnapshot", VMName="vm1", Name="clean", Confirm=False)
    assert shell("Get-VM", "State", Name="vm1") == [{"State": "Off"}]
    shell("Set-VM", Name="vm1", CheckpointType="Disabled")
    assert "disabled" in str(refused(shell, "Checkpoint-VM", Name="vm1"))


def test_guests_tell_their_addresses_in_their_time() -> None:
    from tests.vsphere.bed import PEM, guest

    with hyperv_host(guests=lambda world: Paper(world, 0.3)) as peer, connected(peer) as shell:
        one = guest("")
        shell.write("C:\\Images\\s.iso", iso(identity(one, "ssh-ed25519 AAAA", PEM)))
        vm(shell, VHDPath=child(shell))
        shell("Set-VMFirmware", VMName="vm1", EnableSecureBoot="Off")
        shell("Add-VMDvdDrive", VMName="vm1", Path="C:\\Images\\s.iso")
        shell("Set-VMNetworkAdapter", VMName="vm1", StaticMacAddress=one.management.mac)
        shell("Start-VM", Name="vm1")
        look = ("Get-VMNetworkAdapter", "IPAddresses")
        assert shell(*look, VMName="vm1") == [{"IPAddresses": []}]
        assert shell("Get-VM", "Heartbeat", Name="vm1") == [{"Heartbeat": "NoContact"}]
        until = time.monotonic() + 20
        while shell(*look, VMName="vm1") == [{"IPAddresses": []}]:
            assert time.monotonic() < until
            threading.Event().wait(0.02)
        assert shell(*look, VMName="vm1") == [{"IPAddresses": ["198.19.1.10"]}]
        shell("Stop-VM", Name="vm1")  # which asks the guest
        assert shell(*look, VMName="vm1") == [{"IPAddresses": []}]


def test_names_are_patterns_too(shell: Shell) -> None:
    for name in ("a1", "a2", "b[1]"):
        vm(shell, name)
    assert len(shell("Get-VM", "Name", Name="a*")) == 2
    assert shell("Get-VM", "Name", Name="b[1]") == []  # which is a pattern for "b1"
    assert len(shell("Get-VM", "Name", Name="b`[1`]")) == 1
    assert shell("Get-VM", "Name", Name="c*") == []
    assert refused(shell, "Get-VM", Name="c").id.startswith("InvalidParameter,")


def test_the_host_s_own_network(shell: Shell, peer: Peer) -> None:
    error = refused(shell, "Get-NetAdapter", Name="no")
    assert error.id == "CmdletizationQuery_NotFound_Name,Get-NetAdapter"
    assert error.category == "ObjectNotFound"
    names = [r["Name"] for r in shell("Get-NetAdapter", "Name", Physical=True)]
    assert names == ["Ethernet 1", "Ethernet 2", "Ethernet 3"]
    jumbo = {"Name": "Ethernet 2", "RegistryKeyword": "*JumboPacket"}
    shell("Set-NetAdapterAdvancedProperty", **jumbo, RegistryValue="9014")
    assert shell("Get-NetAdapter", "MtuSize", Name="Ethernet 2") == [{"MtuSize": 9000}]
    assert refused(shell, "Set-NetAdapterAdvancedProperty", **jumbo, RegistryValue="9000")
    (row,) = shell("Get-NetAdapterAdvancedProperty", "RegistryValue", **jumbo)
    assert row["RegistryValue"] == ["9014"]
    assert "NonInteractive" in str(refused(shell, "Disable-NetAdapter", Name="Ethernet 2"))
    shell("Disable-NetAdapter", Name="Ethernet 2", Confirm=False)
    assert shell("Get-NetAdapter", "Status", Name="Ethernet 2") == [{"Status": "Disabled"}]
    (route,) = shell("Get-NetRoute", "InterfaceAlias", DestinationPrefix="0.0.0.0/0")
    assert route["InterfaceAlias"] == "Ethernet 1"
    assert peer.world.nic("ethernet 2") is not None


def test_files(shell: Shell, peer: Peer) -> None:
    folder = "C:\\ProgramData\\provision\\a"
    assert shell("Test-Path", ".", LiteralPath=folder) == [{".": False}]
    shell("New-Item", Path=folder, ItemType="Directory")
    error = refused(shell, "New-Item", Path=folder, ItemType="Directory")
    assert error.category == "ResourceExists"
    shell("New-Item", Path=folder, ItemType="Directory", Force=True)
    shell.write(f"{folder}\\é'$x.iso", b"\0\1" * 40_000)
    (row,) = shell("Get-Item", "Length", LiteralPath=f"{folder}\\é'$x.iso")
    assert row["Length"] == 80_000
    assert "NonInteractive" in str(refused(shell, "Remove-Item", LiteralPath="C:\\ProgramData"))
    for bad in ("D:\\x", "C:\\no\\x", "x"):
        with pytest.raises(CmdletError):
            shell.write(bad, b"")
    shell("Remove-Item", LiteralPath="C:\\ProgramData\\provision", Recurse=True)
    assert refused(shell, "Get-Item", LiteralPath=folder).id == (
        "PathNotFound,Microsoft.PowerShell.Commands.GetItemCommand"
    )
    peer.world.volume.put(File("C:\\x.vhdx", disk=Disk("Dynamic", GB), length=97 * GB))
    with pytest.raises(CmdletError, match="enough space"):
        shell.write("C:\\y", b"x" * (2 * MB) * 1)
        shell("New-VHD", Path="C:\\z.vhdx", SizeBytes=2 * GB, Fixed=True)


def test_the_root_partition_changes_by_a_restart_only() -> None:
    with hyperv_host(processors=8) as peer:
        with connected(peer) as shell:
            vm(shell, VHDPath=child(shell))
            shell(
                "Set-VM", Name="vm1", AutomaticStopAction="TurnOff", AutomaticStartAction="Nothing"
            )
            shell("Start-VM", Name="vm1")
            seen = ("Get-CimInstance", "NumberOfLogicalProcessors")
            assert shell.program("bcdedit.exe", "/set", "hypervisorrootproc", "2")[0] == 0
            assert shell.program("bcdedit.exe", "/set", "hypervisorrootproc", "two")[0] == 1
            assert shell.program("bcdedit.exe", "/set", "nonsense", "2")[0] == 1
            assert shell.program("bcdedit.exe", "/deletevalue", "hypervisorschedulertype")[0] == 1
            assert (
                "hypervisorrootproc      2" in shell.program("bcdedit.exe", "/enum", "{current}")[1]
            )
            assert shell(*seen, ClassName="Win32_ComputerSystem")[0][seen[1]] == 8
            shell("Restart-Computer", Force=True)
            assert peer.restarting.is_set()
            until = time.monotonic() + 20
            while peer.restarting.is_set():
                assert time.monotonic() < until
                threading.Event().wait(0.01)
            fresh = protocol(peer)
            with pytest.raises(WSManFaultError):  # the shell went with the host
                fresh.run_command(shell.shell, "cmd")
            # what is closed at the end is another one, by a login that the host knows
            shell.protocol.transport.encryption = None
            shell.protocol.transport.close_session()
        with connected(peer) as shell:
            assert shell(*seen, ClassName="Win32_ComputerSystem")[0][seen[1]] == 2
        assert peer.world.boots == 2 and peer.vm("vm1").state == "Off"


def test_cpu_groups(shell: Shell, peer: Peer) -> None:
    vm(shell, VHDPath=child(shell))
    group = "/GroupId:36AB08CB-3A76-4B38-992E-000000000002"
    tool = "CpuGroups.exe"
    assert shell.program(tool, "CreateGroup", group, "/GroupAffinity:4,5")[0] == 0
    assert shell.program(tool, "CreateGroup", group, "/GroupAffinity:4,5")[0] == 1
    assert shell.program(tool, "SetVmGroup", "/VmName:vm1", group)[0] == 0
    assert shell.program(tool, "DeleteGroup", group)[0] == 1
    assert "4,5" in shell.program(tool, "GetGroups")[1]
    shell("Start-VM", Name="vm1")
    assert group[9:] in shell.program(tool, "GetVmGroup")[1]
    none = "/GroupId:00000000-0000-0000-0000-000000000000"
    assert shell.program(tool, "SetVmGroup", "/VmName:vm1", none)[0] == 0
    assert shell.program(tool, "DeleteGroup", group)[0] == 0


def test_without_the_tool_there_is_none() -> None:
    with hyperv_host() as peer, connected(peer) as shell:
        with pytest.raises(CmdletError) as e:
            shell.program("CpuGroups.exe", "GetGroups")
        assert e.value.category == "ObjectNotFound"


@pytest.mark.parametrize("when", ["instead", "after"])
def test_troubles_of_cmdlets(shell: Shell, peer: Peer, when: Any) -> None:
    record = ErrorRecord("Said,ByTheTest", "ResourceBusy", "said by the test")
    peer.world.troubles.append(CmdletTrouble("New-VM", record, when, nth=2))
    vm(shell, "one")
    error = refused(shell, "New-VM", Name="two", MemoryStartupBytes=GB)
    assert (error.id, error.category, str(error)[:16]) == (
        "Said,ByTheTest", "ResourceBusy", "said by the test",
    )  # fmt: skip
    assert len(peer.world.machines) == (1 if when == "instead" else 2)
    assert [c.values["Name"] for c in peer.calls("New-VM")] == ["one", "two"]


def test_an_inventory_is_of_all_that_lasts(shell: Shell, peer: Peer) -> None:
    peer.foreign_switch("theirs", "Ethernet 3")
    theirs = peer.foreign_vm("theirs", switch="theirs")
    before = peer.inventory()
    vm(shell, VHDPath=child(shell))
    assert peer.inventory() != before
    shell("Remove-VM", Name="vm1", Force=True)
    assert peer.inventory() != before  # the disk is left
    shell("Remove-Item", LiteralPath=CHILD)
    shell("Remove-Item", LiteralPath="C:\\ProgramData\\Microsoft", Recurse=True)
    assert peer.inventory() == before
    theirs.notes = "touched"
    assert peer.inventory() != before
