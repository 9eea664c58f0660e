"""The root partition's CPUs (minroot): Hyper-V's pinned dom0, set where Windows boots.

"Hyper-V Host CPU Resource Management" of Windows Server's documentation: ``bcdedit /set
hypervisorrootproc N`` and a restart. The CPUs are the host's first, spread over its NUMA nodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from time import monotonic

from drivers.hyperv import words
from drivers.hyperv.api import Lost, told
from drivers.hyperv.ops import Batch, Call, Program, Refused, Row, lock
from drivers.hyperv.parse import RUNNING
from drivers.hyperv.pool import Pool, whole
from provision.driver import Dom0, UplinkFacts
from provision.errors import DriverError, Unreachable, Unsupported
from provision.resources import BOOT, Tuning

CPUS, SCHEDULER = "hypervisorrootproc", "hypervisorschedulertype"
SCHEDULERS = ("classic", "core", "root")
ROOT = Call(
    "Get-CimInstance", {"ClassName": "Win32_ComputerSystem"}, select=("NumberOfLogicalProcessors",)
)
LOOK = Program("bcdedit", ("/enum", "{current}"), lenient=True)
_SINCE = Call("Get-CimInstance", {"ClassName": "Win32_OperatingSystem"}, select=("LastBootUpTime",))
_SET = re.compile(rf"\b({CPUS}|{SCHEDULER})\s+(\w+)", re.IGNORECASE)
LOCK = lock("boot")
PAUSE_S = 2.0


def value(lines: str, root_cpus: int, cpus: int) -> str:
    """The tuning's value, from what ``bcdedit`` prints and what is in force.

    A number that waits for a restart is told as the one that is in force.
    """
    found = {name.lower(): text.lower() for name, text in _SET.findall(lines)}
    asked = int(found[CPUS], 0) if CPUS in found else cpus
    if root_cpus != asked:
        found[CPUS] = str(root_cpus)
    elif CPUS in found:
        found[CPUS] = str(asked)
    return text(found)


def text(found: Mapping[str, str]) -> str:
    return " ".join(f"{name}={found[name]}" for name in sorted(found))


def parts(told: str) -> dict[str, str]:
    """Raises Unsupported for what is no value of ours."""
    found = dict(word.partition("=")[::2] for word in told.split())
    if found.keys() - {CPUS, SCHEDULER} or not found.get(CPUS, "1").isdigit():
        raise Unsupported(f"{BOOT[1]}: {told!r} is none of {CPUS}=N, {SCHEDULER}=TYPE")
    if (asked := found.get(SCHEDULER, "core")) not in SCHEDULERS:
        raise Unsupported(f"{BOOT[1]}: no scheduler {asked!r}; {', '.join(SCHEDULERS)}")
    return found


def tunings(now: str) -> Callable[[Dom0, tuple[UplinkFacts, ...]], Iterable[Tuning]]:
    """What dom0's section becomes, beside what is set ``now`` and stays."""

    def made(dom0: Dom0, _: tuple[UplinkFacts, ...]) -> Iterator[Tuning]:
        if dom0.vcpus is not None:
            yield Tuning(BOOT[1], text(parts(now) | {CPUS: str(dom0.vcpus)}))

    return made


@dataclass(slots=True)
class Boot:
    """The one tuning of this driver. ``restart_s``: how long a restart may take."""

    pool: Pool
    testbed: str
    cpus: int
    restart_s: float
    say: Callable[[str], None]

    def read(self) -> Tuning:
        """As ``Driver.read``."""
        with told("read how the host boots"):
            root, lines = whole(self.pool.read([Batch(ops=[ROOT, LOOK])])[0])
        if lines[0]["code"] != 0:
            raise DriverError(
                f"bcdedit: {lines[0]['lines']}", hint="the user has to be one of Administrators"
            )
        cpus = int(root[0]["NumberOfLogicalProcessors"])
        return Tuning(BOOT[1], value(str(lines[0]["lines"]), cpus, self.cpus))

    def put(self, want: Tuning) -> None:
        """As ``Driver.put``: set, restart, wait, and start our guests that ran.

        Raises DriverError, before anything changes, while guests run that are not ours.
        """
        wanted = parts(want.value)
        if int(wanted.get(CPUS, "1")) not in range(1, self.cpus + 1):
            raise Unsupported(f"dom0.vcpus: the host has {self.cpus} CPUs, not {wanted[CPUS]}")
        if self.read() == want:
            return
        with told("restart the host"):
            ours = self._running()
            since = self._since()
            self._set(wanted)
            self._restart(since)
            if ours:
                self.say("starting the guests that ran")
                batch = Batch(LOCK)
                for guest in ours:
                    vm = batch.add(Call("Get-VM", {"Id": guest}, expect="some"))
                    batch.add(Call("Start-VM", take={"VM": vm}))
                self.pool.do(batch)

    def _running(self) -> list[str]:
        """The ids of our guests that run."""
        running = {"State": [RUNNING, "Paused", "Starting"]}
        look = Call("Get-VM", select=("Id", "Name", "Notes"), only=running)
        rows = whole(self.pool.read([Batch(ops=[look])])[0])[0]
        ours = [r for r in rows if words.record(r["Notes"]).get("testbed") == self.testbed]
        if others := sorted(str(r["Name"]) for r in rows if r not in ours):
            raise DriverError(
                f"the host is not restarted: guests that are not ours run: {', '.join(others)}",
                hint="stop or move them, or leave dom0.vcpus out",
            )
        return [str(r["Id"]) for r in ours]

    def _set(self, wanted: Mapping[str, str]) -> None:
        batch = Batch(LOCK)
        for name in (CPUS, SCHEDULER):
            if name in wanted:
                batch.add(Program("bcdedit", ("/set", name, wanted[name])))
            else:  # it fails where there is none to delete
                batch.add(Program("bcdedit", ("/deletevalue", name), lenient=True))
        self.pool.do(batch)

    def _restart(self, since: str) -> None:
        """Returns once the host has come back; a lost answer is what a restart looks like."""
        self.say("restarting the host")
        batch = Batch(LOCK)
        batch.add(Call("Restart-Computer", {"Force": True, "Confirm": False}))
        try:
            self.pool.do(batch)
        except Lost:
            pass
        except Refused as e:
            raise DriverError(
                f"the host does not restart: {e}",
                hint=f"restart it by hand: {CPUS} is set already",
            ) from e
        self.pool.forget()
        self.say("waiting for the host to come back")
        deadline, pause = monotonic() + self.restart_s, Event()
        last = "it still runs as before"
        while monotonic() < deadline:
            try:
                if self._since(once=True) != since:
                    return
            except (Lost, Refused, Unreachable) as e:
                last = str(e)
            pause.wait(PAUSE_S)
        raise DriverError(
            f"the host has not come back within {self.restart_s:g} s: {last}",
            hint="look at its console; the same command goes on from here",
        )

    def _since(self, once: bool = False) -> str:
        """When Windows was started."""
        batches = [Batch(ops=[_SINCE])]
        found: list[list[Row]] = whole((self.pool.try_once if once else self.pool.read)(batches)[0])
        return str(found[0][0]["LastBootUpTime"])
