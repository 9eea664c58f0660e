"""Guests as VMs: read, put, drop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from drivers.vsphere import spec as wording
from drivers.vsphere.api import Exists, NoPermission, told, vim
from drivers.vsphere.fit import LIVE, Fit
from drivers.vsphere.hostnet import Group, HostNet
from drivers.vsphere.make import Maker
from drivers.vsphere.networks import Networks
from drivers.vsphere.parse import OFF, Seen, as_made
from drivers.vsphere.place import Place
from drivers.vsphere.read import get
from drivers.vsphere.snapshots import Snapshots
from drivers.vsphere.switches import Switches
from drivers.vsphere.vms import Vms
from drivers.vsphere.vnics import Plugs, plugs
from provision.driver import Target
from provision.errors import Foreign
from provision.resources import Guest, changed, key

TOOLS = "guest.toolsRunningStatus"
RUNNING = "guestToolsRunning"
EVIDENCE = ("guest.toolsVersion", "guest.toolsVersionStatus2", TOOLS, "config.version")


@dataclass(slots=True)
class Guests:
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names."""

    target: Target
    place: Place
    vms: Vms
    net: HostNet
    switches: Switches
    networks: Networks
    maker: Maker
    snapshots: Snapshots
    fit: Fit
    tools_s: float
    _started: dict[str, str] = field(default_factory=dict)
    _nets: dict[str, frozenset[str]] = field(default_factory=dict)

    def read(self, name: str) -> Guest | None:
        """As ``Driver.read``."""
        with told(f"read guest {name}"):
            names = self._nets.get(name, frozenset())
            _, seen, more = self.vms.find(name, beside=self.net.question(names))
            if seen is None:
                return None
            mine = self._own_switches(seen.guest)
            groups = self.net.told(more[0]) if more and mine <= names else self.net.groups(mine)
            return _rated(seen.guest, {n: g.rate_mbit for n, g in groups.items()})

    def look(self, names: Collection[str]) -> dict[str, Guest]:
        """As ``read``, of many at once, but without rates; what there is not is left out."""
        with told("read guests"):
            return {name: seen.guest for name, seen in self.vms.sight.look(names).items()}

    def switches_of(self, guests: Iterable[Guest]) -> frozenset[str]:
        """The testbed's own that these are on."""
        return frozenset().union(*(self._own_switches(guest) for guest in guests))

    def rated(self, guests: Iterable[Guest], groups: Mapping[str, Group]) -> Iterator[Guest]:
        """The guests with what these port groups let their vNICs send."""
        rates = {name: group.rate_mbit for name, group in groups.items()}
        return (_rated(guest, rates) for guest in guests)

    def put(self, want: Guest) -> None:
        """As ``Driver.put``; a change is made live, else by a restart, else by a new guest."""
        self.fit.refuse(want)
        with told(f"put guest {want.name}"):
            self.vms.again(want.name, lambda: self._put(want), lambda: self.maker.origin(want))

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the VM, its snapshots, its files."""
        with told(f"drop guest {name}"):
            self.vms.again(name, lambda: self._drop(name))

    def checkpoint(self, name: str) -> None:
        """As ``Driver.checkpoint``, without the keys that the guest was handed."""
        token = f"provision {uuid4()}"
        with told(f"checkpoint guest {name}"):
            self.vms.again(name, lambda: self.snapshots.take(self.vms.there(name), token))

    def revert(self, name: str) -> None:
        """As ``Driver.revert``."""
        with told(f"revert guest {name}"):
            self.vms.again(name, lambda: self._revert(name))

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest came about, and what of it only the host knows."""
        with told(f"look at guest {name}"):
            seen = self.vms.own(name, all_of_it=True)
            if seen is None:
                return {}
            has = get(self.vms.session, seen.ref, *EVIDENCE)
        kept = "still" if seen.secret else "no longer"
        tools = has.get("guest.toolsVersionStatus2", "not seen")
        running = has.get(TOOLS, "not running")
        return {
            "accel": seen.guest.accel,
            "started": self._started.get(name, "booted"),
            "cloned": seen.cloned,
            "tools": f"{has.get('guest.toolsVersion', '0')} {tools}, {running}",
            "machine": str(has.get("config.version", "")),
            "host": self.place.name,
            "identity": f"by guestinfo, {kept} in the VM's settings",
        }

    def _put(self, want: Guest) -> None:
        seen = None if self.vms.sight.never_was(want.name) else self.vms.own(want.name)
        self._own_switches(want)
        found = plugs(want, self.place, self.net, self.switches, self.networks)
        if seen is not None and seen.guest.image != want.image:
            self.vms.vanish(want.name)
            seen = None
        if seen is None:
            seen = self._make(want, found)
        self._change(seen, want, found)

    def _drop(self, name: str) -> None:
        if not self.vms.vanish(name):
            with suppress(NoPermission):  # then there is nothing of ours either
                self.vms.sweep(name)
        self._started.pop(name, None)

    def _revert(self, name: str) -> None:
        seen = self.vms.there(name)
        if self.snapshots.back(seen):
            self._started[name] = "reverted, with its memory"
        else:
            self._start(seen.ref, seen.guest)
            self._started[name] = "reverted, and booted"

    def _make(self, want: Guest, to: Plugs) -> Seen:
        """A new VM, as wanted but for its rates and not running."""
        config = wording.shape(want, self.place.mhz)
        config.deviceChange = to.plug((), want)
        try:
            ref = self.maker.make(want, config, self._identity(want), self._say(want))
        except Exists as e:
            ref, there, _ = self.vms.find(want.name)
            if ref is None:  # a file of that name, or a name that a VM elsewhere has
                raise
            if there is None:
                raise Foreign(f"VM {self.vms.name(want.name)} was just made by somebody") from e
            return there
        self._started.pop(want.name, None)
        self.vms.sight.made(want.name, ref, 1 + len(want.nics), want.image)
        return as_made(ref, self.target.testbed, _rated(replace(want, running=False), {}))

    def _change(self, seen: Seen, want: Guest, to: Plugs) -> None:
        """Whatever is other than wanted, with as little disturbance as that takes."""
        for nic in want.nics:
            if (group := to.groups.get(nic.switch)) is not None:
                self.switches.limit(group, nic.rate_mbit)
        rates = {nic.switch: nic.rate_mbit for nic in want.nics}
        have = _rated(seen.guest, rates)
        differ = {*changed(have, want)}
        if not differ:
            return
        if not (have.running and want.running and differ <= LIVE and self._live(seen, have, want)):
            self._restart(seen, have, want, to)

    def _live(self, seen: Seen, have: Guest, want: Guest) -> bool:
        """Whether the server takes the change while the guest runs."""
        spec = wording.resources(want, self.place.mhz, have)
        try:
            self.vms.tasks.run(lambda: seen.ref.ReconfigVM_Task(spec))
        except (vim.fault.InvalidPowerState, vim.fault.InvalidState):
            return False
        return True

    def _restart(self, seen: Seen, have: Guest, want: Guest, to: Plugs) -> None:
        """The same disk; off while its shape changes. The identity goes with the vNICs."""
        if replace(have, running=want.running) != want:
            if seen.state != OFF:
                self.vms.power_off(seen.ref)
            self.snapshots.forget(seen.ref)  # what it remembers is of another shape
            spec = wording.shape(want, self.place.mhz, have)
            spec.deviceChange = to.plug(seen.cards, want)
            marks = wording.marks(self.target.testbed, want, seen.cloned)
            spec.extraConfig = wording.options(marks | self._identity(want))
            self.vms.tasks.run(lambda: seen.ref.ReconfigVM_Task(spec))
        if want.running:
            self._start(seen.ref, want)
        elif seen.state != OFF:
            self.vms.power_off(seen.ref)

    def _start(self, ref: Any, want: Guest) -> None:
        """Until VMware Tools report from inside, where they are known to be there."""
        say = self._say(want)
        say("booting")
        self.vms.power_on(ref)
        if not self.maker.has_tools(want):
            return
        say("waiting for VMware Tools")
        if not self.vms.tasks.until(
            ref, (TOOLS,), lambda now: now.get(TOOLS) == RUNNING, self.tools_s
        ):
            self._started[want.name] = f"booted; VMware Tools silent for {self.tools_s:g} s"
            say(f"VMware Tools are silent after {self.tools_s:g} s")

    def _own_switches(self, guest: Guest) -> frozenset[str]:
        """Those of the guest's networks that are the testbed's."""
        found = frozenset(v.switch for v in guest.nics if self.switches.ours(v.switch))
        self._nets[guest.name] = found
        return found

    def _identity(self, want: Guest) -> dict[str, str]:
        make = self.target.identity
        return wording.handed(make(want)) if make is not None else {}

    def _say(self, want: Guest) -> Callable[[str], None]:
        return lambda phase: self.target.say(key(want), phase)


def _rated(guest: Guest, rates: Mapping[str, int | None]) -> Guest:
    """The guest with what its port groups let its vNICs send."""
    nics = tuple(replace(v, rate_mbit=rates.get(v.switch)) for v in guest.nics)
    return replace(guest, nics=nics)
