"""What uses a physical NIC of an ESXi host, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyVmomi")

from drivers.vsphere.uplinks import speeds, uplinks, virtual_functions


def nic(number: int, mbit: int | None = 1000) -> Any:
    return SimpleNamespace(
        device=f"vmnic{number}", key=f"key-vim.host.PhysicalNic-vmnic{number}",
        mac=f"00:0C:29:00:00:0{number}", pci=f"0000:0{number}:00.0",
        linkSpeed=SimpleNamespace(speedMb=mbit) if mbit else None,
    )  # fmt: skip


def switch(name: str, *numbers: int, mtu: int | None = None) -> Any:
    pnic = [f"key-vim.host.PhysicalNic-vmnic{n}" for n in numbers]
    return SimpleNamespace(name=name, pnic=pnic, mtu=mtu)


def group(name: str, on: str, *ports: str) -> Any:
    spec = SimpleNamespace(name=name, vswitchName=on)
    return SimpleNamespace(spec=spec, port=[SimpleNamespace(type=t) for t in ports])


def place(**more: Any) -> Any:
    network = SimpleNamespace(**{
        "pnic": [nic(0), nic(1, None), nic(2), nic(3, 10000)],
        "vswitch": [switch("vSwitch0", 0), switch("pvabcdb1", 2, mtu=9000)],
        "portgroup": [
            group("Management Network", "vSwitch0", "host"),
            group("VM Network", "vSwitch0", "virtualMachine", "virtualMachine"),
            group("pvabcdb1", "pvabcdb1"),
        ],
        "vnic": [SimpleNamespace(device="vmk0", portgroup="Management Network")],
        "consoleVnic": None, "proxySwitch": None, **more.pop("network", {}),
    })  # fmt: skip
    return SimpleNamespace(has={"config.network": network, **more})


def services(**kinds: str) -> Any:
    """Kinds of service, each on one of the host's own adapters."""
    return SimpleNamespace(netConfig=[
        SimpleNamespace(
            nicType=kind, selectedVnic=[f"{kind}.key-{device}"],
            candidateVnic=[
                SimpleNamespace(key=f"{kind}.key-{d}", device=d) for d in ("vmk0", "vmk1")
            ],
        )
        for kind, device in kinds.items()
    ])  # fmt: skip


def test_each_use_is_in_words_and_our_own_is_none() -> None:
    at = place(**{"config.virtualNicManagerInfo": services(management="vmk0", vmotion="vmk0")})
    found = {u.name: u for u in uplinks(at, "pvabcd")}
    assert found["vmnic0"].used_by == (
        "vSwitch0: Management Network (vmk0, management, vmotion), VM Network (2 VMs)"
    )
    assert [found[f"vmnic{n}"].used_by for n in (1, 2, 3)] == ["", "", ""]
    assert (found["vmnic2"].mtu, found["vmnic2"].mac) == (9000, "00:0c:29:00:00:02")
    assert [found[f"vmnic{n}"].up for n in (0, 1)] == [True, False]
    assert found["vmnic3"].pci == "0000:03:00.0"
    other = {u.name: u for u in uplinks(at, "pvother")}
    assert other["vmnic2"].used_by == "pvabcdb1: pvabcdb1"


def test_distributed_switches_and_passed_through_ones_are_uses() -> None:
    proxy = SimpleNamespace(dvsName="dvs", pnic=["key-vim.host.PhysicalNic-vmnic1"])
    passed = [SimpleNamespace(id="0000:03:00.0", passthruEnabled=True)]
    at = place(network={"proxySwitch": [proxy]}, **{"config.pciPassthruInfo": passed})
    found = {u.name: u.used_by for u in uplinks(at, "pvabcd")}
    assert found["vmnic1"] == "distributed switch dvs"
    assert found["vmnic3"] == "passed through to VMs"


def test_only_functions_that_are_active_count() -> None:
    devices = [
        SimpleNamespace(id="0000:02:00.0", sriovActive=True, numVirtualFunction=8),
        SimpleNamespace(id="0000:03:00.0", sriovActive=False, numVirtualFunction=8),
        SimpleNamespace(id="0000:01:00.0"),
    ]
    assert virtual_functions(place(**{"config.pciPassthruInfo": devices})) == {"vmnic2": 8}


def test_speeds_are_short() -> None:
    assert speeds(place()).startswith("vmnic0 1000 Mbit/s, vmnic1 down, ")
    many = place(network={"pnic": [nic(1)] * 40})
    assert speeds(many).endswith(" and 24 more")
