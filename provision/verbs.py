"""Up, verify, reset, down: the only place where plan, engine, drivers and guests meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from provision.access import address
from provision.engine import Outcome
from provision.errors import HostError, Mismatch, Partial, WorldError
from provision.inventory import LINKS, write_python
from provision.plan import Step, backwards, graph, phases, steps, undoing
from provision.resources import Cable, Guest, Key, Namespace, Port, Resource, Switch, key, label
from provision.session import Session, forget
from provision.spec import describe
from provision.testbed import Testbed
from provision.verify import inside, inspect, mismatches, wait_ready


@dataclass(frozen=True, slots=True)
class Built:
    """What ``up`` did: the steps, and the facts of each guest as verified."""

    testbed: Testbed
    changed: tuple[Step, ...]
    facts: dict[str, dict[str, Any]]
    took_s: float


def plan(session: Session) -> tuple[Testbed, list[Step]]:
    """What ``up`` would do; nothing is touched."""
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
    journal, spec = session.journal, session.spec
    journal.open_testbed(spec.hypervisor.type, spec.hypervisor.uri, describe(spec))
    for k in journal.unfinished() - {step.key for step in found}:
        journal.done(k)  # it was cut short after its last word: all is as asked
    session.access.public_key()
    session.access.trust(testbed.guests)
    goes, comes = phases(found)
    after = graph({**journal.wants(), **{key(r): r for r in testbed.resources}}.values())
    _whole(session, session.engine().apply(goes, backwards(after)))
    _whole(session, session.engine().apply(comes, after))
    write_python(session.state, spec.name)
    journal.remember(LINKS, {LINKS: [asdict(link) for link in testbed.links]})
    fresh = {step.key for step in comes}
    facts = verify(session, testbed, [g for g in testbed.guests if _doubtful(session, g, fresh)])
    return Built(testbed, tuple(found), facts, time.monotonic() - began)


def _doubtful(session: Session, guest: Guest, fresh: set[Key]) -> bool:
    """Whether nothing has yet proved, since the last change, that the guest is as asked."""
    return key(guest) in fresh or guest.name not in session.journal.facts()


def verify(
    session: Session, testbed: Testbed, guests: Sequence[Guest] | None = None
) -> dict[str, dict[str, Any]]:
    """Read all back from the hypervisor and from inside ``guests`` (all of them by default).

    Raises Mismatch with every difference; the facts that were seen are kept in the journal.
    """
    guests = testbed.guests if guests is None else guests
    have = session.look(map(key, testbed.resources))
    problems = mismatches(testbed.resources, have)
    if not session.driver.facts.simulated:
        there = [g for g in guests if have[key(g)] == g]  # no use in waiting for the others
        for guest in there:
            session.progress(f"{guest.name} inside", "start", "wait for SSH")
        results = each(there, lambda g: _inside(session, testbed, g))
        for seen, wrong in results:
            problems += wrong
            if not wrong:
                session.journal.remember(seen["name"], seen)
    else:
        for guest in guests:
            session.journal.remember(guest.name, dict(session.driver.evidence(key(guest))))
    if problems:
        raise Mismatch("\n".join(problems), hint="provision up, or provision down")
    known = session.journal.facts()
    return {g.name: known[g.name] for g in testbed.guests if g.name in known}


def _inside(session: Session, testbed: Testbed, guest: Guest) -> tuple[dict[str, Any], list[str]]:
    """What the guest sees of itself, and what is wrong with that, its silence included."""
    began = time.monotonic()
    host = session.access.host(guest)
    seen: dict[str, Any] = {"name": guest.name}
    try:
        wait_ready(host, address(guest), timeout_s=session.spec.guests.ready_s, stop=session.stop)
        seen |= inspect(host)
        wrong = inside(guest, seen, session.driver.facts)
        link = next(link for link in testbed.links if link.guest == guest.name)
        wrong += _reached(session, guest, link.guest_address.split("/")[0])
    except WorldError as e:
        wrong = [f"{guest.name}: {e}", _keep_console(session, guest)]
    seen |= {"ready_s": round(time.monotonic() - began, 2), **session.driver.evidence(key(guest))}
    if wrong:
        session.progress(f"{guest.name} inside", "failed", wrong[0])
    else:
        session.progress(f"{guest.name} inside", "done", seen["kernel"])
    return seen, wrong


def _reached(session: Session, guest: Guest, at: str) -> list[str]:
    """Whether the load generator reaches the guest over the link that was made for it."""
    try:
        session.load_generator.run("ping", "-n", "-c", "1", "-W", "5", at)
    except HostError as e:
        return [f"{guest.name}: the load generator does not reach {at} over its link: {e}"]
    return []


def _keep_console(session: Session, guest: Guest) -> str:
    tail = session.driver.console(key(guest))
    folder = session.state.root / "failures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{session.spec.name}-{guest.name}.console"
    path.write_text(tail)
    last = "\n".join("    " + line for line in tail.splitlines()[-15:])
    return f"the end of its serial console ({path}):\n{last or '    (silent)'}"


def each(guests: Sequence[Guest], work: Callable[[Guest], Any]) -> list[Any]:
    """The work for every guest at once; all end before the first error is raised."""
    with ThreadPoolExecutor(max(len(guests), 1)) as pool:
        futures = [pool.submit(work, guest) for guest in guests]
    return [future.result() for future in futures]


def keep_clean(session: Session, built: Built) -> None:
    """Remember the guests that ``up`` made or changed as clean: where ``reset`` goes back to."""
    fresh = {step.key for step in built.changed}

    def one(guest: Guest) -> None:
        session.progress(label(key(guest)), "start", "checkpoint")
        session.driver.checkpoint(key(guest))
        session.progress(label(key(guest)), "done", "remembered as clean")

    each([g for g in built.testbed.guests if key(g) in fresh], one)


def reset(session: Session, level: str) -> None:
    """The guests back to clean, and verified: ``level`` is process, revert or recreate."""
    testbed = session.testbed()
    match level:
        case "process":
            from provision.running import end_processes

            end_processes(session)
            verify(session, testbed)
        case "revert":
            revert(session, testbed)
        case _:
            recreate(session, testbed)
            keep_clean(session, Built(testbed, _anew(testbed), {}, 0.0))


def _anew(testbed: Testbed) -> tuple[Step, ...]:
    return tuple(Step(key(g), None, g) for g in testbed.guests)


def revert(session: Session, testbed: Testbed) -> dict[str, dict[str, Any]]:
    """Every guest back to its checkpoint, answering, and on its link.

    What it sees of itself came back with its memory, and was verified before that was kept.
    """
    session.access.hang_up(testbed.guests)

    links = {link.guest: link.guest_address.split("/")[0] for link in testbed.links}

    def answers(guest: Guest) -> list[str]:
        host, ready_s = session.access.host(guest), session.spec.guests.ready_s
        try:
            wait_ready(host, address(guest), timeout_s=ready_s, stop=session.stop)
        except WorldError as e:
            return [f"{guest.name}: {e}", _keep_console(session, guest)]
        return _reached(session, guest, links[guest.name])

    def one(guest: Guest) -> None:
        session.progress(label(key(guest)), "start", "revert")
        session.driver.revert(key(guest))
        session.progress(label(key(guest)), "done", "reverted")

    each(testbed.guests, one)
    if not session.driver.facts.simulated:
        problems = [p for found in each(testbed.guests, answers) for p in found]
        if problems:
            raise Mismatch("\n".join(problems), hint="provision reset --level recreate")
    return verify(session, testbed, [])


def recreate(session: Session, testbed: Testbed) -> dict[str, dict[str, Any]]:
    """Every guest dropped and made anew; switches, lab and tuning stay."""
    session.access.hang_up(testbed.guests)
    keys = {key(g) for g in testbed.guests}
    after = graph(testbed.resources)
    have = session.look(keys)
    goes = [Step(k, have[k], None) for k in sorted(keys)]
    comes = [Step(key(g), None, g) for g in testbed.guests]
    _whole(session, session.engine().apply(goes, backwards(after)))
    _whole(session, session.engine().apply(comes, after))
    return verify(session, testbed)


def down(session: Session) -> Outcome:
    """Put everything touched back as it was, last touched first, and forget the testbed.

    Raises Partial where something could not be put back: it stays in the journal.
    """
    journal = session.journal
    guests = [r for r in journal.wants().values() if isinstance(r, Guest)]
    session.access.hang_up(guests)
    originals = journal.originals()
    have = session.look(k for k, had in originals.items() if had is not None)
    found = undoing(originals, have.__getitem__)
    outcome = session.engine().apply(found, backwards(graph(journal.wants().values())))
    _whole(session, outcome)
    forget(session)
    return outcome


def _whole(session: Session, outcome: Outcome) -> None:
    if not outcome.failed:
        return
    lines = [f"{label(k)}: {error}" for k, error in outcome.failed.items()]
    lines += [f"{label(k)}: skipped, it needs {label(n)}" for k, n in outcome.skipped.items()]
    name = session.spec.name
    raise Partial(
        "\n".join(lines), hint=f"mend it and run up again, or: provision down -n {name}"
    ) from next(iter(outcome.failed.values()))


def state_of(session: Session) -> list[tuple[Resource, Resource | None]]:
    """Everything the journal says should be there, with what is."""
    wants = session.journal.wants()
    have = session.look(wants)
    return [(want, have[k]) for k, want in wants.items()]


def lab_up(session: Session) -> list[Step]:
    """The emulated lab alone: what ``up`` would build of it."""
    kinds = {Namespace.kind, Cable.kind, Port.kind}
    testbed, found = plan(session)
    wanted = [s for s in found if s.key[0] in kinds and s.want is not None]
    spec = session.spec
    session.journal.open_testbed(spec.hypervisor.type, spec.hypervisor.uri, describe(spec))
    _whole(session, session.engine().apply(wanted, graph(testbed.resources)))
    return wanted


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
