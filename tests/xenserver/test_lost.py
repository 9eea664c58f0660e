"""Connections that break at any call, sessions that end, servers that are slow: nothing twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.xenserver import connect
from drivers.xenserver.driver import XenServer
from drivers.xenserver.wire import Limits
from provision.driver import Login, Tls
from provision.errors import DriverError, Unreachable
from provision.resources import key
from tests.peers import certs
from tests.peers.xapi.wire import Call, When
from tests.xenserver import day
from tests.xenserver.day import GUEST, STEPS, SWITCH, Bed, Step
from tests.xenserver.test_faults import ALIKE, record

#: what may well be done again, as no more comes of it: what says how things are to be, tasks that
#: find a VM as it is to be, and an identity's disk, all of which go with the guest
REPEATABLE = {
    "VM.set_memory_limits", "VM.set_VCPUs_params", "network.remove_tags",
    "network.remove_from_other_config", "VM.revert", "VM.hard_shutdown", "VM.resume", "VDI.create",
}  # fmt: skip


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with day.bed() as found:
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses to speak of before a call is made again."""
    monkeypatch.setattr(connect, "FIRST_PAUSE_S", 0.001)


class Password:
    """A wrong one that counts how often it is asked for."""

    asked = 0

    def __call__(self) -> str:
        self.asked += 1
        return "hunter2-and-more"


def broken(
    at: Bed, driver: XenServer, step: Step, call: Call, nth: int, when: When
) -> Iterator[str]:
    """What is wrong where one call breaks: the work goes on, and does nothing twice."""
    step.ready(at, driver)
    trouble = at.peer.wire.arm(call.name, nth=nth, when=when)
    try:
        step.act(at, driver)
    except Exception as e:  # noqa: BLE001 (whatever it is, the work does not go on)
        if call.name.startswith("PUT ") and "upload" in str(e):
            return
        yield f"{type(e).__name__}: {e}"
    log = [*at.peer.wire.log]
    if not step.holds(at):
        yield "it is not done"
    if not trouble.struck and call.changes:
        yield "does not come about"
    same = Counter((c.name, str(c.params[1:])) for c in log if c.done and c.changes)
    if more := [name for (name, _), n in same.items() if n > 1 and name not in REPEATABLE]:
        yield f"done more than once: {more}"


@pytest.mark.parametrize("when", ["cut before", "cut after", "expired"])
@pytest.mark.parametrize("name", STEPS)
def test_the_work_goes_on(bed: Bed, name: str, when: When) -> None:
    """At every call that changes something.

    Sampled: of those that look, and of sessions that end, the first of each method.
    """
    step, driver = STEPS[name], bed.driver()
    seen: Counter[str] = Counter()
    wrong = []
    for call in record(bed, driver, step):
        seen[call.name] += 1
        first, looks = seen[call.name] == 1, when == "cut before" and name not in ALIKE
        if (first or when != "expired") if call.changes else (first and looks):
            found = broken(bed, driver, step, call, seen[call.name], when)
            wrong += [f"{call.name} {seen[call.name]}: {w}" for w in found]
    day.clear(bed, driver)
    left = bed.left()
    bed.tasks_left()  # one whose start was not heard of: nobody can know it
    assert not wrong, "\n".join(wrong)
    assert not left


def test_no_connection_at_first(bed: Bed) -> None:
    """Nothing was sent, so that even a change may be sent again without a look."""
    driver = bed.driver()
    driver.read(key(SWITCH))
    (door,) = bed.peer.doors
    door.shut()
    with pytest.raises(Unreachable, match="refused"):
        driver.put(SWITCH)
    door.open()
    driver.put(SWITCH)
    assert bed.sees(SWITCH) == SWITCH


def test_sessions_that_ended_are_renewed(bed: Bed) -> None:
    driver = bed.driver()
    for want in (SWITCH, GUEST):
        bed.peer.expire()
        driver.put(want)
    bed.peer.expire()
    assert driver.read(key(GUEST)) == GUEST


def test_a_server_that_is_too_slow_to_look_at(bed: Bed) -> None:
    """Every try has its own deadline, and there are few of them."""
    driver = bed.driver(Limits(call_s=0.3))
    bed.peer.wire.arm("network.get_all_records", when="slow", times=99)
    with pytest.raises(Unreachable, match=r"no answer within .* 0\.3 s a call"):
        driver.read(key(SWITCH))
    bed.peer.wire.calm()
    assert driver.read(key(SWITCH)) in (None, SWITCH)


def test_a_server_that_is_slow_to_act_is_looked_at_first(bed: Bed) -> None:
    """It answers after we have given up waiting, and the guest is there: once."""
    driver = bed.driver(Limits(call_s=0.5, task_s=20))
    driver.drop(key(GUEST))
    driver.put(SWITCH)
    bed.peer.wire.arm("VM.clone", when="slow")
    driver.put(GUEST)
    assert bed.peer.wire.done("VM.clone") == ["VM.clone"]
    assert bed.sees(GUEST) == GUEST
    bed.tasks_left()


def test_one_that_never_answers_a_change_ends_in_time(bed: Bed) -> None:
    driver = bed.driver()
    driver.drop(key(GUEST))
    driver.drop(key(SWITCH))
    bed.peer.wire.arm("network.set_name_label", when="cut before", times=99)
    with pytest.raises(DriverError, match=r"reply to network\.set_name_label was lost") as e:
        driver.put(SWITCH)
    assert STEPS["switch"].doing in str(e.value)
    assert e.value.hint
    assert len(bed.peer.wire.sent("network.set_name_label")) == connect.TRIES
    bed.peer.wire.calm()
    driver.put(SWITCH)
    assert bed.sees(SWITCH) == SWITCH


def test_a_task_without_end_is_cancelled_at_its_deadline(bed: Bed) -> None:
    driver = bed.driver(Limits(task_s=0.5))
    driver.put(SWITCH)
    driver.drop(key(GUEST))
    bed.peer.world.task_s, began = 60.0, time.monotonic()
    with pytest.raises(DriverError, match=r"no end of VM\.clone after 0\.5 s"):
        driver.put(GUEST)
    bed.peer.world.task_s = 0.0
    assert time.monotonic() - began < 20
    assert len(bed.peer.wire.sent("task.cancel")) == 1
    bed.driver().put(GUEST)
    assert bed.sees(GUEST) == GUEST
    assert not bed.peer.tasks()


def test_a_wrong_password_is_tried_once_and_never_shown(bed: Bed) -> None:
    password = Password()
    with pytest.raises(Unreachable, match="refuses user 'root': wrong name or password") as e:
        bed.driver(login=Login("root", password))
    assert password.asked == 1
    assert "hunter2" not in f"{e.value} {e.value.hint} {e.value!r}"


def test_a_certificate_that_is_another(bed: Bed, tmp_path: Path) -> None:
    """The password is asked for only once the server has proved itself."""
    password = Password()
    for tls, says in (
        (Tls(ca=certs.make(tmp_path).ca), "not trusted"),
        (Tls(), "not trusted"),
        (Tls(fingerprint="0" * 64), f"is {bed.peer.fingerprint}, not {'0' * 64}"),
    ):
        with pytest.raises(Unreachable, match=says) as e:
            bed.driver(tls=tls, login=Login("root", password))
        assert "openssl" in e.value.hint
    assert password.asked == 0
