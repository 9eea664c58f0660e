"""Guests of the Hyper-V peer: on the switch and with the identity that the host was told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision import image, seed, state
from provision.access import Access
from provision.errors import WorldError
from provision.host import hang_up
from provision.resources import Guest, Vnic
from provision.verify import inspect
from tests.hyperv.shell import Shell, connected
from tests.peers.hyperv.guests import MANAGEMENT, HyperVLab, hyperv_lab
from tests.peers.hyperv.peer import PARENT
from tests.peers.scratch import scratch
from tests.root import machines

pytestmark = [
    *machines.marks,
    pytest.mark.skipif(
        image.find(state.default().images) is None, reason="needs the guest image: make image"
    ),
]
WAIT_S = 60


def wanted(lab: HyperVLab) -> Guest:
    return Guest(
        "vm1", vcpus=2, memory_mib=1024, image="", accel="hyperv",
        management=Vnic(MANAGEMENT, "synthetic", "00:15:5d:00:00:01", f"{lab.management[10]}/24"),
        nics=(Vnic("bench1", "legacy", "00:15:5d:00:00:02", "198.18.201.2/24"),),
    )  # fmt: skip


def made(shell: Shell, guest: Guest, iso: bytes) -> None:
    """By cmdlets alone: a switch on Ethernet 2, and the VM."""
    shell.write("C:\\Images\\seed.iso", iso)
    shell("New-VMSwitch", Name="bench1", NetAdapterName="Ethernet 2", AllowManagementOS=False)
    shell("New-VHD", Path="C:\\Images\\vm1.vhdx", ParentPath=PARENT, Differencing=True)
    shell("New-VM", Name="vm1", Generation=1, MemoryStartupBytes=guest.memory_mib << 20,
          VHDPath="C:\\Images\\vm1.vhdx")  # fmt: skip
    shell("Set-VMProcessor", VMName="vm1", Count=guest.vcpus)
    shell("Set-VM", Name="vm1", CheckpointType="Standard", AutomaticStopAction="TurnOff")
    shell("Remove-VMNetworkAdapter", VMName="vm1", Name="Network Adapter")
    for nic in (guest.management, *guest.nics):
        shell("Add-VMNetworkAdapter", VMName="vm1", Name=nic.switch, SwitchName=nic.switch,
              IsLegacy=nic.model == "legacy", StaticMacAddress=nic.mac)  # fmt: skip
    shell("Set-VMDvdDrive", VMName="vm1", Path="C:\\Images\\seed.iso")


def wait_ready(lab: HyperVLab) -> None:
    shell_ready = lab.peer.vm("vm1")
    lab.spaces._running[shell_ready.id].do(lambda: None).result(WAIT_S)


def test_a_guest_is_where_and_what_its_vm_is() -> None:
    with hyperv_lab(nics=3) as lab, scratch("pvx-keys-", Path("/var/tmp")) as folder:
        lab.wires.generator.run("ip", "addr", "add", "198.18.201.1/24", "dev", "lg1")
        lab.wires.generator.run("ip", "link", "set", "lg1", "up")
        want = wanted(lab)
        access = Access(folder / "keys")
        who = seed.identity(want, access.public_key(), access.host_key("vm1"))
        access.trust([want])
        with connected(lab.peer) as shell:
            made(shell, want, seed.iso(who))
            shell("Start-VM", Name="vm1")
            wait_ready(lab)
            (row,) = shell("Get-VM", "Heartbeat", "State", Name="vm1")
            assert row == {"Heartbeat": "OkApplicationsUnknown", "State": "Running"}
            told = shell("Get-VMNetworkAdapter", "Name", "IPAddresses", VMName="vm1")
            assert {r["Name"]: r["IPAddresses"] for r in told} == {
                MANAGEMENT: [str(lab.management[10])], "bench1": ["198.18.201.2"],
            }  # fmt: skip
            host = access.host(want)
            found = inspect(host)
            nics = {n["mac"]: (n["driver"], n.get("pci_id", "")) for n in found["nics"]}
            assert nics == {
                "00:15:5d:00:00:01": ("hv_netvsc", ""), "00:15:5d:00:00:02": ("tulip", "1011:0009"),
            }  # fmt: skip
            assert found["cpus"] == 2
            ping = ("ping", "-n", "-c", "1", "-W", "2", "198.18.201.2")
            lab.wires.generator.run(*ping)
            (counted,) = shell("Get-NetAdapterStatistics", "ReceivedBytes", Name="Ethernet 2")
            assert counted["ReceivedBytes"] > 0

            host.run("touch", "/root/before")
            shell("Checkpoint-VM", Name="vm1", SnapshotName="clean")
            host.run("touch", "/root/after")
            hang_up(host)
            shell("Restore-VMSnapshot", VMName="vm1", Name="clean", Confirm=False)
            shell("Start-VM", Name="vm1")
            wait_ready(lab)
            assert host.run("ls", "/root").split() == ["before"]
            hang_up(host)

            shell("Connect-VMNetworkAdapter", VMName="vm1", Name="bench1", SwitchName=MANAGEMENT)
            with pytest.raises(WorldError):
                lab.wires.generator.run(*ping)
            shell("Stop-VM", Name="vm1", TurnOff=True)
            shell("Remove-VM", Name="vm1", Force=True)
            shell("Remove-VMSwitch", Name="bench1", Force=True)
        names = [link["ifname"] for link in lab.wires.esx.json("ip", "-j", "link")]
        assert not [n for n in names if n.startswith("hv1")]
        assert sum(n.startswith("b-") for n in names) == 1


def test_nobody_reaches_what_windows_alone_would_boot() -> None:
    """Generation 2 trusts Windows' loader only, unless it is told otherwise."""
    with hyperv_lab(nics=2) as lab, scratch("pvx-keys-", Path("/var/tmp")) as folder:
        want = replace(wanted(lab), nics=())
        access = Access(folder / "keys")
        who = seed.identity(want, access.public_key(), access.host_key("vm1"))
        with connected(lab.peer) as shell:
            shell.write("C:\\Images\\seed.iso", seed.iso(who))
            shell("New-VHD", Path="C:\\Images\\vm1.vhdx", ParentPath=PARENT, Differencing=True)
            shell("New-VM", Name="vm1", Generation=2, MemoryStartupBytes=1 << 30,
                  VHDPath="C:\\Images\\vm1.vhdx", SwitchName=MANAGEMENT)  # fmt: skip
            shell("Set-VMNetworkAdapter", VMName="vm1", StaticMacAddress=want.management.mac)
            shell("Add-VMDvdDrive", VMName="vm1", Path="C:\\Images\\seed.iso")
            shell("Start-VM", Name="vm1")
            assert not lab.spaces._running
            (row,) = shell("Get-VM", "Heartbeat", Name="vm1")
            assert row["Heartbeat"] == "NoContact"
            shell("Stop-VM", Name="vm1", TurnOff=True)
            shell("Set-VMFirmware", VMName="vm1", EnableSecureBoot="Off")
            shell("Start-VM", Name="vm1")
            wait_ready(lab)
            assert lab.peer.vm("vm1").ready
