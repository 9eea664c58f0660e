"""The vSphere driver against a simulated vCenter and a simulated ESXi host."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drivers.vsphere.driver import Vsphere
from drivers.vsphere.read import each, get
from drivers.vsphere.spec import MARK, MODELS, SRIOV
from drivers.vsphere.wire import Limits
from provision.errors import DriverError, Foreign, Unsupported, UserError
from provision.image import from_file
from provision.resources import Guest, Resource, Switch, key
from tests.peers import oracle
from tests.peers.vcsim import vim
from tests.vsphere import world
from tests.vsphere.bed import SWITCH, TAG, TESTBED, Bed, guest, opened


@pytest.fixture(params=["VPX", "ESX"])
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bed]:
    with opened(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def driver(bed: Bed) -> Iterator[Vsphere]:
    """Whatever a test did: the inventory is as before once all that is owned is dropped."""
    made = bed.driver()
    yield made
    for kind, name in sorted(made.owned()):
        made.drop((kind, name))
    assert world.inventory(bed.si) == bed.before
    made.close()


def both(driver: Vsphere, want: Guest) -> Guest:
    driver.put(SWITCH)
    driver.put(want)
    found = driver.read(key(want))
    assert isinstance(found, Guest)
    return found


@pytest.mark.parametrize("model", [m for m in MODELS if m != SRIOV])
def test_every_vnic_type_is_what_the_vm_has(driver: Vsphere, bed: Bed, model: str) -> None:
    want = guest(bed.image)
    want = replace(want, nics=(replace(want.nics[0], model=model),))
    assert both(driver, want) == want
    kinds = {n.macAddress: type(n).__name__ for n in oracle.nics_of(bed.vm())}
    assert kinds[want.nics[0].mac].lower().endswith(f"virtual{model}")
    assert len(kinds) == 2
    assert kinds[want.management.mac].endswith("VirtualVmxnet3")


def test_a_switch_is_a_vswitch_of_one_uplink_and_one_port_group(driver: Vsphere, bed: Bed) -> None:
    driver.put(replace(SWITCH, mtu=9000))
    made = world.switches(bed.si)[SWITCH.name]
    assert [*made.spec.bridge.nicDevice] == ["vmnic1"]
    assert made.mtu == 9000
    security = made.spec.policy.security
    assert not (security.allowPromiscuous or security.macChanges or security.forgedTransmits)
    assert not made.spec.policy.shapingPolicy.enabled
    assert [*made.spec.policy.nicTeaming.nicOrder.activeNic] == ["vmnic1"]
    assert [*made.portgroup] == [f"key-vim.host.PortGroup-{SWITCH.name}"]


def test_a_new_mtu_is_live_and_a_new_uplink_another_switch(driver: Vsphere, bed: Bed) -> None:
    driver.put(SWITCH)
    driver.put(replace(SWITCH, mtu=9000))
    assert "RemoveVirtualSwitch" not in bed.wires.changes
    driver.put(replace(SWITCH, uplink="vmnic2", mtu=9000))
    assert driver.read(key(SWITCH)) == replace(SWITCH, uplink="vmnic2", mtu=9000)


def test_a_half_made_switch_is_told_and_completed(driver: Vsphere, bed: Bed) -> None:
    net = world.network(bed.si)
    net.AddVirtualSwitch(SWITCH.name, oracle.bond("vmnic1", mtu=1500))
    found = driver.read(key(SWITCH))
    assert isinstance(found, Switch) and found != SWITCH and "port group" in found.flavour
    driver.put(SWITCH)
    assert driver.read(key(SWITCH)) == SWITCH
    assert not world.switches(bed.si)[SWITCH.name].spec.policy.security.forgedTransmits


def test_an_uplink_that_another_has_is_refused(driver: Vsphere, bed: Bed) -> None:
    with pytest.raises(DriverError, match="ResourceInUse"):
        driver.put(replace(SWITCH, uplink="vmnic0"))
    with pytest.raises(DriverError, match="no NIC vmnic9"):
        driver.put(replace(SWITCH, uplink="vmnic9"))
    used = {u.name: u.used_by for u in driver.facts.uplinks}
    assert used[
        "vmnic0"
    ] == "vSwitch0: VM Network (1 VM), Management Network (vmk0, management)" or (
        used["vmnic0"].startswith("vSwitch0: VM Network")
    )
    assert used["vmnic1"] == ""


@pytest.mark.parametrize("spoil", ["uplinks", "group", "vm"])
def test_what_cannot_be_ours_stays(driver: Vsphere, bed: Bed, spoil: str) -> None:
    net = world.network(bed.si)
    devices = ("vmnic1", "vmnic2") if spoil == "uplinks" else ("vmnic1",)
    net.AddVirtualSwitch(SWITCH.name, oracle.bond(*devices, mtu=1500))
    if spoil == "group":
        net.AddPortGroup(oracle.group("somebody's", SWITCH.name))
    if spoil == "vm":
        net.AddPortGroup(oracle.group(SWITCH.name, SWITCH.name))
        vm = oracle.create(bed.si, "somebody's", [("e1000", SWITCH.name, "")])
    else:
        assert driver.read(key(SWITCH)) is None
        with pytest.raises(Foreign):
            driver.put(SWITCH)
    with pytest.raises(Foreign):
        driver.drop(key(SWITCH))
    assert SWITCH.name in world.switches(bed.si)
    if spoil == "vm":
        oracle.done(vm.Destroy_Task())
    for group in ("somebody's", SWITCH.name):
        if group in {g.spec.name for g in net.networkInfo.portgroup}:
            net.RemovePortGroup(group)
    net.RemoveVirtualSwitch(SWITCH.name)


def test_a_vm_without_our_mark_is_never_touched(driver: Vsphere, bed: Bed) -> None:
    vm = oracle.create(bed.si, f"{TESTBED}-vm1", extra={MARK: "somebody"})
    before = str(vm.config.modified)
    driver.put(SWITCH)
    with pytest.raises(Foreign):
        driver.put(guest(bed.image))
    for act in (driver.drop, driver.checkpoint, driver.revert):
        with pytest.raises(Foreign):
            act(("guest", "vm1"))
    assert driver.read(("guest", "vm1")) is None
    assert driver.look([("guest", "vm1")]) == {("guest", "vm1"): None}
    assert str(vm.config.modified) == before
    oracle.done(vm.Destroy_Task())


def test_one_that_somebody_makes_meanwhile_is_not_taken(driver: Vsphere, bed: Bed) -> None:
    driver.put(SWITCH)
    assert driver.look([("guest", "vm1")]) == {("guest", "vm1"): None}
    vm = oracle.create(bed.si, f"{TESTBED}-vm1")
    with pytest.raises(Foreign):
        driver.put(guest(bed.image))
    assert [*oracle.nics_of(vm)] == []
    oracle.done(vm.Destroy_Task())


def test_look_is_read_of_many(driver: Vsphere, bed: Bed) -> None:
    wants: list[Resource] = [SWITCH, guest(bed.image), guest(bed.image, "vm2", 2)]
    keys = [*map(key, wants), ("guest", "vm3"), ("switch", f"pv{TAG}b7")]
    assert [*driver.look(keys).values()] == [None] * 5
    for want in wants:
        driver.put(want)
    for one in (driver, bed.driver()):  # one that knows them, and one that has never seen them
        assert [*one.look(keys).values()] == [*wants, None, None]
        assert {k: one.read(k) for k in keys} == dict(zip(keys, [*wants, None, None], strict=True))


def test_a_clone_is_linked_and_says_so(driver: Vsphere, bed: Bed) -> None:
    both(driver, guest(bed.image))
    disks = [d for d in bed.vm().config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)]
    (disk,) = disks
    assert disk.backing.parent is not None
    assert "linked to the snapshot of" in driver.evidence(("guest", "vm1"))["cloned"]


def test_a_template_without_a_snapshot_is_copied_and_says_so(driver: Vsphere, bed: Bed) -> None:
    plain = oracle.create(bed.si, "plain", with_disk=True)
    both(driver, guest("plain"))
    (disk,) = (
        d for d in bed.vm().config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)
    )
    assert disk.backing.parent is None
    assert "full, for want of a snapshot" in driver.evidence(("guest", "vm1"))["cloned"]
    driver.drop(("guest", "vm1"))
    oracle.done(plain.Destroy_Task())


def test_a_wrong_template_is_told_at_plan_time(driver: Vsphere, bed: Bed) -> None:
    said = [*driver.facts.unfit(guest(bed.image.lower()))]
    assert any("did you mean" in s or "no template or VM" in s for s in said)
    assert not [*driver.facts.unfit(guest(bed.image))]
    with pytest.raises(UserError, match="no template or VM"):
        driver.put(SWITCH)
        driver.put(guest("nothing"))


def test_an_image_is_uploaded_once_and_its_disk_never_goes(bed: Bed, driver: Vsphere) -> None:
    disk = bed.folder / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "16M"], check=True)
    image = from_file(disk)
    said: list[str] = []
    ours = bed.driver(Limits(tools_s=0), image=image, say=lambda _key, phase: said.append(phase))
    stale = bed.datastore / "provision" / f"{TESTBED}.part"
    stale.mkdir(parents=True)
    (stale / "sent.vmdk").write_text("half")
    ours.put(SWITCH)
    wants = [guest(image.digest), guest(image.digest, "vm2", 2)]
    for want in wants:
        ours.put(want)
        assert ours.read(key(want)) == want
    assert sum("uploading" in s for s in said) >= 1
    assert len(bed.wires.sent("CopyVirtualDisk_Task")) == 1
    base = bed.datastore / "provision" / image.digest[:16]
    assert {p.name for p in base.iterdir()} == {"disk.vmdk", "disk-flat.vmdk"}
    for want in wants:
        ours.drop(key(want))
    # what the guests stood on stays for the next; nothing else does
    assert {p.name for p in (bed.datastore / "provision").iterdir()} == {image.digest[:16]}
    assert {p.name for p in base.iterdir()} == {"disk.vmdk", "disk-flat.vmdk"}
    assert "Destroy_Task" not in bed.wires.changes
    ours.close()


def test_a_kernel_from_outside_is_refused_at_plan_time(bed: Bed, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
    image = replace(from_file(disk), kernel=tmp_path / "vmlinuz")
    ours = bed.driver(image=image)
    assert any("boots with a kernel from outside" in s for s in ours.facts.unfit(guest("")))
    ours.close()


def test_keys_do_not_linger_after_the_checkpoint(driver: Vsphere, bed: Bed) -> None:
    both(driver, guest(bed.image))
    extra = oracle.extra_of(bed.vm())
    assert "guestinfo.userdata" in extra and "guestinfo.metadata" in extra
    assert "still" in driver.evidence(("guest", "vm1"))["identity"]
    driver.checkpoint(("guest", "vm1"))
    assert "guestinfo.userdata" not in oracle.extra_of(bed.vm())
    assert "no longer" in driver.evidence(("guest", "vm1"))["identity"]
    driver.revert(("guest", "vm1"))
    assert "guestinfo.userdata" not in oracle.extra_of(bed.vm())
    assert driver.read(("guest", "vm1")) == guest(bed.image)


def test_a_checkpoint_replaces_the_former(driver: Vsphere, bed: Bed) -> None:
    both(driver, guest(bed.image))
    for _ in range(2):
        driver.checkpoint(("guest", "vm1"))
        assert [s.name for s in bed.vm().snapshot.rootSnapshotList] == ["provision-clean"]
    assert all(c.named["memory"] for c in bed.wires.sent("CreateSnapshot_Task"))


def test_a_new_shape_forgets_the_checkpoint(driver: Vsphere, bed: Bed) -> None:
    both(driver, guest(bed.image))
    driver.checkpoint(("guest", "vm1"))
    driver.put(guest(bed.image, vcpus=2))
    with pytest.raises(DriverError, match="checkpoint"):
        driver.revert(("guest", "vm1"))


def test_limits_change_while_the_guest_runs(driver: Vsphere, bed: Bed) -> None:
    both(driver, guest(bed.image))
    bed.wires.calm()
    driver.put(guest(bed.image, weight=512, cap_percent=50, pins=("0-1",), memory_reserve_mib=64))
    assert bed.wires.changes == ["ReconfigVM_Task"]
    config = bed.vm().config
    assert config.cpuAllocation.shares.shares == 2000
    assert config.cpuAllocation.limit == round(driver.place.mhz / 2)
    assert [*config.cpuAffinity.affinitySet] == [0, 1]
    assert config.memoryAllocation.reservation == 64
    driver.put(guest(bed.image))
    assert driver.read(("guest", "vm1")) == guest(bed.image)


def test_a_rate_is_the_port_groups(driver: Vsphere, bed: Bed) -> None:
    want = guest(bed.image)
    want = replace(want, nics=(replace(want.nics[0], rate_mbit=400),))
    assert both(driver, want) == want
    groups = {g.spec.name: g.spec for g in world.network(bed.si).networkInfo.portgroup}
    shaping = groups[SWITCH.name].policy.shapingPolicy
    assert (shaping.enabled, shaping.averageBandwidth, shaping.peakBandwidth) == (
        True, 400_000_000, 400_000_000,
    )  # fmt: skip
    bed.wires.calm()
    driver.put(guest(bed.image))
    assert bed.wires.changes == ["UpdatePortGroup"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"pins": ("0", "1"), "vcpus": 2}, "guests.cpu.pin"),
        ({"latency": "high"}, "guests.latency"),
        ({"memory_mib": 513}, "multiples of 4 MiB"),
        ({"weight": 300_000}, "guests.cpu.weight"),
        ({"reserve_percent": 150}, "guests.cpu.reserve_percent"),
        ({"memory_reserve_mib": 1024}, "guests.memory_reserve"),
        ({"cap_percent": 10, "reserve_percent": 20}, "guests.cpu.cap_percent"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(
    driver: Vsphere, bed: Bed, more: dict[str, Any], said: str
) -> None:
    driver.put(SWITCH)
    want = guest(bed.image, **more)
    assert any(said in words for words in driver.facts.unfit(want))
    bed.wires.calm()
    with pytest.raises(Unsupported, match=said):
        driver.put(want)
    assert bed.wires.changes == []


def test_sriov_needs_functions_and_memory(driver: Vsphere, bed: Bed) -> None:
    want = guest(bed.image)
    want = replace(want, nics=(replace(want.nics[0], model=SRIOV),))
    said = " ".join(driver.facts.unfit(want))
    assert "no NIC of" in said and "guests.memory_reserve: 512MiB" in said


def test_tools_that_report_end_the_wait(bed: Bed) -> None:
    template = world.named(bed.si, bed.image)
    status = {"SET.guest.toolsVersionStatus2": "guestToolsUnmanaged"}
    oracle.done(template.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=oracle.options(status))))
    waiting = threading.Event()
    ours = bed.driver(
        Limits(tools_s=60), say=lambda _key, phase: waiting.set() if "Tools" in phase else None
    )
    ours.put(SWITCH)
    put = threading.Thread(target=ours.put, args=(guest(bed.image),))
    put.start()
    assert waiting.wait(20)
    running = {"SET.guest.toolsRunningStatus": "guestToolsRunning"}
    oracle.done(bed.vm().ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=oracle.options(running))))
    put.join(20)
    assert not put.is_alive()
    assert ours.evidence(("guest", "vm1"))["started"] == "booted"
    ours.drop(("guest", "vm1"))
    ours.drop(key(SWITCH))
    ours.close()


def test_tools_that_are_silent_are_told(bed: Bed) -> None:
    template = world.named(bed.si, bed.image)
    status = {"SET.guest.toolsVersionStatus2": "guestToolsUnmanaged"}
    oracle.done(template.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=oracle.options(status))))
    ours = bed.driver(Limits(tools_s=1))
    ours.put(SWITCH)
    ours.put(guest(bed.image))
    assert "silent" in ours.evidence(("guest", "vm1"))["started"]
    ours.drop(("guest", "vm1"))
    ours.drop(key(SWITCH))
    ours.close()


def test_guests_of_several_threads_are_all_as_asked(driver: Vsphere, bed: Bed) -> None:
    wants = [guest(bed.image, f"vm{n}", n) for n in range(1, 13)]
    driver.put(SWITCH)
    errors: list[BaseException] = []

    def run(act: Callable[[Guest], None]) -> None:
        def one(want: Guest) -> None:
            try:
                act(want)
            except BaseException as e:  # noqa: BLE001 (a thread's error is the test's)
                errors.append(e)

        threads = [threading.Thread(target=one, args=(w,)) for w in wants]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors

    run(driver.put)
    assert [driver.read(key(w)) for w in wants] == wants
    run(lambda w: driver.checkpoint(key(w)))
    run(lambda w: driver.revert(key(w)))
    assert [driver.read(key(w)) for w in wants] == wants
    run(lambda w: driver.drop(key(w)))
    assert [driver.read(key(w)) for w in wants] == [None] * 12


def test_what_goes_while_it_is_looked_at_is_left_out(driver: Vsphere, bed: Bed) -> None:
    """Others of the testbed's networks come and go while one is looked up, and dropped."""
    driver.put(SWITCH)
    net = world.network(bed.si)
    net.AddVirtualSwitch("other", oracle.bond())
    net.AddPortGroup(oracle.group("other", "other"))
    host = oracle.host(bed.si)
    seen = get(driver.session, driver.place.host, "network")["network"]
    net.RemovePortGroup("other")
    net.RemoveVirtualSwitch("other")
    assert len([*host.network]) == len(seen) - 1
    named = {n.has["name"] for n in each(driver.session, seen, "name")}
    assert SWITCH.name in named and "other" not in named
