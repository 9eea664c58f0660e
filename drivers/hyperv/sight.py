"""One testbed's VMs as they are, all in one request, and what is known of them meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from drivers.hyperv import groups, words
from drivers.hyperv.ops import Again, Batch, Call, Refused, Row
from drivers.hyperv.parse import (
    ADAPTER,
    DISK,
    PROCESSOR,
    RUNNING,
    SNAPSHOT,
    VM,
    Rows,
    Seen,
    World,
    world,
)
from drivers.hyperv.pool import Pool, whole
from drivers.hyperv.together import Together
from provision.errors import DriverError, Foreign

ALIVE = "Ok"  # so the heartbeat's words begin, whatever it says of applications
TRIES = 4  # of a look during which a VM vanishes
BEATS = Again(tries=30, pause_ms=500, until="Heartbeat", begins=ALIVE)
PARTS = (
    ("Get-VMProcessor", PROCESSOR),
    ("Get-VMNetworkAdapter", ADAPTER),
    ("Get-VMHardDiskDrive", DISK),
    ("Get-VMSnapshot", SNAPSHOT),
)


@dataclass(slots=True)
class Sight:
    """``root`` is the folder of guests' disks; ``grouped``: the host has the tool for CPU groups.

    All raise Refused and Unreachable.
    """

    pool: Pool
    testbed: str
    root: str
    grouped: bool
    _absent: set[str] = field(default_factory=set)
    _last: dict[str, Seen] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _together: Together[frozenset[str], World] = field(init=False)
    _names: Together[frozenset[str], frozenset[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._together = Together(self._look_for_all)
        self._names = Together(self._names_of_all)

    def look(self, names: Iterable[str] = ()) -> World:
        """Those of ``names``, or all, as they are now; who is not there is remembered."""
        return self._together.ask(frozenset(names))

    def gone(self, names: Iterable[str]) -> bool:
        """Whether no VM has the name of any of them, ours or another's: a quick look."""
        asked = frozenset(names)
        if self._names.ask(asked):
            return False
        with self._lock:
            self._absent |= asked
            self._last = {n: s for n, s in self._last.items() if n not in asked}
        return True

    def _names_of_all(self, asked: Sequence[frozenset[str]]) -> list[frozenset[str]]:
        names = frozenset[str]().union(*asked)
        vms = {words.vm_name(self.testbed, name): name for name in names}
        like = {"Name": words.vm_patterns(self.testbed, names)}
        look = Call("Get-VM", like, select=("Name",), only={"Name": sorted(vms)})
        rows = whole(self.pool.read([Batch(ops=[look])])[0])[0]
        there = {str(row["Name"]).lower() for row in rows}
        found = frozenset(name for vm, name in vms.items() if vm.lower() in there)
        return [found & one for one in asked]

    def _look_for_all(self, asked: Sequence[frozenset[str]]) -> list[World]:
        """One look for who is asked for by anybody: all, where one asks so."""
        names = frozenset[str]().union(*asked) if all(asked) else frozenset[str]()
        for _ in range(TRIES - 1):
            try:
                return [self._seen_now(names)] * len(asked)
            except Refused as e:
                if isinstance(e.op, Call) and e.op.cmdlet == "Get-VM":
                    raise
        return [self._seen_now(names)] * len(asked)

    def _seen_now(self, names: Collection[str]) -> World:
        return self.seen(whole(self.pool.read([self.batch(names)])[0]), names)

    def batch(self, names: Collection[str]) -> Batch:
        """What ``seen`` is of. By name, as others may vanish meanwhile: then it is refused."""
        patterns = words.vm_patterns(self.testbed, names)
        batch = Batch(ops=[Call("Get-VM", {"Name": patterns}, select=VM)])
        for cmdlet, select in PARTS:
            batch.add(Call(cmdlet, {"VMName": patterns}, select=select))
        for program in groups.LOOK if self.grouped else ():
            batch.add(program)
        return batch

    def seen(self, told: Sequence[Sequence[Row]], names: Collection[str]) -> World:
        """From what ``batch`` gave back."""
        vms, processors, adapters, disks, snapshots, *more = told
        bound = groups.read(*(_lines(rows) for rows in more)) if self.grouped else None
        rows = Rows(vms, processors, adapters, disks, snapshots, bound)
        found = world(rows, self.testbed, self.root)
        with self._lock:
            self._absent |= {*names} - found.ours.keys() - found.foreign
            gone = {*(names or self._last)} - found.ours.keys()
            self._last = {n: s for n, s in self._last.items() if n not in gone} | dict(found.ours)
        return found

    def never_was(self, guest: str) -> bool:
        """Whether it was not there when last looked for; the next look is a real one."""
        with self._lock:
            there = guest not in self._absent
            self._absent.discard(guest)
            return not there

    def last(self, guest: str) -> Seen | None:
        """As it was when last looked at."""
        with self._lock:
            return self._last.get(guest)

    def own(self, guest: str) -> Seen | None:
        """The guest's VM, None where there is none. Raises Foreign where it is another's."""
        found = self.look([guest])
        if guest in found.foreign:
            raise Foreign(
                f"VM {words.vm_name(self.testbed, guest)} exists without our mark",
                hint="look at its Notes in Hyper-V Manager, and rename or remove it",
            )
        return found.ours.get(guest)

    def there(self, guest: str) -> Seen:
        """As ``own``, but raises DriverError where there is none."""
        found = self.own(guest)
        if found is None or found.half:
            raise DriverError(f"guest {guest} does not exist, and has no checkpoint")
        return found

    def beats(self, wanted: Collection[str]) -> tuple[set[str], set[str]]:
        """Waits, some seconds at most, until the integration services of one of them answer.

        Those that do, and those that run at all.
        """
        names = [words.vm_name(self.testbed, guest) for guest in sorted(wanted)]
        batch = Batch()
        asked = {"Name": words.vm_patterns(self.testbed, wanted)}
        chosen = {"Name": names, "State": [RUNNING]}
        fields = ("Name", "Heartbeat")
        batch.add(Call("Get-VM", asked, select=fields, only=chosen, again=BEATS))
        rows = whole(self.pool.read([batch])[0])
        prefix = words.vm_name(self.testbed, "")
        runs = {str(r["Name"])[len(prefix) :]: str(r["Heartbeat"] or "") for r in rows[0]}
        return {g for g, told in runs.items() if told.startswith(ALIVE)}, set(runs)


def _lines(rows: Iterable[object]) -> str:
    return " | ".join(str(row["lines"]) for row in rows if isinstance(row, dict))
