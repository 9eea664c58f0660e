"""Microsoft Hyper-V: a Windows host with the role, through WinRM and PowerShell's own cmdlets.

https://learn.microsoft.com/powershell/module/hyper-v has each cmdlet. Guests are VMs
``TESTBED-GUEST``, switches are external VMSwitches; both are marked in their Notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from threading import BoundedSemaphore

from drivers.hyperv import boot, fit, hostnet
from drivers.hyperv import place as places
from drivers.hyperv.api import told
from drivers.hyperv.beats import Beats
from drivers.hyperv.boot import Boot
from drivers.hyperv.examine import examine
from drivers.hyperv.guests import Guests
from drivers.hyperv.ops import Batch, Call, Refused
from drivers.hyperv.parse import World
from drivers.hyperv.pool import Pool, whole
from drivers.hyperv.sight import Sight
from drivers.hyperv.switches import Switches
from drivers.hyperv.together import Together, once_each
from drivers.hyperv.uplinks import Uplinks
from drivers.hyperv.usage import usage
from drivers.hyperv.wire import Limits, door
from drivers.hyperv.words import ACCEL, MAC_PREFIX, MODELS, image_path
from provision.driver import Check, Facts, Target, Usage
from provision.errors import DriverError, PreflightError, Unsupported
from provision.resources import BOOT, Guest, Key, Resource, Switch, Tuning, Uplink, label

AT_ONCE = 32
STATES = (Tuning.kind, Uplink.kind)


class Hyperv:
    """The driver. ``limits`` are deadlines."""

    takes_image = False
    capabilities = fit.CAPABILITIES

    def __init__(self, target: Target, limits: Limits | None = None) -> None:
        if target.start == "restore":
            raise Unsupported(
                "guests.start: Hyper-V's guests are booted from a child of the image's disk, "
                "it restores none",
                hint="guests.start: auto",
            )
        self._target = target
        limits = limits or Limits()
        with ExitStack() as opening:
            to = door(target.uri, target.auth, target.login, target.tls, limits)
            self.pool = Pool(to)
            opening.callback(self.pool.close)
            with told(f"look at {to.name}"):
                self.place = places.find(self.pool, target.testbed, target.storage)
            self._put_together(target, limits)
            self.facts = self._facts()
            opening.pop_all()
        self._room = BoundedSemaphore(AT_ONCE)

    def _put_together(self, target: Target, limits: Limits) -> None:
        pool, place = self.pool, self.place
        self._looks: hostnet.Looks = Together(once_each(pool.read))
        changes: hostnet.Looks = Together(pool.change)
        self.switches = Switches(pool, self._looks, changes, target.testbed, place.refused)
        self.uplinks = Uplinks(pool, self._looks, changes, place.refused)
        there = tuple(place.net.switches)
        self.fit = fit.Fit(place.name, there, place.cpus, place.grouped, target.image)
        sight = Sight(pool, target.testbed, place.root, place.grouped)
        self.guests = Guests(
            target, pool, sight, Beats(sight), self.fit, place.root, place.images, limits.guest_s
        )
        self.boot = Boot(
            pool, target.testbed, place.cpus, limits.boot_s, lambda phase: target.say(BOOT, phase)
        )

    def read(self, key: Key) -> Resource | None:
        return self.look([key])[key]

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once: the host's network and the VMs are read in one go."""
        keys = list(keys)
        by_kind: dict[str, list[str]] = {}
        for kind, name in keys:
            by_kind.setdefault(kind, []).append(name)
        found: dict[Key, Resource | None] = {}
        net, vms = None, None
        guests = by_kind.get(Guest.kind, [])
        # switches alone are looked for by their own room, which knows what was dropped
        if Uplink.kind in by_kind or (Switch.kind in by_kind and guests):
            with told("read the host's network, and guests"):
                net, vms = self._at_once(guests)
        for kind, names in by_kind.items():
            for name, thing in self._look(kind, names, net, vms).items():
                found[kind, name] = thing
        return found

    def _at_once(self, guests: list[str]) -> tuple[hostnet.Net, World | None]:
        """The host's network, and these guests' VMs, None where one vanished meanwhile."""
        sight = self.guests.sight
        if not guests:
            return hostnet.look(self._looks), None
        net, vms = self.pool.read([hostnet.batch(), sight.batch(guests)])
        seen = None if isinstance(vms, Refused) else sight.seen(vms, guests)
        return hostnet.read(whole(net)), seen

    def _look(
        self, kind: str, names: list[str], net: hostnet.Net | None, vms: World | None
    ) -> Mapping[str, Resource | None]:
        if kind == Guest.kind:
            return self.guests.look(names, vms)
        if kind == Switch.kind:
            return self.switches.look(names, net)
        if kind == Uplink.kind:
            return self.uplinks.look(names, net)
        for name in names:
            self._known((kind, name))
        return dict.fromkeys(names, self.boot.read())

    def put(self, want: Resource) -> None:
        with self._room:
            match want:
                case Guest():
                    self.guests.put(want)
                case Switch():
                    self.switches.put(want)
                case Uplink():
                    self.uplinks.put(want)
                case Tuning():
                    self._known((want.kind, want.name))
                    self.boot.put(want)
                case _:
                    self._known((want.kind, want.name))

    def drop(self, key: Key) -> None:
        kind, name = key
        if kind in STATES:
            raise DriverError(f"{label(key)} cannot be dropped, only put back")
        with self._room:
            if kind == Guest.kind:
                self.guests.drop(name)
            elif kind == Switch.kind:
                self.switches.drop(name)
            else:
                self._known(key)

    def has_checkpoint(self, key: Key) -> bool:
        return self.guests.has_checkpoint(_guest(key))

    def checkpoint(self, key: Key) -> None:
        with self._room:
            self.guests.checkpoint(_guest(key))

    def revert(self, key: Key) -> None:
        with self._room:
            self.guests.revert(_guest(key))

    def check_room(self, guests: Iterable[Guest]) -> None:
        """Raises PreflightError where the folder of disks or the parent disk is not there."""
        images = {image_path(g.image, self.place.images) for g in guests if g.image}
        asked = [self._target.storage] if self._target.storage else []
        paths = [*asked, *sorted(images)]
        look = [Call("Test-Path", {"LiteralPath": path}, select=(".",)) for path in paths]
        with told("look for disks"):
            rows = self._looks.ask(Batch(ops=[*look]))
        missing = [p for p, found in zip(paths, rows, strict=True) if not found[0]["."]]
        if missing:
            raise PreflightError(
                f"{self.place.name} has no {', no '.join(missing)}",
                hint="guests.image: a VHDX that is on the host; hypervisor.storage: a folder there",
            )

    def owned(self) -> Iterable[Key]:
        guests = [(Guest.kind, name) for name in self.guests.owned()]
        return [*guests, *((Switch.kind, name) for name in self.switches.owned())]

    def usage(self) -> Usage:
        with told("read counters"):
            return usage(self.pool, self._target.testbed, self.place.cpus)

    def evidence(self, key: Key) -> Mapping[str, str]:
        kind, name = key
        return self.guests.evidence(name) if kind == Guest.kind else {}

    def examine(self) -> Iterable[Check]:
        return examine(self.pool, self.place)

    def console(self, key: Key) -> str:
        """None: a VM's serial port is a pipe of the host, which WinRM has no way to."""
        return ""

    def close(self) -> None:
        self.pool.close()

    def _known(self, key: Key) -> None:
        if key != BOOT:
            raise DriverError(f"{label(key)}: a Hyper-V host has no {key[0]} of ours")

    def _facts(self) -> Facts:
        place, to = self.place, self.pool.door
        notes = dict(fit.NOTES) | {"root partition": f"{place.root_cpus} of {place.cpus} CPUs"}
        if to.scheme == "https" and not to.tls.verify and not to.tls.fingerprint:
            notes["tls"] = "not verified, as the spec says"
        return Facts(
            hypervisor="hyperv",
            version=place.version,
            host=place.name,
            cpus=place.cpus,
            memory_mib=place.memory_mib,
            accel=ACCEL,
            nic_models=MODELS,
            words=fit.CAPABILITIES.words,
            switch_flavours=fit.CAPABILITIES.switches,
            kinds=frozenset({Guest.kind, Switch.kind, Uplink.kind, Tuning.kind}),
            uplinks=place.uplinks,
            cannot=fit.cannot(place.grouped),
            change=fit.changes(),
            parallel={Guest.kind: AT_ONCE},
            knobs={BOOT[1]: place.boot},
            tunings=boot.tunings(place.boot),
            notes=notes,
            unfit=self.fit.unfit,
            most_nics=fit.CAPABILITIES.most_nics,
            management=fit.CAPABILITIES.management,
            windows=fit.CAPABILITIES.windows,
            mac_prefix=MAC_PREFIX,
        )


def _guest(key: Key) -> str:
    kind, name = key
    if kind != Guest.kind:
        raise Unsupported(f"{label(key)} is no guest")
    return name
