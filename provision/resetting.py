"""The guests back to clean: what a clean guest is, and the three ways back."""

from __future__ import annotations

from typing import Any

from provision.access import address
from provision.driver import Keeper
from provision.errors import Mismatch, Unsupported, WorldError
from provision.plan import Step, backwards, graph
from provision.proving import doubtful, each, keep_console, verify
from provision.resources import Guest, key, label
from provision.session import Session
from provision.testbed import Testbed
from provision.verify import wait_ready


def reset(session: Session, level: str) -> None:
    """The guests back to clean, and verified: ``level`` is process, revert or recreate."""
    testbed = session.testbed()
    match level:
        case "process":
            from provision.readying import end_processes

            end_processes(session)
            verify(session, testbed)
        case "revert":
            revert(session, testbed)
        case _:
            recreate(session, testbed)
            keep_clean(session, testbed)


def revert(session: Session, testbed: Testbed) -> dict[str, dict[str, Any]]:
    """Every guest back to its checkpoint, answering, and on its link.

    What it sees of itself came back with its memory, and was verified before that was kept.
    Raises Mismatch, before anything changes, where a guest is missing or has no checkpoint.
    """
    if why := _no_checkpoint(session, testbed):
        raise Unsupported(why, hint=f"provision reset --level recreate -n {session.spec.name}")
    _can_go_back(session, testbed)
    hint = f"provision reset --level recreate -n {session.spec.name}"
    session.access.hang_up(testbed.guests)

    def answers(guest: Guest) -> list[str]:
        host, ready_s = session.access.host(guest), session.spec.guests.ready_s
        try:
            wait_ready(host, address(guest), timeout_s=ready_s, stop=session.stop)
        except WorldError as e:
            return [f"{guest.name}: {e}", keep_console(session, guest)]
        return []

    def one(guest: Guest) -> None:
        session.progress(label(key(guest)), "start", "revert")
        session.driver.revert(key(guest))
        session.progress(label(key(guest)), "done", "reverted")

    each(testbed.guests, one)
    if not session.driver.facts.simulated:
        problems = [p for found in each(testbed.guests, answers) for p in found]
        if problems:
            raise Mismatch("\n".join(problems), hint=hint)
    return verify(session, testbed, doubtful(session, testbed), hint)


def _can_go_back(session: Session, testbed: Testbed) -> None:
    have, kept = session.look(map(key, testbed.guests)), clean(session, testbed)
    problems = [f"guest {g.name} does not exist" for g in testbed.guests if have[key(g)] is None]
    problems += [
        f"guest {g.name} has no checkpoint: the command that made it was cut short"
        for g in testbed.guests
        if have[key(g)] is not None and g not in kept
    ]
    if problems:
        raise Mismatch("\n".join(problems), hint=f"provision up -n {session.spec.name}")


def recreate(session: Session, testbed: Testbed) -> dict[str, dict[str, Any]]:
    """Every guest dropped and made anew; switches, lab and tuning stay."""
    session.access.hang_up(testbed.guests)
    keys = {key(g) for g in testbed.guests}
    after = graph(testbed.resources)
    have = session.look(keys)
    for guest in testbed.guests:
        session.journal.doubt(guest.name)
        session.journal.unclean(guest.name)
    goes = [Step(k, have[k], None) for k in sorted(keys)]
    comes = [Step(key(g), None, g) for g in testbed.guests]
    session.carry_out(goes, backwards(after))
    session.carry_out(comes, after)
    session.go_on("the guests are made anew, and not verified yet")
    return verify(session, testbed)


def clean(session: Session, testbed: Testbed) -> list[Guest]:
    """The guests with a checkpoint of how they are since their last change."""
    known, driver = session.journal.clean(), session.driver
    found = [g for g in testbed.guests if g.name in known]
    if isinstance(driver, Keeper):
        kept = each(found, lambda g: driver.has_checkpoint(key(g)))
        return [g for g, there in zip(found, kept, strict=True) if there]
    return found


def _no_checkpoint(session: Session, testbed: Testbed) -> str:
    """Why guests cannot be brought back to clean; "" = they can."""
    facts = session.driver.facts
    for model in sorted({nic.model for guest in testbed.guests for nic in guest.nics}):
        if model in facts.nic_models and facts.nic_models[model].direct:
            return f"a {model} vNIC is hardware, whose state no checkpoint has"
    return facts.checkpoint


def keep_clean(session: Session, testbed: Testbed) -> None:
    """Remember as clean, for ``reset``, the guests that are not since their last change."""

    def one(guest: Guest) -> None:
        session.progress(label(key(guest)), "start", "checkpoint")
        session.driver.checkpoint(key(guest))
        session.journal.kept_clean(guest.name)
        session.progress(label(key(guest)), "done", "remembered as clean")

    if _no_checkpoint(session, testbed):
        return
    kept = clean(session, testbed)
    if missing := [g for g in testbed.guests if g not in kept]:
        session.go_on("all is verified, and not remembered as clean yet")
        each(missing, one)
