"""Guests as Xen's domains: read, put, drop, checkpoint and revert.

libxl has no snapshots. It saves and restores memory, but a saved guest is as large as its memory,
and all that were restored from one go on with the same random numbers: so what is remembered of a
clean guest is its disk, as it was at one moment, and ``revert`` boots from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import libvirt

from drivers.dom0.look import State, state
from drivers.libvirt.connect import told
from drivers.libvirt.disks import Boot, Disks
from drivers.libvirt.domains import SAVED, stop, vanish
from drivers.libvirt.marks import PREFIX, URN, domain_name, mark, vnics
from drivers.libvirt.wires import rewire, wired
from drivers.linux import sriov
from drivers.linux.links import View, view
from drivers.xen import direct
from drivers.xen.domains import Domains, effective
from drivers.xen.facts import LIVE, Machine, refuse
from drivers.xen.xml import HVM, Body, Seen, domain
from provision.driver import Target
from provision.errors import DriverError, PreflightError
from provision.host import Host
from provision.resources import Guest, changed, key

LEAST_MIB = 64  # of our image, booted and kept clean: measured 2 of 4
COPY_S = 600
CONSOLE_S = 3
#: the console's buffer is emptied by reading it: what was read is kept. Where xenconsoled keeps
#: logs of its own (XENCONSOLED_TRACE=guest), all of it is there
_CONSOLE = """
own="/var/log/xen/console/guest-$2.log"
[ ! -e "$own" ] || { tail -c "$4" "$own"; exit 0; }
tty=$(xenstore-read "/local/domain/$1/console/tty" 2>/dev/null) || tty=
mkdir -p "${3%/*}"
[ -z "$tty" ] || timeout "$5" cat "$tty" >> "$3" 2>/dev/null || :
[ ! -e "$3" ] || tail -c "$4" "$3"
"""
_COPY = 'cp --reflink=auto --sparse=always "$1" "$2.part" && mv "$2.part" "$2"'
TAIL_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Guests:
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names."""

    domains: Domains
    disks: Disks
    host: Host
    target: Target
    machine: Machine

    def look(self, names: Iterable[str], now: State | None = None) -> dict[str, Guest | None]:
        """As ``Driver.read``, of many; a guest whose disk is gone stands on no image.

        ``now`` is dom0 as it is, None = it is asked.
        """
        names = list(names)
        if not names:
            return {}
        net, now = view(self.host, ovs=True), now or state(self.host)
        found: dict[str, Guest | None] = {}
        for name in names:
            there, seen = self.domains.find(name)
            with told(f"read guest {name}"):
                ours = there is not None and seen is not None
                found[name] = self._as_is(there, seen, net, now) if ours and seen else None
        return found

    def put(self, want: Guest) -> None:
        """As ``Driver.put``; a change is made live, else by a restart, else by a new guest."""
        refuse(want, self.machine)
        found, seen = self.domains.own(want.name)
        with told(f"put guest {want.name}"):
            net, now = view(self.host, ovs=True), state(self.host)
            have = self._as_is(found, seen, net, now) if found and seen else None
            if have == want:
                return
            boot, ovs = self._boot(want), self._switches(want, net)
            functions = direct.claim(self.host, want, seen)
            body = self._body(want, boot, ovs, functions, seen)
            if found and seen and have and self._mended(found, seen, want, net):
                have = self._as_is(found, seen, view(self.host, ovs=True), now)
            differ = set() if have is None else set(changed(have, want))
            if found is None or seen is None or have is None or "image" in differ:
                self._clear(want.name, found)
                self.disks.make(want.name, boot, self._seed(want))
                self._start(want, self._body(want, boot, ovs, functions, None))
            elif have.running and differ <= {*LIVE}:
                self._change(found, want, body, now)
            elif differ:
                self._restart(found, want, body)

    def check_room(self, guests: int) -> None:
        """Raises PreflightError where the disks of so many new guests have no room."""
        need_mib, free_mib = guests * LEAST_MIB, self.disks.free_mib()
        if free_mib < need_mib:
            folder = self.disks.folder
            raise PreflightError(
                f"{self.machine.name}: no room for the disks of {guests} guests in {folder}: "
                f"{need_mib} MiB are needed, {free_mib} are free",
                hint=f"df -h {folder}: free some",
            )

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the domain, its disks and console; its devices are dom0's again."""
        found, seen = self.domains.own(name)
        with told(f"drop guest {name}"):
            if found is not None and seen is not None and seen.functions:
                stop(found)
                direct.returned(self.host, seen)
            self._clear(name, found)
            self.disks.tidy()

    def has_checkpoint(self, name: str) -> bool:
        """As ``Keeper.has_checkpoint``."""
        return self.disks.there(self._clean(name))

    def checkpoint(self, name: str) -> None:
        """As ``Driver.checkpoint``: the disk, at a moment when the guest stands still."""
        found, seen = self.domains.there(name)
        with told(f"checkpoint guest {name}"):
            running = found.state()[0] == libvirt.VIR_DOMAIN_RUNNING
            if running:
                found.suspend()
            try:
                self._copy(seen.disk, self._clean(name))
            finally:
                if running:
                    found.resume()

    def revert(self, name: str) -> None:
        """As ``Driver.revert``: booted from the disk that was remembered."""
        found, seen = self.domains.there(name)
        if not self.has_checkpoint(name):
            raise DriverError(
                f"guest {name} has no checkpoint", hint="provision reset --level recreate"
            )
        from provision.resources import load

        want = load(seen.asked)
        if not isinstance(want, Guest):
            raise DriverError(f"guest {name} bears a mark that is no guest's")
        with told(f"revert guest {name}"):
            stop(found)
            self._copy(self._clean(name), seen.disk)
            self._launch(found, want)

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest was started, as what."""
        _, seen = self.domains.find(name)
        if seen is None:
            return {}
        return {"accel": seen.guest.accel, "started": "booted", "hypervisor": self.machine.version}

    def console(self, name: str) -> str:
        """The end of what the guest has written so far."""
        whole = domain_name(self.target.testbed, name)
        domid = next((n for n, guest in self.domains.by_id().items() if guest == name), -1)
        words = (str(domid), whole, self.disks.console(name), str(TAIL_BYTES), str(CONSOLE_S))
        return self.host.run("sh", "-c", _CONSOLE, "console", *words, check=False)

    def _as_is(self, found: Any, seen: Seen, net: View, now: State) -> Guest:
        guest = sriov.placed(self.host, seen.guest)
        if not self.disks.there(seen.disk):
            guest = replace(guest, image=f"{seen.disk} is gone")
        if not seen.active:
            return guest
        running = found.state()[0] in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED)
        guest = wired(replace(guest, running=running), seen.taps, net)
        return effective(guest, found.ID(), now, self.machine.cpus)

    def _mended(self, found: Any, seen: Seen, want: Guest, net: View) -> bool:
        """Whether anything could be put right in the guest as it runs: paused, or unplugged."""
        if not seen.active:
            return False
        mended = rewire(self.host, seen.guest, want, seen.taps, net)
        if want.running and found.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            self._say(want)("resuming")
            found.resume()
            return True
        return mended

    def _change(self, found: Any, want: Guest, body: Body, now: State) -> None:
        """Weight, cap and pins: in Xen at once, in libvirt's definition for later."""
        self.domains.conn.defineXML(domain(want, body))
        self.domains.tune(found.ID(), want, now, pins=True)
        text = _mark_text(want, body)
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        found.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, PREFIX, URN, live)

    def _restart(self, found: Any, want: Guest, body: Body) -> None:
        """The same disk, another shape; the identity may have changed with it."""
        if (seed := self._seed(want)) is not None:
            self.disks.reseed(want.name, seed)
        stop(found)
        self.host.run("rm", "-f", self._clean(want.name))
        self._start(want, body)

    def _start(self, want: Guest, body: Body) -> None:
        found = self.domains.conn.defineXML(domain(want, body))
        if want.running:
            self._say(want)("booting")
            self._launch(found, want)

    def _launch(self, found: Any, want: Guest) -> None:
        """It runs no moment without its weight and cap: they are set while it is held."""
        found.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        self.domains.tune(found.ID(), want, state(self.host), pins=False)
        found.resume()

    def _clear(self, name: str, found: Any) -> None:
        if found is not None:
            vanish(found, SAVED)  # libxl has no snapshots, and refuses to hear of them
        self.host.run("rm", "-f", self._clean(name), f"{self._clean(name)}.part")
        self.disks.remove(name)

    def _copy(self, source: str, target: str) -> None:
        self.host.run("sh", "-euc", _COPY, "copy", source, target, timeout_s=COPY_S)

    def _clean(self, name: str) -> str:
        return f"{self.disks.disk(name)}.clean"

    def _switches(self, want: Guest, net: View) -> frozenset[str]:
        """Which of the switches are Open vSwitch's; raises DriverError where one is missing."""
        names = {vnic.switch for vnic in vnics(want) if vnic.model not in sriov.HARDWARE}
        if absent := names - net.links.keys() - net.bridges.keys():
            raise DriverError(
                f"guest {want.name} needs switch {', '.join(sorted(absent))}, which "
                f"{self.machine.name} has not"
            )
        return frozenset(names & net.bridges.keys())

    def _boot(self, want: Guest) -> Boot:
        """Where the guest's image lies on dom0."""
        image = self.target.image
        if image is None or image.digest != want.image:
            raise DriverError(
                f"guest {want.name}: image {want.image[:16] or '(none)'} is not at hand",
                hint="provision image build",
            )
        return self.disks.place(image, self._say(want))

    def _body(
        self, want: Guest, boot: Boot, ovs: frozenset[str],
        functions: Mapping[str, str], seen: Seen | None,
    ) -> Body:  # fmt: skip
        """All but the guest's own fields; from ``seen`` where that stays as it is."""
        return Body(
            testbed=self.target.testbed,
            disk=self.disks.disk(want.name),
            base=seen.base if seen is not None else boot.disk,
            seed=self.disks.seed(want.name) if self.target.identity is not None else None,
            kernel=boot.packed if want.accel == HVM else boot.kernel,
            initrd=boot.initrd,
            cmdline=boot.cmdline,
            ovs=ovs,
            functions=functions,
        )

    def _seed(self, want: Guest) -> bytes | None:
        if self.target.identity is None:
            return None
        from provision.seed import iso

        return iso(self.target.identity(want))

    def _say(self, want: Guest) -> Callable[[str], None]:
        return lambda phase: self.target.say(key(want), phase)


def _mark_text(want: Guest, body: Body) -> str:
    import xml.etree.ElementTree as ET

    found = mark(want, body.testbed, "booted", body.base, body.functions)
    return ET.tostring(found, encoding="unicode")
