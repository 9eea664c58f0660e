"""What ``up`` proves, what makes a guest doubtful, and the way back: on the fake host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from drivers.fake import Fake
from provision import proving, resetting, running, verbs
from provision.access import Access
from provision.driver import Target
from provision.errors import Interrupted, JournalFull, Mismatch
from provision.host import Host
from provision.journal import Change, Journal
from provision.progress import Progress, quiet
from provision.resources import Guest, Key, Port, Resource, Switch, Uplink, Vnic, key
from provision.session import Session
from provision.spec import describe, restore
from provision.standing import state_of
from provision.state import State

# answers for an address unless a file of its name is there
PING = 'for at; do :; done; [ ! -e "$0/deaf-$at" ]'


@dataclass
class Bed:
    """A testbed of two guests that are really looked into; ``looked`` says whose inside was."""

    session: Session
    driver: Fake
    folder: Path
    looked: list[str]
    mtu: dict[str, int]

    def up(self) -> verbs.Built:
        self.looked.clear()
        built = verbs.up(self.session)
        resetting.keep_clean(self.session, built.testbed)
        return built

    def ask(self, **guests: int) -> None:
        """The same testbed with other guests."""
        data = describe(self.session.spec)
        self.session.spec = restore(data | {"guests": data["guests"] | guests})

    @property
    def guests(self) -> dict[str, Guest]:
        return {g.name: g for g in self.session.testbed().guests}

    def deaf(self, guest: str) -> Path:
        nic = self.guests[guest].nics[0]
        return self.folder / f"deaf-{nic.address.split('/')[0]}"

    def lose(self, kind: str, name: str) -> None:
        del self.driver.world[self.driver.at((kind, name))]

    def states(self) -> dict[str, str]:
        return {s.key[1]: s.words for s in state_of(self.session) if s.words}


def sees(guest: Guest, mtu: int) -> dict[str, Any]:
    """What a guest says of itself that is as asked, but for its data NIC's MTU."""

    def nic(vnic: Vnic, mtu: int) -> dict[str, Any]:
        return {"name": vnic.switch, "mac": vnic.mac, "pci_id": "1af4:1000", "mtu": mtu,
                "driver": "virtio_net", "addresses": [vnic.address]}  # fmt: skip

    return {"hostname": guest.name, "cpus": guest.vcpus, "memory_kib": guest.memory_mib * 1000,
            "nics": [nic(guest.management, 1500), *(nic(one, mtu) for one in guest.nics)],
            "kernel": "6.1"}  # fmt: skip


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    driver = Fake(Target("t", tmp_path))
    driver.facts = replace(driver.facts, simulated=False)
    journal = Journal(tmp_path / "state", "t")
    spec = restore({"name": "t", "hypervisor": {"type": "fake"}, "guests": {"count": 2}})
    session = Session(
        State(tmp_path / "state"), spec, None, journal, driver, driver, Access(tmp_path / "keys"),
        Host("lg", ("sh", "-c", PING, str(tmp_path))), Progress(quiet),
    )  # fmt: skip
    found = Bed(session, driver, tmp_path, [], {})

    def inspect(host: Host) -> dict[str, Any]:
        found.looked.append(host.name)
        return sees(found.guests[host.name], found.mtu.get(host.name, 1500))

    monkeypatch.setattr(proving, "inspect", inspect)
    monkeypatch.setattr(proving, "wait_ready", lambda *_, **__: None)
    monkeypatch.setattr(resetting, "wait_ready", lambda *_, **__: None)
    yield found
    journal.close()


def test_up_looks_inside_once_and_at_every_link_each_time(bed: Bed) -> None:
    bed.up()
    assert sorted(bed.looked) == ["vm1", "vm2"]
    bed.up()
    assert bed.looked == []
    bed.deaf("vm2").touch()
    with pytest.raises(Mismatch, match=r"vm2: the load generator does not reach 198\.18\.2\.2"):
        bed.up()


def test_each_link_of_a_guest_is_proved_and_what_one_stands_on_makes_it_doubtful(bed: Bed) -> None:
    bed.ask(count=1, nics_each=3)
    bed.up()
    third = bed.session.testbed().links[2]
    deaf = bed.folder / f"deaf-{third.guest_address.split('/')[0]}"
    deaf.touch()
    with pytest.raises(Mismatch, match=r"vm1: the load generator does not reach 198\.18\.3\.2"):
        bed.up()
    deaf.unlink()
    bed.up()
    assert bed.looked == ["vm1"]
    bed.lose("cable", third.uplink)
    bed.up()
    assert bed.looked == ["vm1"]


