"""What is somebody else's stays as it is, however much it looks like ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from drivers.vsphere import sight
from drivers.vsphere.driver import Vsphere
from drivers.vsphere.spec import MARK
from provision.errors import DriverError, Foreign
from provision.resources import Key, key
from tests.peers import oracle
from tests.peers.vcsim import vim
from tests.vsphere import day, world
from tests.vsphere.day import GUEST, SWITCH, TESTBED, Bed

VM = f"{TESTBED}-{GUEST.name}"


@pytest.fixture(scope="module", params=["VPX", "ESX"])
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with day.bed(request.param, tmp_path_factory.mktemp("bed")) as found:
        yield found


@pytest.fixture
def driver(bed: Bed) -> Iterator[Vsphere]:
    found = bed.driver()
    yield found
    found.close()
    assert bed.there() == bed.before


@contextmanager
def vm(bed: Bed, name: str, *nics: oracle.Nic, **extra: str) -> Iterator[Any]:
    made = oracle.create(bed.si, name, nics, extra)
    yield made
    oracle.done(made.Destroy_Task())


@contextmanager
def switch(bed: Bed, name: str, *groups: str, uplinks: tuple[str, ...] = ()) -> Iterator[Any]:
    net = world.network(bed.si)
    net.AddVirtualSwitch(name, oracle.bond(*uplinks))
    for group in groups:
        net.AddPortGroup(oracle.group(group, name))
    yield net
    for group in groups:
        net.RemovePortGroup(group)
    net.RemoveVirtualSwitch(name)


def refused(bed: Bed, driver: Vsphere, want: Any, *, puts: bool = True) -> None:
    """Neither taken nor ended, and not a byte of it changed."""
    before, k = bed.there(), key(want)
    assert k not in set(driver.owned())
    bed.wires.calm()
    with pytest.raises(Foreign):
        driver.drop(k)
    if puts:
        with pytest.raises(Foreign):
            driver.put(want)
        assert driver.read(k) is None
    assert bed.there() == before
    assert not bed.wires.done("Destroy_Task", "UnregisterVM", "RemoveVirtualSwitch",
                              "RemovePortGroup", "UpdatePortGroup", "ReconfigVM_Task",
                              "PowerOffVM_Task", "UpdateVirtualSwitch")  # fmt: skip


@pytest.mark.parametrize("mark", ["", "other", TESTBED.upper(), f"{TESTBED}2", f" {TESTBED}"])
def test_a_vm_of_our_name_with_another_mark(bed: Bed, driver: Vsphere, mark: str) -> None:
    driver.put(SWITCH)
    with vm(bed, VM, **({MARK: mark} if mark else {})):
        refused(bed, driver, GUEST)
        for act in (driver.checkpoint, driver.revert):
            with pytest.raises(Foreign):
                act(key(GUEST))
    driver.drop(key(SWITCH))


@pytest.mark.parametrize("name", [f"{TESTBED}", f"{TESTBED}2-vm1", f"my-{VM}", "vm1"])
def test_a_vm_whose_name_is_nearly_ours(bed: Bed, driver: Vsphere, name: str) -> None:
    """Not even one with our mark, as a copy that somebody made of a guest has."""
    with vm(bed, name, **{MARK: TESTBED}) as other:
        before = str(other.config.modified)
        driver.drop(key(GUEST))
        assert driver.read(key(GUEST)) is None
        assert not [*driver.owned()]
        assert str(other.config.modified) == before


def test_a_vm_with_our_mark_in_no_journal_is_listed(bed: Bed, driver: Vsphere) -> None:
    """So that what a lost journal knew of is found."""
    oracle.create(bed.si, f"{TESTBED}-stray", (), {MARK: TESTBED})
    strays: list[Key] = [*driver.owned()]
    assert strays == [("guest", "stray")]
    driver.drop(strays[0])
    assert not [*driver.owned()]


@pytest.mark.parametrize(
    ("groups", "uplinks"),
    [
        (("somebody's",), ("vmnic1",)),
        ((SWITCH.name, "somebody's"), ("vmnic1",)),
        ((SWITCH.name,), ("vmnic1", "vmnic2")),
    ],
    ids=["another port group", "one more port group", "two uplinks"],
)
def test_a_switch_of_our_name(
    bed: Bed, driver: Vsphere, groups: tuple[str, ...], uplinks: tuple[str, ...]
) -> None:
    with switch(bed, SWITCH.name, *groups, uplinks=uplinks):
        refused(bed, driver, SWITCH)


def test_a_switch_that_became_somebody_s_moments_ago(bed: Bed, driver: Vsphere) -> None:
    """What this driver saw, made or removed before is no excuse."""
    driver.put(SWITCH)
    driver.drop(key(SWITCH))
    with switch(bed, SWITCH.name, "somebody's", uplinks=("vmnic1",)):
        refused(bed, driver, SWITCH)
    driver.put(SWITCH)
    world.network(bed.si).AddPortGroup(oracle.group("somebody's", SWITCH.name))
    refused(bed, driver, SWITCH)
    world.network(bed.si).RemovePortGroup("somebody's")
    driver.drop(key(SWITCH))


def test_a_vm_that_became_somebody_s_moments_ago(bed: Bed, driver: Vsphere) -> None:
    driver.put(SWITCH)
    driver.put(GUEST)
    driver.drop(key(GUEST))
    with vm(bed, VM):
        refused(bed, driver, GUEST)
    driver.drop(key(SWITCH))


def test_a_vm_that_was_given_away_since_others_were_ended(
    bed: Bed, driver: Vsphere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at all that may go serves for moments, not for what comes later."""
    oracle.create(bed.si, VM, (), {MARK: TESTBED})
    with vm(bed, f"{TESTBED}-vm2", **{MARK: TESTBED}) as given:
        driver.drop(key(GUEST))
        theirs = vim.option.OptionValue(key=MARK, value="theirs")
        oracle.done(given.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[theirs])))
        later = monotonic() + 2 * sight.RECENT_S
        monkeypatch.setattr(sight, "monotonic", lambda: later)
        refused(bed, driver, replace(GUEST, name="vm2"))


def test_somebody_s_vm_on_our_port_group(bed: Bed, driver: Vsphere) -> None:
    driver.put(SWITCH)
    with vm(bed, "somebody", ("e1000", SWITCH.name, "")):
        before = bed.there()
        with pytest.raises(Foreign, match="somebody"):
            driver.drop(key(SWITCH))
        with pytest.raises((Foreign, DriverError)):
            driver.put(replace(SWITCH, uplink="vmnic2"))
        assert bed.there() == before
    driver.drop(key(SWITCH))


@pytest.mark.parametrize("name", ["vSwitch0", "br0", f"{SWITCH.name[:4]}"])
def test_a_switch_whose_name_is_not_ours(bed: Bed, driver: Vsphere, name: str) -> None:
    want, before = replace(SWITCH, name=name), bed.there()
    with pytest.raises(Foreign):
        driver.put(want)
    if name == "vSwitch0":
        with pytest.raises(Foreign):
            driver.drop(key(want))
    assert driver.read(key(want)) is None
    assert bed.there() == before
