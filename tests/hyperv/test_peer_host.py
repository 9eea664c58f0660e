"""The Hyper-V peer itself: that it refuses what the published rules say is refused."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import requests

from provision.seed import identity, iso
from tests.hyperv.shell import (
    CHILD,
    GB,
    Shell,
    child,
    connected,
    refused,
    vm,
)
from tests.peers.hyperv.paper import Paper
from tests.peers.hyperv.peer import PARENT, Peer, hyperv_host


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
