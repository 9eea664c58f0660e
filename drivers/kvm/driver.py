"""KVM and QEMU through libvirt (https://libvirt.org/html/libvirt-libvirt-domain.html).

Guests are domains ``TESTBED-GUEST``, marked in their metadata; bridges and knobs are the Linux
host's own. libvirt's connection may be used by several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Lock

import libvirt

from drivers.kvm.domains import Domains
from drivers.kvm.facts import CAPABILITIES, Machine, cannot, changes, choose_accel, look, unfit
from drivers.kvm.golden import Golden
from drivers.kvm.guests import Guests
from drivers.libvirt.connect import Connection, connect, words
from drivers.libvirt.disks import Disks
from drivers.linux import sriov
from drivers.linux.net import LinuxNet
from drivers.linux.tuning import LinuxTuning
from drivers.linux.uplinks import count
from provision.driver import LOOKS_AT_ONCE, Check, Facts, Target, UplinkFacts, Usage
from provision.errors import DriverError, Unreachable, Unsupported
from provision.host import Host
from provision.resources import Guest, Key, Resource, Tuning, label


class Kvm:
    """The driver. ``host`` overrides where commands go; by default it follows from the URI."""

    takes_image = True
    capabilities = CAPABILITIES

    def __init__(self, target: Target, host: Host | None = None) -> None:
        with ExitStack() as opening:
            self._link = connect(target.uri, host)
            opening.callback(self._link.close)
            self.host = self._link.host
            try:
                machine = look(self._link.conn, self.host)
            except libvirt.libvirtError as e:
                raise Unreachable(f"{target.uri or 'libvirt'}: {words(e)}") from e
            self.net = LinuxNet(self.host, target.testbed, target.say)
            self.tuning = LinuxTuning(self.host, target.testbed)
            self.guests = _guests(self._link, target, machine)
            self.facts = self._facts(machine, *choose_accel(machine, target.accel))
            opening.pop_all()

    def read(self, key: Key) -> Resource | None:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.read(name)
        return self._room(kind).read(key)

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once."""
        keys = list(keys)
        guests = self.guests.look(name for kind, name in keys if kind == Guest.kind)
        others = [key for key in keys if key[0] != Guest.kind]
        with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="read") as pool:
            found = dict(zip(others, pool.map(self.read, others), strict=True))
        return found | {(Guest.kind, name): guest for name, guest in guests.items()}

    def check_room(self, guests: Iterable[Guest]) -> None:
        """As ``Roomy.check_room``."""
        self.guests.check_room(len(list(guests)))

    def put(self, want: Resource) -> None:
        if isinstance(want, Guest):
            self.guests.put(want)
        else:
            self._room(want.kind).put(want)

    def drop(self, key: Key) -> None:
        kind, name = key
        if kind == Guest.kind:
            self.guests.drop(name)
        else:
            self._room(kind).drop(key)

    def has_checkpoint(self, key: Key) -> bool:
        return self.guests.has_checkpoint(_guest(key))

    def checkpoint(self, key: Key) -> None:
        self.guests.checkpoint(_guest(key))

    def revert(self, key: Key) -> None:
        self.guests.revert(_guest(key))

    def owned(self) -> Iterable[Key]:
        guests = self.guests.domains.names()
        return [*self.net.owned(), *((Guest.kind, name) for name in guests)]

    def usage(self) -> Usage:
        counts = count(self.host)
        busy_s = self.guests.domains.busy_s()
        # a NIC with virtual functions may count its own frames only, or those of all
        vague = {u.name for u in self.facts.uplinks if u.vfs}
        nics = {name: figures for name, figures in counts.nics.items() if name not in vague}
        return Usage(counts.at_s, counts.busy_s, busy_s, nics, irqs=counts.irqs)

    def evidence(self, key: Key) -> Mapping[str, str]:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.evidence(name)
        return self.net.evidence(key) if kind in self.net.kinds else {}

    def examine(self) -> Iterable[Check]:
        return ()

    def console(self, key: Key) -> str:
        return self.guests.disks.tail(_guest(key))

    def close(self) -> None:
        self._link.close()

    def _room(self, kind: str) -> LinuxNet | LinuxTuning:
        if kind in self.net.kinds:
            return self.net
        if kind in self.tuning.kinds:
            return self.tuning
        raise DriverError(f"a KVM host has no {kind}")

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
            unfit=lambda guest: (*unfit(guest, self.guests.target), *functions.unfit(guest)),
            simulated=machine.simulated,
        )


def _guests(link: Connection, target: Target, machine: Machine) -> Guests:
    domains = Domains(link, target.testbed, machine)
    disks = Disks(link.host, target.folder, machine.owner.replace("+", ""))
    return Guests(domains, disks, Golden(domains, disks, Lock()), link.host, target)


def _guest(key: Key) -> str:
    kind, name = key
    if kind != Guest.kind:
        raise Unsupported(f"{label(key)} is no guest")
    return name
