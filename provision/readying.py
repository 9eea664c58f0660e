"""Both sides made ready for samples, and left afterwards as they were."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from provision import image as images
from provision import inventory
from provision.errors import Mismatch, UserError, WorldError
from provision.measuring.results import Run
from provision.measuring.take import Bench
from provision.measuring.workload import Before, Workload
from provision.playing import Player
from provision.playing.events import Played, TaskEvent
from provision.resources import Guest, key
from provision.session import Session
from provision.spec import Spec
from provision.testbed import of_guests

NO_LONGER = "install-end.yml"  # a Windows guest's firewall is shut again after a run


def standing_guests(session: Session) -> list[Guest]:
    """The guests; raises Mismatch where one is not there, or not as asked."""
    guests = [r for r in session.journal.wants().values() if isinstance(r, Guest)]
    have = session.look(map(key, guests))
    wrong = [g.name for g in guests if have[key(g)] != g]
    there = {g.name for g in guests}  # fewer than links where a down was cut short
    links = inventory.links_of(session.journal)
    wrong += [guest for guest in of_guests(links) if guest not in there]
    if wrong or not guests:
        raise Mismatch(
            f"not as asked: {', '.join(wrong) or 'there are no guests'}",
            hint=f"provision up -n {session.spec.name}",
        )
    return guests


def check_served(spec: Spec) -> None:
    """Raises UserError where nobody said which netserver Windows guests are to run."""
    if spec.guests.os == "windows" and spec.guests.netserver is None:
        raise UserError(
            "guests.netserver: Windows has no package of netperf; name a netserver.exe",
            hint="guests.netserver: {file: PATH, sha256: ITS SHA-256}, then provision up again",
        )


def install(
    session: Session, folder: Run, hosts: Mapping[str, Any], chosen: Sequence[Workload]
) -> dict[str, str]:
    """Ready all that the workloads need; each program's fingerprint on the guests, "" = none."""
    prints: dict[str, set[str]] = {"netperf": set(), "haproxy": set()}
    done: list[Before] = []
    for one in chosen:
        for before in one.before:
            if before in done:
                continue
            done.append(before)
            what = one.name if before[1] else one.name.partition("-")[0]
            played = _ready(session, Player(folder.path, hosts), before, what)
            for program, found in prints.items():
                found |= {str(p) for p in dict(played.stats.get(program, {})).values()}
    return {program: ", ".join(sorted(found)) for program, found in prints.items()}


def _ready(session: Session, player: Player, before: Before, what: str) -> Played:
    session.progress(what, "start", "ready all sides")
    playbook, extravars = before
    told = {""}

    def tell(event: TaskEvent) -> None:
        task = event.task.partition(" - ")[0]
        if task not in told and not task.startswith("Validating arguments"):
            told.add(task)
            session.progress(what, "phase", task)

    player = replace(player, on_event=tell, cancelled=session.stop.is_set)
    ident = what if extravars else playbook.removesuffix(".yml")
    played = player.play(playbook, ident, {**_pushed(session), **extravars}, 1800)
    session.progress(what, "done", "ready on all sides")
    return played


def put_back(session: Session, bench: Bench, chosen: Sequence[Workload]) -> None:
    """The guests as they were before the samples, even where those were cut short."""
    after = [p for one in chosen for p in one.after]
    if session.spec.guests.os == "windows":
        after.append(NO_LONGER)
    for playbook in dict.fromkeys(after):
        what = playbook.removesuffix(".yml")
        try:
            Player(bench.run.path, bench.inventory).play(playbook, what, {}, 300)
        except WorldError as e:
            again = f"provision reset --level process -n {session.spec.name}"
            session.progress(what, "failed", f"{e}; then: {again}")


def _pushed(session: Session) -> dict[str, str]:
    """The guests' own netperf lies beside their image: the load generator gets the same bytes.

    Guests without an image get them too, so that figures from all hypervisors are of one netperf;
    beside Windows guests, who have none that runs there, the load generator does.
    """
    image, store = session.image, session.state.images
    if image is None and (session.driver.facts.bare or session.spec.guests.os == "windows"):
        image = images.find(store) or images.find(store, files=True)
    beside = image.folder / "bin" if image else None
    return {"netperf_push": str(beside)} if beside and beside.is_dir() else {}


def end_processes(session: Session) -> None:
    """End what a run left on the guests and the load generator, and start netserver afresh."""
    standing_guests(session)
    hosts = inventory.of(session.journal, session.state, session.spec)
    plays = session.state.folder(session.spec.name) / "plays"
    plays.mkdir(exist_ok=True)
    session.progress("processes", "start", "end ours, serve afresh")
    player = Player(plays, hosts, cancelled=session.stop.is_set)
    player.play("reset.yml", f"reset-{time.time_ns()}", {}, 600)
    session.progress("processes", "done", "netserver afresh on every guest")
