"""Guests as VMs: read, put, drop, remember, go back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from drivers.hyperv import batches, words
from drivers.hyperv.api import EXISTS, told
from drivers.hyperv.batches import Plan, guest_lock
from drivers.hyperv.beats import Beats
from drivers.hyperv.fit import LIVE, Fit
from drivers.hyperv.ops import Call, Refused
from drivers.hyperv.parse import Seen, World
from drivers.hyperv.pool import Pool
from drivers.hyperv.sight import Sight
from provision.driver import Target
from provision.errors import DriverError
from provision.resources import Guest, changed, key

BOOTED = "booted"


@dataclass(slots=True)
class Guests:
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names.

    ``root`` is the folder of guests' disks, ``images`` the host's own folder of disks.
    """

    target: Target
    pool: Pool
    sight: Sight
    beats: Beats
    fit: Fit
    root: str
    images: str
    ready_s: float
    _started: dict[str, str] = field(default_factory=dict)
    _dropped: set[str] = field(default_factory=set)

    def read(self, name: str) -> Guest | None:
        """As ``Driver.read``."""
        return self.look([name])[name]

    def look(self, names: Iterable[str], seen: World | None = None) -> dict[str, Guest | None]:
        """As ``read``, of many at once."""
        names = [*names]
        with told("read guests"):
            if names and seen is None and {*names} <= self._dropped and self.sight.gone(names):
                return dict.fromkeys(names)
            found = (seen or self.sight.look(names)).ours
        return {n: s.guest if (s := found.get(n)) is not None else None for n in names}

    def owned(self) -> list[str]:
        with told("list guests"):
            return [*self.sight.look().ours]

    def put(self, want: Guest) -> None:
        """As ``Driver.put``; a change is made live, else by a restart, else by a new guest."""
        self.fit.refuse(want)
        with told(f"put guest {want.name}"):
            self.pool.again(lambda: self._put(want), self._lock(want.name))
            if want.running:
                self._ready(want)

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the VM, its checkpoints, its folder."""
        with told(f"drop guest {name}"):
            self.pool.again(lambda: self._drop(name), self._lock(name))

    def has_checkpoint(self, name: str) -> bool:
        """As ``Keeper.has_checkpoint``."""
        with told(f"look at guest {name}"):
            found = self.sight.look([name]).ours.get(name)
        return found is not None and bool(found.snapshots)

    def checkpoint(self, name: str) -> None:
        """As ``Driver.checkpoint``: a standard one, with the guest's memory."""

        def work() -> None:
            seen = self.sight.last(name)
            if seen is not None:  # by its id: another VM is never meant
                try:
                    self.pool.do(batches.checkpoint(self.target.testbed, seen, name))
                except Refused as e:
                    if not isinstance(e.op, Call) or e.op.cmdlet != "Get-VM":
                        raise
                    seen = None  # it is another by now
            if seen is None:
                seen = self.sight.there(name)
                self.pool.do(batches.checkpoint(self.target.testbed, seen, name))

        with told(f"checkpoint guest {name}"):
            self.pool.again(work, self._lock(name))

    def revert(self, name: str) -> None:
        """As ``Driver.revert``."""

        def work() -> None:
            seen = self.sight.there(name)
            if not seen.snapshots:
                raise DriverError(f"guest {name} has no checkpoint")
            self.pool.do(batches.revert(self.target.testbed, seen, name))
            self._started[name] = "reverted, with its memory"

        with told(f"revert guest {name}"):
            self.pool.again(work, self._lock(name))

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest came about, and what of it only the host knows."""
        seen = self.sight.last(name)
        if seen is None:
            with told(f"look at guest {name}"):
                seen = self.sight.look([name]).ours.get(name)
        if seen is None:
            return {}
        return {
            "accel": seen.guest.accel,
            "started": self._started.get(name, BOOTED),
            "machine": f"generation {seen.generation}, version {seen.version}",
            "integration": seen.heartbeat or "silent",
            "identity": f"by a NoCloud seed disk, for {seen.guest.os}",
        }

    def _put(self, want: Guest) -> None:
        self._dropped.discard(want.name)
        seen = None if self.sight.never_was(want.name) else self.sight.own(want.name)
        plan = self._plan(want)
        if seen is None:
            try:
                self._make(plan)
            except Refused as e:
                if e.id != EXISTS:
                    raise
                # made by us and the answer lost, or by another meanwhile
                seen = self.sight.own(want.name)
                if seen is None:
                    raise
        if seen is not None:
            self._change(plan, seen)

    def _drop(self, name: str) -> None:
        """By its id as last seen, which no other VM has; else it is looked for first."""
        self._dropped.add(name)
        files = words.files(self.root, self.target.testbed, name)

        def end(seen: Seen | None) -> None:
            self.pool.do(batches.end(self.target.testbed, name, files, seen, self.fit.grouped))

        self._started.pop(name, None)
        if (last := self.sight.last(name)) is not None:
            with suppress(Refused):  # it is another, or in another state, by now
                return end(last)
        return end(self.sight.own(name))

    def _make(self, plan: Plan) -> None:
        self._say(plan.want)("making it")
        self.pool.do(batches.make(plan))
        self._started.pop(plan.want.name, None)

    def _change(self, plan: Plan, seen: Seen) -> None:
        """Whatever is other than wanted, with as little disturbance as that takes."""
        want, testbed = plan.want, self.target.testbed
        have = seen.guest
        differ = {*changed(have, want)}
        if seen.half or differ & {"image", "os"} or seen.generation != words.generation(want):
            self._drop(want.name)
            self._make(plan)
        elif differ == {"running"}:
            self.pool.do(batches.power(testbed, seen, want))
        elif have.running and want.running and _live(have, want):
            self.pool.do(batches.tune(plan, seen))
        elif differ:
            self.pool.do(batches.change(plan, seen))

    def _ready(self, want: Guest) -> None:
        """Until the integration services answer, where the guest has a system at all."""
        if not want.image or not self.ready_s:
            return
        say = self._say(want)
        say("waiting for its integration services")
        if not self.beats.wait(want.name, self.ready_s):
            self._started[want.name] = f"booted; no heartbeat for {self.ready_s:g} s"
            say(f"no heartbeat after {self.ready_s:g} s")

    def _plan(self, want: Guest) -> Plan:
        make = self.target.identity
        seed = b""
        if make is not None:
            from provision.seed import iso

            seed = iso(make(want))
        cpus = (want.pins[0] if want.pins else "") if self.fit.grouped else None
        testbed = self.target.testbed
        return Plan(
            testbed, want, words.files(self.root, testbed, want.name),
            words.image_path(want.image, self.images) if want.image else "", seed, cpus,
        )  # fmt: skip

    def _lock(self, name: str) -> str:
        return guest_lock(self.target.testbed, name)

    def _say(self, want: Guest) -> Callable[[str], None]:
        return lambda phase: self.target.say(key(want), phase)


def _live(have: Guest, want: Guest) -> bool:
    """Whether nothing differs but what can be changed while the guest runs."""
    unrated = tuple(replace(nic, rate_mbit=None) for nic in want.nics)
    if tuple(replace(nic, rate_mbit=None) for nic in have.nics) != unrated:
        return False
    return {*changed(have, want)} <= LIVE | {"nics"}
