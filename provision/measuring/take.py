"""Takes the samples: each workload in turn, over and over, every sample judged and kept at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any

from provision.driver import Usage
from provision.errors import WorkloadError, WorldError
from provision.measuring.capture import Capture, load
from provision.measuring.clocks import Readings, moved_s, stepped
from provision.measuring.counters import Asked
from provision.measuring.results import Run, Sample, Subject
from provision.measuring.stats import Stop
from provision.measuring.verdict import Finding, judge
from provision.measuring.workload import Options, Pair, Workload
from provision.playing import Player
from provision.playing.events import TaskEvent
from provision.state import writing

USAGE_S = 0.25  # between two readings of the hypervisor's counters
CLOCK_S = 2.0  # the play's own delay is within this; more is a difference of clocks
OVERHEAD_S = 120.0  # for all of a play but the run itself
GONE = "gone: "  # what the playbook that ends a load says where there is none any more
TASK = "Run all streams at once"

Say = Callable[[str, str, str], None]


@dataclass(frozen=True, slots=True)
class Bench:
    """What samples are taken of.

    ``usage`` reads the hypervisor's counters, ``clocks`` the guests' clocks; None = there are none.
    ``apart`` says that the load generator is a machine of its own; ``turn`` sees that this is the
    one that can be measured, of those that cannot at once; ``say`` takes subject, status and
    detail of progress.
    """

    run: Run
    inventory: Mapping[str, Any]
    pairs: tuple[Pair, ...]
    subject: Subject
    usage: Callable[[], Usage] | None = None
    clocks: Callable[[], Readings] | None = None
    apart: bool = True
    notes: Mapping[str, str] = field(default_factory=dict)
    turn: Callable[[], None] = lambda: None
    say: Say = lambda _subject, _status, _detail: None
    cancelled: Callable[[], bool] = lambda: False

    @property
    def options(self) -> Options:
        s = self.subject
        return Options(
            s.duration_s, s.ramp_s, s.message_bytes, s.socket_buffer_bytes, s.datagram_bytes,
            s.request_bytes, s.response_bytes, clients=s.clients, arrivals_per_s=s.arrivals_per_s,
        )  # fmt: skip


def measure(
    bench: Bench, workloads: Sequence[Workload], repeat: int, redo: int, stop: Stop | None = None
) -> list[Sample]:
    """``repeat`` samples of each workload, all workloads once before any comes again.

    With ``stop``, those whose interval is still too wide go on. An invalid sample is taken again,
    up to ``redo`` times. Raises what the play raises (WorkloadError, Unreachable, Interrupted);
    every sample until then is kept in the run.
    """
    return together([bench], workloads, repeat, redo, stop)[0]


def together(
    benches: Sequence[Bench],
    workloads: Sequence[Workload],
    repeat: int,
    redo: int,
    stop: Stop | None = None,
) -> list[list[Sample]]:
    """As ``measure``, of several benches in turn: each repetition of all before the next.

    Every other repetition goes through the benches backwards, so that a drift of the machine
    favours none (the design called ABBA).
    """
    taken: list[list[Sample]] = [[] for _ in benches]
    known = [_known(bench, workloads, redo, own) for bench, own in zip(benches, taken, strict=True)]
    for repetition in count(1):
        again = [
            all_
            if repetition <= repeat
            else [w for w in all_ if stop and stop.goes_on(w.name, repetition, had)]
            for all_, had in zip(known, taken, strict=True)
        ]
        if not any(again):
            return taken
        order = list(zip(benches, again, taken, strict=True))
        for bench, some, own in order if repetition % 2 else reversed(order):
            most = stop.most if stop and repetition > repeat else repeat
            if some:
                bench.turn()
            for workload in some:
                own.extend(_repeat(bench, workload, repetition, redo, most))
    raise AssertionError("counting has no end")


def _repeat(
    bench: Bench, workload: Workload, repetition: int, redo: int, most: int
) -> Iterator[Sample]:
    """Samples until one is valid, or all tries are used."""
    subject = f"{workload.name} {repetition}/{most}"
    for attempt in range(1, redo + 2):
        sample = _take(bench, workload, repetition, attempt, subject)
        bench.run.append(sample)
        bench.say(subject, "done" if sample.valid else "failed", words(sample.finding))
        yield sample
        if sample.valid:
            return


def _known(
    bench: Bench, workloads: Sequence[Workload], redo: int, taken: list[Sample]
) -> list[Workload]:
    """The workloads, each with what it goes by, which is measured first and but once."""
    found: dict[str, float] = {}
    for workload in workloads:
        one = workload.wants()
        if one is None or one.name in found:
            continue
        bench.turn()
        taken.extend(_repeat(bench, one, 1, redo, 1))
        if not taken[-1].valid:
            why = "; ".join(taken[-1].finding.reasons)
            raise WorkloadError(f"{workload.name} goes by {one.name}, which has no figure: {why}")
        found[one.name] = taken[-1].finding.aggregate
    return [w.given(found[one.name]) if (one := w.wants()) else w for w in workloads]


def words(finding: Finding) -> str:
    """A sample in one line."""
    off = max(map(abs, finding.disagreement_percent.values()), default=0.0)
    line = f"{finding.aggregate:.1f} {finding.unit}, skew {finding.skew_ms:.0f} ms"
    line += f", NICs within {off:.2f} %"
    if finding.lost_percent:
        line += f", {max(finding.lost_percent.values()):.1f} % lost"
    return line if finding.valid else f"invalid: {'; '.join(finding.reasons)} ({line})"


def _take(bench: Bench, workload: Workload, repetition: int, attempt: int, subject: str) -> Sample:
    name = f"{workload.name}-{repetition:02}-try-{attempt}"
    raw = bench.run.path / "raw" / name
    with writing(raw):
        raw.mkdir(parents=True)
    bench.say(subject, "start", "" if attempt == 1 else f"again, try {attempt}")
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    before = bench.clocks() if bench.clocks else {}
    with _others(bench, workload, raw.name) as missed, Meter(bench.usage) as meter:
        ended_s = _play(bench, workload, raw, subject)
    after = bench.clocks() if bench.clocks else {}
    capture = load(raw / "streams.json", workload.read)
    with writing(raw):
        for stream in capture.streams:
            (raw / f"{stream.pair}.txt").write_text(stream.raw)
    asked = Asked(workload, bench.options, bench.pairs, bench.apart)
    shift_s, warnings = _clock(capture, ended_s)
    usages = [replace(u, at_s=u.at_s + shift_s) for u in meter.usages]
    finding = judge(capture, asked, usages)
    finding = replace(
        finding,
        reasons=(*finding.reasons, *missed, *stepped(before, after)),
        warnings=(*finding.warnings, *warnings, *meter.faults, *_silent(bench, before, after)),
        clocks_ms=_clocks_ms(before, after),
    )
    return Sample(
        workload=workload.name,
        direction=workload.direction,
        repetition=repetition,
        attempt=attempt,
        at=at,
        raw=str(raw.relative_to(bench.run.path)),
        subject=bench.subject,
        finding=finding,
        notes={**bench.notes, "generator": f"{capture.host}, Linux {capture.kernel}",
               **{f"generator_{name}": version for name, version in capture.versions.items()}},
    )  # fmt: skip


def _play(bench: Bench, workload: Workload, raw: Path, subject: str) -> float:
    """Have the load generator take the sample; the moment at which it was done (epoch)."""
    ended = [time.time()]

    def note(event: TaskEvent) -> None:
        if event.task == TASK:
            ended.append(time.time())
            if event.status == "start":
                bench.say(subject, "phase", f"{bench.options.length_s} s of traffic")

    player = Player(bench.run.path, bench.inventory, note, bench.cancelled)
    order = workload.plan(bench.pairs, bench.options)
    extravars = {"streams_plan": order, "streams_output": str((raw / "streams.json").absolute())}
    try:
        player.play("run.yml", raw.name, extravars, order["deadline_s"] + OVERHEAD_S)
    except WorkloadError as e:
        raise WorkloadError(f"{subject}: {e}", hint="provision reset --level process") from e
    return ended[-1]


@contextmanager
def _others(bench: Bench, workload: Workload, name: str) -> Iterator[list[str]]:
    """While this is open, other guests do what the workload says; then, which of them did not."""
    others = workload.meanwhile(bench.pairs, bench.options)
    missed: list[str] = []
    if others is None:
        yield missed
        return
    try:
        player = Player(bench.run.path, bench.inventory, cancelled=bench.cancelled)
        player.play(others.begin, f"{name}-begin", others.extravars, OVERHEAD_S)
        yield missed
    finally:  # not to be cancelled: nothing may go on in a guest
        player = Player(bench.run.path, bench.inventory)
        played = player.play(others.end, f"{name}-end", others.extravars, OVERHEAD_S)
        for host, tasks in played.results.items():
            said = [str(one.get("stdout", "")).strip() for one in tasks.values()]
            missed += [f"{host}: what kept it busy had ended: {words.removeprefix(GONE)}"
                       for words in said if words.startswith(GONE)]  # fmt: skip


def _clocks_ms(before: Readings, after: Readings) -> dict[str, tuple[float, float]]:
    return {
        name: (1000 * first.ahead_s, 1000 * moved_s(first, after[name]))
        for name, first in before.items()
        if name in after
    }


def _silent(bench: Bench, before: Readings, after: Readings) -> Iterator[str]:
    guests = dict.fromkeys(p.guest for p in bench.pairs) if bench.clocks else ()
    if silent := [g for g in guests if g not in before or g not in after]:
        yield f"{', '.join(silent)} did not tell the time both before and after the sample"


def _clock(capture: Capture, ended_s: float) -> tuple[float, list[str]]:
    """By how much the controller's moments are to be shifted, and a word where that is much."""
    ahead_s = capture.ended_s - ended_s
    if abs(ahead_s) <= CLOCK_S:
        return 0.0, []
    return ahead_s, [f"the load generator's clock is {ahead_s:+.1f} s off the controller's"]


class Meter:
    """Reads the hypervisor's counters in a thread of its own while a sample is taken.

    Once more after its end, for a host that takes seconds to tell: the window must lie between.
    """

    def __init__(self, usage: Callable[[], Usage] | None) -> None:
        self.usages: list[Usage] = []
        self.faults: list[str] = []
        self._usage = usage
        self._over = Event()
        self._thread = Thread(target=self._watch, name="usage", daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._usage = None  # nobody asks any more
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        over = False
        while self._usage is not None and not over:
            over = self._over.is_set()
            try:
                self.usages.append(self._usage())
            except WorldError as e:
                self.faults.append(f"the hypervisor's counters could not be read: {e}")
                return
            self._over.wait(USAGE_S)
