"""A guest's clean state: a snapshot with memory inside its overlay, and the way back to it."""

from __future__ import annotations

import secrets
import time
import xml.etree.ElementTree as ET
from typing import Any

import libvirt
import libvirt_qemu

from drivers.kvm import agent
from drivers.kvm.domains import snapshot
from provision.errors import DriverError

CLEAN = "clean"
#: noted in the snapshot: it was taken with the guest's agent at work
WITH_AGENT = "with agent"
WAKE = "/usr/lib/provision/wake"  # our image's: sets the clock, and seeds the random pool
_HMP = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
_RUNNING = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING


def take(found: Any) -> None:
    """Remember the guest as it is, in place of what was remembered. Raises libvirtError."""
    forget(found)
    wish = ET.Element("domainsnapshot")
    ET.SubElement(wish, "name").text = CLEAN
    if agent.connected(found):
        ET.SubElement(wish, "description").text = WITH_AGENT
    found.snapshotCreateXML(ET.tostring(wish, encoding="unicode"))


def forget(found: Any) -> None:
    """No error where there is nothing to forget. Raises libvirtError."""
    if (old := snapshot(found, CLEAN)) is not None:
        old.delete()


def back(conn: Any, found: Any, name: str, simulated: bool, ours: bool) -> None:
    """Load what was remembered, then set the clock; ``ours``: the guest boots our own image.

    Raises DriverError where nothing is remembered, libvirtError.
    """
    clean = snapshot(found, CLEAN)
    if clean is None:
        raise DriverError(
            f"guest {name} has no checkpoint", hint="provision reset --level recreate"
        )
    with_agent = ET.fromstring(clean.getXMLDesc()).findtext("description") == WITH_AGENT
    if simulated or not found.isActive() or not _load(found):
        # a QEMU of its own for the snapshot: slower, and right whatever became of the guest
        found.revertToSnapshot(clean, _RUNNING)
    if with_agent:
        agent.insist(conn, found, lambda: _wake(found, ours))


def resume(conn: Any, found: Any, ours: bool) -> None:
    """Let a paused guest go on, with the clock set. Raises DriverError, libvirtError."""
    found.resume()
    if agent.connected(found):
        agent.insist(conn, found, lambda: _wake(found, ours))


def _load(found: Any) -> bool:
    """Whether the guest's own QEMU took the snapshot back; libvirt's call would start another.

    Raises libvirtError.
    """
    if found.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
        found.suspend()
    if libvirt_qemu.qemuMonitorCommand(found, f"loadvm {CLEAN}", _HMP).strip():
        return False
    found.resume()
    return True


def _wake(found: Any, ours: bool) -> None:
    """What a guest needs that comes back from memory. Raises DriverError, libvirtError."""
    if ours:
        agent.run(found, WAKE, f"{time.time():.6f}", secrets.token_hex(64))
        agent.correct_clock(found)
    else:
        agent.set_clock(found)
