"""Guests as they are: what libvirt says, and where their taps, disks and threads really are."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import libvirt

from drivers.kvm.domains import Domains
from drivers.kvm.parse import Seen, effective
from drivers.libvirt.connect import told
from drivers.libvirt.disks import Disks
from drivers.libvirt.wires import wired
from drivers.linux import sriov
from drivers.linux.links import View, view
from provision.driver import LOOKS_AT_ONCE
from provision.host import Host
from provision.resources import Guest


@dataclass(frozen=True, slots=True)
class Sight:
    """Reads guests of one testbed; changes nothing."""

    domains: Domains
    disks: Disks
    host: Host

    def look(self, names: Iterable[str]) -> dict[str, Guest | None]:
        """Many, of whom the host's network is asked once."""
        names, net = list(names), self.net()
        with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="read") as pool:
            return dict(zip(names, pool.map(lambda n: self._look(n, net), names), strict=True))

    def _look(self, name: str, net: View) -> Guest | None:
        found, seen = self.domains.find(name)
        if found is None or seen is None:
            return None
        with told(f"read guest {name}"):
            return self.as_is(found, seen, net)

    def net(self) -> View:
        """The host's network, where guests are on it."""
        return View({}, {}) if self.domains.machine.simulated else view(self.host, ovs=True)

    def as_is(self, found: Any, seen: Seen, net: View) -> Guest:
        guest = sriov.placed(self.host, seen.guest)
        if seen.disk is not None and not self.disks.there(seen.disk):
            guest = replace(guest, image=f"{seen.disk} is gone")
        if not seen.active:
            return guest
        state, _ = found.state()
        guest = replace(guest, running=state == libvirt.VIR_DOMAIN_RUNNING)
        if self.domains.machine.simulated:
            return guest
        guest = wired(guest, seen.taps, net)
        return effective(
            guest, found.schedulerParameters(), found.vcpus()[1], self.domains.machine.cgroup
        )
