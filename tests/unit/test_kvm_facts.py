"""What the KVM driver concludes from what libvirt and the host say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from types import MappingProxyType

import pytest

pytest.importorskip("libvirt")

from drivers.kvm import facts as kvm_facts
from drivers.kvm.facts import MODELS, WORDS, Machine, cannot, changes, choose_accel, look, refuse
from drivers.libvirt.connect import connect
from provision.driver import Change
from provision.errors import PreflightError, Unreachable, Unsupported, UserError
from provision.host import Host
from provision.resources import Guest, Vnic

NO_FLAGS = "the CPU shows neither vmx nor svm"
MACHINE = Machine(
    name="hv1", cpus=4, memory_mib=8192, version="QEMU 7.2.22, libvirt 9.0.0",
    emulator="/usr/bin/qemu-system-x86_64", accels={"kvm": "", "tcg": ""}, owner="+64055:+64055",
    cgroup=1, rate="", cpu="model name : x", models=MODELS,
)  # fmt: skip
EMULATED = replace(MACHINE, accels={"kvm": NO_FLAGS, "tcg": ""})
VNIC = Vnic("b1", "virtio", "52:54:00:00:00:01", "198.18.1.2/24")
GUEST = Guest("vm1", 2, 512, "d" * 64, VNIC, (VNIC,), "kvm")
CAPABILITIES = """<capabilities><host><secmodel><model>none</model></secmodel><secmodel>
<model>dac</model><baselabel type='kvm'>+7:+8</baselabel></secmodel></host><guest>
<os_type>hvm</os_type><arch name='x86_64'><emulator>/no/such/qemu</emulator>
<domain type='qemu'/>{}</arch></guest></capabilities>"""


class Libvirt:
    """As much of a connection as facts ask for."""

    def __init__(self, capabilities: str) -> None:
        self.capabilities = capabilities

    def getCapabilities(self) -> str:  # noqa: N802
        return self.capabilities

    def getType(self) -> str:  # noqa: N802
        return "QEMU"

    def getHostname(self) -> str:  # noqa: N802
        return "hv1"

    def getVersion(self) -> int:  # noqa: N802
        return 7002022

    def getLibVersion(self) -> int:  # noqa: N802
        return 9000000


def test_the_host_is_looked_at() -> None:
    machine = look(Libvirt(CAPABILITIES.format("")), Host())
    assert machine.version == "QEMU 7.2.22, libvirt 9.0.0"
    assert machine.owner == "+7:+8"
    assert machine.accels["kvm"]
    assert machine.models == {}, "a QEMU that is not there offers nothing"
    assert machine.cpus > 0
    assert machine.memory_mib > 0


def test_no_qemu_for_this_machine() -> None:
    with pytest.raises(PreflightError, match="no QEMU") as caught:
        look(Libvirt("<capabilities><host/></capabilities>"), Host())
    assert "apt-get" in caught.value.hint


@pytest.mark.parametrize(
    ("types", "flags", "expected"),
    [
        ("<domain type='kvm'/>", True, ""),
        ("<domain type='kvm'/>", False, NO_FLAGS),
        ("", True, "libvirt has no KVM"),
    ],
)
def test_kvm_takes_the_cpu_and_libvirt(types: str, flags: bool, expected: str) -> None:
    """A /dev/kvm that opens proves nothing."""
    arch = ET.fromstring(CAPABILITIES.format(types)).find("guest/arch")
    assert kvm_facts._accels(arch, flags)["kvm"].startswith(expected)


def test_accel_is_chosen_or_refused_with_the_reason() -> None:
    assert choose_accel(MACHINE, "auto") == ("kvm", "")
    assert choose_accel(MACHINE, "tcg") == ("tcg", "")
    assert choose_accel(EMULATED, "auto") == ("tcg", NO_FLAGS)
    with pytest.raises(PreflightError, match="vmx nor svm") as caught:
        choose_accel(EMULATED, "kvm")
    assert "tcg" in caught.value.hint
    with pytest.raises(PreflightError, match="hvf"):
        choose_accel(MACHINE, "hvf")


def test_what_qemu_offers_is_read_from_it() -> None:
    listing = 'name "virtio-net-pci", bus PCI\nname "e1000", bus PCI, alias "x"\nname "ne2k_isa"\n'
    assert set(kvm_facts._models(listing)) == {"virtio", "e1000"}
    assert set(WORDS.values()) <= set(MODELS)


def test_what_is_refused_has_its_reason() -> None:
    always = set(cannot(MACHINE))
    assert {"guests.cpu.reserve_percent", "guests.latency", "hypervisor.password"} <= always
    poor = cannot(replace(MACHINE, cgroup=None, rate="Specified qdisc kind is unknown"))
    assert set(poor) - always == {
        "guests.cpu.weight",
        "guests.cpu.cap_percent",
        "guests.nic.rate_mbit",
    }
    assert "qdisc" in poor["guests.nic.rate_mbit"]


@pytest.mark.parametrize(
    ("want", "machine", "words"),
    [
        (replace(GUEST, nics=(replace(VNIC, model="ne3000"),)), MACHINE, "ne3000.*there are"),
        (replace(GUEST, nics=(replace(VNIC, rate_mbit=5),)), replace(MACHINE, rate="x"), "no rate"),
        (GUEST, EMULATED, "'kvm' is not to be had"),
        (replace(GUEST, pins=("0",)), MACHINE, "1 pins for 2 vCPUs"),
        (replace(GUEST, pins=("0", "2-9")), MACHINE, "no CPU 9"),
        (replace(GUEST, emulator_pin="4"), MACHINE, "no CPU 4"),
        (replace(GUEST, weight=257), replace(MACHINE, cgroup=2), "weight 257"),
    ],
)
def test_what_cannot_be_is_refused_before_anything(
    want: Guest, machine: Machine, words: str
) -> None:
    refuse(GUEST, MACHINE)
    with pytest.raises(Unsupported, match=words):
        refuse(want, machine)


def test_how_disturbing_a_change_is() -> None:
    found = MappingProxyType(changes(simulated=False))
    assert found["guest", "weight"] is Change.LIVE
    assert found["guest", "vcpus"] is Change.RESTART
    assert ("guest", "image") not in found
    assert found["switch", "uplink"] is Change.LIVE
    simulated = changes(simulated=True)
    assert {c for (kind, _), c in simulated.items() if kind == "guest"} == {Change.RESTART}


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("qemu+tcp://hv1/system", "qemu+ssh://user@host/system"),
        ("qemu:///session", "qemu:///system"),
        ("xen:///system", "qemu+ssh"),
    ],
)
def test_uris_of_no_use(uri: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(uri)) as caught:
        connect(uri)
    assert hint in caught.value.hint


def test_no_libvirtd_says_what_to_do() -> None:
    with pytest.raises(Unreachable, match="No such file") as caught:
        connect("qemu+unix:///system?socket=/no/such/socket")
    assert "libvirtd" in caught.value.hint


def test_a_host_that_does_not_answer_says_what_to_try() -> None:
    with pytest.raises(Unreachable, match=r"qemu\+ssh://root@127\.0\.0\.1:1/system") as caught:
        connect("qemu+ssh://root@127.0.0.1:1/system")
    assert caught.value.hint.startswith("ssh -p 1 root@127.0.0.1 ")
