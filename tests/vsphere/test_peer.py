"""The peer itself: that it refuses what the vSphere API's reference says is refused.

What a test of the driver can prove is no more than what stands here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers import oracle
from tests.peers.oracle import all_of, bond, done, group, host
from tests.peers.vcsim import Vcsim, vcsim, vim, vmodl

Fault = vim.fault


@pytest.fixture
def peer() -> Iterator[Vcsim]:
    with vcsim(pnics=(1000, 1000, 10000, 0), cpus=2, memory_mib=4096, datastores=2) as found:
        yield found


@pytest.fixture
def si(peer: Vcsim) -> Any:
    return peer.connect()


@pytest.fixture
def net(si: Any) -> Any:
    return host(si).configManager.networkSystem


@pytest.mark.parametrize("model", ["VPX", "ESX"])
def test_a_host_is_as_asked(model: str) -> None:
    with vcsim(model, pnics=(1000, 10000, 0), cpus=2, memory_mib=4096, datastores=3) as peer:
        found = host(peer.connect())
        nics = found.config.network.pnic
        assert [n.device for n in nics] == ["vmnic0", "vmnic1", "vmnic2"]
        assert [n.linkSpeed and n.linkSpeed.speedMb for n in nics] == [1000, 10000, None]
        assert len({n.mac for n in nics} | {n.pci for n in nics}) == 6
        assert found.hardware.cpuInfo.numCpuThreads == 2
        assert found.hardware.memorySize == 4096 << 20
        assert len(found.datastore) == 3
        (first,) = found.configManager.networkSystem.networkInfo.vswitch
        assert first.pnic == ["key-vim.host.PhysicalNic-vmnic0"]


def test_hosts_of_a_vcenter_are_not_one() -> None:
    with vcsim(hosts=2, cluster_hosts=2, pools=1, pnics=3) as peer:
        si = peer.connect()
        hosts = all_of(si, vim.HostSystem)
        assert len(hosts) == 4
        assert len({n.mac for h in hosts.values() for n in h.config.network.pnic}) == 12
        assert "DC0_C0_RP1" in all_of(si, vim.ResourcePool)
        for one in hosts.values():  # one network for all: that is how vSphere knows it
            one.configManager.networkSystem.AddPortGroup(group("same", "vSwitch0"))
        assert len([n for n in all_of(si, vim.Network) if n == "same"]) == 1
        first, second, *_ = hosts.values()
        first.configManager.networkSystem.RemovePortGroup("same")
        assert "same" in [n.name for n in second.network]
        assert "same" not in [n.name for n in first.network]


def test_a_vswitch_keeps_its_spec(net: Any) -> None:
    security = vim.host.NetworkPolicy.SecurityPolicy(allowPromiscuous=False, forgedTransmits=False)
    policy = vim.host.NetworkPolicy(security=security)
    net.AddVirtualSwitch("pv1", bond("vmnic1", mtu=9000, policy=policy))
    found = {v.name: v for v in net.networkInfo.vswitch}["pv1"]
    assert found.spec.bridge.nicDevice == ["vmnic1"]
    assert found.pnic == ["key-vim.host.PhysicalNic-vmnic1"]
    assert (found.mtu, found.numPorts) == (9000, 128)
    assert found.spec.policy.security.forgedTransmits is False
    net.AddPortGroup(group("pv1", "pv1"))
    computed = {g.spec.name: g for g in net.networkInfo.portgroup}["pv1"].computedPolicy
    assert computed.security.forgedTransmits is False  # the switch's
    assert computed.security.macChanges is True  # the host's


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        ("pv1", bond("vmnic9"), Fault.NotFound),
        ("pv1", bond("vmnic0"), Fault.ResourceInUse),
        ("pv1", bond("vmnic1", "vmnic0"), Fault.ResourceInUse),
        ("vSwitch0", bond("vmnic1"), Fault.AlreadyExists),
        ("x" * 32, bond("vmnic1"), vmodl.fault.InvalidArgument),
        ("", bond("vmnic1"), vmodl.fault.InvalidArgument),
        ("pv1", bond("vmnic1", mtu=9001), vmodl.fault.InvalidArgument),
    ],
)
def test_a_vswitch_is_refused(net: Any, name: str, spec: Any, expected: Any) -> None:
    before = [v.name for v in net.networkInfo.vswitch]
    with pytest.raises(expected):
        net.AddVirtualSwitch(name, spec)
    assert [v.name for v in net.networkInfo.vswitch] == before


def test_a_vswitch_changes(net: Any) -> None:
    net.AddVirtualSwitch("x" * 31, bond("vmnic1"))
    net.UpdateVirtualSwitch("x" * 31, bond("vmnic2", mtu=1600))
    net.AddVirtualSwitch("pv2", bond("vmnic1"))  # which is free again
    for spec, expected in ((bond("vmnic2"), Fault.ResourceInUse), (bond("no"), Fault.NotFound)):
        with pytest.raises(expected):
            net.UpdateVirtualSwitch("pv2", spec)
    with pytest.raises(Fault.NotFound):
        net.UpdateVirtualSwitch("pv3", bond())
    found = {v.name: v for v in net.networkInfo.vswitch}
    assert (found["x" * 31].mtu, found["x" * 31].spec.bridge.nicDevice) == (1600, ["vmnic2"])
    assert found["pv2"].spec.bridge.nicDevice == ["vmnic1"]


def test_a_port_group_keeps_its_shaping_and_changes(net: Any) -> None:
    net.AddVirtualSwitch("pv1", bond("vmnic1"))
    net.AddPortGroup(group("pv1", "pv1", mbit=100))

    def shaping() -> Any:
        found = {g.spec.name: g for g in net.networkInfo.portgroup}["pv1"]
        assert found.spec.policy.shapingPolicy.enabled == found.computedPolicy.shapingPolicy.enabled
        return found.computedPolicy.shapingPolicy

    assert (shaping().enabled, shaping().averageBandwidth) == (True, 100_000_000)
    net.UpdatePortGroup("pv1", group("pv1", "pv1", vlan=7, mbit=10))
    assert shaping().averageBandwidth == 10_000_000
    for spec, expected in (
        (group("pv1", "pv1"), Fault.AlreadyExists),
        (group("pv2", "pv9"), Fault.NotFound),
        (group("pv2", "pv1", vlan=4096), vmodl.fault.InvalidArgument),
    ):
        with pytest.raises(expected):
            net.AddPortGroup(spec)
    with pytest.raises(Fault.NotFound):
        net.UpdatePortGroup("pv9", group("pv9", "pv1"))
    with pytest.raises(vmodl.fault.InvalidArgument):
        net.UpdatePortGroup("pv1", group("pv1", "pv1", vlan=-1))


def test_what_is_in_use_stays(si: Any, net: Any) -> None:
    net.AddVirtualSwitch("pv1", bond("vmnic1"))
    net.AddPortGroup(group("pv1", "pv1"))
    assert "pv1" in [n.name for n in host(si).network]
    vm = oracle.create(si, "one", [("vmxnet3", "pv1", "")])
    for method, name in (
        (net.RemovePortGroup, "pv1"), (net.RemoveVirtualSwitch, "pv1"),
        (net.RemovePortGroup, "Management Network"),  # the host's own adapter
        (net.RemoveVirtualSwitch, "vSwitch0"),
    ):  # fmt: skip
        with pytest.raises(Fault.ResourceInUse):
            method(name)
    done(vm.Destroy_Task())
    net.RemovePortGroup("pv1")
    with pytest.raises(Fault.NotFound):
        net.RemovePortGroup("pv1")
    net.AddPortGroup(group("pv1", "pv1"))
    net.RemoveVirtualSwitch("pv1")  # an unused port group goes with it
    with pytest.raises(Fault.NotFound):
        net.RemoveVirtualSwitch("pv1")
    assert "pv1" not in all_of(si, vim.Network)
    assert "pv1" not in [n.name for n in host(si).network]
    net.AddVirtualSwitch("pv2", bond("vmnic1"))
