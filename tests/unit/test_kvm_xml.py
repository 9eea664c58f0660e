"""The XML that the KVM driver writes: libvirt's own schemas judge it, and it reads back equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.kvm.parse import effective, parse
from drivers.kvm.xml import Body, domain, mark, quota_us, shares
from drivers.libvirt.marks import tap
from drivers.linux.slices import from_cpu_weight
from provision.errors import Unsupported
from provision.resources import Guest, Vnic
from provision.units import cpu_list

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
GOLDEN = Path(__file__).parent / "kvm"
CPUS = 8

GUEST = Guest(
    "vm1", vcpus=2, memory_mib=1024, image="c0ffee" * 8, accel="tcg",
    management=Vnic("pvabcdm", "virtio", "52:54:00:aa:00:01", "198.19.7.10/24"),
    nics=(Vnic("pvabcdb1", "e1000", "52:54:00:aa:00:02", "198.18.1.2/24", 9000, 400),),
    pins=("2", "3"), emulator_pin="0-1", weight=512, cap_percent=150,
)  # fmt: skip
BODY = Body(
    testbed="demo", console="/var/t/consoles/vm1.log", disk="/var/t/disks/vm1.qcow2",
    backing=(("/var/images/c0ffee/disk.qcow2", "qcow2"),), seed="/var/t/seeds/vm1.iso",
    kernel="/var/images/c0ffee/vmlinux", initrd="/var/images/c0ffee/initrd",
    cmdline="console=ttyS0 quiet", owner="+64055:+64055", emulator="/usr/bin/qemu-system-x86_64",
)  # fmt: skip
USERS_OWN = replace(
    BODY, kernel=None, initrd=None, cmdline="", ovs=frozenset({"pvabcdb1"}),
    backing=(("/golden/disk.qcow2", "qcow2"), ("/home/u/cloud.raw", "raw")),
)  # fmt: skip
KVM = replace(GUEST, accel="kvm", pins=(), emulator_pin=None, weight=256, cap_percent=None)
PLAIN = replace(KVM, nics=(replace(GUEST.nics[0], mtu=1500, rate_mbit=None),))

HARDWARE = replace(KVM, nics=(Vnic("ens1f0", "sriov", "52:54:00:aa:00:02", "198.18.1.2/24", 9000),))
WHOLE = replace(HARDWARE, nics=(replace(HARDWARE.nics[0], model="passthrough"),))
VF = replace(BODY, functions={"ens1f0": "0000:3b:10.2"})


@pytest.mark.parametrize(
    ("name", "guest", "body"),
    [
        ("full", GUEST, BODY),
        ("own-disk", KVM, USERS_OWN),
        ("plain", PLAIN, BODY),
        ("sriov", HARDWARE, VF),
        ("passthrough", WHOLE, VF),
    ],
)
def test_it_is_what_it_was_and_what_libvirt_takes(name: str, guest: Guest, body: Body) -> None:
    """A golden file shows what a change of code means to libvirt."""
    etree = pytest.importorskip("lxml.etree")
    text = domain(guest, body)
    tree = etree.fromstring(text)
    etree.indent(tree)
    golden = GOLDEN / f"{name}.xml"
    assert etree.tostring(tree, encoding="unicode") + "\n" == golden.read_text()
    if not SCHEMA.exists():
        pytest.skip("libvirt's schemas are not installed")
    etree.RelaxNG(etree.parse(str(SCHEMA))).assertValid(tree)


macs = st.binary(min_size=3, max_size=3).map(lambda b: "52:54:00:" + b.hex(":"))
names = st.from_regex(r"[a-z][a-z0-9-]{0,11}", fullmatch=True)
switches = st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True)
addresses = st.ip_addresses(v=4).map(lambda a: f"{a}/24")
sets = st.sets(st.integers(0, CPUS - 1), min_size=1).map(cpu_list)
vnics = st.builds(
    Vnic, switches, st.sampled_from(["virtio", "e1000", "vmxnet3"]), macs, addresses,
    st.integers(576, 65535), st.none() | st.integers(1, 1_000_000),
)  # fmt: skip


@st.composite
def guests(draw: st.DrawFn) -> Guest:
    vcpus = draw(st.integers(1, 16))
    pins = st.lists(sets, min_size=vcpus, max_size=vcpus).map(tuple)
    return Guest(
        name=draw(names), vcpus=vcpus, memory_mib=draw(st.integers(128, 1 << 24)),
        image=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        management=draw(vnics), nics=draw(st.lists(vnics, max_size=15).map(tuple)),
        accel=draw(st.sampled_from(["kvm", "tcg", "none"])),
        pins=draw(st.just(()) | pins), emulator_pin=draw(st.none() | sets),
        weight=draw(st.integers(1, 65535)),
        cap_percent=draw(st.none() | st.integers(1, 100_000)), running=False,
    )  # fmt: skip


@given(guests())
def test_any_guest_reads_back_equal(guest: Guest) -> None:
    seen = parse(domain(guest, BODY), CPUS, 1)
    assert seen is not None
    assert seen.guest == guest
    assert (seen.testbed, seen.disk, seen.backing) == (BODY.testbed, BODY.disk, BODY.backing)


def test_a_virtual_function_reads_back_by_its_address() -> None:
    """Whose it is, the host says; all else is as asked, and has no tap."""
    seen = parse(domain(HARDWARE, VF), CPUS, 1)
    assert seen is not None
    (nic,) = seen.guest.nics
    assert nic == replace(HARDWARE.nics[0], switch="0000:3b:10.2")
    assert seen.taps[1] == ""


def test_a_whole_nic_reads_back_with_its_name_and_its_own_mac() -> None:
    seen = parse(domain(WHOLE, VF), CPUS, 1)
    assert seen is not None
    assert seen.guest == replace(WHOLE, running=False)
    assert seen.functions == VF.functions
    other = domain(WHOLE, VF).replace('slot="0x10" function="0x2"', 'slot="0x11" function="0x2"')
    lies = parse(other, CPUS, 1)
    assert lies is not None and lies.guest.nics[0].switch == "0000:3b:11.2"


def test_taps_are_in_the_order_of_the_vnics() -> None:
    seen = parse(domain(GUEST, BODY), CPUS, 1)
    assert seen is not None
    assert seen.taps == (tap("demo", "vm1", 0), tap("demo", "vm1", 1))


@given(st.integers(1, 10_000))
def test_a_weight_of_cgroup_v2_reads_back_equal(figure: int) -> None:
    guest = replace(GUEST, weight=from_cpu_weight(figure), running=False)
    seen = parse(domain(guest, replace(BODY, cgroup=2)), CPUS, 2)
    assert seen is not None
    assert seen.guest == guest


def test_a_weight_between_the_steps_of_cgroup_v2_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"vm1.*257") as caught:
        domain(replace(GUEST, weight=257), replace(BODY, cgroup=2))
    assert "256" in caught.value.hint


def test_too_many_vnics_are_refused() -> None:
    with pytest.raises(Unsupported, match="at most 15"):
        domain(replace(GUEST, nics=GUEST.nics * 16), BODY)


def lies(old: str, new: str, guest: Guest = GUEST) -> Guest:
    """What is read of a guest after something was changed behind our back."""
    text = domain(guest, BODY)
    assert old in text
    seen = parse(text.replace(old, new), CPUS, 1)
    assert seen is not None
    return seen.guest


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('model type="e1000"', 'model type="rtl8139"', "nics"),
        ('bridge="pvabcdb1"', 'bridge="br0"', "nics"),
        ("52:54:00:aa:00:02", "52:54:00:aa:00:03", "nics"),
        ('mtu size="9000"', 'mtu size="1500"', "nics"),
        ('inbound average="50000"', 'inbound average="60000"', "nics"),
        ('average="50000"', 'average="50001"', "nics"),
        ('bridge="pvabcdm"', 'bridge="br0"', "management"),
        ("<shares>2048", "<shares>2050", "weight"),
        ("<global_quota>150000", "<global_quota>150500", "cap_percent"),
        ("<global_quota>150000", "<global_quota>-1", "cap_percent"),
        ('vcpupin vcpu="1" cpuset="3"', 'vcpupin vcpu="1" cpuset="0-3"', "pins"),
        ('emulatorpin cpuset="0-1"', 'emulatorpin cpuset="4"', "emulator_pin"),
        (">1048576</memory>", ">524288</memory>", "memory_mib"),
        ('source file="/var/images/', 'source file="/other/', "image"),
        ('domain type="qemu"', 'domain type="kvm"', "accel"),
    ],
)
def test_what_libvirt_tells_counts_not_what_was_asked(old: str, new: str, field: str) -> None:
    """The mark remembers the wish; nothing that libvirt knows is read from it."""
    found = lies(old, new)
    truth = lies("<name>", "<name>")
    wrong = {f for f in Guest.__slots__ if getattr(found, f) != getattr(truth, f)}
    assert wrong == {field}


def test_pinned_to_all_is_unpinned() -> None:
    """A pin cannot be taken back from a guest that runs, only widened."""
    everywhere = ("0-7", "0-7")
    text = domain(replace(GUEST, pins=everywhere), BODY)
    ours = domain(replace(GUEST, pins=()), BODY)
    start, end = "<metadata>", "</metadata>"
    asked = ours[ours.index(start) : ours.index(end)]
    text = text.replace(text[text.index(start) : text.index(end)], asked)
    seen = parse(text, CPUS, 1)
    assert seen is not None
    assert seen.guest.pins == ()


@pytest.mark.parametrize(
    "text",
    [
        "<domain type='kvm'><name>demo-vm1</name></domain>",
        domain(GUEST, BODY).replace("<name>demo-vm1", "<name>clone-of-vm1"),
        domain(GUEST, BODY).replace("{&quot;", "").replace('{"', ""),
    ],
)
def test_a_domain_without_a_mark_of_its_own_is_not_ours(text: str) -> None:
    assert parse(text, CPUS, 1) is None


def test_what_the_kernel_holds_counts() -> None:
    told = {"cpu_shares": 2048, "global_period": 100_000, "global_quota": 150_000}
    affinity = [(False, False, True) + (False,) * 5, (False,) * 3 + (True,) + (False,) * 4]
    assert effective(GUEST, told, affinity, 1) == GUEST
    moved = [affinity[0], affinity[0]]
    assert effective(GUEST, told, moved, 1) == replace(GUEST, pins=("2", "2"))
    assert effective(GUEST, {"cpu_shares": 4096}, affinity, 1) == replace(GUEST, weight=1024)
    uncapped = told | {"global_quota": -1}
    assert effective(GUEST, uncapped, affinity, 1) == replace(GUEST, cap_percent=None)
    assert effective(KVM, {}, moved, 1) == KVM


def test_figures_of_the_scheduler() -> None:
    assert shares(KVM, 1) == 1024
    assert shares(KVM, 2) == 100
    assert shares(KVM, None) is None
    assert (quota_us(KVM), quota_us(GUEST)) == (-1, 150_000)


@given(names, names, st.integers(0, 15))
def test_a_tap_has_a_name_that_linux_takes(testbed: str, guest: str, number: int) -> None:
    assert len(tap(testbed, guest, number)) <= 15


def test_the_mark_says_whose() -> None:
    found = mark(GUEST, BODY)
    assert (found.get("testbed"), found.get("name")) == ("demo", "vm1")
