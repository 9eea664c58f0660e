"""OpenVZ: the XML that libvirt's schemas judge, what comes back, and what is refused."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.container.driver import Container
from drivers.libvirt.marks import domain_uuid
from drivers.libvirt.wires import NOWHERE
from drivers.openvz.driver import Openvz
from drivers.openvz.facts import CAPABILITIES, unfit
from drivers.openvz.guests import Status, become, statuses
from drivers.openvz.xml import FIRST, SPAN, as_told, domain, number, parse
from provision.capabilities import CHECKPOINT, SWITCH, Answer
from provision.driver import Target
from provision.errors import Unreachable, UserError
from provision.resources import Guest, Vnic
from provision.seed import Identity, Nic

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
GUEST = Guest(
    "vm1", vcpus=2, memory_mib=512, image="debian-8.0-x86_64", accel="openvz",
    management=Vnic("pvabcdm", "veth", "52:54:00:aa:00:01", "198.19.7.10/24"),
    nics=(Vnic("pvabcdb1", "veth", "52:54:00:aa:00:02", "198.18.1.2/24", 9000),),
)  # fmt: skip
PRIVATE = "/vz/private/1"
#: as libvirt 9.0 tells of a container that it has read from its configuration
TOLD = """<domain type='openvz' id='616745285'>
  <name>616745285</name>
  <uuid>{uuid}</uuid>
  <memory unit='KiB'>0</memory>
  <vcpu placement='static'>2</vcpu>
  <os><type>exe</type><init>/sbin/init</init></os>
  <devices>
    <filesystem type='mount' accessmode='passthrough'>
      <source dir='/vz/private/1'/><target dir='/'/>
    </filesystem>
    <interface type='bridge'>
      <mac address='52:54:00:AA:00:01'/><source bridge='pvabcdm'/><target dev='pv18c5f89bn0'/>
    </interface>{more}
  </devices>
</domain>"""
NIC = """<interface type='bridge'>
      <mac address='52:54:00:aa:00:02'/><source bridge='pvabcdb1'/><target dev='pv18c5f89bn1'/>
    </interface>"""


def test_libvirts_schemas_take_it() -> None:
    etree = pytest.importorskip("lxml.etree")
    tree = etree.fromstring(domain(GUEST, "demo", PRIVATE))
    assert tree.findtext("name") == str(number("demo", "vm1"))
    assert [one.get("bridge") for one in tree.iterfind("devices/interface/source")] == [
        "pvabcdm",
        "pvabcdb1",
    ]
    if not SCHEMA.exists():
        pytest.skip("libvirt's schemas are not installed")
    etree.RelaxNG(etree.parse(str(SCHEMA))).assertValid(tree)


@given(st.integers(1, 64), st.from_regex(r"[a-z][a-z0-9-]{0,11}", fullmatch=True))
def test_any_guest_reads_back_equal(vcpus: int, name: str) -> None:
    guest = replace(GUEST, name=name, vcpus=vcpus)
    seen = parse(domain(guest, "demo", PRIVATE))
    assert seen.uuid == str(domain_uuid("demo", name))
    assert as_told(guest, "demo", seen) == guest


def test_what_libvirt_tells_otherwise_is_seen() -> None:
    uuid = domain_uuid("demo", "vm1")
    assert as_told(GUEST, "demo", parse(TOLD.format(uuid=uuid, more=NIC))) == GUEST
    short = as_told(replace(GUEST, vcpus=1), "demo", parse(TOLD.format(uuid=uuid, more="")))
    assert short.vcpus == 2
    assert short.nics[0].switch == NOWHERE
    moved = parse(TOLD.format(uuid=uuid, more=NIC.replace("pvabcdb1", "br0")))
    assert as_told(GUEST, "demo", moved).nics[0].switch == "br0"


def test_numbers_are_the_guests_own_and_above_those_that_people_give() -> None:
    found = {number(bed, f"vm{n}") for bed in ("a", "b") for n in range(200)}
    assert len(found) == 400
    assert all(FIRST <= n < FIRST + SPAN < 2**31 for n in found)


def test_what_vzlist_prints() -> None:
    text = "       101 running               65536\n      2000 stopped                   -\n"
    assert statuses(text) == {101: Status(True, 256), 2000: Status(False, 0)}
    assert statuses("Container(s) not found\n") == {}


def test_who_a_guest_is_goes_through_its_shell_whole() -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    who = Identity("vm1", "1" * 32, "ssh-ed25519 AAAA who@where", key,
                   (Nic("52:54:00:aa:00:01", "mgmt", "198.19.7.10/24"),))  # fmt: skip
    text = become(who)
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    assert f"printf '%s' '{key}' > /etc/ssh/ssh_host_ed25519_key" in text
    assert "ip addr add 198.19.7.10/24" in text


def test_what_it_cannot_do_has_its_reason() -> None:
    for path in ("guests.cpu.pin", "guests.cpu.weight", "guests.nic.rate_mbit", CHECKPOINT):
        can = CAPABILITIES.can(path)
        assert can.answer is Answer.NO and "OpenVZ" in can.words
    assert CAPABILITIES.can(SWITCH, "ovs").answer is Answer.NO
    assert not [*unfit(GUEST, 2, disk=False)]
    cpus, disk = unfit(GUEST, 1, disk=True), "guests.image: "
    assert [one.startswith(disk) for one in cpus] == [True, False]


def test_where_it_is_not() -> None:
    if Path("/proc/vz").exists():
        pytest.skip("this is a host of OpenVZ")
    with pytest.raises(Unreachable, match="openvz:///system") as lost:
        Openvz(Target("demo", Path("/nowhere")))
    assert "OpenVZ kernel" in str(lost.value.hint)
    with pytest.raises(UserError, match="system's libvirtd"):
        Openvz(Target("demo", Path("/nowhere"), uri="openvz:///session"))
    with pytest.raises(UserError, match="containers run on this machine") as e:
        Container(Target("demo", Path("/nowhere"), uri="openvz:///system"))
    assert "--hv openvz" in str(e.value.hint)
