"""XenServer and XCP-ng: one host of a pool, through XenAPI, and its dom0 over SSH.

https://xapi-project.github.io/xen-api has each call. Guests are VMs ``TESTBED-GUEST``, clones of a
template; switches are the networks that the uplinks have; what XenAPI cannot do, ``xl`` in dom0
does, where SSH reaches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from threading import BoundedSemaphore
from time import time

from drivers.xenserver import dom0 as dom0s
from drivers.xenserver import fit, shape, uplinks
from drivers.xenserver import place as places
from drivers.xenserver.api import told
from drivers.xenserver.bootopts import XenServerOptions
from drivers.xenserver.connect import connect
from drivers.xenserver.examine import examine
from drivers.xenserver.guests import Guests
from drivers.xenserver.inforce import InForce
from drivers.xenserver.make import Maker
from drivers.xenserver.nets import Nets
from drivers.xenserver.restart import Restart
from drivers.xenserver.room import check_room
from drivers.xenserver.seeds import Seeds
from drivers.xenserver.snapshots import Snapshots
from drivers.xenserver.sources import Sources
from drivers.xenserver.switches import Switches
from drivers.xenserver.tasks import Tasks
from drivers.xenserver.vms import Vms
from drivers.xenserver.wire import Limits, Line, LineType, endpoint
from provision.driver import Check, Dom0, Facts, Target, UplinkFacts, Usage
from provision.errors import DriverError, HostError, Unreachable, Unsupported
from provision.host import Host
from provision.resources import Guest, Key, Resource, Switch, Tuning, label

AT_ONCE = 12  # XAPI itself does no more at once well


class XenServer:
    """The driver. ``limits`` are deadlines; ``line`` makes the sessions.

    ``host`` is dom0, where commands of ours reach it.
    """

    takes_image = False
    capabilities = fit.CAPABILITIES
    host: Host

    def __init__(self, target: Target, limits: Limits | None = None, line: LineType = Line) -> None:
        if target.start == "restore":
            raise Unsupported(
                "guests.start: XenServer clones guests and boots them, it restores none",
                hint="guests.start: auto",
            )
        self._target = target
        limits = limits or Limits()
        with ExitStack() as opening:
            to = endpoint(target.uri, target.tls, limits)
            self.session = connect(to, target.login, line)
            opening.callback(self.session.close)
            with told(f"look at {self.session.to.name}"):
                self.place = places.find(self.session, target)
            self.shell = dom0s.shell(target.ssh or f"root@{self.place.address}")
            opening.callback(self.shell.close)
            self._put_together(target, limits)
            with told(f"look at {self.place.name}"):
                self.facts = self._facts()
            opening.pop_all()
        self._room = BoundedSemaphore(AT_ONCE)

    def _put_together(self, target: Target, limits: Limits) -> None:
        session, place, testbed = self.session, self.place, target.testbed
        tasks = Tasks(session, limits.task_s)
        self.nets = Nets(session, testbed)
        self.pifs = uplinks.Pifs(session, place.host, self.nets)
        self.switches = Switches(session, place, self.nets, self.pifs, tasks, limits.carrier_s)
        self.sources = Sources(session, place)
        self.fit = fit.Fit(place, self.nets, self.sources, target.image)
        self.dom0: dom0s.Dom0 | None = None
        if not self.shell.why_not:
            self.host = self.shell.host
            options = XenServerOptions(
                self.host, testbed,
                lambda: places.BACKENDS[places.flavour(session, place.host)],
            )  # fmt: skip
            restart = Restart(session, place, self.host, testbed, limits.reboot_s)
            self.dom0 = dom0s.Dom0(self.host, options, restart)
        vms = Vms(session, place, tasks, testbed)
        maker = Maker(session, place, vms, self.sources, Seeds(session, tasks, testbed))
        in_force = InForce(self.host if self.dom0 is not None else None)
        self.guests = Guests(
            target, session, vms, self.nets, maker, Snapshots(vms), self.fit, in_force
        )

    def read(self, key: Key) -> Resource | None:
        return self.look([key])[key] if key[0] != Guest.kind else self.guests.read(key[1])

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once: each class of records is read in one go."""
        keys = list(keys)
        found: dict[Key, Resource | None] = {}
        for kind, name in keys:
            if kind not in (Guest.kind, Switch.kind):
                found[kind, name] = self._tuning((kind, name)).read(name)
        switches = self.switches.look([n for kind, n in keys if kind == Switch.kind])
        guests = self.guests.look([n for kind, n in keys if kind == Guest.kind])
        found |= {(Switch.kind, n): s for n, s in switches.items()}
        return found | {(Guest.kind, n): g for n, g in guests.items()}

    def put(self, want: Resource) -> None:
        with self._room:
            if isinstance(want, Guest):
                self.guests.put(want)
            elif isinstance(want, Switch):
                self.switches.put(want)
            elif isinstance(want, Tuning):
                with told(f"put {want.name}"):
                    self._tuning(("tuning", want.name)).put(want)
            else:
                self._tuning((want.kind, want.name))

    def drop(self, key: Key) -> None:
        kind, name = key
        with self._room:
            if kind == Guest.kind:
                self.guests.drop(name)
            elif kind == Switch.kind:
                self.switches.drop(name)
            else:
                raise DriverError(f"{label(key)} cannot be dropped, only put back as it was")

    def checkpoint(self, key: Key) -> None:
        with self._room:
            self.guests.checkpoint(_guest(key))

    def has_checkpoint(self, key: Key) -> bool:
        return self.guests.has_checkpoint(_guest(key))

    def revert(self, key: Key) -> None:
        with self._room:
            self.guests.revert(_guest(key))

    def check_room(self, guests: Iterable[Guest]) -> None:
        with told(f"look at the storage of {self.place.name}"):
            check_room(self.session, self.sources, list(guests))

    def owned(self) -> Iterable[Key]:
        with told("list guests"):
            guests = sorted(self.guests.vms.owned())
        return [
            *((Guest.kind, name) for name in guests),
            *((Switch.kind, name) for name in self.switches.owned()),
        ]

    def usage(self) -> Usage:
        """Xen's and dom0's own counters; without SSH there are none that are fine enough."""
        if self.dom0 is None:
            return Usage(time(), (), {}, {})
        with told("count"):
            domids = {n: int(has["domid"]) for n, (_, has) in self.guests.vms.all().items()}
        now = self.dom0.count()
        busy = {n: now.domains[d] for n, d in domids.items() if d in now.domains}
        nics = {u.name: now.nics[u.name] for u in self.facts.uplinks if u.name in now.nics}
        return Usage(now.at_s, now.host_busy_s, busy, nics, now.dom0_busy_s, now.irqs)

    def evidence(self, key: Key) -> Mapping[str, str]:
        kind, name = key
        return self.guests.evidence(name) if kind == Guest.kind else {}

    def examine(self) -> Iterable[Check]:
        return examine(self.session, self.place, self.sources, self.shell.why_not)

    def console(self, key: Key) -> str:
        return ""

    def close(self) -> None:
        self.session.close()
        self.shell.close()

    def _tuning(self, key: Key) -> dom0s.Dom0:
        if key[0] != Tuning.kind:
            raise DriverError(f"{label(key)}: a XenServer host has no {key[0]} of ours")
        if self.dom0 is None:
            raise Unreachable(
                f"{label(key)}: it takes a root shell in dom0, and there is none: "
                f"{self.shell.why_not}",
                hint="hypervisor.ssh: root@HOST, with a key of yours there",
            )
        return self.dom0

    def _tunings(self, asked: Dom0, used: tuple[UplinkFacts, ...]) -> Iterable[Tuning]:
        if self.dom0 is None:
            return dom0s.refuse(asked, self.shell.why_not, self.facts.switch_flavours[0])
        return self.dom0.tunings(asked, used)

    def _facts(self) -> Facts:
        place, tls = self.place, self._target.tls
        now = places.flavour(self.session, place.host)
        knobs, irqs, notes = {}, {}, dict(fit.NOTES)
        if self.dom0 is not None:
            try:
                knobs = dict(self.dom0.values())
                irqs = self.dom0.irqs(self.pifs.by_device())
            except HostError as e:
                notes["dom0"] = str(e)
        else:
            notes["usage"] = f"no counters of the host: no SSH to dom0: {self.shell.why_not}"
        if not tls.verify and not tls.fingerprint:
            notes["tls"] = "not verified, as the spec says"
        nics = self.pifs.facts(irqs)
        return Facts(
            hypervisor="xenserver",
            version=place.version,
            host=place.name,
            cpus=place.cpus,
            memory_mib=place.memory_mib,
            accel=shape.ACCEL,
            nic_models=shape.MODELS,
            words=shape.WORDS,
            switch_flavours=(now, *(f for f in places.BACKENDS if f != now)),
            kinds=frozenset({Guest.kind, Switch.kind, Tuning.kind}),
            uplinks=nics,
            addresses={u.name: u.addresses for u in nics if u.addresses},
            cannot=fit.cannot(self.shell.why_not),
            change=fit.changes(),
            parallel={Guest.kind: AT_ONCE},
            knobs=knobs,
            tunings=self._tunings,
            notes=notes,
            unfit=self.fit.unfit,
            management=fit.CAPABILITIES.management,
            beside=fit.BESIDE,
            most_nics=fit.CAPABILITIES.most_nics,
            mac_prefix="00:16:3e",
        )


def _guest(key: Key) -> str:
    kind, name = key
    if kind != Guest.kind:
        raise Unsupported(f"{label(key)} is no guest")
    return name
