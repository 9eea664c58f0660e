"""A short cut of the real Xen's run: `make test-xen` has the whole."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from drivers.dom0 import xl
from drivers.dom0.look import state
from provision.resources import key
from tests.contract import test_contract as contract
from tests.contract.on_linux import xen as xen_peer
from tests.contract.peer import Peer
from tests.live.xen_bed import UP_S, Bed

pytestmark = [
    pytest.mark.live,
    pytest.mark.xen,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with xen_peer(tmp_path_factory.mktemp("peer")) as found:
        yield found


def test_some_promises_of_the_contract(peer: Peer) -> None:
    """Those of a bridge, and of a guest that is changed while it runs."""
    driver, bridge, guest = peer.driver, peer.switches[-1], peer.guest
    contract.test_facts_are_whole(driver, peer)
    contract.test_what_it_says_without_a_host_holds_on_one(driver)
    contract.test_unsupported_is_told_before_anything_changes(driver, peer)
    contract.test_what_is_not_ours_is_not_touched(driver, peer, guest)
    contract.test_put_twice_is_put_once(driver, guest)
    live = [g for g in peer.other_guests if (g.vcpus, g.nics) == (guest.vcpus, guest.nics)]
    assert len(live) == 3
    for other in live:
        driver.put(other)
        assert driver.read(key(other)) == other
    contract.test_drop_is_final_and_repeatable(driver, guest)
    contract.test_drop_is_final_and_repeatable(driver, bridge)
    driver.drop(key(peer.switches[0]))
    assert not set(driver.owned())


def test_a_guest_dom0_and_traffic(xen: Bed) -> None:
    """dom0 is pinned, weighted and capped, a guest is on its bridge, and all is put back."""
    typed, host = xen.shell, xen.lab.xen.host
    spec = xen.spec("cut", dom0="pin: 1, weight: 512, cap_percent: 95", ports="lg1")
    typed("up", "-f", str(spec), timeout_s=UP_S)
    now = state(host)
    assert [v.hard for v in now.vcpus] == ["1"]
    assert now.share == xl.Share("Domain-0", 0, 512, 95)
    (guest,) = [s for s in now.all_shares if s.domid]
    assert (guest.weight, guest.cap_percent) == (300, 90)
    links = xen.links()
    ours = [master for n, master in links.items() if n.startswith("pv") and n.endswith("n1")]
    assert ours == [links["eth1"]] != [None]
    finding, knobs = xen.run("cut")
    assert finding["guests_mbit"]["vm1"] > 0.1
    assert finding["dom0_percent"][0] > 5
    assert sum(finding["irqs_per_s"]) > 0
    assert (knobs["dom0.weight"], knobs["dom0.pin"]) == ("512", "1")
    typed("down", "-n", "cut", timeout_s=UP_S)
