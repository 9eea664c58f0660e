"""What VBoxManage prints, read strictly; lines are as VBoxManageInfo.cpp writes them."""

from __future__ import annotations

import pytest

from drivers.virtualbox import parse, words
from drivers.virtualbox.fit import Fit, refuse
from provision.errors import DriverError, Unsupported
from provision.resources import Guest, Vnic, dump

GUEST = Guest(
    "vm1", vcpus=2, memory_mib=512, image="base", accel="virtualbox", cap_percent=100,
    management=Vnic("vboxnet0", "virtio", "08:00:27:00:00:01", "198.19.0.10/24"),
    nics=(Vnic("eth1", "82545EM", "08:00:27:00:00:02", "198.18.1.2/24", rate_mbit=100),),
)  # fmt: skip
INFO = """\
name="bed-vm1"
groups="/provision/bed"
UUID="11111111-2222-3333-4444-555555555555"
CfgFile="/vms/provision/bed/bed-vm1/bed-vm1.vbox"
memory=512
cpuexecutioncap=50
cpus=2
cpuid=00000001,00000000,0,0,0,0cpuid=00000002,0,0,0,0,0hwvirtex="on"
VMState="running"
storagecontrollername0="IDE"
storagecontrollername1="SATA"
"IDE-1-0"="emptydrive"
"IDE-1-1"="none"
"SATA-0-0"="/vms/a \\"quoted\\" disk.vdi"
"SATA-ImageUUID-0-0"="0"
hostonlyadapter1="vboxnet0"
macaddress1="080027000001"
cableconnected1="on"
nic1="hostonly"
nictype1="virtio"
nicspeed1="0"
bridgeadapter2="eth1"
macaddress2="080027000002"
cableconnected2="on"
nic2="bridged"
nictype2="82545EM"
nic3="none"
BandwidthGroup0="pv2",Network,12500000
BandwidthGroup1="slow",Disk,1048576
 rec_screen0
description="two lines
of \\"text\\" = more"
SnapshotName="provision-clean"
SnapshotUUID="x"
SnapshotName-1="other"
"""
NICS = (
    "NIC 1: MAC: 080027000001, Attachment: Host-only Interface 'vboxnet0', Promisc Policy: deny, "
    "Bandwidth group: none\nNIC 2:    MAC: 080027000002, Attachment: Bridged Interface 'eth1', "
    "Bandwidth group: pv2\nNIC 3:     disabled\n"
)


def test_a_vm_is_the_guest_that_was_asked_for() -> None:
    info = parse.readable(INFO)
    seen = parse.vm(info, "vm1", dump(GUEST), parse.groups(NICS))
    assert seen.guest == GUEST
    assert seen.snapshots == ("provision-clean", "other")
    assert seen.limits == {"pv2"} and not seen.half
    assert info["description"] == 'two lines\nof "text" = more'
    slot = parse.seed_slot(seen, "/seed.iso")
    assert slot is not None and (slot.controller, slot.port, slot.device) == ("IDE", 1, 0)
    assert parse.marked(info, "bed") and not parse.marked(info, "be")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('cableconnected2="on"', 'cableconnected2="off"', "nics"),
        ('bridgeadapter2="eth1"', 'bridgeadapter2="eth2"', "nics"),
        ('nictype2="82545EM"', 'nictype2="82540EM"', "nics"),
        ('nic1="hostonly"', 'nic1="nat"', "management"),
        ('"pv2",Network,12500000', '"pv2",Network,125000', "nics"),
        ("cpuexecutioncap=50", "cpuexecutioncap=100", "cap_percent"),
        ('VMState="running"', 'VMState="paused"', "running"),
        ('"SATA-0-0"="/vms/a', '"SATA-0-0"="none"\n"x"="/vms/a', "image"),
    ],
)
def test_what_is_otherwise_is_a_difference(old: str, new: str, field: str) -> None:
    assert old in INFO
    info = parse.readable(INFO.replace(old, new))
    found = parse.vm(info, "vm1", dump(GUEST), parse.groups(NICS)).guest
    assert getattr(found, field) != getattr(GUEST, field)


@pytest.mark.parametrize("text", ["no pair here\n", 'name="open\n', "a b\nc=1\n"])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(DriverError, match="no pair"):
        parse.readable(text)


def test_a_vm_without_what_every_vm_has_is_refused() -> None:
    with pytest.raises(DriverError, match="lacks 'cpus'"):
        parse.vm(parse.readable(INFO.replace("\ncpus=2", "")), "vm1", None, {})


def test_a_list_is_read_past_warnings() -> None:
    text = 'WARNING: The device does not exist.\n"a "b"" {11111111-2222-3333-4444-555555555555}\n'
    assert parse.listed(text) == {"11111111-2222-3333-4444-555555555555": 'a "b"'}
    assert parse.record("No value set!") is None
    assert words.mac(words.mac_here(GUEST.management.mac)) == GUEST.management.mac


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"vcpus": 3, "cap_percent": 100}, "multiple of 3"),
        ({"vcpus": 1, "cap_percent": 150}, "at most"),
        ({"pins": ("0", "1")}, "neither pins"),
        ({"weight": 512}, "nor weights"),
        ({"latency": "high"}, "not on VirtualBox"),
        ({"nics": GUEST.nics * 8}, "at most 7"),
    ],
)
def test_what_virtualbox_cannot_have_is_said(more: dict[str, object], said: str) -> None:
    from dataclasses import replace

    with pytest.raises(Unsupported, match=said):
        refuse(replace(GUEST, **more))  # type: ignore[arg-type]
    refuse(GUEST)
    judge = Fit("vb7", frozenset({"eth1"}), ("other",), file=False)
    told = " ".join(judge.unfit(GUEST))
    assert "guests.image: vb7 has no VM 'base'" in told and "'vboxnet0'" in told
