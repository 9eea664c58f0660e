"""Every error that XenAPI declares for a call that we make: told, and no harm done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from drivers.xenserver.driver import XenServer
from provision.errors import DriverError, Unreachable, UserError
from tests.peers.xapi.table import load
from tests.peers.xapi.wire import Call, Trouble, When
from tests.xenserver import day
from tests.xenserver.day import STEPS, Bed, Step

SAID = "said by the test"
MODEL = load()
#: any call may end in these: xapi's own fault, a role that is too small
ANY = ("INTERNAL_ERROR", "RBAC_PERMISSION_DENIED")
#: what calls that declare nothing fail with in practice: full or broken storage, a name that is
#: taken, something that went away meanwhile
MORE = {
    "VDI.create": ("SR_FULL", "SR_BACKEND_FAILURE_44", "SR_BACKEND_FAILURE"),
    "VDI.destroy": ("VDI_IN_USE", "SR_BACKEND_FAILURE"),
    "VBD.create": ("DEVICE_ALREADY_EXISTS", "INVALID_DEVICE"),
    "VIF.create": ("DEVICE_ALREADY_EXISTS", "MAC_INVALID"),
    "VM.clone": ("SR_BACKEND_FAILURE", "TASK_CANCELLED"),
    "VM.start_on": (
        "HOST_NOT_ENOUGH_FREE_MEMORY", "HOST_DISABLED", "VM_HVM_REQUIRED", "VM_REQUIRES_SR",
        "HOST_CANNOT_ATTACH_NETWORK", "TASK_CANCELLED",
    ),
    "VM.checkpoint": ("VM_MISSING_PV_DRIVERS", "LICENCE_RESTRICTION"),
    "VM.destroy": ("OPERATION_BLOCKED",),
    "VM.set_memory_limits": ("MEMORY_CONSTRAINT_VIOLATION_ORDER",),
    "PIF.plug": ("CANNOT_PLUG_BOND_SLAVE",),
    "network.add_to_other_config": ("MAP_DUPLICATE_KEY",),
}  # fmt: skip
#: what is said of a state is believed, where it is the state that was wanted
BELIEVED = {
    ("VM.hard_shutdown", "VM_BAD_POWER_STATE"), ("VM.start_on", "VM_BAD_POWER_STATE"),
    ("PIF.unplug", "PIF_DOES_NOT_ALLOW_UNPLUG"),
}  # fmt: skip
#: steps that look as others do
ALIKE = ("restart", "emulated", "checkpoint again")
_TOLD = (DriverError, Unreachable, UserError)


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with day.bed() as found:
        yield found


@dataclass(frozen=True)
class Case:
    """An error, at the ``nth`` call of a method in a step; one that looks may be spared."""

    method: str
    nth: int
    error: tuple[str, ...]
    when: When
    looks: bool

    def __str__(self) -> str:
        return f"{self.error[0]}, {self.when}, {self.method} {self.nth}"

    def arm(self, at: Bed) -> Trouble:
        return at.peer.wire.arm(self.method, *self.error, nth=self.nth, when=self.when)


def declared(name: str) -> Sequence[str]:
    """The codes that the published model has for a call, and those that come besides."""
    cls, _, verb = name.partition(".")
    found = MODEL.classes[cls].messages[verb].errors
    return [*found, *(c for c in MORE.get(name, ()) if c not in found and c in MODEL.errors)]


def full(code: str) -> tuple[str, ...]:
    """The code with as many parameters as it has; a driver may ask for an object that is named."""
    if code == "OTHER_OPERATION_IN_PROGRESS":
        return code, "VM", SAID, "clone", SAID
    return code, *(SAID for _ in MODEL.errors[code] or ())


def cases(calls: Sequence[Call]) -> Iterator[Case]:
    """What may befall these calls.

    Sampled: of those that look, and of roles that are too small, the first of each method.
    """
    seen: Counter[str] = Counter()
    for call in calls:
        seen[call.name] += 1
        nth, looks = seen[call.name], not call.changes
        if call.name.startswith("PUT ") or (looks and nth > 1):
            continue
        own: When = "task" if call.method.startswith("Async.") else "instead"
        for code in declared(call.name):
            yield Case(call.name, nth, full(code), own, looks)
        for code in ANY if nth == 1 and not looks else ANY[:1]:
            yield Case(call.name, nth, full(code), "instead", looks)


def record(at: Bed, driver: XenServer, step: Step) -> list[Call]:
    """The calls of a step that nothing disturbs, with no disk left that a test before it left."""
    day.clear(at, driver)
    step.ready(at, driver)
    at.peer.wire.calm()
    step.act(at, driver)
    found = [*at.peer.wire.log]
    assert step.holds(at)
    return found


def disturb(at: Bed, driver: XenServer, step: Step, case: Case) -> Iterator[str]:
    """What is wrong with how an error is told, and with what comes of it."""
    step.ready(at, driver)
    trouble = case.arm(at)
    try:
        step.act(at, driver)
    except _TOLD as e:
        yield from ill_told(e, step, case)
    except Exception as e:  # noqa: BLE001 (whatever else it is, it is wrong)
        yield f"raises {type(e).__name__}: {e}"
    else:
        if not step.holds(at) and (case.method, case.error[0]) not in BELIEVED:
            yield "nothing is said, and it is not done"
    if not (trouble.struck or case.looks):
        yield "does not come about"
    at.peer.wire.calm()
    tasks = at.tasks_left()
    if tasks and case.method != "task.destroy":
        yield f"leaves tasks: {tasks}"


def ill_told(error: BaseException, step: Step, case: Case) -> Iterator[str]:
    """What an error lacks, or has too much of."""
    text = str(error)
    found_out = (case.method, case.error[0]) in BELIEVED  # by the next call, which says the truth
    if case.error[0] not in text or (len(case.error) > 1 and SAID not in text and not found_out):
        yield f"does not say what: {text}"
    if step.doing not in text:
        yield f"does not say what was being done: {text}"
    if "\n" in text or len(text) > 700:
        yield f"is too long: {text}"


def again(at: Bed, driver: XenServer, step: Step) -> Iterator[str]:
    """What is wrong with the same once more, now that nothing disturbs it."""
    try:
        step.act(at, driver)
    except Exception as e:  # noqa: BLE001
        yield f"then, again: {type(e).__name__}: {e}"
    else:
        if not step.holds(at):
            yield "then, again, it is not done"


@pytest.mark.parametrize("name", STEPS)
def test_it_is_told_and_the_next_try_succeeds(bed: Bed, name: str) -> None:
    step, driver = STEPS[name], bed.driver()
    calls = record(bed, driver, step)
    todo, wrong = [*cases([c for c in calls if c.changes or name not in ALIKE])], []
    for case in todo:
        found = [*disturb(bed, driver, step, case), *again(bed, driver, step)]
        wrong += [f"{case}: {w}" for w in found]
    assert len(todo) > 4
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", STEPS)
def test_after_it_down_leaves_nothing(bed: Bed, name: str) -> None:
    """A driver of its own clears up, as ``down`` after a failed ``up`` is one."""
    step, driver, other, wrong = STEPS[name], bed.driver(), bed.driver(), []
    for case in cases([c for c in record(bed, driver, step) if c.changes]):
        if case.error[0] == ANY[0]:
            wrong += [f"{case}: {w}" for w in disturb(bed, driver, step, case)]
            day.clear(bed, other)
            if left := bed.left():
                wrong.append(f"{case}: left: {left}")
    assert not wrong, "\n".join(wrong)
