"""Connections that break at any call, sessions that end, servers that are slow: nothing twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.vsphere import connect
from drivers.vsphere.wire import Limits, NotSent
from provision.errors import DriverError, Unreachable
from provision.resources import Resource, key
from tests.peers.vcsim import vim
from tests.vsphere import day
from tests.vsphere.day import GUEST, STEPS, SWITCH, Bed, Step
from tests.vsphere.test_faults import each_step, record
from tests.vsphere.wire import Call, Trouble, When

#: what may well be done again, as no more comes of it: an upload starts anew in an empty folder
REPEATABLE = {
    "DeleteDatastoreFile_Task", "MakeDirectory", "SearchDatastore_Task", "CopyVirtualDisk_Task",
    "RevertToSnapshot_Task",
}  # fmt: skip
#: tasks that take their time, on what the API's reference says they are listed with
LONG = {"CloneVM_Task", "CreateVM_Task", "ReconfigVM_Task", "CreateSnapshot_Task", "PowerOnVM_Task"}


@pytest.fixture(scope="module")
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with day.bed(request.param, tmp_path_factory.mktemp("bed")) as found:
        yield found


@pytest.fixture(scope="module")
def step(request: pytest.FixtureRequest) -> Step:
    return STEPS[request.param]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses to speak of before a call is made again."""
    monkeypatch.setattr(connect, "FIRST_PAUSE_S", 0.001)


def broken(at: Bed, step: Step, call: Call, nth: int, error: Any, when: When) -> Iterator[str]:
    """What is wrong where one call breaks: the work goes on, and does nothing twice."""
    driver = at.fresh()
    step.ready(at, driver)
    trouble = at.wires.arm(call.method, error, nth=nth, when=when)
    try:
        step.act(at, driver)
    except Exception as e:  # noqa: BLE001 (whatever it is, the work does not go on)
        yield f"{type(e).__name__}: {e}"
    done = Counter(at.wires.done())
    if at.wires.late:
        yield "a task is still under way"
    at.wires.calm()
    if not step.holds(at):
        yield "it is not done"
    if not trouble.struck and call.changes:
        yield "does not come about"
    if more := {m: n for m, n in done.items() if n > 1 and m not in REPEATABLE}:
        yield f"done more than once: {more}"
    driver.close()


@each_step
@pytest.mark.parametrize(
    ("error", "when"),
    [
        (lambda _on: ConnectionResetError(), "instead"),
        (lambda _on: ConnectionResetError(), "after"),
        (lambda _on: vim.fault.NotAuthenticated(), "instead"),
    ],
    ids=["cut before", "cut after", "no session"],
)
def test_the_work_goes_on(bed: Bed, step: Step, error: Any, when: When) -> None:
    seen: Counter[str] = Counter()
    wrong = []
    for call in record(bed, step):
        seen[call.method] += 1
        if call.changes or (when == "instead" and bed.image is None):
            found = broken(bed, step, call, seen[call.method], error, when)
            wrong += [f"{call.method} {seen[call.method]}: {w}" for w in found]
    driver = bed.driver()
    day.clear(bed, driver)
    driver.close()
    assert seen
    assert not wrong, "\n".join(wrong)
    assert bed.there() == bed.before


@each_step
def test_a_task_whose_start_was_lost_is_waited_for(bed: Bed, step: Step) -> None:
    """It goes on while we do not know of it: looking too soon would start it twice."""
    seen: Counter[str] = Counter()
    wrong = []
    for call in record(bed, step):
        seen[call.method] += 1
        if call.method in LONG and seen[call.method] == 1:
            found = broken(bed, step, call, 1, lambda _on: TimeoutError(), "late")
            wrong += [f"{call.method}: {w}" for w in found]
    driver = bed.driver()
    day.clear(bed, driver)
    driver.close()
    assert not wrong, "\n".join(wrong)
    assert bed.there() == bed.before


def test_no_connection_at_first(tmp_path: Path) -> None:
    """Nothing was sent, so that even a change may be sent again without a look."""
    with day.bed("ESX", tmp_path) as bed:
        driver = bed.driver()
        bed.wires.arm("AddVirtualSwitch", lambda _on: NotSent(), times=2)
        driver.put(SWITCH)
        assert [c.done for c in bed.wires.log if c.method == "AddVirtualSwitch"] == [
            False, False, True,
        ]  # fmt: skip
        driver.close()


