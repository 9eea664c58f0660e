"""What goes wrong on the wire: faults, lost answers, shells that are gone or refused, a slow host.

Either it is mended, or the error is clear and the same again goes on; nothing is done twice, and
no shell is left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from threading import Event
from typing import Any

import pytest
from winrm.exceptions import WinRMError

from drivers.hyperv.driver import Hyperv
from drivers.hyperv.wire import Limits
from provision.errors import DriverError, Unreachable
from provision.resources import BOOT, Tuning, key
from tests.hyperv import bed, shell
from tests.peers.hyperv.peer import Peer, hyperv_host
from tests.peers.wsman import faults
from tests.peers.wsman.endpoint import Request, Trouble
from tests.peers.wsman.shells import Quotas

SWITCH, GUEST = bed.switch(), bed.guest()
#: the host is broken: what of it is a refusal, and what a lost answer, the driver has to tell
ANSWERS: dict[str, Any] = {
    "dropped": "drop", "busy": 503, "broken": 500, "no-login": 401,
    "timed-out": faults.timed_out(), "no-shell": faults.no_shell(),
    "too-many-shells": faults.too_many_shells(30), "no-action": faults.no_action("uri"),
    "too-many-operations": faults.too_many_operations(15), "pipe-closed": faults.no_reader(),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses before another try are short."""
    monkeypatch.setattr("drivers.hyperv.pool.FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("drivers.hyperv.boot.PAUSE_S", 0.1)


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with hyperv_host(nics=10) as found:
        found.foreign_switch(bed.LAN)
        found.world.volume.make_folder(bed.DISKS)
        yield found


@pytest.fixture
def driver(peer: Peer) -> Iterator[Hyperv]:
    """At the end the host is as it was, and no shell is left."""
    peer.endpoint.calm()
    before = peer.inventory()
    with bed.driver(peer, storage=bed.DISKS) as found:
        yield found
        peer.endpoint.calm()
        for thing in (GUEST, SWITCH):
            found.drop(key(thing))
        assert not [*found.owned()]
    assert peer.inventory() == before
    peer.endpoint.wait_quiet()


def strike(peer: Peer, action: str, trouble: Trouble, times: int = 1) -> list[Request]:
    """Disturb the next requests of that action; those that were."""
    struck: list[Request] = []

    def hook(request: Request) -> Trouble | None:
        if request.action == action and len(struck) < times:
            struck.append(request)
            return trouble
        return None

    peer.endpoint.hook = hook
    return struck


@pytest.mark.parametrize("name", ANSWERS)
def test_one_message_goes_wrong(driver: Hyperv, peer: Peer, name: str) -> None:
    """Done or not, at whichever message, with a new shell or an old one."""
    for action, acts in product(("Create", "Command", "Send", "Receive"), (True, False)):
        if acts and name in ("no-login", "timed-out"):
            continue  # who is not known is not obeyed; who has nothing to tell has told nothing
        if action == "Create" and name == "no-login":
            continue  # then it is the password, and no other try is made
        if acts and action in ("Create", "Command") and name != "dropped":
            continue  # a shell of which nobody heard is ended by the host when it rested long
        assert driver.read(key(SWITCH)) is None
        if action in ("Create", "Command"):
            driver.pool.forget()  # so that it opens another
            peer.endpoint.shells.end()
        made = len(peer.calls("New-VMSwitch"))
        struck = strike(peer, action, Trouble(acts=acts, answer=ANSWERS[name]))
        try:
            driver.put(SWITCH)
        except DriverError as e:
            assert str(e) and e.hint, (action, acts)
            peer.endpoint.calm()
            driver.put(SWITCH)
        peer.endpoint.calm()
        assert struck, (action, acts)
        assert driver.read(key(SWITCH)) == SWITCH
        assert len(peer.calls("New-VMSwitch")) == made + 1, (action, acts)
        driver.drop(key(SWITCH))


def test_the_host_never_answers_again(driver: Hyperv, peer: Peer) -> None:
    """The error says who and what to do, and how it stands is found out by the next command."""
    driver.put(SWITCH)
    for acts in (True, False):
        strike(peer, "Receive", Trouble(acts=acts, answer="drop"), times=100)
        with pytest.raises((DriverError, Unreachable)) as told:
            driver.put(GUEST)
        assert told.value.hint
        peer.endpoint.calm()
        driver.put(GUEST)
        assert driver.read(key(GUEST)) == GUEST
        assert [m.name for m in peer.world.machines] == ["bed-vm1"]
        driver.drop(key(GUEST))


def test_shells_that_expired_are_opened_anew(driver: Hyperv, peer: Peer) -> None:
    driver.put(SWITCH)
    opened = peer.endpoint.shells.opened
    peer.endpoint.shells.end()  # as after ten minutes, or when WinRM's service was restarted
    assert driver.read(key(SWITCH)) == SWITCH
    peer.endpoint.shells.end()
    driver.put(GUEST)
    assert driver.read(key(GUEST)) == GUEST
    assert peer.endpoint.shells.opened == opened + 2


def test_with_few_shells_it_makes_do() -> None:
    """Six are ours where the host has them; with two, all is done all the same."""
    with hyperv_host(nics=10, quotas=Quotas(shells_per_user=2)) as few:
        few.foreign_switch(bed.LAN)
        few.world.volume.make_folder(bed.DISKS)
        guests = [bed.guest(n) for n in range(1, 9)]
        with bed.driver(few, storage=bed.DISKS) as driver, ThreadPoolExecutor(8) as pool:
            list(pool.map(driver.put, [bed.switch(n) for n in range(1, 9)]))
            list(pool.map(driver.put, guests))
            assert driver.look(map(key, guests)) == {key(g): g for g in guests}
            assert len(few.calls("New-VM")) == 8
            list(pool.map(driver.drop, map(key, guests)))
        assert not few.endpoint.shells.open


def test_without_any_shell_the_error_says_so() -> None:
    """Others of the same user have them all."""
    with hyperv_host(quotas=Quotas(shells_per_user=1)) as full, shell.connected(full):
        with pytest.raises(Unreachable, match="no shell left for us") as told:
            Hyperv(bed.target(full))
        assert "MaxShellsPerUser" in (told.value.hint or "")
        assert len(full.endpoint.shells.open) == 1  # not ours, and left alone


def test_a_slow_host_is_waited_for(peer: Peer) -> None:
    """What takes longer than a message may is asked for again; a host that is silent is lost."""
    with bed.driver(peer, Limits(message_s=1, late_s=1), storage=bed.DISKS) as driver:
        held = Event()

        def slow(doing: Any) -> None:
            if doing.name == "New-VMSwitch" and not held.is_set():
                held.wait(2.2)
                held.set()

        peer.world.hold = slow
        driver.put(SWITCH)
        assert held.is_set() and len(peer.calls("New-VMSwitch")) >= 1
        peer.world.hold = lambda _doing: None
        assert driver.read(key(SWITCH)) == SWITCH
        made = len(peer.calls("Remove-VMSwitch"))
        struck = strike(peer, "Receive", Trouble(delay_s=4))
        driver.drop(key(SWITCH))
        peer.endpoint.calm()
        assert struck
        assert driver.read(key(SWITCH)) is None
        assert len(peer.calls("Remove-VMSwitch")) == made + 1
    peer.endpoint.wait_quiet()


def test_closing_ends_every_shell_though_messages_are_lost(peer: Peer) -> None:
    driver = Hyperv(bed.target(peer, storage=bed.DISKS))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: driver.read(key(bed.switch(n))), range(1, 5)))
    strike(peer, "Delete", Trouble(acts=True, answer="drop"), times=2)
    driver.close()
    peer.endpoint.calm()
    assert not peer.endpoint.shells.open


