"""KVM and QEMU through libvirt (https://libvirt.org/html/libvirt-libvirt-domain.html).

Guests are domains ``TESTBED-GUEST``, marked in their metadata; bridges and knobs are the Linux
host's own. libvirt's connection may be used by several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from threading import Lock

import libvirt

from drivers.kvm.domains import Domains
from drivers.kvm.facts import CAPABILITIES, Machine, cannot, changes, choose_accel, look, unfit
from drivers.kvm.golden import Golden
from drivers.kvm.guests import Guests
from drivers.libvirt.connect import Connection, connect, words
from drivers.libvirt.disks import Disks
from drivers.linux import sriov
from drivers.linux.hosted import Hosted, guest
from provision.driver import Check, Facts, Target, UplinkFacts, Usage
from provision.errors import Unreachable
from provision.host import Host
from provision.resources import Guest, Key, Tuning


class Kvm(Hosted[Guests]):
    """The driver. ``host`` overrides where commands go; by default it follows from the URI."""

    takes_image = True
    capabilities = CAPABILITIES

    def __init__(self, target: Target, host: Host | None = None) -> None:
        with ExitStack() as opening:
            self._link = connect(target.uri, host)
            opening.callback(self._link.close)
            try:
                machine = look(self._link.conn, self._link.host)
            except libvirt.libvirtError as e:
                raise Unreachable(f"{target.uri or 'libvirt'}: {words(e)}") from e
            super().__init__(self._link.host, target, _guests(self._link, target, machine))
            self.facts = self._facts(machine, *choose_accel(machine, target.accel))
            opening.pop_all()

    def check_room(self, guests: Iterable[Guest]) -> None:
        """As ``Roomy.check_room``."""
        self.guests.check_room(len(list(guests)))

    def has_checkpoint(self, key: Key) -> bool:
        return self.guests.has_checkpoint(guest(key))

    def checkpoint(self, key: Key) -> None:
        self.guests.checkpoint(guest(key))

    def revert(self, key: Key) -> None:
        self.guests.revert(guest(key))

    def usage(self) -> Usage:
        seen = super().usage()
        # a NIC with virtual functions may count its own frames only, or those of all
        vague = {u.name for u in self.facts.uplinks if u.vfs}
        return replace(seen, nics={n: seen.nics[n] for n in seen.nics if n not in vague})

    def examine(self) -> Iterable[Check]:
        return ()

    def close(self) -> None:
        self._link.close()

    def _uplinks(self) -> tuple[UplinkFacts, ...]:
        """The host's NICs, and those that guests of ours have whole: the host sees none of them."""
        return sriov.and_given(self.net.uplinks(), self.guests.domains.held())

    def _facts(self, machine: Machine, accel: str, why_not_faster: str) -> Facts:
        functions, models = sriov.look(self.host), dict(machine.models)
        if sriov.SRIOV in models:
            models[sriov.SRIOV] = functions.seen_as(models[sriov.SRIOV])
        notes = {"libvirtd": self._link.daemon} if self._link.daemon else {}
        if why_not_faster:
            notes["acceleration"] = f"not kvm: {why_not_faster}"
        return Facts(
            hypervisor="kvm",
            version=machine.version,
            host=machine.name,
            cpus=machine.cpus,
            memory_mib=machine.memory_mib,
            accel=accel,
            nic_models=models,
            words=CAPABILITIES.words,
            switch_flavours=CAPABILITIES.switches,
            kinds=frozenset({Guest.kind, Tuning.kind}) | self.net.kinds,
            uplinks=self._uplinks(),
            addresses=self.net.addresses(),
            cannot=cannot(machine) | self.tuning.knobless(),
            change=changes(machine.simulated),
            parallel={Guest.kind: 2 * machine.cpus},
            knobs=self.tuning.knobs(),
            notes=notes,
            most_nics=CAPABILITIES.most_nics,
            unfit=lambda one: (*unfit(one, self.guests.target), *functions.unfit(one)),
            simulated=machine.simulated,
        )


def _guests(link: Connection, target: Target, machine: Machine) -> Guests:
    domains = Domains(link, target.testbed, machine)
    disks = Disks(link.host, target.folder, machine.owner.replace("+", ""))
    return Guests(domains, disks, Golden(domains, disks, Lock()), link.host, target)
