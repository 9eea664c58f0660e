"""The XML that the Xen driver writes: libvirt's own schemas judge it, and it reads back equal."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.xen.xml import HVM, KEEP_NICS, NETFRONT, PV, PVH, TYPES, Body, domain, parse, vif
from provision.resources import Guest, Vnic
from provision.units import cpu_list

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
CPUS = 8
NIC = Vnic("pvabcdb1", NETFRONT, "00:16:3e:aa:00:02", "198.18.1.2/24", 9000, 400)
GUEST = Guest(
    "vm1", vcpus=2, memory_mib=1024, image="c0ffee" * 8, accel=PV,
    management=Vnic("pvabcdm", NETFRONT, "00:16:3e:aa:00:01", "198.19.7.10/24"),
    nics=(NIC,), pins=("2", "3-4"), weight=512, cap_percent=150, running=False,
)  # fmt: skip
EMULATED = replace(
    GUEST, accel=HVM, management=replace(GUEST.management, model="e1000"),
    nics=(replace(NIC, model="rtl8139", mtu=1500), replace(NIC, model="e1000", rate_mbit=None)),
)  # fmt: skip
BODY = Body(
    testbed="demo", disk="/var/t/disks/vm1.qcow2", base="/var/images/c0ffee/disk.qcow2",
    seed="/var/t/seeds/vm1.iso", kernel="/var/images/c0ffee/vmlinux",
    initrd="/var/images/c0ffee/initrd", cmdline="root=/dev/vda console=ttyS0 quiet",
)  # fmt: skip
OVS = replace(BODY, ovs=frozenset({"pvabcdb1"}))
OWN = Body(testbed="demo", disk="/var/t/disks/vm1.qcow2", base="/home/u/cloud.raw")


@pytest.mark.parametrize(
    "guest",
    [
        GUEST,
        replace(GUEST, accel=PVH),
        EMULATED,
        replace(GUEST, accel=HVM, pins=(), cap_percent=None, nics=()),
    ],
    ids=lambda g: f"{g.accel}{len(g.nics)}",
)
@pytest.mark.parametrize("body", [BODY, OVS, OWN], ids=["image", "ovs", "own-disk"])  # fmt: skip
def test_libvirt_takes_it_and_it_reads_back_equal(guest: Guest, body: Body) -> None:
    etree = pytest.importorskip("lxml.etree")
    text = domain(guest, body)
    if not SCHEMA.exists():
        pytest.skip("libvirt's schemas are not installed")
    etree.RelaxNG(etree.parse(str(SCHEMA))).assertValid(etree.fromstring(text))
    seen = parse(text, CPUS)
    assert seen is not None
    assert seen.guest == guest
    assert (seen.testbed, seen.disk, seen.base) == (body.testbed, body.disk, body.base)
    ends = {NETFRONT: "", "rtl8139": "-emu", "e1000": "-emu"}
    every = enumerate((guest.management, *guest.nics))
    assert seen.taps == tuple(vif("demo", "vm1", n) + ends[v.model] for n, v in every)


VF = replace(NIC, switch="ens1f0", model="sriov", rate_mbit=None)
WHOLE = replace(VF, switch="ens1f1", model="passthrough", mac="3c:fd:fe:00:00:01", mtu=1500)
MIXED = replace(GUEST, nics=(WHOLE, NIC, VF))
GIVEN = replace(BODY, functions={"ens1f0": "0000:3b:10.0", "ens1f1": "0000:3b:00.1"})


@pytest.mark.parametrize("accel", [PV, HVM])
def test_hardware_is_what_libvirt_takes_and_reads_back_in_its_order(accel: str) -> None:
    """Whose a function is, the host says; a whole NIC keeps its name and MAC in our mark."""
    etree = pytest.importorskip("lxml.etree")
    guest = replace(MIXED, accel=accel)
    text = domain(guest, GIVEN)
    tree = ET.fromstring(text)
    (function,) = tree.findall("devices/interface[@type='hostdev'][@managed='yes']")
    assert ET.tostring(function, encoding="unicode") == (
        '<interface type="hostdev" managed="yes"><mac address="00:16:3e:aa:00:02" /><source>'
        '<address domain="0x0000" bus="0x3b" slot="0x10" function="0x0" type="pci" /></source>'
        "</interface>"
    )
    (whole,) = tree.findall("devices/hostdev")
    assert ET.tostring(whole, encoding="unicode") == (
        '<hostdev mode="subsystem" type="pci" managed="yes"><source>'
        '<address domain="0x0000" bus="0x3b" slot="0x00" function="0x1" /></source></hostdev>'
    )
    assert (tree.find("features/xen/e820_host[@state='on']") is not None) == (accel == PV)
    assert not {*KEEP_NICS} & {*words(guest, GIVEN)}
    seen = parse(text, CPUS)
    assert seen is not None
    assert seen.guest == replace(guest, nics=(WHOLE, NIC, replace(VF, switch="0000:3b:10.0")))
    assert seen.functions == GIVEN.functions
    assert seen.taps == (vif("demo", "vm1", 0), "", vif("demo", "vm1", 2), "")
    if not SCHEMA.exists():
        pytest.skip("libvirt's schemas are not installed")
    etree.RelaxNG(etree.parse(str(SCHEMA))).assertValid(etree.fromstring(text))


def test_a_device_that_is_not_the_one_given_reads_as_its_address() -> None:
    seen = parse(domain(MIXED, GIVEN).replace('slot="0x00"', 'slot="0x02"'), CPUS)
    assert seen is not None and seen.guest.nics[0].switch == "0000:3b:02.1"


@given(testbed=st.text(min_size=1), guest=st.text(min_size=1), number=st.integers(0, 99))
def test_a_vif_leaves_room_for_what_libxl_puts_behind_its_name(
    testbed: str, guest: str, number: int
) -> None:
    assert re.fullmatch("pv[a-z2-7]{6}n[0-9]+", found := vif(testbed, guest, number))
    assert len(f"{found}-emu") <= 15


def words(guest: Guest, body: Body = BODY) -> list[str]:
    return ET.fromstring(domain(guest, body)).findtext("os/cmdline", "").split()


def test_the_kernel_has_the_console_that_its_guest_has() -> None:
    assert words(GUEST) == ["console=hvc0", "root=/dev/vda", "quiet"]
    assert words(replace(GUEST, accel=HVM)) == BODY.cmdline.split()


def test_emulated_nics_are_kept_by_words_to_the_kernel() -> None:
    """Without them the guest's PV drivers take them away, and netfront would be measured."""
    assert words(EMULATED)[-2:] == [*KEEP_NICS]
    assert not {*KEEP_NICS} & {*words(replace(GUEST, accel=HVM))}


