"""Open-source Xen: guests through libvirt's libxl driver, all else in dom0 by ``xl`` and Linux.

https://libvirt.org/drvxen.html, xl(1). Guests are domains ``TESTBED-GUEST``, marked in their
metadata. What Xen holds is read from ``xl``, never from what libvirt was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import libvirt

from drivers.dom0 import boot, wishes
from drivers.dom0.counters import count
from drivers.dom0.grub import Grub
from drivers.dom0.knobs import Knobs
from drivers.dom0.look import State, state
from drivers.libvirt.connect import Connection, connect, words
from drivers.libvirt.disks import Disks
from drivers.linux import sriov
from drivers.linux.net import FLAVOURS, LinuxNet
from drivers.xen import direct
from drivers.xen.domains import Domains
from drivers.xen.facts import (
    CAPABILITIES,
    EMULATED,
    MAC_PREFIX,
    MODELS,
    WORDS,
    Machine,
    cannot,
    changes,
    look,
    unfit,
)
from drivers.xen.guests import Guests
from drivers.xen.restart import refuse, restart
from provision.driver import LOOKS_AT_ONCE, Check, Dom0, Facts, Target, UplinkFacts, Usage
from provision.errors import DriverError, SpecError, Unreachable, Unsupported
from provision.host import Host
from provision.resources import BOOT, Guest, Key, Resource, Switch, Tuning, Uplink, label

LOCAL = "xen:///system"


class Xen:
    """The driver. ``host`` overrides where commands go; by default it follows from the URI."""

    takes_image = True
    capabilities = CAPABILITIES

    def __init__(self, target: Target, host: Host | None = None) -> None:
        with ExitStack() as opening:
            self._link = connect(target.uri, host, LOCAL)
            opening.callback(self._link.close)
            self.host, self._target = self._link.host, target
            try:
                self._machine = look(self._link.conn, self.host)
            except libvirt.libvirtError as e:
                raise Unreachable(f"{target.uri or LOCAL}: {words(e)}") from e
            self.net = LinuxNet(self.host, target.testbed, target.say)
            self.knobs = Knobs(self.host)
            self._grub = Grub(self.host, target.testbed)
            self.boot = boot.Boot(self.host, self._grub)
            self.guests = _guests(self._link, target, self._machine)
            self.facts = self._facts()
            opening.pop_all()

    def read(self, key: Key) -> Resource | None:
        return self._read(key, None)

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once: dom0 is asked once for all that ``xl`` tells."""
        keys = list(keys)
        now = state(self.host) if {Guest.kind, Tuning.kind} & {kind for kind, _ in keys} else None
        guests = self.guests.look((name for kind, name in keys if kind == Guest.kind), now)
        others = [key for key in keys if key[0] != Guest.kind]
        with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="read") as pool:
            found = dict(zip(others, pool.map(lambda k: self._read(k, now), others), strict=True))
        return found | {(Guest.kind, name): guest for name, guest in guests.items()}

    def check_room(self, guests: Iterable[Guest]) -> None:
        """As ``Roomy.check_room``."""
        self.guests.check_room(len(list(guests)))

    def put(self, want: Resource) -> None:
        if isinstance(want, Guest):
            self.guests.put(want)
        elif isinstance(want, Switch | Uplink):
            self.net.put(want)
        elif not isinstance(want, Tuning):
            raise _none(want.kind)
        elif (want.kind, want.name) == BOOT:
            self._put_boot(want)
        else:
            self.knobs.put(want)

    def drop(self, key: Key) -> None:
        kind, name = key
        if kind == Guest.kind:
            self.guests.drop(name)
        elif kind in self.net.kinds:
            self.net.drop(key)
        else:
            raise DriverError(f"{label(key)} cannot be dropped, only put back as it was")

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
        counts, named = count(self.host), self.guests.domains.by_id()
        busy = {guest: counts.domains[n] for n, guest in named.items() if n in counts.domains}
        # a NIC with virtual functions may count its own frames only, or those of all
        vague = {u.name for u in self.facts.uplinks if u.vfs}
        nics = {name: figures for name, figures in counts.nics.items() if name not in vague}
        return Usage(counts.at_s, counts.host_busy_s, busy, nics, counts.dom0_busy_s, counts.irqs)

    def evidence(self, key: Key) -> Mapping[str, str]:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.evidence(name)
        return self.net.evidence(key) if kind in self.net.kinds else {}

    def examine(self) -> Iterator[Check]:
        machine = self._machine
        root, disks = machine.root, machine.qemu_img
        yield Check("root in dom0", root, "root" if root else "no root",
                    "hypervisor.uri: xen+ssh://root@HOST/system")  # fmt: skip
        yield Check("qemu-img in dom0", disks, "there" if disks else "missing",
                    "apt-get install qemu-utils qemu-system-xen")  # fmt: skip
        why = self._grub.why_not()
        yield Check("boot options of Xen", not why, why or "GRUB's",
                    "dom0.vcpus and dom0.memory need them", needed=False)  # fmt: skip
        for virt, hindered in machine.virts.items():
            yield Check(f"{virt} guests", not hindered, hindered or "yes", needed=False)

    def console(self, key: Key) -> str:
        return self.guests.console(_guest(key))

    def close(self) -> None:
        self._link.close()

    def _read(self, key: Key, now: State | None) -> Resource | None:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.look([name], now)[name]
        if kind in self.net.kinds:
            return self.net.read(key)
        if key == BOOT:
            return self.boot.read(now)
        if kind == Tuning.kind:
            return self.knobs.read(name, now)
        raise _none(kind)

    def _put_boot(self, want: Tuning) -> None:
        def again() -> None:
            restart(self._link, lambda phase: self._target.say(BOOT, phase))

        if self.boot.read() != want:
            refuse(self.host, {*self.guests.domains.by_id()})
            self.boot.put(want, again)

    def _tunings(self, dom0: Dom0, uplinks: tuple[UplinkFacts, ...]) -> Iterator[Tuning]:
        asked = replace(dom0, network_backend=None)  # bridges and Open vSwitch may be side by side
        base, why = self._grub.base() if _boots(asked) else {}, self._grub.why_not()
        found = wishes.tunings(asked, uplinks, self._machine.dom0, base, self.knobs.balancer())
        for tuning in found:
            if tuning.name == BOOT[1] and why and tuning != self.boot.read():
                raise SpecError([
                    f"dom0.pin: {dom0.pin} is a matter of the hypervisor's boot options: {why}; "
                    "what works: a pin on other CPUs than 0-N for as many vCPUs as dom0 has"
                ])  # fmt: skip
            yield tuning

    def _unfit(self, guest: Guest, functions: sriov.Functions) -> Iterator[str]:
        image = self._target.image
        ours = image is not None and image.kernel is not None
        yield from unfit(guest, self._machine, self._target)
        yield from functions.unfit(guest, direct.lack(guest, self._machine, functions, ours=ours))

    def _facts(self) -> Facts:
        machine, uplinks, functions = self._machine, self.net.uplinks(), sriov.look(self.host)
        knobs = {BOOT[1]: boot.text(boot.of_xen(machine.dom0)), **self.knobs.knobs(machine.dom0)}
        return Facts(
            hypervisor="xen",
            version=machine.version,
            host=machine.name,
            cpus=machine.cpus,
            memory_mib=machine.memory_mib,
            accel=next((v for v, why in machine.virts.items() if not why), "pv"),
            nic_models=dict(MODELS) | {sriov.SRIOV: functions.seen_as(MODELS[sriov.SRIOV])},
            words=WORDS,
            switch_flavours=FLAVOURS,
            kinds=frozenset({Guest.kind, Tuning.kind}) | self.net.kinds,
            uplinks=sriov.and_given(uplinks, self.guests.domains.held()),
            addresses=self.net.addresses(),
            cannot=cannot(machine, self._grub.why_not()),
            change=changes(),
            # libxl gives the scripts of a starting guest 10 s, and dom0 runs them all
            parallel={Guest.kind: len(machine.dom0.vcpus)},
            knobs=knobs | self.knobs.served(u.name for u in uplinks),
            tunings=self._tunings,
            notes=self.net.notes(),
            unfit=lambda guest: self._unfit(guest, functions),
            virts=machine.virts,
            beside={model: model for model in EMULATED},
            mac_prefix=MAC_PREFIX,
        )


def _boots(dom0: Dom0) -> bool:
    """Whether any of it may be a boot option."""
    return (dom0.vcpus, dom0.pin, dom0.memory_mib) != (None, None, None)


def _guests(link: Connection, target: Target, machine: Machine) -> Guests:
    domains = Domains(link, target.testbed, link.host, machine.name, machine.cpus)
    return Guests(domains, Disks(link.host, target.folder, ""), link.host, target, machine)


def _none(kind: str) -> DriverError:
    return DriverError(f"a Xen host has no {kind}")


def _guest(key: Key) -> str:
    kind, name = key
    if kind != Guest.kind:
        raise Unsupported(f"{label(key)} is no guest")
    return name