def test_a_session_that_ended_by_itself_is_renewed(tmp_path: Path) -> None:
    with day.bed("ESX", tmp_path, idle_s=0.3) as bed:
        driver, pause = bed.driver(), threading.Event()
        for want in (SWITCH, GUEST):
            pause.wait(0.8)  # the server's own clock is what is waited for
            driver.put(want)
        pause.wait(0.8)
        assert driver.read(key(GUEST)) == GUEST
        assert sum(c.method == "Login" for c in bed.wires.log) >= 4
        assert Counter(bed.wires.done("CreateVM_Task", "AddVirtualSwitch")) == {
            "CreateVM_Task": 1, "AddVirtualSwitch": 1,
        }  # fmt: skip
        driver.close()


@pytest.mark.parametrize(
    ("method", "thing"), [("RetrievePropertiesEx", SWITCH), ("FindChild", GUEST)]
)
def test_a_server_that_is_too_slow_to_look_at(tmp_path: Path, method: str, thing: Resource) -> None:
    """Every try has its own deadline, and there are few of them."""
    with day.bed("ESX", tmp_path) as bed:
        driver = bed.driver(Limits(call_s=0.3, tools_s=0))
        bed.wires.arm(method, lambda _on: TimeoutError("timed out"), times=99)
        with pytest.raises(Unreachable, match=r"no answer within .* 0\.3 s a call"):
            driver.read(key(thing))
        assert sum(c.method == method for c in bed.wires.log) == connect.TRIES
        bed.wires.calm()
        driver.close()


def test_a_server_that_is_slow_to_act_is_looked_at_first(tmp_path: Path) -> None:
    """It answers after we have given up waiting, and the switch is there."""
    with day.bed("ESX", tmp_path, delay_ms={"AddVirtualSwitch": 700}) as bed:
        driver = bed.driver(Limits(call_s=0.4, tools_s=0))
        began = time.monotonic()
        driver.put(SWITCH)
        assert driver.read(key(SWITCH)) == SWITCH
        assert time.monotonic() - began < 10
        driver.drop(key(SWITCH))
        driver.close()
        assert bed.there() == bed.before


def test_one_that_never_answers_a_change_ends_in_time(tmp_path: Path) -> None:
    with day.bed("ESX", tmp_path) as bed:
        driver = bed.driver()
        bed.wires.arm("AddVirtualSwitch", lambda _on: TimeoutError(), times=99)
        with pytest.raises(
            DriverError, match=r"reply to AddVirtualSwitch was lost.*done or not"
        ) as e:
            driver.put(SWITCH)
        assert STEPS["switch"].doing in str(e.value) and e.value.hint
        assert sum(c.method == "AddVirtualSwitch" for c in bed.wires.log) == connect.TRIES
        bed.wires.calm()
        driver.put(SWITCH)
        driver.close()


def test_a_task_without_end_is_told_at_its_deadline(tmp_path: Path) -> None:
    with day.bed("ESX", tmp_path) as bed:
        driver = bed.driver(Limits(task_s=0.5, tools_s=0))
        driver.put(SWITCH)
        task = bed.wires.task(state="running")
        with pytest.raises(DriverError, match=r"no end of the task .* after 0\.5 s"):
            driver.guests.vms.tasks.wait(vim.Task(task._moId, driver.session))
        driver.close()


def test_a_busy_vm_is_waited_for(tmp_path: Path) -> None:
    with day.bed("ESX", tmp_path) as bed:
        driver = bed.driver()
        driver.put(SWITCH)
        bed.wires.calm()
        done = bed.wires.task(state="success")
        trouble = bed.wires.troubles
        busy = lambda _on: vim.fault.TaskInProgress(task=done)  # noqa: E731
        trouble.append(Trouble("PowerOnVM_Task", busy, times=2))
        driver.put(GUEST)
        assert driver.read(key(GUEST)) == GUEST
        driver.close()