@pytest.mark.parametrize("action", ["Create", "Send", "Receive"])
def test_a_restart_of_which_a_message_is_lost(driver: Hyperv, peer: Peer, action: str) -> None:
    """However it is told: the host is restarted once, and has the number of CPUs."""
    boots = peer.world.boots
    if action == "Create":
        driver.pool.forget()
        peer.endpoint.shells.end()
    armed = Event()

    def hold(doing: Any) -> None:
        if doing.name == "Restart-Computer":
            armed.set()

    def hook(request: Request) -> Trouble | None:
        if request.action == action and (action == "Create" or armed.is_set()):
            peer.endpoint.hook = None
            return Trouble(acts=action != "Create", answer="drop")
        return None

    peer.world.hold, peer.endpoint.hook = hold, hook
    wanted = Tuning(BOOT[1], "hypervisorrootproc=2")
    driver.put(wanted)
    peer.world.hold = lambda _doing: None
    assert driver.read(BOOT) == wanted
    assert peer.world.boots == boots + 1
    driver.put(Tuning(BOOT[1], ""))
    assert peer.world.boots == boots + 2


def test_over_http_a_password_is_never_sent(peer: Peer) -> None:
    """The host itself refuses Basic there, whatever a client offers."""
    before = peer.endpoint.shells.open
    bare = shell.protocol(peer, transport="basic", message_encryption="never")
    with pytest.raises(WinRMError):
        bare.open_shell()
    assert peer.endpoint.shells.open == before
