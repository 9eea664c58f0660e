"""Guests as libvirt's domains: read, put, drop, checkpoint and revert."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import libvirt

from drivers.kvm import live, snapshots
from drivers.kvm.domains import Domains, snapshot
from drivers.kvm.facts import LIVE, Machine, refuse
from drivers.kvm.golden import Golden
from drivers.kvm.parse import Seen
from drivers.kvm.sight import Sight
from drivers.kvm.xml import Body, domain
from drivers.libvirt.connect import told, words
from drivers.libvirt.disks import Boot, Disks
from drivers.libvirt.domains import stop, vanish
from drivers.libvirt.wires import rewire
from drivers.linux import sriov
from drivers.linux.links import View, view
from provision.driver import Target
from provision.errors import DriverError, HostError, PreflightError
from provision.host import Host
from provision.resources import Guest, changed, key

if TYPE_CHECKING:
    from provision.seed import Identity


OURS_MIB = 240  # of our image, restored and kept clean: measured 246, with its memory inside
LEAST_MIB = 16


@dataclass(frozen=True, slots=True)
class Guests:
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names."""

    domains: Domains
    disks: Disks
    golden: Golden
    host: Host
    target: Target

    @property
    def sight(self) -> Sight:
        return Sight(self.domains, self.disks, self.host)

    @property
    def machine(self) -> Machine:
        return self.domains.machine

    def look(self, names: Iterable[str]) -> dict[str, Guest | None]:
        """Many, of whom the host's network is asked once; without a disk, one has no image."""
        return self.sight.look(names)

    def names(self) -> list[str]:
        """The guests that there are."""
        return [*self.domains.names()]

    def busy_s(self) -> dict[str, float]:
        """As ``Domains.busy_s``."""
        return self.domains.busy_s()

    def console(self, name: str) -> str:
        """The last that the guest said."""
        return self.disks.tail(name)

    def put(self, want: Guest) -> None:
        """As ``Driver.put``; a change is made live, else by a restart, else by a new guest."""
        refuse(want, self.machine)
        found, seen = self.domains.own(want.name)
        with told(f"put guest {want.name}"):
            net = self.sight.net()
            have = (
                self.sight.as_is(found, seen, net)
                if found is not None and seen is not None
                else None
            )
            if have == want:
                return
            boot, ovs = self._boot(want), self._switches(want, net)
            functions = sriov.give(self.host, want, seen.functions if seen is not None else {})
            if found is not None and seen is not None and self._mended(found, seen, want, net):
                have = self.sight.as_is(found, seen, self.sight.net())
            differ = set() if have is None else set(changed(have, want))
            if found is None or have is None or seen is None or "image" in differ:
                self._clear(want.name, found)
                self._make(want, self._body(want, boot, ovs, functions), boot)
            elif have.running and differ <= {*LIVE} and not self.machine.simulated:
                body = self._body(want, boot, ovs, functions, seen)
                live.change(self.domains.conn, found, have, want, body)
            elif differ:
                self._restart(found, want, self._body(want, boot, ovs, functions, seen))

    def _mended(self, found: Any, seen: Seen, want: Guest, net: View) -> bool:
        """Whether anything could be put right in the guest as it runs: paused, or unplugged."""
        if not seen.active:
            return False
        mended = not self.machine.simulated and rewire(self.host, seen.guest, want, seen.taps, net)
        if want.running and found.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            self._say(want)("resuming")
            snapshots.resume(self.domains.conn, found, ours=self._ours())
            return True
        return mended

    def check_room(self, guests: int) -> None:
        """Raises PreflightError where the disks of so many new guests have no room."""
        need_mib = guests * (OURS_MIB if self._ours() else LEAST_MIB)
        free_mib = self.disks.free_mib()
        if free_mib < need_mib:
            folder = self.disks.folder
            raise PreflightError(
                f"{self.machine.name}: no room for the disks of {guests} guests in {folder}: "
                f"{need_mib} MiB are needed, {free_mib} are free",
                hint=f"df -h {folder}: free some",
            )

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the domain, its snapshots, disks and console."""
        found, _ = self.domains.own(name)
        with told(f"drop guest {name}"):
            self._clear(name, found)
            self.disks.tidy()
            self.golden.clear_stale()

    def _clear(self, name: str, found: Any) -> None:
        if found is not None:
            vanish(found)
        self.disks.remove(name)

    def has_checkpoint(self, name: str) -> bool:
        """As ``Keeper.has_checkpoint``."""
        found, _ = self.domains.find(name)
        with told(f"look for the checkpoint of guest {name}"):
            return found is not None and snapshot(found, snapshots.CLEAN) is not None

    def checkpoint(self, name: str) -> None:
        """As ``Driver.checkpoint``: memory and disk; the one before is replaced."""
        found, _ = self.domains.there(name)
        with told(f"checkpoint guest {name}"):
            snapshots.take(found)

    def revert(self, name: str) -> None:
        """As ``Driver.revert``, with the clock set to now."""
        found, _ = self.domains.there(name)
        with told(f"revert guest {name}"):
            snapshots.back(
                self.domains.conn, found, name, self.machine.simulated, ours=self._ours()
            )

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest was started, on what machine."""
        _, seen = self.domains.find(name)
        if seen is None:
            return {}
        return {
            "accel": seen.guest.accel,
            "started": seen.started,
            "machine": seen.machine,
            "hypervisor": self.machine.version,
        }

    def _ours(self) -> bool:
        """Whether guests boot our own image, which has programs of ours."""
        return self.target.image is not None and self.target.image.kernel is not None

    def _switches(self, want: Guest, net: View) -> frozenset[str]:
        """Which of the switches are Open vSwitch's; raises DriverError where one is missing."""
        seen = view(self.host, ovs=True) if self.machine.simulated else net
        vnics = (want.management, *want.nics)
        names = {v.switch for v in vnics if v.model not in sriov.HARDWARE}
        if absent := names - seen.links.keys() - seen.bridges.keys():
            raise DriverError(
                f"guest {want.name} needs switch {', '.join(sorted(absent))}, which "
                f"{self.machine.name} has not"
            )
        return frozenset(names & seen.bridges.keys())

    def _boot(self, want: Guest) -> Boot | None:
        """Where the guest's image lies, None where guests are simulated and need none."""
        image = self.target.image
        if image is None and self.machine.simulated:
            return None
        if image is None or image.digest != want.image:
            raise DriverError(
                f"guest {want.name}: image {want.image[:16] or '(none)'} is not at hand",
                hint="provision image build",
            )
        return self.disks.place(image, self._say(want))

    def _body(
        self, want: Guest, boot: Boot | None, ovs: frozenset[str],
        functions: Mapping[str, str], seen: Seen | None = None,
    ) -> Body:  # fmt: skip
        """All but the guest's own fields; from ``seen`` where that stays as it is."""
        body = Body(
            testbed=self.target.testbed,
            console=self.disks.console(want.name),
            owner=self.machine.owner,
            emulator=self.machine.emulator,
            ovs=ovs,
            cgroup=self.machine.cgroup,
            functions=functions,
            started=seen.started if seen is not None else "booted",
        )
        if boot is None:
            return body
        return replace(
            body,
            disk=self.disks.disk(want.name),
            backing=seen.backing if seen is not None else ((boot.disk, boot.format),),
            seed=self.disks.seed(want.name) if self.target.identity is not None else None,
            kernel=boot.kernel,
            initrd=boot.initrd,
            cmdline=boot.cmdline,
        )

    def _make(self, want: Guest, body: Body, boot: Boot | None) -> None:
        """Where nothing is: restored if that is allowed and possible, else booted."""
        identity = self._identity(want)
        if boot is not None:
            if identity is not None and self._restored(want, body, boot, identity):
                return
            self.disks.make(want.name, boot, _seed(identity))
        self._start(self.domains.conn.defineXML(domain(want, body)), want)

    def _restored(self, want: Guest, body: Body, boot: Boot, identity: Identity) -> bool:
        """Whether the guest came from the golden one. Raises DriverError where it had to."""
        mode = self.target.start
        why_not = "the spec says so" if mode == "boot" else self.golden.why_not(want, boot)
        if not why_not:
            try:
                self._restore(want, replace(body, started="restored"), boot, identity)
            except PreflightError:
                raise
            except (DriverError, HostError, libvirt.libvirtError) as e:
                said = words(e) if isinstance(e, libvirt.libvirtError) else str(e)
                why_not = said
                self.drop(want.name)
            else:
                return True
        if mode == "restore":
            raise DriverError(
                f"guest {want.name} cannot be restored: {why_not}", hint="guests.start: auto"
            )
        if mode == "auto":
            self._say(want)(f"booting; not restored: {why_not}")
        return False

    def _restore(self, want: Guest, body: Body, boot: Boot, identity: Identity) -> None:
        say = self._say(want)
        path = self.golden.ensure(want, body, boot, say)
        say("restoring")
        self.disks.make(want.name, boot, _seed(identity), copy=path)
        found = self.golden.start(want, body, path)
        self.golden.plug(found, want, body)
        self.golden.identify(found, identity)

    def _restart(self, found: Any, want: Guest, body: Body) -> None:
        """The same disk, another shape; the identity may have changed with it."""
        if (seed := _seed(self._identity(want))) is not None:
            self.disks.reseed(want.name, seed)
        stop(found)
        snapshots.forget(found)  # its memory belongs to the former shape
        text = domain(want, replace(body, started="booted"))
        self._start(self.domains.conn.defineXML(text), want)

    def _start(self, found: Any, want: Guest) -> None:
        if want.running:
            self._say(want)("booting")
            found.create()

    def _identity(self, want: Guest) -> Identity | None:
        return self.target.identity(want) if self.target.identity is not None else None

    def _say(self, want: Guest) -> Callable[[str], None]:
        return lambda phase: self.target.say(key(want), phase)


def _seed(identity: Identity | None) -> bytes | None:
    if identity is None:
        return None
    from provision.seed import iso

    return iso(identity)
