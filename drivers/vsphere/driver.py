"""VMware vSphere: an ESXi host by itself, or one of a vCenter's, through the vSphere API.

https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/ has each call. Guests are VMs
``TESTBED-GUEST``, marked in their extraConfig; switches are standard switches of the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from threading import BoundedSemaphore
from time import time

from drivers.vsphere import fit, uplinks
from drivers.vsphere import place as places
from drivers.vsphere.api import told
from drivers.vsphere.connect import connect
from drivers.vsphere.disks import Disks
from drivers.vsphere.examine import examine
from drivers.vsphere.guests import Guests
from drivers.vsphere.hostnet import HostNet
from drivers.vsphere.make import Maker
from drivers.vsphere.networks import Networks
from drivers.vsphere.parse import ACCEL
from drivers.vsphere.sight import Sight
from drivers.vsphere.snapshots import Snapshots
from drivers.vsphere.sources import Sources
from drivers.vsphere.spec import MODELS
from drivers.vsphere.switches import Switches
from drivers.vsphere.tasks import Tasks
from drivers.vsphere.together import Together
from drivers.vsphere.vms import Vms
from drivers.vsphere.wire import Limits, Wire, WireType, endpoint
from provision.driver import Check, Facts, Target, Usage
from provision.errors import DriverError, Unsupported
from provision.resources import Guest, Key, Resource, Switch, label

AT_ONCE = 32
NET_AT_ONCE = 16  # a host takes one change of its network at a time: the next ones stand ready
SIMULATOR = "govmomi simulator"  # as it calls itself


class Vsphere:
    """The driver. ``limits`` are deadlines; ``wire`` makes the connections."""

    takes_image = False
    capabilities = fit.CAPABILITIES

    def __init__(self, target: Target, limits: Limits | None = None, wire: WireType = Wire) -> None:
        if target.start == "restore":
            raise Unsupported(
                "guests.start: vSphere clones guests and boots them, it restores none",
                hint="guests.start: auto",
            )
        self._target = target
        limits = limits or Limits()
        with ExitStack() as opening:
            self.session = connect(endpoint(target.uri, target.tls, limits), target.login, wire)
            opening.callback(self.session.close)
            with told(f"look at {self.session.to.name}"):
                self.place = places.find(self.session, target)
            self._put_together(target, limits)
            self.facts = self._facts()
            opening.pop_all()
        self._room = BoundedSemaphore(AT_ONCE + NET_AT_ONCE)

    def _put_together(self, target: Target, limits: Limits) -> None:
        session, place = self.session, self.place
        prefix, vms = f"pv{target.tag}", f"{target.testbed}-"
        self._together = together = Together(session)
        tasks = Tasks(session, together, limits.task_s)
        networks, net = Networks(session, place), HostNet(session, together, place)
        self.switches = Switches(session, place, net, prefix, vms)
        sight = Sight(session, together, place, networks, target.testbed)
        found = Vms(session, place, tasks, sight, target.testbed)
        sources = Sources(session, place)
        disks = Disks(session, place, tasks, target.testbed)
        maker = Maker(place, tasks, found, sources, disks, target.image)
        functions = uplinks.virtual_functions(place)
        self.fit = fit.Fit(place, networks, sources, target.image, functions)
        self.guests = Guests(
            target, place, found, net, self.switches, networks, maker, Snapshots(found), self.fit,
            0 if self.simulated else limits.tools_s,
        )  # fmt: skip

    @property
    def simulated(self) -> bool:
        """Whether it is the simulator, whose guests have no inside."""
        return SIMULATOR in f"{self.session.content.about.fullName}"

    def read(self, key: Key) -> Resource | None:
        kind, name = key
        return self.guests.read(name) if kind == Guest.kind else self._switch(key).read(name)

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once: one call for the VMs, and one for the host's network."""
        keys = list(keys)
        wanted = [n for kind, n in keys if kind == Switch.kind]
        guests = self.guests.look([n for kind, n in keys if kind == Guest.kind])
        switches, groups = self.switches.look(wanted, self.guests.switches_of(guests.values()))
        found: dict[Key, Resource | None] = {(Switch.kind, n): s for n, s in switches.items()}
        found |= {(Guest.kind, g.name): g for g in self.guests.rated(guests.values(), groups)}
        return {key: found.get(key) for key in keys}

    def put(self, want: Resource) -> None:
        with self._room, self._together.work():
            if isinstance(want, Guest):
                self.guests.put(want)
            elif isinstance(want, Switch):
                self.switches.put(want)
            else:
                self._switch((want.kind, want.name))

    def drop(self, key: Key) -> None:
        kind, name = key
        with self._room, self._together.work():
            if kind == Guest.kind:
                self.guests.drop(name)
            else:
                self._switch(key).drop(name)

    def checkpoint(self, key: Key) -> None:
        with self._room:
            self.guests.checkpoint(_guest(key))

    def revert(self, key: Key) -> None:
        with self._room:
            self.guests.revert(_guest(key))

    def owned(self) -> Iterable[Key]:
        with told("list guests"):
            guests = [(Guest.kind, name) for name in self.guests.vms.sight.all()]
        return [*guests, *((Switch.kind, name) for name in self.switches.all())]

    def usage(self) -> Usage:
        return Usage(time(), (), {}, {})

    def evidence(self, key: Key) -> Mapping[str, str]:
        kind, name = key
        return self.guests.evidence(name) if kind == Guest.kind else {}

    def examine(self) -> Iterable[Check]:
        return examine(self.session, self.place)

    def console(self, key: Key) -> str:
        return ""

    def close(self) -> None:
        self.session.close()

    def _switch(self, key: Key) -> Switches:
        if key[0] != Switch.kind:
            raise DriverError(f"{label(key)}: an ESXi host has no {key[0]} of ours")
        return self.switches

    def _facts(self) -> Facts:
        place, about = self.place, self.session.content.about
        tls = self._target.tls
        notes = dict(fit.NOTES) | {"links": uplinks.speeds(place)}
        if not tls.verify and not tls.fingerprint:
            notes["tls"] = "not verified, as the spec says"
        product = place.has["config.product"]
        version = f"{product.name} {product.version} build {product.build}"
        if place.vcenter:
            version += f", {about.name} {about.version}"
        return Facts(
            hypervisor="vsphere",
            version=f"{version}, API {about.apiVersion}",
            host=place.name,
            cpus=place.cpus,
            memory_mib=place.memory_mib,
            accel=ACCEL,
            nic_models=MODELS,
            words=fit.CAPABILITIES.words,
            switch_flavours=fit.CAPABILITIES.switches,
            kinds=frozenset({Guest.kind, Switch.kind}),
            uplinks=uplinks.uplinks(place, self.switches.prefix),
            cannot=fit.cannot(place),
            change=fit.changes(),
            parallel={Guest.kind: AT_ONCE, Switch.kind: NET_AT_ONCE},
            notes=notes,
            unfit=self.fit.unfit,
            management=fit.CAPABILITIES.management,
            most_nics=fit.CAPABILITIES.most_nics,
            mac_prefix="00:50:56",
            simulated=self.simulated,
        )


def _guest(key: Key) -> str:
    kind, name = key
    if kind != Guest.kind:
        raise Unsupported(f"{label(key)} is no guest")
    return name
