"""Every cmdlet that the driver calls fails once, before and after its work.

The error is clear, and the same wish again is fulfilled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from drivers.hyperv.driver import Hyperv
from drivers.hyperv.wire import Limits
from provision.errors import DriverError, PreflightError
from provision.resources import Resource, Uplink, key
from tests.hyperv import bed
from tests.peers.hyperv.binding import tables
from tests.peers.hyperv.peer import Peer, hyperv_host
from tests.peers.hyperv.world import CmdletTrouble
from tests.peers.powershell.errors import ErrorRecord

SWITCH, GUEST = bed.switch(), bed.guest()
LEGACY = bed.guest(nics=(replace(GUEST.nics[0], model="legacy"),))
TUNED = replace(GUEST, weight=512, cap_percent=50,
                nics=(replace(GUEST.nics[0], rate_mbit=100),))  # fmt: skip
BIGGER = replace(GUEST, memory_mib=1024)
PLAIN = Uplink("Ethernet 2", 1500, up=True, ipv6=True, lro=True)
SET = Uplink("Ethernet 2", 9000, up=True, ipv6=False, lro=False)
DOWN = replace(PLAIN, up=False)
READS = ("Get-", "Test-")
#: what says that something went wrong, in turn: id, category
FAULTS = (
    ("OperationFailed", "NotSpecified"), ("AccessDenied", "PermissionDenied"),
    ("InvalidState", "InvalidOperation"), ("ObjectInUse", "ResourceBusy"),
    ("OutOfMemory", "ResourceUnavailable"), ("InvalidParameter", "InvalidArgument"),
    ("ObjectNotFound", "ObjectNotFound"),
)  # fmt: skip
When = Literal["instead", "after"]


@dataclass(frozen=True)
class Step:
    """What is done, and undone, and what there is when it is done; None = it is gone."""

    do: Callable[[Hyperv], None]
    undo: Callable[[Hyperv], None]
    done: Resource | None
    first: tuple[Resource, ...] = ()


def put(want: Resource) -> Callable[[Hyperv], None]:
    return lambda driver: driver.put(want)


def drop(thing: Resource) -> Callable[[Hyperv], None]:
    return lambda driver: driver.drop(key(thing))


def nothing(_: Hyperv) -> None: ...


STEPS = {
    "uplink": Step(put(SET), put(PLAIN), SET),
    "uplink-down": Step(put(DOWN), put(PLAIN), DOWN),
    "uplink-up": Step(put(PLAIN), put(DOWN), PLAIN, (DOWN,)),
    "switch": Step(put(SWITCH), drop(SWITCH), SWITCH),
    "drop-switch": Step(drop(SWITCH), put(SWITCH), None, (SWITCH,)),
    "guest": Step(put(GUEST), drop(GUEST), GUEST, (SWITCH,)),
    "legacy-guest": Step(put(LEGACY), drop(LEGACY), LEGACY, (SWITCH,)),
    "tune": Step(put(TUNED), put(GUEST), TUNED, (SWITCH, GUEST)),
    "change": Step(put(BIGGER), put(GUEST), BIGGER, (SWITCH, GUEST)),
    "off": Step(put(replace(GUEST, running=False)), put(GUEST), replace(GUEST, running=False),
                (SWITCH, GUEST)),
    "checkpoint": Step(lambda d: d.checkpoint(key(GUEST)), nothing, GUEST, (SWITCH, GUEST)),
    "drop-guest": Step(drop(GUEST), put(GUEST), None, (SWITCH, GUEST)),
}  # fmt: skip


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with hyperv_host(nics=3) as found:
        found.foreign_switch(bed.LAN)
        found.world.volume.make_folder(bed.DISKS)
        yield found


@pytest.fixture
def driver(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hyperv]:
    """At the end the host is as it was, and no shell is left."""
    monkeypatch.setattr("drivers.hyperv.pool.FIRST_PAUSE_S", 0.001)
    before = peer.inventory()
    with bed.driver(peer, Limits(guest_s=5), storage=bed.DISKS) as found:
        yield found
        peer.world.troubles.clear()
        for thing in (GUEST, SWITCH):
            found.drop(key(thing))
        found.put(PLAIN)
        assert not [*found.owned()]
    assert peer.inventory() == before
    assert not peer.endpoint.shells.open


def _called(peer: Peer, step: Step, driver: Hyperv) -> list[str]:
    """The cmdlets that change something, in a step that nothing disturbs."""
    peer.world.calls.clear()
    step.do(driver)
    names = [c.name for c in peer.world.calls]
    step.undo(driver)
    return [n for n in dict.fromkeys(names) if not n.startswith(READS) and n.lower() in tables()]


def _record(cmdlet: str, number: int) -> ErrorRecord:
    id, category = FAULTS[number % len(FAULTS)]
    family = f"Microsoft.HyperV.PowerShell.Commands.{cmdlet.replace('-', '')}"
    return ErrorRecord(f"{id},{family}", category, f"it does not {cmdlet} today")


@pytest.mark.parametrize("name", STEPS)
def test_a_cmdlet_that_fails_is_named_and_the_same_again_goes_on(
    driver: Hyperv, peer: Peer, name: str
) -> None:
    step = STEPS[name]
    for thing in step.first:
        driver.put(thing)
    cmdlets = _called(peer, step, driver)
    assert cmdlets
    whens: tuple[When, ...] = ("instead", "after")
    for number, (cmdlet, when) in enumerate((c, w) for c in cmdlets for w in whens):
        trouble = CmdletTrouble(cmdlet, _record(cmdlet, number), when)
        peer.world.troubles[:] = [trouble]
        failed = ""
        try:
            step.do(driver)
        except DriverError as e:
            failed = str(e)
            assert f"{cmdlet}: it does not" in failed, failed
        assert trouble.struck, cmdlet
        again = cmdlet in ("Remove-Item",)  # done again by itself: files are freed late
        assert bool(failed) != again, (cmdlet, when)
        step.do(driver)
        if step.done is not None:
            assert driver.read(key(step.done)) == step.done, (cmdlet, when)
        names = [m.name for m in peer.world.machines]
        assert len(names) == len(set(names))
        step.undo(driver)


def test_going_back(driver: Hyperv, peer: Peer) -> None:
    """Whatever fails, there is one checkpoint, and going back is done by the next try."""
    for thing in (SWITCH, GUEST):
        driver.put(thing)
    driver.checkpoint(key(GUEST))
    for number, cmdlet in enumerate(("Restore-VMSnapshot", "Start-VM")):
        for when in ("instead", "after"):
            peer.world.troubles[:] = [CmdletTrouble(cmdlet, _record(cmdlet, number), when)]
            with pytest.raises(DriverError, match=f"revert guest vm1: {cmdlet}"):
                driver.revert(key(GUEST))
            driver.revert(key(GUEST))
            assert driver.read(key(GUEST)) == GUEST
            assert driver.has_checkpoint(key(GUEST))
            assert len(peer.vm("bed-vm1").snapshots) == 1


@pytest.mark.parametrize(
    ("cmdlet", "id", "says"),
    [
        ("Get-VMHost", "CommandNotFoundException", "it has no Hyper-V"),
        ("Get-VMHost", "AccessDenied,Microsoft", "Hyper-V Administrators"),
        ("Get-VMSwitch", "AccessDenied,Microsoft", "Hyper-V Administrators"),
        ("Get-CimInstance", "HRESULT 0x80041003,Microsoft", "Hyper-V Administrators"),
    ],
)
def test_a_host_that_does_not_let_us_look(peer: Peer, cmdlet: str, id: str, says: str) -> None:
    record = ErrorRecord(id, "PermissionDenied", "no")
    peer.world.troubles[:] = [CmdletTrouble(cmdlet, record)]
    with pytest.raises(PreflightError) as told:
        Hyperv(bed.target(peer))
    assert says in f"{told.value} {told.value.hint}"
    peer.world.troubles.clear()
    assert not peer.endpoint.shells.open


@pytest.mark.parametrize("cmdlet", ["Get-NetAdapterHardwareInfo", "Get-NetLbfoTeamMember",
                                    "Get-NetAdapterRsc", "Get-NetRoute"])  # fmt: skip
def test_what_a_host_need_not_have(peer: Peer, cmdlet: str) -> None:
    """A desktop Windows has no teams, a virtual adapter no slot: no error, only less is known."""
    record = ErrorRecord(f"CmdletizationQuery_NotFound,{cmdlet}", "ObjectNotFound", "none")
    peer.world.troubles[:] = [CmdletTrouble(cmdlet, record)]
    with bed.driver(peer) as driver:
        assert len(driver.facts.uplinks) == 3
    peer.world.troubles.clear()
