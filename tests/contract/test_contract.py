"""What every driver promises: one body over every driver and its peer. Add yours to PEERS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from provision.driver import Change, Driver, Keeper
from provision.errors import DriverError, Foreign, Unsupported
from provision.resources import Guest, Resource, Switch, Uplink, changed, key
from provision.spec import Spec
from tests.contract.peer import Peer
from tests.contract.peers import PEERS


@pytest.fixture(params=[pytest.param(p, marks=p.marks, id=p.name) for p in PEERS], scope="module")
def peer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    with request.param.start(tmp_path_factory.mktemp("peer")) as found:
        yield found


@pytest.fixture
def driver(peer: Peer) -> Iterator[Driver]:
    """A clean host before and after each promise."""
    yield peer.driver
    _clean(peer)
    assert not set(peer.driver.owned())


def _clean(peer: Peer) -> None:
    things: list[Resource] = [peer.guest, *peer.switches]
    for thing in things:
        peer.driver.drop(key(thing))
    if peer.uplink is not None:
        peer.driver.put(peer.uplink)


@pytest.fixture
def uplink(peer: Peer) -> Uplink:
    if peer.uplink is None:
        pytest.skip("this hypervisor's uplinks have no state of their own")
    return peer.uplink


@pytest.fixture(params=["switch", "guest"])
def want(request: pytest.FixtureRequest, peer: Peer, driver: Driver) -> Resource:
    if request.param == "switch":
        if not peer.switches:
            pytest.skip("no switch stands between these guests and their NICs")
        return peer.switches[-1]
    for switch in peer.switches:
        driver.put(switch)
    return peer.guest


def test_what_it_says_without_a_host_holds_on_one(driver: Driver) -> None:
    """The matrix is of the class; a host may have less than that, and never more."""
    said, facts = getattr(type(driver), "capabilities", None), driver.facts
    if said is None:
        pytest.skip("a driver of another distribution may not say what it can do")
    # what hardware is inside, its host alone knows
    has = {replace(m, pci_ids=()) if m.direct else m for m in facts.nic_models.values()}
    assert has <= set(said.nic_models.values())
    assert set(facts.switch_flavours) <= set(said.switches)
    assert facts.words == said.words
    assert said.refused.items() <= facts.cannot.items()
    assert facts.most_nics == said.most_nics
    assert bool(facts.management) == bool(said.management)
    assert bool(facts.checkpoint) == bool(said.checkpoint)
    more = {*facts.cannot} - {*said.refused}
    assert all(said.depends.get(path) for path in more), more
    for path in (*said.refused, *said.reboots, *said.depends):
        assert known(path.partition("=")[0]), path


def known(path: str) -> bool:
    """Whether a spec has such a word."""
    here: object = Spec()
    for part in path.split("."):
        if not hasattr(here, part):
            return False
        here = getattr(here, part)
    return True


def test_absent_reads_as_none(driver: Driver, want: Resource) -> None:
    assert driver.read(key(want)) is None


def test_put_then_read_is_equal(driver: Driver, want: Resource) -> None:
    driver.put(want)
    assert driver.read(key(want)) == want


def test_put_twice_is_put_once(driver: Driver, want: Resource) -> None:
    driver.put(want)
    driver.put(want)
    assert driver.read(key(want)) == want


def test_drop_is_final_and_repeatable(driver: Driver, want: Resource) -> None:
    driver.put(want)
    driver.drop(key(want))
    driver.drop(key(want))
    assert driver.read(key(want)) is None


def test_owned_is_what_was_put(driver: Driver, peer: Peer) -> None:
    assert set(driver.owned()) == set()
    one = peer.switches[0] if peer.switches else peer.guest
    driver.put(one)
    assert set(driver.owned()) == {key(one)}


def test_every_change_is_made(driver: Driver, peer: Peer) -> None:
    """Each field that the driver says it can change is read back as the new wish."""
    for switch in peer.switches:
        driver.put(switch)
    driver.put(peer.guest)
    for other in peer.other_guests:
        classes = {driver.facts.change.get(("guest", f)) for f in changed(peer.guest, other)}
        assert classes <= {Change.LIVE, Change.RESTART}
        driver.put(other)
        assert driver.read(key(other)) == other


def test_a_guest_has_as_many_nics_as_asked_each_on_its_switch(driver: Driver, peer: Peer) -> None:
    """From the start, and when the wish for them comes and goes."""
    for switch in peer.switches:
        driver.put(switch)
    first = peer.guest.nics[0]
    second = replace(
        first,
        switch=peer.second or peer.switches[0].name,
        mac=first.mac and f"{first.mac[:-2]}7f",
        address="198.18.251.2/24",
    )
    several = replace(peer.guest, nics=(first, second))
    for want in (several, peer.guest, several):
        driver.put(want)
        assert driver.read(key(want)) == want


def test_a_stopped_guest_reads_as_stopped_and_put_starts_it(driver: Driver, peer: Peer) -> None:
    for switch in peer.switches:
        driver.put(switch)
    driver.put(peer.guest)
    peer.stop(peer.guest)
    assert driver.read(key(peer.guest)) == replace(peer.guest, running=False)
    driver.put(peer.guest)
    assert driver.read(key(peer.guest)) == peer.guest


def test_an_uplink_is_state_and_is_put_back(driver: Driver, peer: Peer, uplink: Uplink) -> None:
    before = driver.read(key(uplink))
    assert isinstance(before, Uplink)
    driver.put(replace(before, mtu=peer.other_mtu))
    assert driver.read(key(before)) == replace(before, mtu=peer.other_mtu)
    driver.put(before)
    assert driver.read(key(before)) == before


def test_a_state_cannot_be_dropped(driver: Driver, uplink: Uplink) -> None:
    with pytest.raises(DriverError):
        driver.drop(key(uplink))


def test_unsupported_is_told_before_anything_changes(driver: Driver, peer: Peer) -> None:
    for switch in peer.switches:
        driver.put(switch)
    nic = replace(peer.guest.nics[0], model="vmxnet9")
    with pytest.raises(Unsupported, match="vmxnet9"):
        driver.put(replace(peer.guest, nics=(nic,)))
    assert driver.read(key(peer.guest)) is None
    with pytest.raises(Unsupported, match="hub"):
        driver.put(Switch("pvcontracthub", flavour="hub"))


def test_what_is_not_ours_is_not_touched(driver: Driver, peer: Peer, want: Resource) -> None:
    with peer.foreign(want) as still_there:
        assert driver.read(key(want)) is None
        assert key(want) not in set(driver.owned())
        with pytest.raises(Foreign):
            driver.put(want)
        with pytest.raises(Foreign):
            driver.drop(key(want))
        assert still_there()


def test_a_guest_without_its_switch_fails_and_leaves_nothing(driver: Driver, peer: Peer) -> None:
    nic = replace(peer.guest.nics[0], switch="pvcontractx")
    lost = peer.guest if peer.switches else replace(peer.guest, nics=(nic,))
    with pytest.raises(DriverError):
        driver.put(lost)
    driver.drop(key(peer.guest))
    assert driver.read(key(peer.guest)) is None


def test_revert_without_checkpoint_says_so(driver: Driver, peer: Peer) -> None:
    for switch in peer.switches:
        driver.put(switch)
    driver.put(peer.guest)
    with pytest.raises(DriverError, match="checkpoint"):
        driver.revert(key(peer.guest))


def test_checkpoint_then_revert_runs_as_it_was(driver: Driver, peer: Peer) -> None:
    for switch in peer.switches:
        driver.put(switch)
    driver.put(peer.guest)
    if driver.facts.checkpoint:
        with pytest.raises(Unsupported, match="checkpoint"):
            driver.checkpoint(key(peer.guest))
        return
    driver.checkpoint(key(peer.guest))
    driver.revert(key(peer.guest))
    assert driver.read(key(peer.guest)) == peer.guest
    driver.checkpoint(key(peer.guest))
    driver.drop(key(peer.guest))
    driver.put(peer.guest)
    with pytest.raises(DriverError, match="checkpoint"):
        driver.revert(key(peer.guest))


def test_checkpoint_twice_is_checkpoint_once(driver: Driver, peer: Peer) -> None:
    """An ``up`` that was cut short does not know whether it came so far."""
    if driver.facts.checkpoint:
        pytest.skip("this driver has no checkpoints")
    for switch in peer.switches:
        driver.put(switch)
    driver.put(peer.guest)
    driver.checkpoint(key(peer.guest))
    driver.checkpoint(key(peer.guest))
    driver.revert(key(peer.guest))
    assert driver.read(key(peer.guest)) == peer.guest


def test_a_keeper_knows_whether_there_is_a_checkpoint(driver: Driver, peer: Peer) -> None:
    if not isinstance(driver, Keeper):
        pytest.skip("this driver does not tell")
    assert not driver.has_checkpoint(key(peer.guest))
    for switch in peer.switches:
        driver.put(switch)
    driver.put(peer.guest)
    assert not driver.has_checkpoint(key(peer.guest))
    driver.checkpoint(key(peer.guest))
    assert driver.has_checkpoint(key(peer.guest))
    driver.drop(key(peer.guest))
    driver.put(peer.guest)
    assert not driver.has_checkpoint(key(peer.guest))


def test_usage_only_grows(driver: Driver, peer: Peer) -> None:
    first, second = driver.usage(), driver.usage()
    assert second.at_s >= first.at_s
    assert len(first.host_busy_s) in (0, driver.facts.cpus)  # some hypervisors do not count
    pairs = zip(first.host_busy_s, second.host_busy_s, strict=True)
    assert all(b >= a for a, b in pairs)


def test_facts_are_whole(driver: Driver, peer: Peer) -> None:
    facts = driver.facts
    assert facts.version and facts.host and facts.cpus > 0 and facts.memory_mib > 0
    assert "paravirtual" in facts.words  # what a spec says that names none
    named = [facts.nic_models[exact] for exact in facts.words.values()]
    assert all(m.drivers for m in named) or facts.bare
    assert isinstance(peer.guest, Guest)
