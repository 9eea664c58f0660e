"""What a spec means on a host: names, addresses, refusals. Pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.fake import Fake
from drivers.kvm.facts import MODELS, Machine, cannot
from provision import doctor
from provision.admission import commitment
from provision.driver import Facts, Target, UplinkFacts, fits
from provision.errors import PreflightError, SpecError
from provision.meaning import management_subnet
from provision.resources import (
    Among,
    Cable,
    Guest,
    Namespace,
    Port,
    Switch,
    Tuning,
    Uplink,
    key,
    needs,
)
from provision.spec import Spec, restore, words
from provision.testbed import expand, tag

FACTS = Fake(Target("t", Path("/nonexistent"))).facts
REAL = {"load_generator": {"ssh": "root@lg", "ports": ["lg1", "lg2"]}, "guests": {"count": 2}}


def spec(**fields: Any) -> Spec:
    return restore(fields)


def facts(**fields: Any) -> Facts:
    return replace(FACTS, **fields)


def test_the_lab_is_the_default() -> None:
    found = expand(spec(name="lab", guests={"count": 2}), FACTS, "img")
    short = tag("lab")
    assert found.namespace == "pv-lab-lg"
    assert [key(r) for r in found.resources] == [
        ("namespace", "pv-lab-lg"),
        ("cable", f"pv{short}u1"), ("cable", f"pv{short}u2"),
        ("port", f"pv{short}c1"), ("port", f"pv{short}c2"),
        ("uplink", f"pv{short}u1"), ("uplink", f"pv{short}u2"),
        ("switch", f"pv{short}m"), ("switch", f"pv{short}b1"), ("switch", f"pv{short}b2"),
        ("guest", "vm1"), ("guest", "vm2"),
    ]  # fmt: skip


def test_links_are_apart_in_everything() -> None:
    found = expand(spec(guests={"count": 4}), FACTS, "img")
    for what in ("uplink", "switch", "port", "guest_address", "client_address", "control_port"):
        assert len({getattr(link, what) for link in found.links}) == 4
    subnets = {IPv4Interface(link.guest_address).network for link in found.links}
    assert len(subnets) == 4
    assert {IPv4Interface(link.client_address).network for link in found.links} == subnets
    first = found.links[0]
    assert (first.client_address, first.guest_address) == ("198.18.1.1/24", "198.18.1.2/24")


def test_several_nics_in_one_guest_are_links_of_their_own() -> None:
    found = expand(spec(name="lab", guests={"count": 2, "nics_each": 3}), FACTS, "img")
    assert [(k.number, k.guest, k.nic) for k in found.links] == [
        (1, "vm1", 1), (2, "vm1", 2), (3, "vm1", 3), (4, "vm2", 1), (5, "vm2", 2), (6, "vm2", 3),
    ]  # fmt: skip
    for what in ("uplink", "switch", "port", "guest_address", "client_address", "control_port"):
        assert len({getattr(link, what) for link in found.links}) == 6
    one, two = found.guests
    assert [n.switch for n in two.nics] == [k.switch for k in found.links[3:]]
    assert [n.address for n in one.nics] == ["198.18.1.2/24", "198.18.2.2/24", "198.18.3.2/24"]
    assert [int(n.mac[-2:], 16) - int(one.management.mac[-2:], 16) for n in one.nics] == [1, 2, 3]
    managed = [IPv4Interface(g.management.address).ip for g in (one, two)]
    assert managed[0] + 1 == managed[1]


def test_uplinks_are_handed_out_guest_by_guest() -> None:
    real = {"load_generator": {"ssh": "root@lg", "ports": ["lg1", "lg2", "lg3", "lg4"]},
            "uplinks": ["eth4", "eth3", "eth2", "eth1"]}  # fmt: skip
    found = expand(spec(guests={"count": 2, "nics_each": 2}, **real), FACTS, "img")
    assert [(k.guest, k.uplink, k.port) for k in found.links] == [
        ("vm1", "eth4", "lg1"), ("vm1", "eth3", "lg2"),
        ("vm2", "eth2", "lg3"), ("vm2", "eth1", "lg4"),
    ]  # fmt: skip
    pinned = {"count": 2, "nics_each": 2, "cpu": {"pin": ["0", "1"]}}
    found = expand(spec(guests=pinned, **real), FACTS, "img")
    assert [g.pins for g in found.guests] == [("0",), ("1",)]


def test_more_nics_than_a_guest_can_have_are_refused() -> None:
    with pytest.raises(SpecError) as caught:
        expand(spec(guests={"nics_each": 8}), facts(most_nics=7), "img")
    (told,) = caught.value.problems
    assert told == "guests.nics_each: fake gives a guest at most 7 besides management"


@given(
    st.from_regex("[a-z][a-z0-9-]{0,20}", fullmatch=True), st.integers(1, 16), st.integers(1, 15)
)
def test_names_fit_and_never_clash(name: str, count: int, each: int) -> None:
    asked = spec(name=name, guests={"count": count, "nics_each": each})
    found = expand(asked, FACTS, "img")
    keys = [key(r) for r in found.resources]
    assert len(set(keys)) == len(keys)
    nics = [r for r in found.resources if isinstance(r, Cable | Switch | Port | Uplink)]
    assert all(len(r.name) <= 15 for r in nics)
    macs = [n.mac for g in found.guests for n in (g.management, *g.nics)]
    assert len(set(macs)) == len(macs)
    assert all(m.startswith("52:54:00:") and int(m[9:11], 16) < 0x40 for m in macs)
    assert found == expand(asked, FACTS, "img")


def test_uplinks_by_name_pci_address_and_mac() -> None:
    wanted = REAL | {"uplinks": ["0000:00:03.0", "02:00:00:00:00:05"]}
    found = expand(spec(**wanted), FACTS, "img")
    assert [link.uplink for link in found.links] == ["eth3", "eth5"]
    assert [link.port for link in found.links] == ["lg1", "lg2"]
    assert found.namespace is None
    assert not any(isinstance(r, Cable | Namespace) for r in found.resources)


def test_one_nic_under_two_names_is_refused() -> None:
    wanted = REAL | {"uplinks": ["eth3", "0000:00:03.0"]}
    with pytest.raises(SpecError, match=r"uplinks\.1: '0000:00:03\.0' is eth3, which another"):
        expand(spec(**wanted), FACTS, "img")


def test_an_uplink_in_use_is_refused_with_its_user() -> None:
    busy = UplinkFacts("eth3", "02:00:00:00:00:03", used_by="has address 10.0.0.5/24")
    wanted = REAL | {"uplinks": ["eth3", "eth4"]}
    with pytest.raises(
        PreflightError, match=r"eth3 of the host fake is in use: has address 10\.0\.0\.5"
    ):
        expand(spec(**wanted), facts(uplinks=(busy, *FACTS.uplinks[3:])), "img")


def test_all_that_cannot_be_is_told_at_once() -> None:
    wanted = spec(
        guests={"count": 2, "nic": {"model": "virtoi"}, "memory_mib": 1 << 20,
                "cpu": {"pin": "0-9", "emulator_pin": "11"}},
        switch={"type": "vswitch"}, dom0={"pin": "12", "vcpus": 1, "weight": 512},
    )  # fmt: skip
    refused = {"dom0.weight": "there is no scheduler to weigh in"}
    with pytest.raises(SpecError) as e:
        expand(wanted, facts(cannot=refused), "img")
    paths = [p.split(":")[0] for p in e.value.problems]
    assert paths == ["guests.nic.model", "switch.type", "dom0.weight", "dom0.pin",
                     "guests.cpu.emulator_pin", "guests.cpu.pin", "guests.memory"]  # fmt: skip
    assert "(did you mean 'virtio'?)" in e.value.problems[0]


def test_what_cannot_be_is_told_by_the_names_that_the_spec_has() -> None:
    refused = dict.fromkeys(("guests.nic.rate_mbit", "guests.memory_reserve_mib"), "no")
    asked = {"memory_reserve_mib": 512, "nic": {"rate_mbit": 100}}
    with pytest.raises(SpecError) as e:
        expand(spec(guests=asked), facts(cannot=refused), "img")
    assert e.value.problems == ("guests.nic.rate: not on fake: no",
                                "guests.memory_reserve: not on fake: no")  # fmt: skip
    found = {check.what for check in doctor.checks(facts(cannot=refused))}
    assert {"guests.nic.rate", "guests.memory_reserve"} <= found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("guests.nic.rate_mbit", "guests.nic.rate"),
        ("run.duration_s", "run.duration"),
        ("hypervisor.tls", "hypervisor.tls"),
        ("overcommit", "overcommit"),
        ("no.such_field", "no.such_field"),
    ],
)
def test_a_path_as_written(path: str, name: str) -> None:
    assert words.path(path) == name


def test_the_paths_that_kvm_refuses_are_the_specs() -> None:
    """One that is not would refuse nothing."""
    machine = Machine("h", 2, 1, "8", None, {}, "", None, "no htb", "", MODELS)
    known = {".".join(p) for p in words.fields()}
    assert {words.path(p.partition("=")[0]) for p in cannot(machine)} <= known


@pytest.mark.parametrize(
    ("word", "exact"), [("paravirtual", "virtio"), ("emulated", "e1000"), ("e1000", "e1000")]
)
def test_the_vocabulary_and_the_exact_words(word: str, exact: str) -> None:
    (guest,) = expand(spec(guests={"nic": {"model": word}}), FACTS, "img").guests
    assert guest.nics[0].model == exact
    assert guest.management.model == "virtio"


def test_spread_leaves_dom0_its_cpus() -> None:
    wanted = spec(guests={"count": 3, "vcpus": 2, "cpu": {"pin": "spread"}}, dom0={"vcpus": 2})
    found = expand(wanted, FACTS, "img")
    assert [g.pins for g in found.guests] == [("2", "3"), ("4", "5"), ("6", "7")]
    assert all(g.emulator_pin == "0-1" for g in found.guests)
    assert Tuning("dom0.cpus", "0-1") in found.resources


def test_irq_affinity_is_a_knob_for_each_interrupt_of_the_uplinks_used() -> None:
    nics = (UplinkFacts("eth3", "02:00:00:00:00:03", irqs=(40, 41)),
            UplinkFacts("eth4", "02:00:00:00:00:04", irqs=(42,)),
            UplinkFacts("eth5", "02:00:00:00:00:05", irqs=(43,)))  # fmt: skip
    wanted = REAL | {"uplinks": ["eth3", "eth4"], "dom0": {"irq_affinity": "1"}}
    found = expand(spec(**wanted), facts(uplinks=nics), "img")
    knobs = [r for r in found.resources if isinstance(r, Tuning)]
    assert knobs == [Tuning("irq/40", "1"), Tuning("irq/41", "1"), Tuning("irq/42", "1")]


def test_irq_affinity_without_interrupts_is_refused() -> None:
    with pytest.raises(SpecError, match="no interrupts"):
        expand(spec(dom0={"irq_affinity": "0"}), FACTS, "img")


def test_a_guest_says_all_that_was_asked() -> None:
    wanted = spec(
        guests={"vcpus": 2, "memory_mib": 2048, "nic": {"model": "e1000", "rate_mbit": 400},
                "cpu": {"weight": 512, "cap_percent": 150, "pin": "2-3"}},
        switch={"mtu": 9000},
    )  # fmt: skip
    (guest,) = expand(wanted, FACTS, "img").guests
    assert isinstance(guest, Guest)
    assert (guest.vcpus, guest.memory_mib, guest.weight, guest.cap_percent) == (2, 2048, 512, 150)
    assert guest.pins == ("2-3", "2-3")
    assert (guest.nics[0].rate_mbit, guest.nics[0].mtu, guest.management.mtu) == (400, 9000, 1500)


CABLED = REAL | {"uplinks": ["eth1", "eth2"]}


def test_more_than_the_host_has_is_refused_unless_asked_for() -> None:
    small = facts(cpus=8, memory_mib=8192)
    wanted = CABLED | {"guests": {"count": 2, "vcpus": 6, "memory_mib": 6144}}
    with pytest.raises(SpecError) as caught:
        expand(spec(**wanted), small, "img")
    let = "overcommit: true lets them"
    assert caught.value.problems == (
        f"guests.vcpus: 2 guests want 12 CPUs; the host fake has 8 for them; {let}",
        f"guests.memory: 2 guests want 12288 MiB; the host fake has 8192; {let}",
    )
    wide = spec(**wanted, overcommit=True)
    assert len(expand(wide, small, "img").guests) == 2
    assert commitment(wide, small) == (1.5, 1.5)


def test_dom0s_cpus_are_not_the_guests() -> None:
    small = facts(cpus=8, memory_mib=8192)
    wanted = CABLED | {"guests": {"count": 2, "vcpus": 4}}
    expand(spec(**wanted), small, "img")
    with pytest.raises(SpecError, match="want 8 CPUs; the host fake has 6 for them"):
        expand(spec(**wanted, dom0={"pin": "0-1"}), small, "img")
    with pytest.raises(SpecError, match="fake has 8 CPUs, not 9"):
        expand(spec(**CABLED | {"guests": {"vcpus": 9}}, overcommit=True), small, "img")


def test_an_emulated_lab_shares_its_cpus() -> None:
    crowded = spec(guests={"count": 4, "vcpus": 4})
    assert len(expand(crowded, facts(cpus=8), "img").guests) == 4


def test_a_host_without_states_of_its_nics_and_without_a_network_of_its_own() -> None:
    esx = facts(
        kinds=frozenset({"switch", "guest"}),
        switch_flavours=("vswitch",),
        management="give the name of a port group",
        mac_prefix="00:50:56",
        unfit=lambda guest: [f"guests.nic: not {guest.nics[0].model}"],
    )
    with pytest.raises(SpecError, match=r"management\.bridge: give the name of a port group"):
        expand(spec(**CABLED), esx, "img")
    wanted = CABLED | {"management": {"bridge": "VM Network", "subnet": "10.7.0.0/24"}}
    with pytest.raises(SpecError) as caught:
        expand(spec(**wanted), esx, "img")
    assert caught.value.problems == ("guests.nic: not virtio",)
    found = expand(spec(**wanted), replace(esx, unfit=fits), "img")
    assert not any(isinstance(r, Uplink) for r in found.resources)
    assert {r.flavour for r in found.resources if isinstance(r, Switch)} == {"vswitch"}
    assert found.guests[0].management.switch == "VM Network"
    assert all(n.mac.startswith("00:50:56:") for n in found.guests[0].nics)


def test_without_a_switch_guests_are_on_their_uplinks_and_need_them() -> None:
    host = facts(kinds=frozenset({"uplink", "guest"}), switch_flavours=(), management="name one")
    wanted = CABLED | {"management": {"bridge": "vboxnet0", "subnet": "10.7.0.0/24"}}
    found = expand(spec(**wanted), host, "img")
    assert not any(isinstance(r, Switch) for r in found.resources)
    for guest, link in zip(found.guests, found.links, strict=True):
        assert guest.nics[0].switch == link.switch == link.uplink
        among = Among.of({key(r): r for r in found.resources})
        assert (Uplink.kind, link.uplink) in needs(guest, among)
    with pytest.raises(SpecError, match=r"switch\.type: .* none at all"):
        expand(spec(**wanted | {"switch": {"type": "ovs"}}), host, "img")


def test_a_model_that_is_on_its_uplink_has_no_switch_where_others_have() -> None:
    direct = replace(FACTS.nic_models["virtio"], name="sriov", direct=True)
    host = facts(nic_models={**FACTS.nic_models, "sriov": direct})
    found = expand(spec(**CABLED | {"guests": {"count": 2, "nic": "sriov"}}), host, "img")
    assert [r.name for r in found.resources if isinstance(r, Switch)] == [f"pv{tag('lab')}m"]
    assert {n.switch for g in found.guests for n in g.nics} == {link.uplink for link in found.links}
    with pytest.raises(SpecError, match=r"switch\.type: .* sriov is on the uplink itself"):
        expand(spec(**CABLED | {"guests": {"nic": "sriov"}, "switch": "ovs"}), host, "")


def test_a_whole_nic_keeps_its_mac_and_has_no_state_of_ours() -> None:
    whole = replace(FACTS.nic_models["virtio"], name="passthrough", direct=True, whole=True)
    host = facts(nic_models={**FACTS.nic_models, "passthrough": whole})
    found = expand(spec(**CABLED | {"guests": {"count": 2, "nic": "passthrough"}}), host, "img")
    macs = {u.name: u.mac for u in host.uplinks}
    assert not any(isinstance(r, Uplink) for r in found.resources)
    assert [g.nics[0].mac for g in found.guests] == [macs[link.uplink] for link in found.links]
    assert all(g.management.mac.startswith("52:54:00:") for g in found.guests)


def test_a_management_subnet_that_the_host_has_is_refused() -> None:
    chosen = management_subnet(spec(name="lab"))
    here = facts(addresses={"eth0": (f"{chosen[5]}/24",), "br0": ("10.7.0.1/16",)})
    with pytest.raises(
        PreflightError, match=rf"the testbed's name chooses.*{chosen[5]}/24 of eth0"
    ) as e:
        expand(spec(name="lab"), here, "img")
    free = e.value.hint.rpartition("=")[2]
    expand(spec(name="lab", management={"subnet": free}), here, "img")
    with pytest.raises(
        PreflightError, match=r"10\.7\.3\.0/24 is in use on fake: 10\.7\.0\.1/16 of br0"
    ):
        expand(spec(name="lab", management={"subnet": "10.7.3.0/24"}), here, "img")
    expand(spec(management={"subnet": "10.7.3.0/24", "bridge": "br0"}), here, "img")


def test_a_model_that_carries_no_such_frames_is_refused() -> None:
    old = facts(
        nic_models={**FACTS.nic_models, "e1000": replace(FACTS.nic_models["e1000"], mtu=1500)}
    )
    wanted = spec(switch={"mtu": 9000}, guests={"nic": "e1000"})
    with pytest.raises(
        SpecError, match=r"switch\.mtu: fake's e1000 carries at most 1500, not 9000"
    ):
        expand(wanted, old, "img")
    expand(wanted, FACTS, "img")
