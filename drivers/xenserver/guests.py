"""Guests as VMs: read, put, drop.

Each step looks first and does what is lacking, so that a put which was cut short, or whose reply
was lost, goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from drivers.xenserver import shape
from drivers.xenserver.api import gone_is_fine, told
from drivers.xenserver.connect import Session
from drivers.xenserver.fit import Fit
from drivers.xenserver.inforce import InForce
from drivers.xenserver.make import Maker
from drivers.xenserver.nets import Nets, Network
from drivers.xenserver.snapshots import Snapshots
from drivers.xenserver.vms import RUNNING, Vm, Vms
from provision.driver import Target
from provision.errors import DriverError
from provision.resources import Guest, changed, key


@dataclass(slots=True)
class Guests:
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names."""

    target: Target
    session: Session
    vms: Vms
    nets: Nets
    maker: Maker
    snapshots: Snapshots
    fit: Fit
    in_force: InForce
    _started: dict[str, str] = field(default_factory=dict)

    def read(self, name: str) -> Guest | None:
        """As ``Driver.read``."""
        with told(f"read guest {name}"):
            vm = self.vms.find(name)
            return self._seen(name, vm) if vm is not None and self.vms.ours(vm.has) else None

    def look(self, names: Iterable[str]) -> dict[str, Guest | None]:
        """As ``read``, of many at once."""
        names = list(names)
        with told("read guests"):
            found = self.vms.all() if names else {}
            nets = _names(self.nets.all(), self.nets) if found else {}
            vifs = self.session.call("VIF.get_all_records") if found else {}
        guests: dict[str, Guest | None] = dict.fromkeys(names)
        for name in found.keys() & guests.keys():
            ref, has = found[name]
            mine = [v for v in vifs.values() if v["VM"] == ref]
            guests[name] = shape.guest(name, has, mine, nets)
        return guests

    def put(self, want: Guest) -> None:
        """As ``Driver.put``; a change is made by a restart, else by a new guest."""
        with told(f"put guest {want.name}"):
            source = self.fit.refuse(want)
            self.session.again(
                lambda: self._put(want), lambda: self.vms.settle(want.name, [("VM", source.ref)])
            )

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the VM, its snapshots, the disks of both."""
        with told(f"drop guest {name}"):
            self.session.again(lambda: self.vms.vanish(name), lambda: self.vms.settle(name))
        self._started.pop(name, None)

    def checkpoint(self, name: str) -> None:
        """As ``Driver.checkpoint``."""
        token = str(uuid4())
        with told(f"checkpoint guest {name}"):
            self.session.again(
                lambda: self.snapshots.take(self.vms.there(name), name, token),
                lambda: self.vms.settle(name),
            )

    def has_checkpoint(self, name: str) -> bool:
        """As ``Keeper.has_checkpoint``."""
        with told(f"look for the checkpoint of guest {name}"):
            vm = self.vms.find(name)
            return vm is not None and self.vms.ours(vm.has) and self.snapshots.kept(vm)

    def revert(self, name: str) -> None:
        """As ``Driver.revert``."""
        with told(f"revert guest {name}"):
            self.session.again(lambda: self._revert(name), lambda: self.vms.settle(name))

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest came about, what its agent says, and what Xen itself has in force."""
        with told(f"look at guest {name}"):
            vm = self.vms.find(name)
            if vm is None or not self.vms.ours(vm.has):
                return {}
            agent: Mapping[str, Mapping[str, str]] = {}
            with gone_is_fine():
                agent = self.session.call("VM_guest_metrics.get_record", vm.has["guest_metrics"])
        drivers = agent.get("PV_drivers_version", {})
        told_by_agent = agent.get("networks", {})
        found = {
            "accel": shape.ACCEL,
            "virt": str(vm.has["domain_type"]),
            "started": self._started.get(name, "booted"),
            "disks": shape.noted(vm.has).source,
            "pv_drivers": ".".join(drivers[k] for k in ("major", "minor") if k in drivers)
            or "no agent has reported",
            "addresses": ", ".join(
                sorted({a for k, a in told_by_agent.items() if k.endswith("/ip")})
            )
            or "no agent has reported",
            "host": self.vms.place.name,
        }
        return {**found, **self.in_force.evidence(vm.has)}

    def _seen(self, name: str, vm: Vm) -> Guest:
        nets: dict[str, tuple[str, ...]] = {}
        vifs = []
        for ref in vm.has["VIFs"]:
            with gone_is_fine():
                vif = self.session.call("VIF.get_record", ref)
                network = self.nets.one(vif["network"])
                nets |= _names({network.ref: network}, self.nets)
                vifs.append(vif)
        return shape.guest(name, vm.has, vifs, nets)

    def _put(self, want: Guest) -> None:
        networks = self._networks(want)
        vm = self.vms.own(want.name)
        if vm is not None and shape.noted(vm.has).image != want.image:
            self.vms.vanish(want.name)
            vm = None
        say = self._say(want)
        iso = self._identity(want)
        if vm is None:
            ref = self.maker.make(want, networks, iso, say)
            self._started.pop(want.name, None)
        else:
            ref = vm.ref
            differ = {*changed(self._seen(want.name, vm), want)} - {"running"}
            if differ:
                self.vms.stop(ref)
                self.snapshots.forget(vm, want.name)  # what it remembers is of another shape
                self.maker.shape(ref, want, networks, iso)
                self._started.pop(want.name, None)
        self._power(ref, want)

    def _power(self, ref: str, want: Guest) -> None:
        state = self.session.call("VM.get_power_state", ref)
        if not want.running:
            if state != "Halted":
                self.vms.stop(ref)
            return
        say = self._say(want)
        if state == "Paused":
            self.vms.wake("VM.unpause", ref, say=say)
        elif state == "Suspended":
            self.vms.wake("VM.resume", ref, False, False, say=say)
        elif state != RUNNING:
            say("booting")
            self.vms.start(ref, say)
        self.in_force.check(self.session.call("VM.get_record", ref), want)

    def _revert(self, name: str) -> None:
        vm = self.vms.there(name)
        with_memory = self.snapshots.back(vm, name, lambda _phase: None)
        self._started[name] = f"reverted, {'with its memory' if with_memory else 'and booted'}"

    def _networks(self, want: Guest) -> dict[str, Network]:
        """The network of each vNIC's switch, by the switch's name. Raises DriverError."""
        among, found = self.nets.all(), {}
        for vnic in (want.management, *want.nics):
            hits = self.nets.named(vnic.switch, among)
            if len(hits) != 1:
                there = ", ".join(sorted(n.has["name_label"] for n in among.values()))
                what = "several are called so" if hits else f"it has: {there}"
                raise DriverError(
                    f"guest {want.name} needs network {vnic.switch}, which "
                    f"{self.vms.place.name} has not; {what}"
                )
            found[vnic.switch] = hits[0]
        return found

    def _identity(self, want: Guest) -> bytes | None:
        if self.target.identity is None:
            return None
        from provision.seed import iso

        return iso(self.target.identity(want))

    def _say(self, want: Guest) -> Callable[[str], None]:
        return lambda phase: self.target.say(key(want), phase)


def _names(found: Mapping[str, Network], nets: Nets) -> dict[str, tuple[str, ...]]:
    """What specs may call each network; ours have one name only."""
    return {
        ref: (n.was.switch,) if nets.ours(n) and n.was is not None else n.names
        for ref, n in found.items()
    }