def test_a_guest_that_loses_nics_lets_go_of_their_switches_first(bed: Bed) -> None:
    """A hypervisor takes no switch away from under a guest; neither does the reference.

    The second switch stays, and is vm2's then; only vm2 stood on switches that go.
    """
    bed.ask(count=2, nics_each=2)
    bed.up()
    bed.ask(count=2, nics_each=1)
    built = bed.up()
    assert [s.sign for s in built.changed if s.key[0] == "guest"] == ["~", "!"]
    assert {g.name: len(g.nics) for g in built.testbed.guests} == {"vm1": 1, "vm2": 1}
    assert sum(k[0] == "switch" for k in bed.driver.world) == 3
    bed.ask(count=2, nics_each=2)
    bed.up()
    assert sum(k[0] == "switch" for k in bed.driver.world) == 5


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_what_a_guest_stands_on_makes_it_doubtful(bed: Bed, lost: int) -> None:
    bed.up()
    link = bed.session.testbed().links[0]
    k = [("switch", link.switch), ("cable", link.uplink), ("uplink", link.uplink),
         ("port", link.port)][lost]  # fmt: skip
    if lost < 2:
        bed.lose(*k)
    else:  # a state cannot be absent, only different
        there = bed.driver.world[k]
        assert isinstance(there, Uplink | Port)
        bed.driver.world[k] = replace(there, up=False)
    assert k in {step.key for step in bed.up().changed}
    assert bed.looked == ["vm1"]


def test_a_link_that_stays_dead_after_the_switch_is_mended_is_no_success(bed: Bed) -> None:
    bed.up()
    bed.lose("switch", bed.session.testbed().links[0].switch)
    bed.deaf("vm1").touch()
    for _ in range(2):  # neither at once nor when nothing is left to change
        with pytest.raises(Mismatch, match="vm1: the load generator does not reach"):
            bed.up()
        assert bed.looked == ["vm1"]


def test_what_only_a_guest_sees_is_never_forgotten(bed: Bed) -> None:
    bed.up()
    bed.mtu["vm1"] = 1400
    with pytest.raises(Mismatch, match="asked for MTU 1500, has 1400") as caught:
        proving.verify(bed.session, bed.session.testbed())
    assert caught.value.hint.startswith("provision reset -n t")
    with pytest.raises(Mismatch, match="asked for MTU 1500, has 1400"):
        bed.up()
    assert bed.looked == ["vm1"]
    bed.mtu.clear()
    bed.up()


def test_a_guest_that_was_never_right_is_to_be_made_anew(bed: Bed) -> None:
    bed.mtu["vm1"] = 1400
    with pytest.raises(Mismatch) as caught:
        bed.up()
    assert "reset --level recreate -n t" in caught.value.hint


def test_what_the_hypervisor_sees_is_for_up_to_mend(bed: Bed) -> None:
    bed.up()
    k = bed.driver.at(("guest", "vm1"))
    bed.driver.world[k] = replace(bed.guests["vm1"], running=False)
    with pytest.raises(Mismatch, match=r"guest/vm1\.running: asked for True, is False") as caught:
        proving.verify(bed.session, bed.session.testbed())
    assert caught.value.hint.startswith("provision up -n t")
    bed.up()
    assert bed.looked == ["vm1"]


def test_an_up_cut_short_before_the_checkpoint_is_made_good(bed: Bed) -> None:
    verbs.up(bed.session)
    with pytest.raises(Mismatch, match="vm1 has no checkpoint") as caught:
        resetting.reset(bed.session, "revert")
    assert (caught.value.exit_code, caught.value.hint) == (7, "provision up -n t")
    assert bed.up().changed == ()
    resetting.reset(bed.session, "revert")
    changes = bed.driver.changes
    bed.up()
    assert bed.driver.changes == changes, "a guest that is clean is not remembered again"


def test_a_lost_checkpoint_is_made_good(bed: Bed) -> None:
    bed.up()
    bed.driver.clean.clear()
    bed.up()
    resetting.reset(bed.session, "revert")


def test_a_guest_that_is_only_mended_keeps_its_checkpoint(bed: Bed) -> None:
    bed.up()
    k = bed.driver.at(("guest", "vm1"))
    kept = bed.driver.clean[k] = replace(bed.driver.clean[k], weight=333)
    bed.driver.world[k] = replace(bed.guests["vm1"], running=False)
    bed.up()
    assert bed.driver.clean[k] == kept
    bed.session.spec = restore(
        {"name": "t", "hypervisor": {"type": "fake"},
         "guests": {"count": 2, "cpu": {"weight": 512}}}
    )  # fmt: skip
    bed.up()
    assert bed.driver.clean[k] == bed.guests["vm1"]


