"""What each driver is held against."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.fake import Fake
from provision.driver import Target
from provision.resources import Guest, Resource, key
from tests.contract import on_linux, on_simulators
from tests.contract.peer import TESTBED, Peer, PeerType, resources, variants
from tests.root import machines


@contextmanager
def fake(folder: Path) -> Iterator[Peer]:
    driver = Fake(Target(TESTBED, folder))
    uplink, switches, guest = resources("eth1")

    def stop(g: Guest) -> None:
        driver.world[driver.at(key(g))] = replace(g, running=False)

    @contextmanager
    def foreign(thing: Resource) -> Iterator[Callable[[], bool]]:
        k = driver.at(key(thing))
        driver.world[k] = thing
        driver.marks[k] = "somebody"
        yield lambda: driver.world[k] == thing and driver.marks[k] == "somebody"
        del driver.world[k], driver.marks[k]

    yield Peer(driver, uplink, switches, guest, variants(guest), stop, foreign)


live = (
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root and a libvirtd"),
)
#: one line a driver and peer
PEERS = (
    PeerType("fake", fake),
    PeerType("kvm-simulated", on_linux.kvm_simulated, tuple(machines.marks)),
    PeerType("kvm", on_linux.kvm_real, live),
    PeerType("container", on_linux.container, live),
    PeerType("native", on_linux.native, live),
    PeerType("xen", on_linux.xen, (*live, pytest.mark.xen)),
    PeerType("vsphere-vcenter", on_simulators.vcenter),
    PeerType("vsphere-esxi", on_simulators.esxi),
    PeerType("xenserver-hvm", on_simulators.xenserver_hvm),
    PeerType("xenserver-pv", on_simulators.xenserver_pv),
    PeerType("virtualbox", on_simulators.virtualbox, tuple(machines.marks)),
    PeerType("hyperv-synthetic", on_simulators.hyperv_synthetic),
    PeerType("hyperv-legacy", on_simulators.hyperv_legacy),
)