def test_a_disk_that_boots_itself_is_booted_as_its_kind_can() -> None:
    assert ET.fromstring(domain(GUEST, OWN)).findtext("bootloader") == "pygrub"
    hvm = ET.fromstring(domain(replace(GUEST, accel=HVM), OWN))
    assert [b.get("dev") for b in hvm.findall("os/boot")] == ["hd"]
    assert hvm.find("bootloader") is None


def test_only_bridges_of_open_vswitch_have_its_port() -> None:
    nics = ET.fromstring(domain(GUEST, OVS)).findall("devices/interface")
    assert [n.find("virtualport") is not None for n in nics] == [False, True]


macs = st.binary(min_size=3, max_size=3).map(lambda b: "00:16:3e:" + b.hex(":"))
names = st.from_regex(r"[a-z][a-z0-9-]{0,11}", fullmatch=True)
switches = st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True)
sets = st.sets(st.integers(0, CPUS - 1), min_size=1).map(cpu_list)
vnics = st.builds(
    Vnic, switches, st.sampled_from([NETFRONT, "e1000", "rtl8139"]), macs,
    st.ip_addresses(v=4).map(lambda a: f"{a}/24"), st.integers(576, 65535),
    st.none() | st.integers(1, 1_000_000),
)  # fmt: skip


@st.composite
def guests(draw: st.DrawFn) -> Guest:
    vcpus = draw(st.integers(1, 16))
    pins = st.lists(sets, min_size=vcpus, max_size=vcpus).map(tuple)
    return Guest(
        name=draw(names), vcpus=vcpus, memory_mib=draw(st.integers(64, 1 << 20)),
        image=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        management=draw(vnics), nics=draw(st.lists(vnics, max_size=15).map(tuple)),
        accel=draw(st.sampled_from(sorted(TYPES))), pins=draw(st.just(()) | pins),
        weight=draw(st.integers(1, 65535)), cap_percent=draw(st.none() | st.integers(1, 1600)),
        running=False,
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(guests())
def test_any_guest_reads_back_equal(guest: Guest) -> None:
    seen = parse(domain(guest, BODY), CPUS)
    assert seen is not None
    assert seen.guest == guest


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('model type="rtl8139"', 'model type="e1000"', "nics"),
        ('bridge="pvabcdb1"', 'bridge="br0"', "nics"),
        ('outbound average="50000"', 'outbound average="60000"', "nics"),
        ('bridge="pvabcdm"', 'bridge="br0"', "management"),
        ('vcpupin vcpu="1" cpuset="3-4"', 'vcpupin vcpu="1" cpuset="3"', "pins"),
        (">1048576</memory>", ">524288</memory>", "memory_mib"),
        ('machine="xenfv"', 'machine="xenpvh"', "accel"),
    ],
)
def test_what_libvirt_tells_counts_not_what_was_asked(old: str, new: str, field: str) -> None:
    text = domain(EMULATED, BODY)
    assert old in text
    seen = parse(text.replace(old, new), CPUS)
    assert seen is not None
    assert {f for f in Guest.__slots__ if getattr(seen.guest, f) != getattr(EMULATED, f)} == {field}


@pytest.mark.parametrize(
    "text",
    [
        "<domain type='xen'><name>demo-vm1</name></domain>",
        domain(GUEST, BODY).replace("<name>demo-vm1", "<name>clone-of-vm1"),
    ],
)
def test_a_domain_without_a_mark_of_its_own_is_not_ours(text: str) -> None:
    assert parse(text, CPUS) is None
