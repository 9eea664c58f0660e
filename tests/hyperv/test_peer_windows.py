"""The Windows under the Hyper-V peer: files, how it boots, CPU groups, and what tests arm."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from winrm.exceptions import WSManFaultError

from tests.hyperv.shell import (
    CHILD,
    GB,
    MB,
    CmdletError,
    Shell,
    child,
    connected,
    protocol,
    refused,
    vm,
)
from tests.peers.hyperv.model import Disk, File
from tests.peers.hyperv.peer import Peer, hyperv_host
from tests.peers.hyperv.world import CmdletTrouble
from tests.peers.powershell.errors import ErrorRecord


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
    volume = peer.world.volume
    volume.put(File("C:\\x.vhdx", disk=Disk("Dynamic", GB), length=volume.free - GB))
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
