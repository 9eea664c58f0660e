"""The VirtualBox driver where a host says no, is in the way, or lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.virtualbox.driver import Virtualbox
from drivers.virtualbox.manage import Manage
from provision.driver import Target
from provision.errors import DriverError, HostError, PreflightError, Unsupported, UserError
from provision.host import Host
from provision.image import Image
from provision.resources import Uplink, key
from tests.peers.vbox import commands
from tests.peers.vbox.service import Call, Trouble
from tests.peers.vbox.world import Nic, VboxError
from tests.root import machines
from tests.virtualbox.bed import BASE, TESTBED, Bed, bed, guest

pytestmark = machines.marks
GUEST = guest()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Bed]:
    with bed(tmp_path) as found:
        yield found
        assert not found.service.complaints


@pytest.fixture
def driver(host: Bed) -> Iterator[Virtualbox]:
    found = host.driver()
    yield found
    found.close()


@pytest.mark.parametrize(
    ("verb", "code", "words"),
    [
        ("clonevm", "VBOX_E_FILE_ERROR", "No space left"),
        ("modifyvm", "E_INVALIDARG", "no such thing"),
        ("bandwidthctl", "E_INVALIDARG", "no such limit"),
        ("storageattach", "VBOX_E_FILE_ERROR", "cannot open"),
        ("setextradata", "VBOX_E_FILE_ERROR", "Could not create the settings file"),
        ("startvm", "NS_ERROR_FAILURE", "VT-x is disabled in the BIOS"),
    ],
)
def test_what_fails_is_told_and_made_good_by_the_next(
    host: Bed, driver: Virtualbox, verb: str, code: str, words: str
) -> None:
    want = replace(GUEST, nics=(replace(GUEST.nics[0], rate_mbit=50),))

    def hook(call: Call) -> Trouble | None:
        fails = call.argv[0] == verb
        return Trouble(acts=False, error=VboxError(words, code)) if fails else None

    before = host.world.inventory()
    host.service.hook = hook
    with pytest.raises(DriverError, match=f"put guest vm1: .*{words}"):
        driver.put(want)
    host.service.calm()
    driver.put(want)
    assert driver.read(key(want)) == want
    driver.drop(key(want))
    assert host.world.inventory() == before


def test_a_lock_of_another_is_waited_for_and_not_for_ever(host: Bed, driver: Virtualbox) -> None:
    driver.put(GUEST)
    held = [3]

    def hook(call: Call) -> Trouble | None:
        if call.argv[0] != "modifyvm" or not held[0]:
            return None
        held[0] -= 1
        locked = f"The machine '{TESTBED}-vm1' is already locked for a session"
        return Trouble(acts=False, error=VboxError(locked, "VBOX_E_INVALID_OBJECT_STATE"))

    host.service.hook = hook
    driver.put(replace(GUEST, memory_mib=1024))
    assert not held[0]
    held[0] = 1000
    impatient = Manage(host.host, locked_s=0.3)
    with pytest.raises(HostError, match="already locked"):
        impatient.run("modifyvm", f"{TESTBED}-vm1", "--memory=512")


def test_a_vm_that_another_paused_is_resumed(host: Bed, driver: Virtualbox) -> None:
    driver.put(GUEST)
    commands.run(host.world, ["controlvm", f"{TESTBED}-vm1", "pause"])
    found = driver.read(key(GUEST))
    assert found == replace(GUEST, running=False)
    calls = len(host.service.calls)
    driver.put(GUEST)
    assert driver.read(key(GUEST)) == GUEST
    verbs = {c.argv[0] for c in host.service.calls[calls:]}
    assert not verbs & {"startvm", "modifyvm"}


def test_a_cap_is_changed_as_it_runs(host: Bed, driver: Virtualbox) -> None:
    driver.put(GUEST)
    driver.checkpoint(key(GUEST))
    calls = len(host.service.calls)
    driver.put(replace(GUEST, cap_percent=40))
    verbs = {c.argv[0] for c in host.service.calls[calls:]}
    assert "controlvm" in verbs and not verbs & {"startvm", "modifyvm"}
    assert driver.has_checkpoint(key(GUEST))


def test_a_base_that_was_running_is_cloned_cold(host: Bed) -> None:
    base = host.world.machine(BASE)
    base.snapshots[-1].online = True
    driver = host.driver()
    driver.put(GUEST)
    assert driver.read(key(GUEST)) == GUEST
    driver.drop(key(GUEST))


def test_a_base_without_a_drive_for_the_seed_is_told(host: Bed) -> None:
    base = host.world.machine(BASE)
    hardware = base.snapshots[-1].hardware
    hardware.controllers, hardware.media = {"SATA": 1}, {("SATA", 0, 0): "/some.vdi"}
    driver = host.driver()
    with pytest.raises(PreflightError, match="no free place for its seed"):
        driver.put(GUEST)
    driver.drop(key(GUEST))


def test_who_uses_an_uplink_is_named(host: Bed) -> None:
    other = host.world.base("theirs")
    other.hardware.nics[0] = Nic("bridged", bridge="eth1", mac="080027999999")
    facts = {u.name: u for u in host.driver().facts.uplinks}
    assert "VM theirs bridged to it" in facts["eth1"].used_by
    assert not facts["eth2"].used_by and "vboxnet0" not in facts
    assert set(host.driver().place.bases) == {BASE, "theirs"}


def test_what_lies_about_from_a_cut_short_clone_is_no_hindrance(
    host: Bed, driver: Virtualbox
) -> None:
    left = host.world.root / "provision" / TESTBED / f"{TESTBED}-vm1"
    left.mkdir(parents=True)
    (left / f"{TESTBED}-vm1.vbox").write_text("half")
    driver.put(GUEST)
    assert driver.read(key(GUEST)) == GUEST
    driver.drop(key(GUEST))
    assert not (host.world.root / "provision").exists()


def test_counters_and_states_are_the_hosts(host: Bed, driver: Virtualbox) -> None:
    assert {"eth1", "eth2"} <= set(driver.usage().nics)
    up = Uplink("eth1", mtu=1400, up=True)
    driver.put(up)
    assert driver.read(key(up)) == up
    assert all(c.detail for c in driver.examine())
    with pytest.raises(DriverError, match="no tuning of ours"):
        driver.read(("tuning", "dom0.cpus"))


def test_hosts_that_are_not_fit(host: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match="restores none"):
        host.driver(start="restore")
    with pytest.raises(UserError, match="reached by SSH"):
        Virtualbox(Target(TESTBED, host.folder, "qemu:///system"))
    with pytest.raises(PreflightError, match="no folder"):
        host.driver(storage="C:\\VMs")
    bare = Host("bare", ("env", "PATH=/usr/bin:/usr/sbin"))
    with pytest.raises(PreflightError, match="no VBoxManage"):
        Virtualbox(Target(TESTBED, host.folder), bare)
    monkeypatch.setattr(commands, "VERSION", "5.2.44r139111")
    with pytest.raises(PreflightError, match="too old"):
        host.driver()


def test_a_disk_file_is_refused_by_the_plan(host: Bed) -> None:
    disk = Path("/d.qcow2")
    image = Image("d" * 64, disk.parent, disk, None, None, "", {"format": "qcow2"})
    told = " ".join(host.driver(image=image).facts.unfit(GUEST))
    assert "clones a VM, not a disk file" in told


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["modifyvm", BASE, "--cpuexecutioncap=0"], "must be in range"),
        (["modifyvm", BASE, "--nictype1=vmxnet3"], "Invalid NIC type"),
        (["modifyvm", BASE, "--nicpromiscuous1=deny"], "Unknown option"),
        (["modifyvm", BASE, "--nicbandwidthgroup1=none", "--nic9=nat"], "Invalid NIC number"),
        (["modifyvm", BASE, "--macaddress1=090027000001"], "Invalid MAC"),
        (["clonevm", BASE, "--options=link"], "only be created from a snapshot"),
        (["startvm", "nobody", "--type=headless"], "Could not find a registered machine"),
        (["controlvm", BASE, "poweroff"], "not currently running"),
        (["snapshot", BASE, "restore", "none"], "Could not find a snapshot"),
        (["bandwidthctl", BASE, "add", "x", "--type=network", "--limit=10q"], "unit suffix"),
    ],
)
def test_the_peer_holds_to_the_grammar(host: Bed, argv: list[str], said: str) -> None:
    with pytest.raises(VboxError, match=said):
        commands.run(host.world, argv)
