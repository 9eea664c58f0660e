"""Whether a testbed that stands is what was asked: outside, inside, and over each link."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from provision.access import address
from provision.errors import HostError, Mismatch, WorldError
from provision.host import Host
from provision.resources import Guest, key
from provision.session import Session
from provision.testbed import Testbed
from provision.verify import inside, inspect, mismatches, own_nics, wait_ready


def verify(
    session: Session, testbed: Testbed, guests: Sequence[Guest] | None = None, hint: str = ""
) -> dict[str, dict[str, Any]]:
    """Read all back from the hypervisor and from inside ``guests`` (all of them by default).

    Every guest is reached over its link. Raises Mismatch with every difference; the facts that
    were seen are kept in the journal, and forgotten where something is wrong.
    """
    guests = testbed.guests if guests is None else guests
    have = session.look(map(key, testbed.resources))
    outside = mismatches(testbed.resources, have)
    there = [g for g in testbed.guests if have[key(g)] == g]  # no use in waiting for the others
    wrong = {g.name: [f"guest/{g.name}"] for g in testbed.guests if g not in there}
    if not session.driver.facts.simulated:
        wrong |= _look_inside(session, testbed, [g for g in there if g in guests])
        wrong |= _ping(session, testbed, [g for g in there if g not in guests])
    else:
        for guest in guests:
            session.journal.remember(guest.name, dict(session.driver.evidence(key(guest))))
    for name in wrong:
        session.journal.doubt(name)
    told = outside + [w for g in there for w in wrong.get(g.name, ())]
    if told:
        raise Mismatch("\n".join(told), hint=hint or _way_out(session, wrong, outside))
    known = session.journal.facts()
    return {g.name: known[g.name] for g in testbed.guests if g.name in known}


def _way_out(session: Session, wrong: Iterable[str], outside: Sequence[str]) -> str:
    """What mends it: ``up`` what the hypervisor sees, ``reset`` what only the guests do."""
    name = session.spec.name
    if outside:
        return f"provision up -n {name}, or provision down -n {name}"
    if session.journal.clean() >= set(wrong):
        return f"provision reset -n {name}, or provision reset --level recreate -n {name}"
    return f"provision reset --level recreate -n {name}, or provision down -n {name}"


def _look_inside(
    session: Session, testbed: Testbed, guests: Sequence[Guest]
) -> dict[str, list[str]]:
    """What is wrong inside, by guest; the facts of the others are kept."""
    for guest in guests:
        session.progress(f"{guest.name} inside", "start", "wait for SSH")
    found: dict[str, list[str]] = {}
    for seen, wrong in each(guests, lambda g: _inside(session, testbed, g)):
        if wrong:
            found[seen["name"]] = wrong
        else:
            session.journal.remember(seen["name"], seen)
    return found


def _ping(session: Session, testbed: Testbed, guests: Sequence[Guest]) -> dict[str, list[str]]:
    """What is wrong with the links of guests, by guest."""
    results = each(guests, lambda g: _reached(session, testbed, g))
    return {g.name: wrong for g, wrong in zip(guests, results, strict=True) if wrong}


def _inside(session: Session, testbed: Testbed, guest: Guest) -> tuple[dict[str, Any], list[str]]:
    """What the guest sees of itself, and what is wrong with that, its silence included."""
    began = time.monotonic()
    host = session.access.host(guest)
    seen: dict[str, Any] = {"name": guest.name}
    try:
        wait_ready(host, address(guest), timeout_s=session.spec.guests.ready_s, stop=session.stop)
        seen |= _look(guest, host)
        wrong = inside(guest, seen, session.driver.facts)
        if session.driver.facts.bare:
            seen["nics"] = own_nics(guest, seen)
        wrong += _reached(session, testbed, guest)
    except WorldError as e:
        wrong = [f"{guest.name}: {e}", keep_console(session, guest)]
    seen |= {"ready_s": round(time.monotonic() - began, 2), **session.driver.evidence(key(guest))}
    if wrong:
        session.progress(f"{guest.name} inside", "failed", wrong[0])
    else:
        session.progress(f"{guest.name} inside", "done", seen["kernel"])
    return seen, wrong


def _look(guest: Guest, host: Host) -> dict[str, Any]:
    """What the guest sees of itself, whatever its system."""
    if guest.os == "windows":
        from provision.windows.guest import inspect as of_windows

        return of_windows(host)
    return inspect(host)


def _reached(session: Session, testbed: Testbed, guest: Guest) -> list[str]:
    """Whether the load generator reaches the guest over each link that was made for it."""
    wrong = []
    for link in (link for link in testbed.links if link.guest == guest.name):
        at = link.guest_address.split("/")[0]
        try:
            # whose NIC had the address before is no longer true
            session.load_generator.run("ip", "neigh", "flush", "dev", link.port)
            session.load_generator.run("ping", "-n", "-c", "1", "-W", "5", at)
        except HostError as e:
            wrong.append(f"{guest.name}: the load generator does not reach {at} over its link: {e}")
    return wrong


def keep_console(session: Session, guest: Guest) -> str:
    tail = session.driver.console(key(guest))
    folder = session.state.root / "failures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{session.spec.name}-{guest.name}.console"
    path.write_text(tail)
    last = "\n".join("    " + line for line in tail.splitlines()[-15:])
    return f"the end of its serial console ({path}):\n{last or '    (silent)'}"


def doubtful(session: Session, testbed: Testbed) -> list[Guest]:
    """Those that nothing has proved as asked since the last change of what they stand on."""
    known = session.journal.facts()
    return [g for g in testbed.guests if g.name not in known]


def each(guests: Sequence[Guest], work: Callable[[Guest], Any]) -> list[Any]:
    """The work for every guest at once; all end before the first error is raised."""
    with ThreadPoolExecutor(max(len(guests), 1)) as pool:
        futures = [pool.submit(work, guest) for guest in guests]
    return [future.result() for future in futures]
