"""Virtual functions and whole NICs of a Xen host, whose sysfs is a tree of files that behave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libvirt")

from drivers.libvirt.disks import Disks
from drivers.linux import sriov
from drivers.linux.net import LinuxNet
from drivers.xen import direct
from drivers.xen.domains import Domains
from drivers.xen.guests import Guests
from drivers.xen.xml import Body, Seen, domain, parse
from provision.driver import Target
from provision.errors import DriverError, PreflightError
from provision.host import Host
from provision.resources import Guest, Uplink, Vnic, key
from tests.peers import wires
from tests.peers.pci import Tree, pci
from tests.root import machines
from tests.unit.test_xen_facts import MACHINE

pytestmark = machines.marks
NICS = {"eth1": ("0000:3b:00.0", 8), "eth2": ("0000:3b:00.1", 4)}
VF, WHOLE = "0000:3b:10.0", "0000:3b:00.1"
NIC = Vnic("eth1", "sriov", "00:16:3e:00:00:02", "198.18.1.2/24")
MANAGEMENT = replace(NIC, switch="pvlabm", model="netfront", mac="00:16:3e:00:00:01")
GUEST = Guest("vm1", 1, 512, "d" * 64, MANAGEMENT, (NIC,), "hvm")
GIVEN = replace(GUEST, nics=(NIC, replace(NIC, switch="eth2", model="passthrough")))


@pytest.fixture
def bare() -> Iterator[Host]:
    with wires.machine("xensriov1") as found:
        for nic in NICS:
            found.run("ip", "link", "add", nic, "type", "veth", "peer", "name", f"{nic}x")
        yield found


@pytest.fixture
def tree(bare: Host, tmp_path: Path) -> Iterator[Tree]:
    """Xen has the IOMMU, so that Linux has no groups."""
    with pci(bare, tmp_path, NICS, iommu=False) as found:
        yield found


@pytest.fixture
def host(bare: Host, tree: Tree) -> Host:
    return replace(bare, sysfs=str(tree.root))


def seen(guest: Guest, *, active: bool, **given: str) -> Seen:
    text = domain(guest, Body("demo", "/d/vm1.qcow2", "/i/disk.qcow2", functions=given))
    found = parse(text.replace("<domain ", '<domain id="7" ', 1) if active else text, 4)
    assert found is not None
    return found


def test_a_function_is_claimed_without_groups_and_is_of_its_uplink(host: Host, tree: Tree) -> None:
    tree.pciback()
    with pytest.raises(PreflightError, match="no virtual function made"):
        direct.claim(host, GUEST, None)
    net, want = LinuxNet(host, "demo"), Uplink("eth1", up=True, vfs=1)
    net.put(want)
    assert net.read(key(want)) == want
    given = direct.claim(host, GIVEN, None)
    assert given == {"eth1": VF, "eth2": WHOLE}
    now = seen(GIVEN, active=True, **given)
    assert sriov.placed(host, now.guest) == GIVEN
    net.put(replace(want, vfs=0))
    assert tree.made["0000:3b:00.0"] == 0
    assert sriov.placed(host, now.guest).nics[0].switch == f"({VF} is gone)"


def test_what_pciback_has_already_is_anothers_but_where_our_guest_runs(
    host: Host, tree: Tree
) -> None:
    tree.write("0000:3b:00.0", "1")
    given = {"eth1": VF, "eth2": WHOLE}
    tree.pciback(VF, WHOLE)
    host.run("ip", "link", "del", "eth2")  # as when it is bound to pciback
    for now in (None, seen(GIVEN, active=False, **given)):
        with pytest.raises(PreflightError, match=f"{VF} of .*eth1's, is with pciback") as caught:
            direct.claim(host, GIVEN, now)
        assert f"xl pci-assignable-remove -r {VF}" in (caught.value.hint or "")
    assert direct.claim(host, GIVEN, seen(GIVEN, active=True, **given)) == given
    tree.pciback()
    assert direct.claim(host, GUEST, None) == {"eth1": VF}


def test_without_the_driver_nothing_is_claimed(host: Host, tree: Tree) -> None:
    tree.write("0000:3b:00.0", "1")
    with pytest.raises(PreflightError, match="modprobe xen-pciback"):
        direct.claim(host, GUEST, None)


def test_the_plan_says_what_is_lacking(host: Host, tree: Tree) -> None:
    def told(guest: Guest, *caps: str, ours: bool = False) -> str:
        now, machine = sriov.look(host), replace(MACHINE, caps=frozenset(caps))
        return " ".join(now.unfit(guest, direct.lack(guest, machine, now, ours=ours)))

    pv = replace(GUEST, accel="pv")
    both = ("pv", "hvm", "pv_directio", "hvm_directio")
    assert "modprobe xen-pciback" in told(GUEST, *both)
    tree.pciback()
    assert not told(GUEST, *both, ours=True) and not told(pv, *both)
    assert "iommu=1 on Xen's command line, and VT-d or AMD-Vi" in told(GUEST, "pv", "hvm")
    assert "pv_directio" in told(pv, "pv", "hvm", "hvm_directio")
    assert "guests.virt: hvm, or pv" in told(replace(GUEST, accel="pvh"), *both)
    assert "no xen-pcifront" in told(pv, *both, ours=True)
    slow = replace(GUEST, nics=(replace(NIC, rate_mbit=10),))
    assert "guests.nic.rate" in told(slow, *both)
    assert "NICs that have: eth1, eth2" in told(
        replace(GUEST, nics=(replace(NIC, switch="eth3"),)), *both
    )
    assert not told(replace(GUEST, nics=(replace(NIC, model="netfront"),)))


@dataclass
class Domain:
    """A domain that libvirt ends; ``returns``: whether its devices go back then."""

    tree: Tree
    returns: bool = False
    unbinds: bool = False
    calls: list[str] = field(default_factory=list)

    def destroy(self) -> None:
        self.calls.append("destroy")
        if self.returns:
            self.tree.pciback()
        elif self.unbinds:
            (self.tree.device(WHOLE) / "driver").unlink()

    def undefineFlags(self, _: int) -> None:  # noqa: N802
        self.calls.append("undefine")


def test_a_guest_is_not_forgotten_before_dom0_has_its_devices_again(
    host: Host, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.pciback(WHOLE)
    found = Domain(tree)
    now = seen(replace(GUEST, nics=GIVEN.nics[1:]), active=True, eth2=WHOLE)
    monkeypatch.setattr(Domains, "own", lambda *_: (found, now))
    link: Any = None
    domains = Domains(link, "demo", host, "xen1", 4)
    target = Target("demo", tmp_path)
    guests = Guests(domains, Disks(host, tmp_path, ""), host, target, MACHINE)
    with pytest.raises(DriverError, match=f"{WHOLE} .*driver is pciback") as caught:
        guests.drop("vm1")
    assert f"xl pci-assignable-remove -r {WHOLE}" in (caught.value.hint or "")
    found.unbinds = True
    with pytest.raises(DriverError, match=f"{WHOLE} .*driver is none") as caught:
        guests.drop("vm1")
    assert f"echo {WHOLE} > " in (caught.value.hint or "")
    assert "undefine" not in found.calls
    found.returns = True
    guests.drop("vm1")
    assert "undefine" in found.calls
