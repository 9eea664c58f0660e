"""Containers: guests of this machine's own kernel, each on a bridge of its own with its own NIC.

They need no hypervisor, and start within a second: the quickest way to try the tool. Run by an OCI
runtime; see ``runtime`` for which, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from drivers.container.facts import CAPABILITIES, CHANGE, CONTAINER
from drivers.container.guests import Guests
from drivers.linux.cells import lacks
from drivers.linux.machine import look
from drivers.linux.net import LinuxNet
from drivers.linux.tuning import LinuxTuning
from drivers.linux.uplinks import count
from provision.driver import LOOKS_AT_ONCE, Check, Facts, Target, Usage
from provision.errors import DriverError, Unsupported, UserError
from provision.host import Host
from provision.resources import Guest, Key, Resource, Tuning, label


class Container:
    """The driver."""

    takes_image = True
    capabilities = CAPABILITIES

    def __init__(self, target: Target) -> None:
        if target.uri:
            raise UserError(
                f"hypervisor.uri {target.uri!r}: containers run on this machine",
                hint="leave hypervisor.uri out, and start provision there",
            )
        self.host = Host()
        self._machine = look(self.host)
        self.net = LinuxNet(self.host, target.testbed, target.say)
        self.tuning = LinuxTuning(self.host, target.testbed)
        self.guests = Guests(self.host, target, self._machine)
        self.facts = self._facts()

    def read(self, key: Key) -> Resource | None:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.look([name])[name]
        return self._room(kind).read(key)

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once."""
        keys = list(keys)
        guests = self.guests.look(name for kind, name in keys if kind == Guest.kind)
        others = [key for key in keys if key[0] != Guest.kind]
        with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="read") as pool:
            found = dict(zip(others, pool.map(self.read, others), strict=True))
        return found | {(Guest.kind, name): guest for name, guest in guests.items()}

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
        return [*self.net.owned(), *((Guest.kind, name) for name in self.guests.names())]

    def usage(self) -> Usage:
        counts = count(self.host)
        busy_s = self.guests.busy_s()
        return Usage(counts.at_s, counts.busy_s, busy_s, counts.nics, irqs=counts.irqs)

    def evidence(self, key: Key) -> Mapping[str, str]:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.evidence(name)
        return self.net.evidence(key) if kind in self.net.kinds else {}

    def examine(self) -> Iterator[Check]:
        machine, why = self._machine, lacks(self.host)
        root = "root" if machine.root else "not root"
        yield Check("privileges", machine.root, root, "sudo provision …")
        runtime = f"{machine.runc}, {machine.runc_version}" if machine.runc else "missing"
        yield Check("runc", bool(machine.runc), runtime, "apt-get install runc")
        overlay = "there" if machine.overlay else "missing"
        yield Check("overlayfs", machine.overlay, overlay, "modprobe overlay")
        version = "v2" if machine.v2 else "v1"
        yield Check("control groups", not why, why or version, "mount the controllers")

    def console(self, key: Key) -> str:
        return self.guests.kept.console(_guest(key))

    def close(self) -> None:
        """Nothing is held open."""

    def _room(self, kind: str) -> LinuxNet | LinuxTuning:
        if kind in self.net.kinds:
            return self.net
        if kind in self.tuning.kinds:
            return self.tuning
        raise DriverError(f"a host of containers has no {kind}")

    def _facts(self) -> Facts:
        machine = self._machine
        why = lacks(self.host)
        lost = dict.fromkeys(("guests.cpu.weight", "guests.cpu.cap_percent"), why) if why else {}
        return Facts(
            hypervisor=CONTAINER,
            version=f"Linux {machine.release}, runc {machine.runc_version or '(missing)'}",
            host=machine.name,
            cpus=machine.cpus,
            memory_mib=machine.memory_mib,
            accel=CONTAINER,
            nic_models=CAPABILITIES.nic_models,
            words=CAPABILITIES.words,
            switch_flavours=CAPABILITIES.switches,
            kinds=frozenset({Guest.kind, Tuning.kind}) | self.net.kinds,
            uplinks=self.net.uplinks(),
            addresses=self.net.addresses(),
            cannot={**CAPABILITIES.refused, **self.tuning.knobless(), **lost},
            change=CHANGE,
            parallel={Guest.kind: 2 * machine.cpus},
            knobs=self.tuning.knobs(),
            notes={"system": machine.system, **self.net.notes()},
            most_nics=CAPABILITIES.most_nics,
            limits="groups",
        )


def _guest(key: Key) -> str:
    kind, name = key
    if kind != Guest.kind:
        raise Unsupported(f"{label(key)} is no guest")
    return name
