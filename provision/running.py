"""The verb ``run``: netperf ready on all sides, samples each judged and kept, then a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provision import inventory, presets
from provision.admission import commitment
from provision.driver import Seated
from provision.errors import Mismatch, SpecError, UserError, WorkloadError
from provision.meaning import flavour
from provision.measuring import influences
from provision.measuring.clocks import Clocks
from provision.measuring.results import BESIDE, Run, Sample, Subject
from provision.measuring.stats import Stop
from provision.measuring.take import Bench
from provision.measuring.take import together as take
from provision.measuring.workload import Pair, Workload
from provision.measuring.workloads import find, is_file, series
from provision.measuring.workloads.own import Own
from provision.presets import Chosen
from provision.readying import check_served, install, put_back, standing_guests
from provision.resources import Guest
from provision.session import Session
from provision.spec import Spec, describe, restore
from provision.spec.own import digest
from provision.spec.words import faults, path
from provision.testbed import Link, of_guests


@dataclass(frozen=True, slots=True)
class Done:
    """A run that came to its end; ``invalid`` counts repetitions without any valid sample."""

    folder: Path
    samples: tuple[Sample, ...]
    invalid: int


def asked(
    spec: Spec,
    workloads: Sequence[str],
    options: Mapping[str, float | None],
    preset: Chosen | None = None,
) -> Spec:
    """The spec with what the command line says of the run, which goes over what the preset says.

    Raises UserError for no workload, for options that contradict each other, and where the
    testbed is not one for the preset.
    """
    if preset is not None:
        presets.refuse(preset, spec)
    names = {"seconds": "duration_s", "ramp": "ramp_s", "within": "within_percent"}
    told: dict[str, Any] = {names.get(k, k): v for k, v in options.items() if v is not None}
    if workloads:
        told["workloads"] = named(workloads)
    data = describe(spec)
    section = preset.section() if preset else {}
    try:
        return restore(data | {"run": data["run"] | section | told})
    except ValidationError as e:
        problems = [f"{path('.'.join(map(str, f.at[0])))}: {f.what}" for f in faults(e)]
        raise SpecError(problems, hint="provision run --help") from e


def named(words: Sequence[str]) -> list[str]:
    """Workloads as a spec has them: a user's own is the path of its file.

    Raises UserError with every word that names none.
    """
    found, wrong = [], []
    for word in words:
        try:
            one = find(word)
        except UserError as e:
            wrong.append(e)
        else:
            found.append(str(Path(word).absolute()) if is_file(word) else one.name)
    if wrong:
        hint = next((e.hint for e in wrong if e.hint), "provision run --help")
        raise UserError("\n".join(map(str, wrong)), hint=hint)
    return found


def run(session: Session, preset: Chosen | None = None) -> Done:
    """Take the samples of the spec's run section; ``preset`` is what that was made of.

    Raises Mismatch where a guest does not run as asked, WorkloadError or Unreachable where a play
    fails; samples taken until then stay in the run's folder.
    """
    return together([session], preset)[0]


def together(
    sessions: Sequence[Session],
    preset: Chosen | None = None,
    turn: Callable[[Session], None] = lambda _session: None,
) -> list[Done]:
    """As ``run``, of several testbeds in turn by the last one's run section, a run for each.

    The last run's folder names the others (``BESIDE``), and every report of it has them first.
    ``turn`` is called before anything is done with a testbed's links that others may have had.
    """
    spec = sessions[-1].spec
    chosen = series(spec.run.workloads, spec.run.object_kib)
    several = len(sessions) > 1
    ready: list[_Ready] = []
    try:
        for session in sessions:
            turn(session)
            one = _prepare(session, chosen, f"{session.spec.name}: " if several else "")
            ready.append(replace(one, bench=replace(one.bench, turn=partial(turn, session))))
        last = ready[-1].bench.run
        if preset is not None:
            last.keep(presets.DOCUMENT, preset.document(spec))
        if several:
            last.keep(BESIDE, {"runs": [one.bench.run.id for one in ready[:-1]]})
        within = spec.run.within_percent
        stop = Stop(within, spec.run.most) if within else None
        benches = [one.bench for one in ready]
        taken = take(benches, chosen, spec.run.repeat, spec.run.redo, stop)
    except BaseException:
        with suppress(WorkloadError):  # what went wrong first is what is told
            _conclude(sessions, ready, chosen)
        raise
    _conclude(sessions, ready, chosen)
    return [_done(one.bench.run.path, own) for one, own in zip(ready, taken, strict=True)]


def _conclude(
    sessions: Sequence[Session], ready: Sequence[_Ready], chosen: Sequence[Workload]
) -> None:
    """What comes after the last sample, whatever ended them.

    Raises WorkloadError where the disk does not take it; the guests are as before then too.
    """
    for session, one in zip(sessions, ready, strict=False):
        one.clocks.close()
        put_back(session, one.bench, chosen)
    for one in ready:
        one.bench.run.keep(influences.AFTER, influences.look(one.machines))
    for one in ready:
        _report(one.bench.run.path)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A testbed that could be measured at once."""

    bench: Bench
    machines: influences.Machines
    clocks: Clocks


