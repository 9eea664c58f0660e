"""Up and down: where plan, engine, drivers and guests meet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from provision.driver import Keeper, Roomy
from provision.engine import Outcome
from provision.errors import PreflightError, UserError
from provision.inventory import LINKS, write_python
from provision.plan import Step, backwards, below, graph, phases, render, steps, undoing
from provision.proving import doubtful, verify
from provision.resources import BOOT, STATES, Cable, Guest, Namespace, Port, key
from provision.session import Session, forget
from provision.spec import describe, restore
from provision.testbed import Testbed, of_guests

LAB = "lab"  # the journal's subject that says: the lab was built, and nothing on it yet
LAB_KINDS = frozenset({Namespace.kind, Cable.kind, Port.kind})


@dataclass(frozen=True, slots=True)
class Built:
    """What ``up`` did: the steps, and the facts of each guest as verified."""

    testbed: Testbed
    changed: tuple[Step, ...]
    facts: dict[str, dict[str, Any]]
    took_s: float


def plan(session: Session) -> tuple[Testbed, list[Step]]:
    """What ``up`` would do; nothing is touched.

    Raises UserError where the testbed stands on another hypervisor: this one could not see what
    it leaves behind there.
    """
    _where_it_stands(session)
    testbed, originals = session.testbed(), session.journal.originals()
    before = [k for k, had in originals.items() if had is not None]
    have = session.look({*map(key, testbed.resources), *before})
    found = steps(
        testbed.resources,
        have.__getitem__,
        session.driver.facts.change,
        originals=originals,
        unfinished=session.journal.unfinished(),
    )
    return testbed, found


def up(session: Session) -> Built:
    """Make the testbed so, and prove it. Safe to run again after any end of an earlier one.

    Raises Partial where some steps failed (the rest is done and in the journal), Mismatch where
    all was put and the testbed is still not what was asked.
    """
    began = time.monotonic()
    testbed, found = plan(session)
    _consented(session, found)
    goes, comes = phases(found)
    journal, spec = session.journal, session.spec
    journal.make_room()
    _room(session, found)
    journal.open_testbed(spec.hypervisor.type, spec.hypervisor.uri, describe(spec))
    journal.doubt(LAB)
    _note(session, testbed, found)
    session.access.public_key()
    session.access.trust(testbed.guests)
    wants, asked = journal.wants(), {key(r): r for r in testbed.resources}
    stands = {s.key: s.have for s in goes if s.have is not None}
    session.carry_out(goes, backwards(graph({**asked, **wants, **stands}.values())))
    session.carry_out(comes, graph({**wants, **asked}.values()))
    write_python(session.state, spec.name)
    journal.remember(LINKS, {LINKS: [asdict(link) for link in testbed.links]})
    session.go_on("all is built, and not verified yet")
    facts = verify(session, testbed, doubtful(session, testbed))
    return Built(testbed, tuple(found), facts, time.monotonic() - began)


def _where_it_stands(session: Session) -> None:
    """Raises UserError where that is not where the spec means."""
    stood = session.journal.spec()
    if stood is None or not session.journal.wants():
        return
    was, now, name = restore(stood).hypervisor, session.spec.hypervisor, session.spec.name
    if (was.type, was.uri, was.host) != (now.type, now.uri, now.host):
        here, there = (" at ".join(filter(None, (h.type, h.host, h.uri))) for h in (now, was))
        raise UserError(
            f"testbed {name!r} stands on {there}, and the spec means {here}",
            hint=f"provision down -n {name} first, or another name: -n",
        )


def _consented(session: Session, found: Sequence[Step]) -> None:
    """Raises PreflightError where the host would restart and nobody said that it may."""
    if not session.reboot and (step := next((s for s in found if s.restarts_host), None)):
        raise PreflightError(
            f"this restarts the host {session.driver.facts.host}: {render([step])[-1].strip()}",
            hint="the same command with --yes, where nobody else needs the host now",
        )


def _room(session: Session, found: Sequence[Step]) -> None:
    """Raises PreflightError where the driver knows that new guests have no room."""
    new = [s.want for s in found if s.have is None and isinstance(s.want, Guest)]
    if new and isinstance(session.driver, Roomy):
        session.driver.check_room(new)


def _note(session: Session, testbed: Testbed, found: Sequence[Step]) -> None:
    """What the journal must know before anything is changed, whenever this ends."""
    journal, steps_of = session.journal, {step.key for step in found}
    for k in journal.unfinished() - steps_of:
        journal.done(k)  # it was cut short after its last word: all is as asked
    links = of_guests(testbed.links)
    known, wanted, after = journal.originals(), journal.wants(), graph(testbed.resources)
    for state in testbed.resources:
        k = key(state)
        if k[0] in STATES and k not in known.keys() | steps_of and after[k] - {BOOT}:
            journal.begin(k, None, state)  # a down was cut short: it goes with what bears it
            journal.done(k)
    for guest in testbed.guests:
        ports = {(Port.kind, link.port) for link in links[guest.name]}
        if below({key(guest), *ports}, after) & steps_of:
            journal.doubt(guest.name)
        mended = isinstance(session.driver, Keeper) and wanted.get(key(guest)) == guest
        if key(guest) in steps_of and not mended:
            journal.unclean(guest.name)


def down(session: Session) -> Outcome:
    """Put everything touched back as it was, last touched first, and forget the testbed.

    Raises Partial where something could not be put back: it stays in the journal.
    """
    journal = session.journal
    guests = [r for r in journal.wants().values() if isinstance(r, Guest)]
    originals = journal.originals()
    have = session.look(k for k, had in originals.items() if had is not None)
    found = undoing(originals, have.__getitem__)
    _consented(session, found)
    journal.last_resort()
    session.access.hang_up(guests)
    outcome = session.carry_out(found, backwards(graph(journal.wants().values())))
    forget(session)
    return outcome


def lab_up(session: Session) -> list[Step]:
    """The emulated lab alone: what ``up`` would build of it."""
    testbed, found = plan(session)
    session.journal.make_room()
    wanted = [s for s in found if s.key[0] in LAB_KINDS and s.want is not None]
    spec = session.spec
    session.journal.open_testbed(spec.hypervisor.type, spec.hypervisor.uri, describe(spec))
    session.journal.remember(LAB, {LAB: sorted(LAB_KINDS)})
    session.carry_out(wanted, graph(testbed.resources))
    return wanted
