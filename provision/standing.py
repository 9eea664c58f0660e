"""How a testbed stands: what should be there, what is, and what bears its mark besides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from provision.errors import PreflightError, UserError
from provision.plan import Step, steps
from provision.registry import find
from provision.resources import Cable, Guest, Key, Namespace, Resource, Switch, key
from provision.session import Session
from provision.testbed import Testbed
from provision.verbs import LAB, LAB_KINDS, plan


@dataclass(frozen=True, slots=True)
class Standing:
    """How one thing of the testbed stands; ``words`` are "" where it is as asked."""

    key: Key
    have: Resource | None
    words: str


def state_of(session: Session) -> list[Standing]:
    """Everything that should be there, by the spec and by the journal, with what is.

    Where the spec cannot be expanded any more (an uplink or the image is gone), the journal alone
    is asked.
    """
    unfinished = session.journal.unfinished()
    try:
        testbed, found = _plan(session)
        wants: dict[Key, Resource] = {key(r): r for r in testbed.resources}
        if LAB in session.journal.facts():
            wants = {k: r for k, r in wants.items() if k[0] in LAB_KINDS}
            found = [step for step in found if step.key[0] in LAB_KINDS]
    except (UserError, PreflightError):
        wants = session.journal.wants()
        read, classes = session.look(wants).__getitem__, session.driver.facts.change
        found = steps(wants.values(), read, classes, originals=wants)
    to_do = {step.key: step for step in found}
    every = [*wants, *(k for k in to_do if k not in wants)]
    have = session.look(every)
    return [Standing(k, have[k], _stands(k, to_do.get(k), unfinished)) for k in every]


def _plan(session: Session) -> tuple[Testbed, list[Step]]:
    imageless = session.image is None and not session.driver.facts.simulated
    if imageless and find(session.spec.hypervisor.type).takes_image:
        raise PreflightError("the guests' image is gone")
    return plan(session)


def _stands(k: Key, step: Step | None, unfinished: Collection[Key]) -> str:
    if k in unfinished:
        return "unfinished"
    if step is None:
        return ""
    if step.undo:
        return "no longer asked for"
    if step.reason:
        return f"to be made anew: {step.reason}"
    if step.have is None:
        return "gone"
    return f"differs: {', '.join(step.fields)}"


def strays(session: Session) -> list[Key]:
    """What bears the testbed's mark and stands in no journal; dependents first."""
    order = [Guest.kind, Switch.kind, Cable.kind, Namespace.kind]
    known = session.journal.originals().keys()
    found = {k for d in (session.driver, session.lab) for k in d.owned()} - known
    return sorted(found, key=lambda k: (order.index(k[0]), k))


def remove(session: Session, keys: Sequence[Key]) -> None:
    """Drop strays; each bears our mark."""
    for k in keys:
        session.route(k[0]).drop(k)