def test_reset_of_a_guest_that_is_gone_says_up(bed: Bed) -> None:
    bed.up()
    bed.lose("guest", "vm1")
    with pytest.raises(Mismatch, match="guest vm1 does not exist") as caught:
        resetting.reset(bed.session, "revert")
    assert (caught.value.exit_code, caught.value.hint) == (7, "provision up -n t")


def test_stopped_says_how_far_it_came(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    put = bed.driver.put

    def last(want: Resource) -> None:
        put(want)
        if {bed.driver.at(("guest", name)) for name in ("vm1", "vm2")} <= bed.driver.world.keys():
            bed.session.stop.set()

    monkeypatch.setattr(bed.driver, "put", last)
    with pytest.raises(Interrupted, match="all is built, and not verified yet"):
        bed.up()
    bed.session.stop.clear()
    built = verbs.up(bed.session)
    bed.session.stop.set()
    with pytest.raises(Interrupted, match="all is verified, and not remembered as clean yet"):
        resetting.keep_clean(bed.session, built.testbed)


def test_status_is_of_what_should_be_there(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.up()
    assert bed.states() == {}
    monkeypatch.setattr(bed.driver, "put", lambda _want: bed.session.go_on("in the test"))
    bed.session.stop.set()
    with pytest.raises(Interrupted):
        resetting.recreate(bed.session, bed.session.testbed())
    bed.session.stop.clear()
    assert bed.states() == {}, "stopped before the first step"
    for name in ("vm1", "vm2"):
        bed.driver.drop(("guest", name))
        bed.session.journal.undone(("guest", name))  # as a down that was cut short leaves it
    assert bed.states() == {"vm1": "gone", "vm2": "gone"}


def test_nothing_is_run_on_what_a_down_cut_short_left(bed: Bed) -> None:
    bed.up()
    bed.driver.drop(("guest", "vm2"))
    bed.session.journal.undone(("guest", "vm2"))
    with pytest.raises(Mismatch, match="not as asked: vm2"):
        running.run(bed.session)


def test_status_tells_what_is_no_longer_asked_for(bed: Bed) -> None:
    bed.up()
    bed.session.spec = restore(
        {"name": "t", "hypervisor": {"type": "fake"}, "guests": {"count": 1}}
    )
    assert bed.states()["vm2"] == "no longer asked for"
    bed.session.spec = restore(
        {"name": "t", "hypervisor": {"type": "fake"}, "guests": {"count": 3}}
    )
    assert bed.states()["vm3"] == "gone"


def test_down_cut_short_then_up_knows_all_again(bed: Bed) -> None:
    """States of the lab's own NICs go with their cables; until then they are in the journal."""
    before = dict(bed.driver.world)
    bed.up()
    whole = set(bed.session.journal.originals())
    for link in bed.session.testbed().links:
        bed.session.journal.undone(("port", link.port))
        bed.session.journal.undone(("uplink", link.uplink))
    assert bed.up().changed == ()
    assert set(bed.session.journal.originals()) == whole
    assert bed.states() == {}
    verbs.down(bed.session)
    assert bed.driver.world == before


def test_down_frees_a_full_disk_without_a_reserve(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row can be written until the first guest, and its disk with it, is gone."""
    before = dict(bed.driver.world)
    bed.up()
    begin, drop = Journal.begin_all, bed.driver.drop
    full = [True]

    def no_room(self: Journal, changes: Iterable[Change]) -> None:
        if full:
            raise JournalFull("no room")
        begin(self, changes)

    def freeing(k: Key) -> None:
        drop(k)
        full.clear()

    monkeypatch.setattr(Journal, "begin_all", no_room)
    monkeypatch.setattr(bed.driver, "drop", freeing)
    verbs.down(bed.session)
    assert bed.driver.world == before


def test_a_change_is_not_begun_that_cannot_be_written_down(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise JournalFull("no room")

    before = dict(bed.driver.world)
    monkeypatch.setattr(Journal, "begin_all", no_room)
    with pytest.raises(Exception, match="no room") as caught:
        bed.up()
    assert getattr(caught.value, "exit_code", None) == 6
    assert bed.driver.world == before


def test_the_guests_are_the_specs(bed: Bed) -> None:
    bed.up()
    assert bed.driver.read(key(bed.guests["vm1"])) == bed.guests["vm1"]
    assert isinstance(bed.driver.read(("switch", bed.guests["vm1"].nics[0].switch)), Switch)