def _prepare(session: Session, chosen: Sequence[Workload], prefix: str) -> _Ready:
    """Whatever comes before the first sample; ``prefix`` begins the subjects of progress."""
    spec, journal = session.spec, session.journal
    journal.make_room()
    links, facts = inventory.links_of(journal), journal.facts()
    guests = standing_guests(session)
    _fit(spec.name, guests, chosen)
    check_served(spec)
    hosts = inventory.of(journal, session.state, spec)
    machines = _machines(session, links, guests)
    clocks = Clocks({g.name: machines[g.name][0] for g in guests if g.name in machines})
    before = influences.look(machines)
    kept = {"spec": describe(spec), "facts": facts, "host": host_facts(session),
            influences.BEFORE: before}  # fmt: skip
    folder = Run.create(session.state.runs, spec.name, kept)
    prints = install(session, folder, hosts, chosen)

    def say(subject: str, status: str, detail: str) -> None:
        session.progress(f"{prefix}{subject}", status, detail)

    bench = Bench(
        run=folder,
        inventory=hosts,
        pairs=pairs(links),
        subject=_subject(session, guests[0], prints, chosen),
        usage=session.driver.usage,
        clocks=clocks.look if clocks.hosts else None,
        apart=spec.load_generator is not None,
        notes=_notes(session, guests[0], facts),
        say=say,
        cancelled=session.stop.is_set,
    )
    return _Ready(bench, machines, clocks)


def _done(folder: Path, samples: Sequence[Sample]) -> Done:
    good = {(s.workload, s.repetition) for s in samples if s.valid}
    every = {(s.workload, s.repetition) for s in samples}
    return Done(folder, tuple(samples), len(every - good))


def pairs(links: Sequence[Link]) -> tuple[Pair, ...]:
    """The links as the load generator sees them."""
    own = of_guests(links)
    return tuple(_pair(link, several=len(own[link.guest]) > 1) for link in links)


def _pair(link: Link, *, several: bool) -> Pair:
    """The data port is the one after the control port."""
    server, client = (a.split("/")[0] for a in (link.guest_address, link.client_address))
    return Pair(
        link.guest, server, client, link.control_port, link.control_port + 1, link.port,
        link.uplink, link.nic if several else 0,
    )  # fmt: skip


def _machines(
    session: Session, links: Sequence[Link], guests: Sequence[Guest]
) -> influences.Machines:
    """Those that commands reach, each with its NICs on the links, a guest with all of its own."""
    found = {"the load generator": (session.load_generator, [link.port for link in links])}
    if isinstance(session.driver, Seated):
        found["the hypervisor's host"] = (session.driver.host, [link.uplink for link in links])
    if not session.driver.facts.simulated:
        facts = session.journal.facts()
        for guest in (g for g in guests if g.os == "linux"):
            own = {guest.management.mac, *(nic.mac for nic in guest.nics)}
            seen = facts.get(guest.name, {}).get("nics", ())
            nics = [nic["name"] for nic in seen if nic["mac"] in own]
            found[guest.name] = (session.access.host(guest), nics)
    return found


def _fit(testbed: str, guests: Sequence[Guest], chosen: Sequence[Workload]) -> None:
    """Raises Mismatch where a workload wants more of the guests than they have."""
    for one in chosen:
        if len(guests) < one.guests:
            raise Mismatch(
                f"{one.name} needs {one.guests} guests; there are {len(guests)}",
                hint=f"provision up -n {testbed} --vms {one.guests}",
            )
        if short := [g.name for g in guests if len(g.nics) < one.nics_each]:
            raise Mismatch(
                f"{one.name} needs {one.nics_each} NICs in each guest: {', '.join(short)}",
                hint=f"provision up -n {testbed} --set guests.nics_each={one.nics_each}",
            )


def _subject(
    session: Session, guest: Guest, prints: Mapping[str, str], chosen: Sequence[Workload]
) -> Subject:
    spec, facts = session.spec, session.driver.facts
    cpu_ratio, memory_ratio = commitment(spec, facts)
    return Subject(
        hypervisor=facts.hypervisor,
        version=facts.version,
        host=facts.host,
        accel=guest.accel,
        nic=guest.nics[0].model,
        guests=spec.guests.count,
        vcpus=guest.vcpus,
        image=guest.image,
        netperf=prints["netperf"],
        duration_s=spec.run.duration_s,
        ramp_s=spec.run.ramp_s,
        message_bytes=spec.run.message_bytes,
        socket_buffer_bytes=spec.run.socket_buffer_bytes,
        datagram_bytes=spec.run.datagram_bytes,
        request_bytes=spec.run.request_bytes,
        response_bytes=spec.run.response_bytes,
        clients=spec.run.clients,
        arrivals_per_s=spec.run.arrivals_per_s,
        haproxy=prints["haproxy"],
        own=", ".join(f"{w.name} {digest(w)}" for w in chosen if isinstance(w, Own)),
        wire_mbit=spec.lab.rate_mbit,
        cpu_ratio=round(cpu_ratio, 3),
        memory_ratio=round(memory_ratio, 3),
        nics_each=len(guest.nics),
    )


def _notes(
    session: Session, guest: Guest, facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    started = sorted({str(f.get("started")) for f in facts.values() if "started" in f})
    return {
        "nic_asked": session.spec.guests.nic.model,
        "switch": flavour(session.spec, session.driver.facts),
        "started": ", ".join(started),
        "guest_kernel": str(facts.get(guest.name, {}).get("kernel", "")),
        **session.driver.facts.notes,
    }


def host_facts(session: Session) -> dict[str, Any]:
    """What a result records of the hypervisor and its host, as plain data."""
    facts = session.driver.facts
    return {
        "hypervisor": facts.hypervisor,
        "version": facts.version,
        "host": facts.host,
        "cpus": facts.cpus,
        "memory_mib": facts.memory_mib,
        "accel": facts.accel,
        "notes": dict(facts.notes),
        "knobs": dict(facts.knobs),
        "uplinks": [asdict(u) for u in facts.uplinks],
    }


def _report(folder: Path) -> None:
    from provision.reporting import write

    if Run(folder).samples():
        write([folder])
