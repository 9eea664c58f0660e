"""One testbed's VMs as they are, all in one request, and what is known of them meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
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

    together: Together
    testbed: str
    root: str
    grouped: bool
    _absent: set[str] = field(default_factory=set)
    _last: dict[str, Seen] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def look(self, names: Iterable[str] = ()) -> World:
        """All of them as they are now; those of ``names`` that are not there are remembered."""
        vms, processors, adapters, disks, snapshots, *more = self._rows()
        bound = groups.read(*(_lines(rows) for rows in more)) if self.grouped else None
        rows = Rows(vms, processors, adapters, disks, snapshots, bound)
        found = world(rows, self.testbed, self.root)
        with self._lock:
            self._absent |= {*names} - found.ours.keys() - found.foreign
            self._last = dict(found.ours)
        return found

    def _rows(self) -> list[list[Row]]:
        """What of a VM is asked after itself is asked by name: others may vanish meanwhile."""
        all_of_them = words.vm_name(self.testbed, "*")
        batch = Batch(ops=[Call("Get-VM", {"Name": all_of_them}, select=VM)])
        for cmdlet, select in PARTS:
            batch.add(Call(cmdlet, {"VMName": all_of_them}, select=select))
        for program in groups.LOOK if self.grouped else ():
            batch.add(program)
        for _ in range(TRIES - 1):
            try:
                return self.together.ask(batch)
            except Refused as e:
                if isinstance(e.op, Call) and e.op.cmdlet == "Get-VM":
                    raise
        return self.together.ask(batch)

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

    def beats(self, wanted: Iterable[str]) -> tuple[set[str], set[str]]:
        """Waits, some seconds at most, until the integration services of one of them answer.

        Those that do, and those that run at all.
        """
        names = [words.vm_name(self.testbed, guest) for guest in sorted(wanted)]
        batch = Batch()
        asked = {"Name": words.vm_name(self.testbed, "*")}
        chosen = {"Name": names, "State": [RUNNING]}
        fields = ("Name", "Heartbeat")
        batch.add(Call("Get-VM", asked, select=fields, only=chosen, again=BEATS))
        rows = self.together.ask_all([batch])[0]
        assert not isinstance(rows, Exception)
        prefix = words.vm_name(self.testbed, "")
        runs = {str(r["Name"])[len(prefix) :]: str(r["Heartbeat"] or "") for r in rows[0]}
        return {g for g, told in runs.items() if told.startswith(ALIVE)}, set(runs)


def _lines(rows: Iterable[object]) -> str:
    return " | ".join(str(row["lines"]) for row in rows if isinstance(row, dict))
