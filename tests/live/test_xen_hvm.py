"""HVM and PVH guests on a real Xen whose CPU virtualizes: nested emulation, so slower still."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.live.conftest import Shell
from tests.live.xen_bed import UP_S, Bed, bed
from tests.peers.xen.lab import XenLab, xen_lab
from tests.peers.xen.machine import SVM_CPU

pytestmark = [
    pytest.mark.live,
    pytest.mark.xen,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[XenLab]:
    with xen_lab(cpu=SVM_CPU) as found:
        if found.image.packed is None:
            pytest.fail("the guest image was built without a packed kernel: build it anew")
        yield found


@pytest.fixture
def xen(shell: Shell, lab: XenLab) -> Iterator[Bed]:
    with bed(shell, lab) as found:
        yield found


@pytest.mark.parametrize(
    ("virt", "nic", "drivers"),
    [
        ("hvm", "netfront", {"vif"}),
        ("hvm", "rtl8139", {"8139cp", "8139too"}),
        ("hvm", "e1000", {"e1000"}),
        ("pvh", "netfront", {"vif"}),
    ],
)
def test_a_guest_has_the_nic_that_was_asked_for(
    xen: Bed, virt: str, nic: str, drivers: set[str]
) -> None:
    """Its frames go by dom0's end of that one; PV drivers would take the emulated NICs away."""
    typed = xen.shell
    spec = xen.spec(virt, ports="lg1", nic=nic, guests=f"virt: {virt}")
    built = typed.json("up", "-f", str(spec), timeout_s=UP_S)
    assert built["guests"]["vm1"]["accel"] == virt
    assert "as asked" in typed("verify", "-n", virt, timeout_s=UP_S).stdout
    seen = typed("ssh", "-n", virt, "vm1", "--", "ethtool -i link1", timeout_s=UP_S).stdout
    assert seen.split()[1] in drivers, seen
    bridges = xen.links()
    ends = {n: m for n, m in bridges.items() if n.startswith("pv") and "n1" in n}
    assert set(ends.values()) == {bridges["eth1"]}
    assert any(n.endswith("-emu") for n in ends) == (nic != "netfront")
    finding, _ = xen.run(virt, nic, virt)
    assert finding["guests_mbit"]["vm1"] > 0.1
    typed("down", "-n", virt, timeout_s=UP_S)
