"""What the Xen driver concludes from what dom0 and libvirt say, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("libvirt")

from drivers.dom0 import xl
from drivers.dom0.look import State
from drivers.libvirt.connect import connect
from drivers.xen import facts, restart
from drivers.xen.domains import effective
from drivers.xen.facts import CAPABILITIES, Machine
from provision.driver import Target
from provision.errors import PreflightError, Unreachable, Unsupported, UserError
from provision.host import Host
from provision.image import Image
from provision.resources import Guest, Vnic

INFO = xl.Info("4.17.7", "credit2", cpus=4, memory_mib=8192, free_mib=4096)
VCPUS = tuple(xl.Vcpu("Domain-0", 0, n, n, "r--", 1.0, "all", "all") for n in range(2))
DOM0 = State(INFO, VCPUS, xl.Share("Domain-0", 0, 256, 0), 1024, VCPUS, ())
MACHINE = Machine(
    "xen1", cpus=4, memory_mib=7168, version="Xen 4.17.7", dom0=DOM0,
    virts=facts.virts("pv hvm hvm_directio"), root=True, qemu_img=True,
    caps=frozenset({"pv", "hvm", "hvm_directio"}),
)  # fmt: skip
NO_VTX = replace(MACHINE, virts=facts.virts("pv"))
VNIC = Vnic("b1", "netfront", "00:16:3e:00:00:01", "198.18.1.2/24")
GUEST = Guest("vm1", 2, 512, "d" * 64, VNIC, (VNIC,), "pv")
EMULATED = replace(GUEST, nics=(replace(VNIC, model="e1000"),))
OWN_DISK = Image("d" * 64, Path("/i"), Path("/i/disk"), None, None, "", {})
OLD = replace(OWN_DISK, kernel=Path("/i/vmlinux"), initrd=Path("/i/initrd"))
TARGET = Target("demo", Path("/nowhere"))


def test_ways_to_virtualize_follow_from_what_xen_says() -> None:
    assert facts.virts("pv hvm hap shadow") == {"pv": "", "pvh": "", "hvm": ""}
    assert "VT-x" in facts.virts("pv")["hvm"]
    assert "without PV" in facts.virts("hvm")["pv"]


@pytest.mark.parametrize(
    ("guest", "machine", "says"),
    [
        (EMULATED, MACHINE, "only HVM guests"),
        (
            replace(GUEST, nics=(replace(VNIC, model="virtio"),)),
            MACHINE,
            "netfront, rtl8139, e1000",
        ),
        (replace(GUEST, accel="hvm"), NO_VTX, "VT-x"),
        (replace(GUEST, accel="kvm"), MACHINE, "unknown here"),
        (replace(GUEST, pins=("1", "4")), MACHINE, "xen1 has CPUs 0-3, not 4"),
        (replace(GUEST, pins=("1",)), MACHINE, "1 pins for 2 vCPUs"),
        (replace(GUEST, weight=0), MACHINE, "takes 1 to 65535"),
        (replace(GUEST, weight=70000), MACHINE, "takes 1 to 65535"),
        (replace(GUEST, cap_percent=201), MACHINE, "takes up to 200"),
        (replace(GUEST, cap_percent=0), MACHINE, "takes up to 200"),
    ],
)
def test_a_guest_that_cannot_be_is_refused(guest: Guest, machine: Machine, says: str) -> None:
    with pytest.raises(Unsupported, match=says):
        facts.refuse(guest, machine)


def test_a_guest_that_can_be_is_not() -> None:
    facts.refuse(replace(GUEST, pins=("0", "3"), weight=65535, cap_percent=200), MACHINE)
    facts.refuse(replace(EMULATED, accel="hvm"), MACHINE)
    assert not [*facts.unfit(replace(EMULATED, accel="hvm"), MACHINE, TARGET)]
    built = replace(TARGET, image=replace(OLD, packed=Path("/i/vmlinuz")))
    assert not [*facts.unfit(replace(GUEST, accel="hvm"), MACHINE, built)]


@pytest.mark.parametrize(
    ("guest", "target", "says"),
    [
        (EMULATED, TARGET, "guests.virt: hvm has them"),
        (replace(GUEST, management=replace(VNIC, switch="a" * 16)), TARGET, "at most 15 letters"),
        (GUEST, replace(TARGET, start="restore"), "auto boots them"),
        (replace(GUEST, accel="pvh"), replace(TARGET, image=OWN_DISK), "as pv .* or as hvm"),
        (replace(GUEST, accel="hvm"), replace(TARGET, image=OLD), "image rm d{16}; .* build"),
    ],
)  # fmt: skip
def test_the_plan_says_what_would_work(guest: Guest, target: Target, says: str) -> None:
    found = [*facts.unfit(guest, MACHINE, target)]
    assert len(found) == 1
    assert re.search(says, found[0])


def test_what_a_host_lacks_is_refused_with_the_reason() -> None:
    assert facts.cannot(MACHINE, "") == CAPABILITIES.refused
    no_grub = facts.cannot(MACHINE, "the host has no update-grub")
    assert no_grub["dom0.vcpus"] == no_grub["dom0.memory_mib"] == "the host has no update-grub"
    null = replace(MACHINE, dom0=replace(DOM0, info=replace(INFO, scheduler="null"), share=None))
    assert "sched=credit2" in facts.cannot(null, "")["guests.cpu.weight"]


def test_what_xen_holds_counts() -> None:
    """Not what libvirt was told: it keeps neither weight nor cap."""
    one = tuple(xl.Vcpu("demo-vm1", 7, n, n, "-b-", 1.0, h, "all") for n, h in enumerate("12"))
    now = replace(
        DOM0, all_vcpus=(*VCPUS, *one),
        all_shares=(xl.Share("Domain-0", 0, 512, 0), xl.Share("demo-vm1", 7, 300, 50)),
    )  # fmt: skip
    wish = replace(GUEST, pins=("1", "3"))
    assert effective(wish, 7, now, 4) == replace(wish, pins=("1", "2"), weight=300, cap_percent=50)
    assert effective(GUEST, 7, now, 4).pins == ()
    assert effective(wish, 9, now, 4) == wish


class Libvirt:
    """As much of a connection as a look at the host asks for."""

    def getType(self) -> str:  # noqa: N802
        return "QEMU"

    def getHostname(self) -> str:  # noqa: N802
        return "hv1"


def test_another_hypervisor_is_told() -> None:
    with pytest.raises(PreflightError, match=r"hv1 does not run Xen.*QEMU"):
        facts.look(Libvirt(), Host())


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("qemu+ssh://root@h/system", "reach it by SSH: xen+ssh://user@host/system"),
        ("xen+tls://h/system", "reach it by SSH: xen+ssh://user@host/system"),
        ("xen+ssh://root@h/session", "xen+ssh://root@h/system"),
    ],
)
def test_a_uri_of_no_use_is_refused(uri: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        connect(uri, None, "xen:///system")
    assert caught.value.hint == hint


def test_no_ssh_to_dom0_is_told_with_what_to_try() -> None:
    with pytest.raises(Unreachable) as caught:
        connect("xen+ssh://root@127.0.0.1:1/system?no_verify=1", None, "xen:///system")
    assert caught.value.hint == "ssh -p 1 root@127.0.0.1 virsh -c xen:///system version"


def test_this_machine_is_not_restarted_by_itself() -> None:
    with pytest.raises(PreflightError, match="end provision itself"):
        restart.refuse(Host(), set())


def test_a_host_with_guests_of_others_is_not_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    domains = tuple(xl.Domain(n, i, 256, 1, "-b----", 1.0) for n, i in (("a", 3), ("b", 4)))
    monkeypatch.setattr(restart, "state", lambda _: replace(DOM0, domains=domains))
    far = Host("xen1", ("ssh", "xen1"))
    restart.refuse(far, {3, 4})
    with pytest.raises(PreflightError, match=r"guests of others run there: b$"):
        restart.refuse(far, {3})
