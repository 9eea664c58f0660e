"""Virtual functions on a host whose sysfs is a tree of files that behave."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.linux import sriov
from drivers.linux.net import LinuxNet
from provision.driver import Target
from provision.errors import HostError, PreflightError
from provision.host import Host
from provision.resources import Guest, Uplink, Vnic, key
from tests.peers import wires
from tests.peers.pci import Tree, pci
from tests.root import machines

pytestmark = machines.marks
NICS = {"eth1": ("0000:3b:00.0", 8), "eth2": ("0000:3b:00.1", 4)}
NIC = Vnic("eth1", "sriov", "52:54:00:00:00:02", "198.18.1.2/24")
GUEST = Guest("vm1", 1, 512, "img", replace(NIC, model="virtio"), (NIC,), "kvm")


@pytest.fixture
def bare() -> Iterator[Host]:
    with wires.machine("sriov1") as found:
        for nic in ("eth1", "eth2", "eth3"):
            found.run("ip", "link", "add", nic, "type", "veth", "peer", "name", f"{nic}x")
        yield found


@pytest.fixture
def tree(bare: Host, tmp_path: Path) -> Iterator[Tree]:
    with pci(bare, tmp_path, NICS) as found:
        yield found


@pytest.fixture
def host(bare: Host, tree: Tree) -> Host:
    return replace(bare, sysfs=str(tree.root))


def test_a_function_is_made_read_back_and_put_back(host: Host, tree: Tree) -> None:
    net = LinuxNet(host, "lab")
    before = net.read(("uplink", "eth1"))
    assert isinstance(before, Uplink) and before.vfs == 0
    want = Uplink("eth1", up=True, vfs=1)
    net.put(want)
    assert net.read(key(want)) == want
    assert {u.name: u.vfs for u in net.uplinks()}["eth1"] == 1
    seen = sriov.look(host)
    assert seen.first(["eth1"]) == {"eth1": "0000:3b:10.0"}
    assert (seen.nic_of("0000:3b:10.0"), seen.nic_of("0000:3b:10.9")) == ("eth1", "")
    net.put(want)
    net.put(before)
    assert net.read(key(before)) == before
    assert tree.made == {"0000:3b:00.0": 0, "0000:3b:00.1": 0}
    with pytest.raises(PreflightError, match="no virtual function made"):
        sriov.look(host).first(["eth1"])


def test_functions_of_others_are_left_alone(host: Host, tree: Tree) -> None:
    tree.write("0000:3b:00.1", "3")
    net = LinuxNet(host, "lab")
    with pytest.raises(PreflightError, match="3 virtual functions already"):
        net.put(Uplink("eth2", up=True, vfs=1))
    assert tree.made["0000:3b:00.1"] == 3
    kept = Uplink("eth2", mtu=1400, up=True, vfs=3)
    net.put(kept)
    assert net.read(key(kept)) == kept


def test_what_a_nic_cannot_have_is_refused_before_anything_changes(host: Host) -> None:
    net = LinuxNet(host, "lab")
    for want, said in ((Uplink("eth3", up=True, vfs=1), "can have 0"),
                       (Uplink("eth2", up=True, vfs=9), "can have 4")):  # fmt: skip
        before = net.read(key(want))
        with pytest.raises(PreflightError, match=said):
            net.put(want)
        assert net.read(key(want)) == before


def test_a_driver_that_refuses_is_told_and_made_good_by_the_next(host: Host, tree: Tree) -> None:
    net, want = LinuxNet(host, "lab"), Uplink("eth1", up=True, vfs=1)
    tree.refuses = errno.ENOSPC
    with pytest.raises(HostError, match="echo"):
        net.put(want)
    found = net.read(key(want))
    assert isinstance(found, Uplink) and found.vfs == 0
    tree.refuses = 0
    net.put(want)
    assert net.read(key(want)) == want


def test_a_group_that_others_share_is_refused_by_their_names(bare: Host, tmp_path: Path) -> None:
    shared = {"0000:3b:10.0": ["0000:3b:00.1"]}
    with pci(bare, tmp_path, NICS, groups=shared) as tree:
        host = replace(bare, sysfs=str(tree.root))
        LinuxNet(host, "lab").put(Uplink("eth1", up=True, vfs=1))
        with pytest.raises(PreflightError, match=r"shares its IOMMU group with 0000:3b:00\.1"):
            sriov.look(host).first(["eth1"])


def test_a_whole_nic_goes_to_a_guest_and_stays_known(host: Host, tmp_path: Path) -> None:
    pytest.importorskip("libvirt")
    from drivers.kvm.driver import Kvm

    host.run("ip", "link", "add", "pvlabm", "type", "bridge")
    driver = Kvm(Target("lab", tmp_path, "test:///default"), host)
    mac = next(u.mac for u in driver.facts.uplinks if u.name == "eth2")
    nic = replace(NIC, switch="eth2", model="passthrough", mac=mac)
    want = replace(
        GUEST, image="", accel="none", nics=(nic,),
        management=replace(GUEST.management, switch="pvlabm"),
    )  # fmt: skip
    driver.put(want)
    assert driver.read(key(want)) == want
    host.run("ip", "link", "del", "eth2")  # as when vfio-pci has it
    assert driver.read(key(want)) == want
    (given,) = [u for u in driver._uplinks() if u.name == "eth2"]
    assert (given.mac, given.pci) == (mac, "0000:3b:00.1")
    driver.put(replace(want, vcpus=2))
    assert driver.read(key(want)) == replace(want, vcpus=2)
    with pytest.raises(PreflightError, match="eth3 of sriov1 is no PCI device"):
        driver.put(replace(want, nics=(replace(nic, switch="eth3"),)))
    driver.drop(key(want))
    driver.close()


def test_without_an_iommu_the_plan_says_what_to_do(bare: Host, tmp_path: Path) -> None:
    with pci(bare, tmp_path, NICS, iommu=False) as tree:
        seen = sriov.look(replace(bare, sysfs=str(tree.root)))
    told = " ".join(seen.unfit(GUEST))
    assert "intel_iommu=on iommu=pt" in told and "no virtual functions" not in told


def test_what_the_plan_refuses_and_what_proves_it_inside(host: Host) -> None:
    seen = sriov.look(host)
    assert not [*seen.unfit(GUEST)]
    other = replace(GUEST, nics=(replace(NIC, switch="eth3", rate_mbit=10),))
    told = " ".join(seen.unfit(other))
    assert "eth3 of sriov1 has no virtual functions; NICs that have: eth1, eth2" in told
    assert "guests.nic.rate" in told
    from drivers.kvm.facts import MODELS

    assert seen.seen_as(MODELS["sriov"]).pci_ids == ("8086:154c",)


def test_a_guest_has_the_function_of_its_uplink(host: Host, tree: Tree, tmp_path: Path) -> None:
    """Libvirt's own test driver keeps the domain, the tree of files the NIC."""
    pytest.importorskip("libvirt")
    from drivers.kvm.driver import Kvm

    host.run("ip", "link", "add", "pvlabm", "type", "bridge")
    first = Kvm(Target("lab", tmp_path, "test:///default"), host)
    want = replace(
        GUEST, image="", accel="none", management=replace(GUEST.management, switch="pvlabm")
    )
    assert not [*first.facts.unfit(want)]
    assert first.facts.nic_models["sriov"].pci_ids == ("8086:154c",)
    assert "eth1" in first.usage().nics
    with pytest.raises(PreflightError, match="no virtual function made"):
        first.put(want)
    assert first.read(key(want)) is None
    first.put(Uplink("eth1", up=True, vfs=1))
    first.put(want)
    assert first.read(key(want)) == want
    later = Kvm(Target("lab", tmp_path, "test:///default"), host)
    assert "eth1" not in later.usage().nics  # it does not count what its functions carry
    first.drop(key(want))
    tree.write("0000:3b:00.0", "0")
    for driver in (first, later):
        driver.close()
