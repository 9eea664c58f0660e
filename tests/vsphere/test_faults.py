"""Every fault that the vSphere API declares for a call that we make: told, and no harm done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from pyVmomi import VmomiSupport

from drivers.vsphere.driver import Vsphere
from provision.errors import DriverError, Unreachable, UserError
from tests.peers.vcsim import vim, vmodl
from tests.vsphere import day
from tests.vsphere.day import STEPS, Bed, Step
from tests.vsphere.wire import Call, Trouble, When

SAID = "said by the test"
#: any call may end in these: the API's reference, RuntimeFault
ANY = (vmodl.fault.SystemError, vim.fault.NoPermission, vmodl.fault.HostCommunication)
#: what is said to be gone is taken to be gone
BELIEVED = {("RemoveVirtualSwitch", "NotFound"), ("RemovePortGroup", "NotFound")}
_support: Any = VmomiSupport
_TOLD = (DriverError, Unreachable, UserError)


#: only how guests come and go is another thing on ESXi, and for guests of a file
PLACES = [
    pytest.param(model, step, id=f"{model}-{step}") for model in day.MODELS for step in STEPS
    if model == "VPX" or step in ("guest", "drop guest")
]  # fmt: skip
each_step = pytest.mark.parametrize(("bed", "step"), PLACES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with day.bed(request.param, tmp_path_factory.mktemp("bed")) as found:
        yield found


@pytest.fixture(scope="module")
def step(request: pytest.FixtureRequest) -> Step:
    return STEPS[request.param]


@dataclass(frozen=True)
class Case:
    """A fault, at the ``nth`` call of a method in a step; one that looks may be spared."""

    method: str
    nth: int
    kind: Any
    when: When
    looks: bool

    def __str__(self) -> str:
        return f"{self.fault}, {self.when}, {self.method} {self.nth}"

    @property
    def fault(self) -> str:
        return str(self.kind.__name__).rpartition(".")[2]

    def arm(self, at: Bed) -> Trouble:
        def error(on: Any) -> BaseException:
            found: BaseException = self.kind(msg=SAID)
            if isinstance(found, vim.fault.NoPermission):
                found.object, found.privilegeId = on, "Some.Privilege"
            return found

        return at.wires.arm(self.method, error, nth=self.nth, when=self.when)


def cases(calls: Sequence[Call], *, full: bool) -> Iterator[Case]:
    """What may befall these calls; what is not of a method alone befalls a task at its start."""
    seen: Counter[str] = Counter()
    for call in calls:
        seen[call.method] += 1
        nth, looks = seen[call.method], not call.changes
        own: When = "task" if call.method.endswith("_Task") else "instead"
        for name in call.info.faults:
            yield Case(call.method, nth, _support.GetVmodlType(name), own, looks)
        for kind in ANY if full and call.changes else ANY[:1]:
            yield Case(call.method, nth, kind, "instead" if full else own, looks)


def record(at: Bed, step: Step) -> list[Call]:
    """The calls of a step that nothing disturbs."""
    driver = at.fresh()
    step.ready(at, driver)
    at.wires.calm()
    step.act(at, driver)
    found = [*at.wires.log]
    assert step.holds(at)
    driver.close()
    return found


def disturb(at: Bed, driver: Vsphere, step: Step, case: Case) -> Iterator[str]:
    """What is wrong with how a fault is told, and with what comes of it."""
    step.ready(at, driver)
    trouble = case.arm(at)
    try:
        step.act(at, driver)
    except _TOLD as e:
        yield from ill_told(e, step, case)
    except Exception as e:  # noqa: BLE001 (whatever else it is, it is wrong)
        yield f"raises {type(e).__name__}: {e}"
    else:
        if not step.holds(at) and (case.method, case.fault) not in BELIEVED:
            yield "nothing is said, and it is not done"
    if not (trouble.struck or case.looks):
        yield "does not come about"
    at.wires.calm()


def ill_told(error: BaseException, step: Step, case: Case) -> Iterator[str]:
    """What an error lacks, or has too much of."""
    text = str(error)
    if case.fault not in text or SAID not in text:
        yield f"does not say what: {text}"
    if step.doing not in text:
        yield f"does not say what was being done: {text}"
    if "\n" in text or len(text) > 500:
        yield f"is too long: {text}"


def again(at: Bed, driver: Vsphere, step: Step) -> Iterator[str]:
    """What is wrong with the same once more, now that nothing disturbs it."""
    try:
        step.act(at, driver)
    except Exception as e:  # noqa: BLE001
        yield f"then, again: {type(e).__name__}: {e}"
    else:
        if not step.holds(at):
            yield "then, again, it is not done"


@each_step
def test_it_is_told_and_the_next_try_succeeds(bed: Bed, step: Step) -> None:
    calls = record(bed, step)
    if bed.image is not None:  # the rest is as with a template
        calls = [c for c in calls if c.changes]
    todo = [*cases(calls, full=bed.image is None)]
    driver, wrong = bed.fresh(), []
    for case in todo:
        if bed.image is not None:  # which a driver uploads once
            driver.close()
            driver = bed.fresh()
        found = [*disturb(bed, driver, step, case), *again(bed, driver, step)]
        wrong += [f"{case}: {w}" for w in found]
    day.clear(bed, driver)
    driver.close()
    assert len(todo) > 4
    assert not wrong, "\n".join(wrong)
    assert bed.there() == bed.before


@each_step
def test_after_it_down_leaves_nothing(bed: Bed, step: Step) -> None:
    """A driver of its own clears up, as ``down`` after a failed ``up`` is one."""
    calls = [c for c in record(bed, step) if c.changes]
    driver, other, wrong = bed.fresh(), bed.driver(), []
    for case in cases(calls, full=False):
        if case.kind is ANY[0]:
            if bed.image is not None:
                driver.close()
                driver = bed.fresh()
            wrong += [f"{case}: {w}" for w in disturb(bed, driver, step, case)]
            day.clear(bed, other)
            if bed.there() != bed.before:
                wrong.append(f"{case}: left: {bed.there()}")
    driver.close()
    other.close()
    assert not wrong, "\n".join(wrong)
