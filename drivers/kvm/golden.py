"""Guests restored from one saved, booted guest, the golden one, instead of booted.

A golden guest has no identity and no NICs; its overlay holds its memory as an internal snapshot.
Each guest is a copy of that overlay: libvirt is told of the snapshot under the new guest's name and
reverts to it; then NICs are plugged in, and the image's ``identify`` makes it somebody through the
guest agent (host key, machine id, addresses, clock, fresh entropy). Memory, vCPUs and devices are
what the snapshot has, so there is one golden guest for each combination of them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Any

import libvirt

from drivers.kvm import agent
from drivers.kvm.domains import Domains, snapshot
from drivers.kvm.facts import PLUGGED
from drivers.kvm.xml import Body, domain, interface
from drivers.libvirt.disks import Boot, Disks
from drivers.libvirt.domains import vanish
from provision.errors import DriverError
from provision.resources import Guest, Vnic

if TYPE_CHECKING:
    from provision.seed import Identity

NAME = "~golden"  # no guest of a spec can have this name
BOOT_S = 240
IDENTIFY = "/usr/lib/provision/identify"
WARM = "/usr/lib/provision/warm"
NO_NIC = Vnic("", "", "", "")


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden guests of one host, for one testbed."""

    domains: Domains
    disks: Disks
    lock: Lock

    def why_not(self, want: Guest, boot: Boot) -> str:
        """Why a guest cannot be restored, "" = it can."""
        if boot.kernel is None:
            return "only the built image takes its identity after the start"
        if not want.running:
            return "it is not to run"
        models = {vnic.model for vnic in (want.management, *want.nics)}
        if strange := models - PLUGGED:
            return f"vNIC model {', '.join(sorted(strange))} is not plugged in while a guest runs"
        return ""

    def ensure(self, want: Guest, body: Body, boot: Boot, say: Callable[[str], None]) -> str:
        """The golden overlay for guests of this shape, made if there is none yet.

        Raises DriverError, libvirtError; nothing half-made is left then.
        """
        blank = Guest(NAME, want.vcpus, want.memory_mib, want.image, NO_NIC, (), want.accel)
        path = self.disks.golden(self._digest(blank, body))
        with self.lock:
            if not self.disks.there(path):
                say("booting the golden guest, once for all of this shape")
                try:
                    self._make(blank, body, boot, path)
                finally:
                    self._clear()
        return path

    def start(self, want: Guest, body: Body, path: str) -> Any:
        """The guest, restored, paused and without NICs, from the overlay that is its copy.

        Raises HostError, libvirtError.
        """
        conn = self.domains.conn
        text = domain(want, body, bare=True)
        found = conn.defineXML(text)
        saved = _become(self.disks.host.read(f"{path}.xml"), text)
        mine = found.snapshotCreateXML(saved, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE)
        found.revertToSnapshot(mine, libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED)
        mine.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
        return found

    def plug(self, found: Any, want: Guest, body: Body) -> None:
        """Its NICs now, and everything else at its next start. Raises libvirtError."""
        self.domains.conn.defineXML(domain(want, body))
        for number, vnic in enumerate((want.management, *want.nics)):
            nic = ET.tostring(interface(vnic, want.name, number, body), encoding="unicode")
            found.attachDeviceFlags(nic, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def identify(self, found: Any, identity: Identity) -> None:
        """Let it run, and tell it who it is, and what time. Raises DriverError, libvirtError."""
        from provision.seed import document

        found.resume()
        agent.insist(
            self.domains.conn,
            found,
            lambda: agent.run(found, IDENTIFY, "live", stdin=document(identity)),
        )
        agent.correct_clock(found)

    def clear_stale(self) -> None:
        """Remove what an earlier, killed process left of making a golden guest."""
        if self.lock.acquire(blocking=False):  # else one is being made right now
            try:
                self._clear()
            finally:
                self.lock.release()

    def _clear(self) -> None:
        found, _ = self.domains.own(NAME)
        if found is not None:
            vanish(found)
        self.disks.remove(NAME)

    def _digest(self, blank: Guest, body: Body) -> str:
        """What the memory depends on: QEMU, the image and every device."""
        neutral = replace(
            body, testbed="", console="", disk="", seed=None, started="restored", ovs=frozenset()
        )
        machine = self.domains.machine
        text = f"{machine.version} {machine.cpu} {domain(blank, neutral, bare=True)}"
        return sha256(text.encode()).hexdigest()[:16]

    def _make(self, blank: Guest, body: Body, boot: Boot, path: str) -> None:
        own = replace(body, console=self.disks.console(NAME), disk=self.disks.disk(NAME))
        self._clear()
        self.disks.make(NAME, boot, None)
        conn = self.domains.conn
        found = conn.defineXML(domain(blank, own, bare=True))
        found.create()
        if not agent.wait(conn, found, BOOT_S):
            raise DriverError(f"the golden guest's agent is silent after {BOOT_S} s")
        agent.run(found, WARM)
        found.suspend()
        found.snapshotCreateXML(f"<domainsnapshot><name>{NAME}</name></domainsnapshot>")
        saved = snapshot(found, NAME)
        text = saved.getXMLDesc(libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE) if saved else ""
        vanish(found)  # QEMU must have let go of the overlay
        self.disks.keep_golden(NAME, path, text)


def _become(saved: str, mine: str) -> str:
    """The golden guest's snapshot as that of another."""
    root = ET.fromstring(saved)
    for tag in ("domain", "inactiveDomain"):
        if (theirs := root.find(tag)) is not None:
            root.remove(theirs)
    root.append(ET.fromstring(mine))
    return ET.tostring(root, encoding="unicode")
