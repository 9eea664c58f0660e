"""Guests that are namespaces: they are who their seed says, where their bridge is, and as shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from provision import image, seed, state
from provision.access import Access
from provision.driver import Facts, NicModel
from provision.errors import WorldError
from provision.host import Host, hang_up
from provision.resources import Guest, Vnic
from provision.verify import inside, inspect
from tests.peers.nsguest import Card, Hardware, NsGuest, identity_of
from tests.peers.scratch import scratch
from tests.peers.wires import Wires, subnets, wires
from tests.root import machines

pytestmark = [
    *machines.marks,
    pytest.mark.skipif(
        image.find(state.default().images) is None, reason="needs the guest image: make image"
    ),
]
MODELS = {
    "netfront": NicModel("netfront", (), ("vif",)),
    "legacy": NicModel("legacy", ("1011:0009",), ("tulip",)),
}
FACTS = Facts(
    hypervisor="paper", version="1", host="paper", cpus=8, memory_mib=8192, accel="none",
    nic_models=MODELS, words={}, switch_flavours=("bridge",), kinds=frozenset({"guest"}),
)  # fmt: skip


@pytest.fixture
def bed() -> Iterator[tuple[Wires, IPv4Network, Path]]:
    """A host with the bridges br0 (to here) and br1 (to the load generator's lg1)."""
    with ExitStack() as stack:
        nets = stack.enter_context(subnets())
        laid = stack.enter_context(wires(3, *nets))
        for n in range(3):
            laid.esx.run("ip", "link", "add", f"br{n}", "type", "bridge")
            laid.esx.run("ip", "link", "set", f"vmnic{n}", "master", f"br{n}", "up")
            laid.esx.run("ip", "link", "set", f"br{n}", "up")
        laid.generator.run("ip", "addr", "add", "198.18.201.1/24", "dev", "lg1")
        for n in (1, 2):
            laid.generator.run("ip", "link", "set", f"lg{n}", "up")
        yield laid, nets[0], stack.enter_context(scratch("pvns-", Path("/var/tmp")))


def wanted(net: IPv4Network) -> Guest:
    return Guest(
        "vm1", vcpus=3, memory_mib=768, image="", accel="none",
        management=Vnic("br0", "netfront", "00:16:3e:00:00:01", f"{net[10]}/24"),
        nics=(Vnic("br1", "legacy", "00:16:3e:00:00:02", "198.18.201.2/24", mtu=1400),),
    )  # fmt: skip


def hardware(guest: Guest) -> Hardware:
    cards = tuple(
        Card(v.mac, v.switch, MODELS[v.model].drivers[0], "".join(MODELS[v.model].pci_ids))
        for v in (guest.management, *guest.nics)
    )
    return Hardware(guest.vcpus, guest.memory_mib, cards)


def test_a_guest_is_as_its_seed_and_its_hardware_say(
    bed: tuple[Wires, IPv4Network, Path],
) -> None:
    laid, net, folder = bed
    want = wanted(net)
    access = Access(folder / "keys")
    who = seed.identity(want, access.public_key(), access.host_key("vm1"))
    assert identity_of(seed.iso(who)) == who
    access.trust([want])
    host = access.host(want)
    guest = NsGuest("nst1", folder / "vm1", laid.esx)
    try:
        guest.start(hardware(want), identity_of(seed.iso(who)))
        seen = inspect(host)
        assert inside(want, seen, FACTS) == []
        wrong = replace(want, vcpus=2, nics=(replace(want.nics[0], model="netfront"),))
        told = inside(wrong, seen, FACTS)
        assert len(told) == 2, told
        laid.generator.run("ping", "-n", "-c", "1", "-W", "5", "198.18.201.2")
        assert "netserver" in host.run("sh", "-c", "command -v netserver")
        _wrong_bridge(laid, guest)
        _a_disk_that_goes_back(host, guest, want, who)
        boot = seen["boot_id"]
        assert inspect(host)["boot_id"] != boot
    finally:
        hang_up(host)
        guest.remove()
    assert "nst1" not in laid.esx.run("ip", "link")


def _wrong_bridge(laid: Wires, guest: NsGuest) -> None:
    guest.plug(1, "br2")
    with pytest.raises(WorldError):
        laid.generator.run("ping", "-n", "-c", "1", "-W", "1", "198.18.201.2")
    guest.plug(1, "br1")


def _a_disk_that_goes_back(host: Host, guest: NsGuest, want: Guest, who: seed.Identity) -> None:
    host.run("touch", "/root/before")
    guest.snapshot("clean")
    host.run("touch", "/root/after")
    assert not Path("/root/before").exists()
    guest.revert("clean")
    assert not guest.running
    guest.start(hardware(want), who)
    hang_up(host)
    assert host.run("ls", "/root").split() == ["before"]


def test_without_a_seed_nobody_reaches_it(bed: tuple[Wires, IPv4Network, Path]) -> None:
    laid, net, folder = bed
    guest = NsGuest("nst2", folder / "vm2", laid.esx)
    try:
        guest.start(hardware(wanted(net)), None)
        assert guest.running
        with pytest.raises(WorldError):
            laid.generator.run("ping", "-n", "-c", "1", "-W", "1", "198.18.201.2")
    finally:
        guest.close()
    assert not guest.running
    assert identity_of(bytes(65536)) is None
