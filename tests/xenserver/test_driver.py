"""The driver on the peer: what is refused and why, what is another's, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from provision.driver import Dom0, Tls
from provision.errors import (
    DriverError,
    Foreign,
    PreflightError,
    Unreachable,
    Unsupported,
    UserError,
)
from provision.resources import BOOT, Guest, key
from tests.peers.xapi import Peer
from tests.xenserver import day
from tests.xenserver.day import EMULATED, GUEST, NIC, SWITCH, TUNED, Bed

E1000 = replace(
    GUEST, management=replace(GUEST.management, model="e1000"), nics=(replace(NIC, model="e1000"),)
)
SLAVE = ("127.0.0.1", "127.0.0.2")


@pytest.fixture
def bed() -> Iterator[Bed]:
    with day.bed() as found:
        yield found


def nothing_changed(bed: Bed) -> None:
    assert not bed.left()


# ---- uplinks


def _vm(peer: Peer) -> None:
    peer.foreign_vm("theirs", peer.networks[1], running=True)
    store = peer.world.store
    with store.lock:  # until its agent has reported
        assert store.changed.wait_for(lambda: peer.find("VM_guest_metrics"), 20)


def _other_testbed(peer: Peer) -> None:
    note = (
        '{"testbed": "rival", "switch": "x", "name_label": "n", "name_description": "", '
        '"mtu": 1500, "attached": true}'
    )
    peer.put("network", peer.networks[1], other_config={"provision.was": note})


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda peer: peer.bond("eth1", "eth2"), "is a member of a bond"),
        (lambda peer: peer.vlan("eth1", 7), "carries 1 VLAN"),
        (
            lambda peer: peer.put("PIF", peer.pif("eth1"), management=True),
            "is the host's management interface",
        ),
        (
            lambda peer: peer.put(
                "PIF", peer.pif("eth1"), ip_configuration_mode="Static", IP="10.9.8.7"
            ),
            "has an address of the host .10.9.8.7.",
        ),
        (_vm, "carries VM theirs"),
        (_other_testbed, "belongs to testbed rival"),
    ],
    ids=["bond", "vlan", "management", "address", "vm", "testbed"],
)
def test_an_uplink_in_use_is_refused_with_its_user(
    bed: Bed, what: Callable[[Peer], Any], says: str
) -> None:
    what(bed.peer)
    bed.before = bed.peer.inventory()
    driver = bed.driver()
    used = {u.name: u.used_by for u in driver.facts.uplinks}
    with pytest.raises(DriverError, match=f"eth1 of xs1 is in use: it {says}"):
        driver.put(SWITCH)
    assert used["eth1"]
    assert not used["eth3"]
    nothing_changed(bed)


def test_an_uplink_without_a_carrier_is_waited_for_and_told(bed: Bed) -> None:
    bed.peer.carrier("eth1", up=False)
    driver = bed.driver(replace(day.QUICK, carrier_s=0.2))
    assert {u.name: u.up for u in driver.facts.uplinks}["eth1"] is False
    with pytest.raises(DriverError, match=r"eth1 of xs1 has no carrier after 0\.2 s") as e:
        driver.put(SWITCH)
    assert "cable" in e.value.hint
    bed.peer.carrier("eth1", up=True)
    driver.put(SWITCH)
    assert bed.sees(SWITCH) == SWITCH


def test_an_uplink_that_is_none(bed: Bed) -> None:
    with pytest.raises(DriverError, match="has no NIC eth9; it has: eth0, eth1"):
        bed.driver().put(replace(SWITCH, uplink="eth9"))
    nothing_changed(bed)


def test_the_network_and_its_pif_are_put_back_as_they_were(bed: Bed) -> None:
    """Whatever somebody had made of them: a tag, a name, an MTU, a PIF that was not plugged."""
    peer, network = bed.peer, bed.peer.networks[1]
    peer.put(
        "network", network, name_label="bench wire", name_description="ours", MTU="9000",
        tags=["keep"], other_config={"keep": "me"},
    )  # fmt: skip
    peer.put("PIF", peer.pif("eth1"), currently_attached=False, MTU="9000")
    bed.before = peer.inventory()
    driver = bed.driver()
    driver.put(SWITCH)
    has = peer.get("network", network)
    assert (has["name_label"], has["MTU"]) == (SWITCH.name, "1500")
    assert {"keep", "provision:bed"} == {*has["tags"]}
    assert peer.get("PIF", peer.pif("eth1"))["currently_attached"]
    driver.put(replace(SWITCH, uplink="eth2"))
    assert peer.get("network", network)["name_label"] == "bench wire"
    driver.put(SWITCH)
    bed.driver().drop(key(SWITCH))  # another process: the note is in the pool itself
    nothing_changed(bed)


def test_a_switch_with_anothers_vm_on_it_stays(bed: Bed) -> None:
    driver = bed.driver()
    driver.put(SWITCH)
    theirs = bed.peer.foreign_vm("theirs", bed.peer.networks[1], running=True)
    with pytest.raises(Foreign, match="VM theirs is on it"):
        driver.drop(key(SWITCH))
    assert bed.sees(SWITCH) == SWITCH
    bed.peer.stop(theirs)
    driver.drop(key(SWITCH))
    bed.before = bed.peer.inventory()


# ---- guests


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"weight": 0}, "guests.cpu.weight: 0; Xen takes 1 to 65535"),
        ({"weight": 70000}, "guests.cpu.weight: 70000"),
        ({"cap_percent": 201, "vcpus": 2}, "2 vCPUs are 200 % at most"),
        ({"pins": ("8",)}, "xs1 has CPUs 0-7, not 8"),
        ({"pins": ("0", "1")}, "2 lists for 1 vCPUs"),
        ({"vcpus": 9}, "xs1 has 8 CPUs, not 9"),
        ({"emulator_pin": "0"}, "emulator_pin"),
        ({"reserve_percent": 10}, "reserve_percent"),
        ({"nics": tuple(NIC for _ in range(7))}, "7 NICs at most, not 8"),
        ({"nics": (replace(NIC, mtu=9001),)}, "9001; it is 1280 to 9000"),
        ({"nics": (replace(NIC, model="rtl8139"),)}, "of one model on XenServer"),
    ],
)
def test_what_xapi_would_swallow_is_refused(bed: Bed, more: dict[str, Any], says: str) -> None:
    driver, want = bed.driver(), replace(GUEST, **more)
    with pytest.raises(Unsupported, match=says):
        driver.put(want)
    assert any(says in reason for reason in driver.facts.unfit(want))
    nothing_changed(bed)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("Other install media", "has no disk: it"),
        ("Debian Bookworm 12", "has no disk: it installs a system"),
        ("debian11", "did you mean 'debian12'"),
    ],
)
def test_a_template_that_guests_cannot_be_of(bed: Bed, image: str, says: str) -> None:
    driver, want = bed.driver(), replace(GUEST, image=image)
    with pytest.raises(UserError, match=says):
        driver.put(want)
    assert any(says in reason for reason in driver.facts.unfit(want))
    nothing_changed(bed)


def test_a_vm_is_no_template(bed: Bed) -> None:
    vm = bed.peer.foreign_vm("box")
    with pytest.raises(UserError, match="'box' is a VM, no template; copy it"):
        bed.driver().put(replace(GUEST, image="box"))
    bed.peer.connect().xenapi.VM.destroy(vm)
    bed.peer.expire()
    bed.before = bed.peer.inventory()


def test_storage_that_is_full_is_told_before_and_then(bed: Bed) -> None:
    driver = bed.driver()
    driver.put(SWITCH)
    bed.peer.fill(1 << 20)
    with pytest.raises(PreflightError, match="no room for the disks of 1 guests") as told:
        driver.check_room([GUEST])
    assert "hypervisor.storage" in told.value.hint
    with pytest.raises(DriverError, match=r"put guest vm1: (SR_FULL|SR_BACKEND_FAILURE_44)"):
        driver.put(GUEST)
    driver.drop(key(GUEST))
    driver.drop(key(SWITCH))
    assert not bed.peer.find("VM", name_label="bed-vm1")
    size = bed.before["SR"][bed.peer.sr]["physical_size"]
    bed.peer.put("SR", bed.peer.sr, physical_size=size)
    nothing_changed(bed)


@pytest.mark.parametrize(("licence", "may"), [("premium", True), ("free", False)])
def test_an_emulated_nic_by_the_licence(licence: str, may: bool) -> None:
    with day.bed(licence=licence) as bed:
        driver = bed.driver()
        driver.put(SWITCH)
        driver.put(EMULATED)  # what a VM has anyway
        assert bed.sees(GUEST) == EMULATED
        if may:
            driver.put(E1000)
            assert bed.sees(GUEST) == E1000
            (platform,) = (
                bed.peer.get("VM", ref)["platform"]
                for ref in bed.peer.find("VM", name_label="bed-vm1")
            )
            assert platform["nic_type"] == "e1000"
        else:
            with pytest.raises(Unsupported, match=r"licence of xs1 drops platform:nic_type"):
                driver.put(E1000)
            assert bed.sees(GUEST) == EMULATED


def test_an_emulated_nic_takes_an_hvm_template_that_boots_by_bios(bed: Bed) -> None:
    driver = bed.driver()
    pv = replace(EMULATED, image="debian12-pv")
    with pytest.raises(Unsupported, match="is a PV template, and has no emulated NICs"):
        driver.put(pv)
    bed.peer.put("VM", bed.peer.vm("debian12"), HVM_boot_params={"firmware": "uefi"})
    with pytest.raises(Unsupported, match="boots by UEFI"):
        bed.driver().put(EMULATED)
    bed.before = bed.peer.inventory()


def test_disks_go_with_the_vm_and_anothers_disk_stays(bed: Bed) -> None:
    driver = bed.driver()
    for want in (SWITCH, TUNED):
        driver.put(want)
    for _ in range(2):
        driver.checkpoint(key(GUEST))
    client = bed.peer.connect()
    theirs = client.xenapi.VDI.create({
        "SR": bed.peer.sr, "virtual_size": str(8 << 20), "type": "user", "sharable": False,
        "read_only": False, "other_config": {},
    })  # fmt: skip
    client.xenapi.VBD.create({
        "VM": bed.peer.vm("bed-vm1"), "VDI": theirs, "userdevice": "5", "bootable": False,
        "mode": "RW", "type": "Disk", "empty": False, "other_config": {},
        "qos_algorithm_type": "", "qos_algorithm_params": {},
    })  # fmt: skip
    driver.drop(key(GUEST))
    driver.drop(key(SWITCH))
    assert {*bed.peer.find("VDI")} == {*bed.before["VDI"], theirs}
    client.xenapi.VDI.destroy(theirs)
    client.xenapi.session.logout()
    nothing_changed(bed)


def test_after_a_revert_records_are_read_again(bed: Bed) -> None:
    """A revert makes VIFs, VBDs and disks anew: what was known of them leads nowhere."""
    driver = bed.driver()
    for want in (SWITCH, TUNED):
        driver.put(want)
    driver.checkpoint(key(GUEST))
    vm = bed.peer.vm("bed-vm1")
    before = {*bed.peer.get("VM", vm)["VIFs"], *bed.peer.get("VM", vm)["VBDs"]}
    driver.revert(key(GUEST))
    has = bed.peer.get("VM", vm)
    assert not before & {*has["VIFs"], *has["VBDs"]}
    assert driver.read(key(GUEST)) == TUNED
    assert driver.look([key(GUEST)]) == {key(GUEST): TUNED}
    assert driver.evidence(key(GUEST))["started"] == "reverted, with its memory"
    driver.put(GUEST)
    assert bed.sees(GUEST) == GUEST


@pytest.mark.parametrize("code", ["VM_MISSING_PV_DRIVERS", "LICENCE_RESTRICTION"])
def test_a_guest_whose_memory_cannot_be_kept_boots_when_it_is_brought_back(
    bed: Bed, code: str
) -> None:
    driver = bed.driver()
    for want in (SWITCH, GUEST):
        driver.put(want)
    bed.peer.wire.arm("VM.checkpoint", code, "as the test says", when="task")
    driver.checkpoint(key(GUEST))
    bed.peer.wire.calm()
    driver.revert(key(GUEST))
    assert bed.sees(GUEST) == GUEST
    assert driver.evidence(key(GUEST))["started"] == "reverted, and booted"


def test_a_guest_that_was_half_made_is_gone_on_with(bed: Bed) -> None:
    driver = bed.driver()
    driver.put(SWITCH)
    trouble = bed.peer.wire.arm("VM.set_name_label", "INTERNAL_ERROR", "by the test")
    with pytest.raises(DriverError, match="by the test"):
        driver.put(GUEST)
    assert trouble.struck
    other = bed.driver()
    assert key(GUEST) in set(other.owned())
    bed.peer.wire.calm()
    other.put(GUEST)
    assert bed.peer.wire.done("VM.clone") == []
    assert bed.sees(GUEST) == GUEST


# ---- hosts


def test_a_slaves_address_leads_to_the_master() -> None:
    with day.bed(addresses=SLAVE) as bed:
        for tls in (Tls(ca=bed.peer.ca), Tls(fingerprint=bed.peer.fingerprint)):
            driver = bed.driver(uri=bed.peer.uris[1], tls=tls)
            assert driver.session.to.host == SLAVE[0]
            driver.put(SWITCH)
            assert driver.read(key(SWITCH)) == SWITCH


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("", "which host. there are: xs1, xs2"),
        ("xs9", "there is no host 'xs9' .did you mean"),
    ],
)
def test_which_host_of_a_pool_is_asked(host: str, says: str) -> None:
    with day.bed(addresses=SLAVE) as bed, pytest.raises(UserError, match=says):
        bed.driver(host=host)


def test_a_host_that_is_not_fit_is_told() -> None:
    with day.bed(addresses=SLAVE) as bed:
        peer, slave = bed.peer, bed.peer.hosts[1]
        metrics = peer.get("host", slave)["metrics"]
        peer.put("host_metrics", metrics, live=False)
        with pytest.raises(PreflightError, match="host xs2 is halted") as e:
            bed.driver(host="xs2")
        assert "host-power-on" in e.value.hint
        peer.put("host_metrics", metrics, live=True)
        peer.put("host", slave, enabled=False)
        with pytest.raises(PreflightError, match="maintenance mode"):
            bed.driver(host=peer.get("host", slave)["uuid"])
        peer.put("host", slave, enabled=True)
        assert bed.driver(host=SLAVE[1]).facts.host == "xs2"


def test_a_host_that_still_boots_is_told(bed: Bed) -> None:
    bed.peer.world.booting.add(bed.peer.hosts[0])
    with pytest.raises(Unreachable, match="is still booting"):
        bed.driver()
    bed.peer.world.booting.clear()


def test_without_ssh_dom0s_words_are_refused_and_all_else_works(bed: Bed) -> None:
    driver = bed.driver()
    facts = driver.facts
    for word in ("vcpus", "pin", "weight", "cap_percent", "memory_mib", "irq_affinity"):
        assert "over SSH, and there is none" in facts.cannot[f"dom0.{word}"]
    with pytest.raises(PreflightError, match=r"dom0\.weight: it takes a root shell") as e:
        [*facts.tunings(Dom0(weight=512), ())]
    assert "hypervisor.ssh" in e.value.hint
    with pytest.raises(Unreachable, match="root shell in dom0"):
        driver.read(BOOT)
    assert driver.usage().host_busy_s == ()
    checks = {check.what: check for check in driver.examine()}
    assert not checks["SSH to dom0"].ok
    assert not checks["SSH to dom0"].needed
    assert all(check.ok for check in checks.values() if check.needed)
    for want in (SWITCH, GUEST):
        driver.put(want)
    assert "no SSH to dom0" in driver.evidence(key(GUEST))["scheduled"]


def test_a_role_that_is_too_small_is_named_with_the_work_that_needs_it(bed: Bed) -> None:
    driver = bed.driver()
    bed.peer.wire.arm("VM.clone", "RBAC_PERMISSION_DENIED", "vm.clone", "no", when="instead")
    driver.put(SWITCH)
    with pytest.raises(DriverError, match=r"RBAC_PERMISSION_DENIED: vm\.clone") as e:
        driver.put(GUEST)
    assert "pool-operator" in e.value.hint


def test_names_of_other_testbeds_that_begin_alike_are_theirs(bed: Bed) -> None:
    """``bed`` and ``bed-vm1``'s guests: bed-vm1-vm1 is not of ``bed``."""
    theirs = bed.driver(testbed="bed-vm1", tag="efgh")
    other = replace(SWITCH, name="pvefghb1", uplink="eth2")
    guest: Guest = replace(
        GUEST, nics=(replace(NIC, switch=other.name, mac="00:16:3e:00:01:02"),),
        management=replace(GUEST.management, mac="00:16:3e:00:01:01"),
    )  # fmt: skip
    for want in (other, guest):
        theirs.put(want)
    driver = bed.driver()
    assert not [*driver.owned()]
    driver.drop(key(GUEST))
    assert theirs.read(key(guest)) == guest
    theirs.drop(key(guest))
    theirs.drop(key(other))
    nothing_changed(bed)
