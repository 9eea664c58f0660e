"""Windows guests as asked for: the seed, the refusals, the inventory, and the driver's own part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drivers.fake import Fake
from provision import seed
from provision.driver import Target
from provision.errors import SpecError
from provision.resources import key
from provision.spec import Spec, restore
from provision.spec import file as specfile
from provision.testbed import expand
from provision.verify import inside
from provision.windows import guest as windows
from tests.contract.peer import who
from tests.hyperv import bed
from tests.peers.hyperv.peer import WINDOWS, Peer
from tests.peers.windows.guest import seed_of

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
GUEST = bed.guest(os="windows", image=WINDOWS)


def spec_of(guests: str, more: str = "") -> Spec:
    text = f"name: a\nhypervisor: {{type: hyperv, uri: 'http://hv7'}}\nguests: {{{guests}}}\n{more}"
    return specfile.loads(text, "test")


def test_the_seed_has_a_static_script_and_the_data_beside_it() -> None:
    made = seed_of(seed.iso(who(GUEST)))
    assert made["user-data"].decode() == windows.script("identity.ps1")
    assert made["user-data"].startswith(b"#ps1_sysnative\n")
    told = json.loads(made["provision.json"])
    assert told["nics"][1] == {
        "mac": "00-15-5D-00-01-01", "name": "link1", "address": "198.18.1.2", "prefix": 24,
        "mtu": 1500,
    }  # fmt: skip
    assert json.loads(made["meta-data"])["local-hostname"] == "vm1"


def test_whoever_changes_is_another_instance() -> None:
    """Else cloudbase-init would do nothing."""

    def instance(guest: Any) -> str:
        found = json.loads(seed_of(seed.iso(who(guest)))["meta-data"])
        return str(found["instance-id"])

    other = replace(GUEST, nics=(replace(GUEST.nics[0], address="198.18.9.2/24"),))
    assert instance(GUEST) == instance(replace(GUEST))
    assert instance(GUEST) != instance(other)


def test_linux_guests_have_the_seed_that_they_had() -> None:
    made = seed_of(seed.iso(who(bed.guest())))
    assert sorted(made) == ["meta-data", "network-config", "user-data"]
    assert made["user-data"].startswith(b"#cloud-config\n")


@pytest.mark.parametrize(
    ("guests", "more", "words"),
    [
        ("os: windows", "run: {workloads: [netperf-send, http-closed]}", "http-closed needs more"),
        ("os: windows, count: 2", "run: {workloads: [netperf-send+heavy]}", "needs more of its"),
        ("os: windows, name: verylongname, count: 1000", "", "too long for Windows"),
        (f"netserver: {{file: /bin/sh, sha256: {HEX}}}", "", "is for Windows guests"),
        (f"os: windows, netserver: {{sha256: {HEX}}}", "", "one of file and url"),
        ("os: windows, netserver: {url: 'ftp://h/x', sha256: 12}", "", "an http or https URL"),
        ("os: plan9", "", "should be 'linux' or 'windows'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_the_border(guests: str, more: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec_of(guests, more)


def test_on_some_guests_alone_netperf_can_be() -> None:
    assert spec_of("os: windows, count: 2", "run: {workloads: [netperf-send@1]}")


def test_elsewhere_they_are_refused_with_the_reason() -> None:
    facts = Fake(Target("t", Path("/nonexistent"))).facts
    spec = restore({"hypervisor": {"type": "fake"}, "guests": {"os": "windows"}})
    with pytest.raises(SpecError, match=r"guests\.os: not on fake: .*Hyper-V's guests may be"):
        expand(spec, facts, "img")


def test_who_logs_in() -> None:
    assert spec_of("os: windows").guests.login == "Administrator"
    assert spec_of("os: windows, user: bench").guests.login == "bench"
    assert spec_of("user: debian").guests.login == "debian"


def test_ansible_gets_no_password() -> None:
    told = windows.variables({"file": "/f", "url": None, "sha256": HEX})
    assert told["ansible_connection"] == "ssh"
    assert told["ansible_shell_type"] == "cmd"
    assert told["netperf_netserver"]["sha256"] == HEX
    assert not any("password" in name for name in told)


def test_a_guest_is_read_back_with_its_system_and_another_one_is_made_anew(peer: Peer) -> None:
    peer.foreign_switch(bed.LAN)
    peer.world.volume.make_folder(bed.DISKS)
    with bed.driver(peer, storage=bed.DISKS) as driver:
        assert not driver.facts.windows
        driver.put(bed.switch())
        driver.put(GUEST)
        assert driver.read(key(GUEST)) == GUEST
        assert "for windows" in driver.evidence(key(GUEST))["identity"]
        was = peer.vm("bed-vm1").id
        linux = bed.guest()
        driver.put(linux)
        assert driver.read(key(linux)) == linux
        assert peer.vm("bed-vm1").id != was


SEEN = {
    "hostname": "vm1", "cpus": 1, "memory_kib": 510 << 10,
    "nics": [
        {"name": "mgmt", "mac": "00:15:5d:00:01:00", "mtu": 1500, "driver": "netvsc",
         "addresses": ["198.19.250.10/24"]},
        {"name": "link1", "mac": "00:15:5d:00:01:01", "mtu": 1500, "driver": "netvsc",
         "addresses": ["198.18.1.2/24"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("driver", "dc21x4vm", "its driver is 'dc21x4vm'"),
        ("mtu", 9000, "asked for MTU 1500, has 9000"),
        ("addresses", ["169.254.1.2/16"], "asked for address 198.18.1.2/24"),
        ("mac", "00:15:5d:00:01:77", "no NIC with MAC 00:15:5d:00:01:01"),
    ],
)
def test_what_it_sees_is_compared_as_of_a_linux_guest(
    peer: Peer, field: str, value: Any, words: str
) -> None:
    with bed.driver(peer) as driver:
        assert inside(GUEST, SEEN, driver.facts) == []
        nics = [SEEN["nics"][0], SEEN["nics"][1] | {field: value}]  # type: ignore[index]
        wrong = inside(GUEST, SEEN | {"nics": nics}, driver.facts)
    assert any(words in one for one in wrong), wrong


def test_what_inspect_tells_is_put_into_our_words() -> None:
    told = {
        "name": "link1", "mac": "00-15-5D-00-01-01", "mtu": 1500, "state": "Up",
        "driver": "dc21x4vm.sys", "device": "PCI\\VEN_1011&DEV_0009&SUBSYS_21140A00&REV_20\\3",
        "speed_bit": 100_000_000, "addresses": "198.18.1.2/24",
        "offloads": {"value": ["lso-ipv4", "checksum-ip-RxTxEnabled"], "Count": 2},
    }  # fmt: skip
    assert windows._nic(told) == {
        "name": "link1", "mac": "00:15:5d:00:01:01", "mtu": 1500, "state": "up",
        "driver": "dc21x4vm", "pci_id": "1011:0009", "speed_mbit": 100,
        "addresses": ["198.18.1.2/24"], "offloads": ["checksum-ip-RxTxEnabled", "lso-ipv4"],
    }  # fmt: skip
