"""Containers: guests of this machine's own kernel, each on a bridge of its own with its own NIC.

They need no hypervisor, and start within a second: the quickest way to try the tool. Run by an OCI
runtime; see ``runtime`` for which, and why.
"""

from __future__ import annotations

from collections.abc import Iterator

from drivers.container.facts import CAPABILITIES, CHANGE, CONTAINER
from drivers.container.guests import Guests
from drivers.linux.cells import lacks
from drivers.linux.hosted import Hosted, guest
from drivers.linux.machine import look
from provision.driver import Check, Facts, Target
from provision.errors import UserError
from provision.host import Host
from provision.resources import Guest, Key, Tuning


class Container(Hosted[Guests]):
    """The driver."""

    takes_image = True
    capabilities = CAPABILITIES

    def __init__(self, target: Target) -> None:
        if target.uri:
            raise UserError(
                f"hypervisor.uri {target.uri!r}: containers run on this machine",
                hint="leave hypervisor.uri out, and start provision there; on a host of OpenVZ: "
                "--hv openvz",
            )
        host = Host()
        self._machine = look(host)
        super().__init__(host, target, Guests(host, target, self._machine))
        self.facts = self._facts()

    def has_checkpoint(self, key: Key) -> bool:
        return self.guests.has_checkpoint(guest(key))

    def checkpoint(self, key: Key) -> None:
        self.guests.checkpoint(guest(key))

    def revert(self, key: Key) -> None:
        self.guests.revert(guest(key))

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
            windows=CAPABILITIES.windows,
            cannot={**CAPABILITIES.refused, **self.tuning.knobless(), **lost},
            change=CHANGE,
            parallel={Guest.kind: 2 * machine.cpus},
            knobs=self.tuning.knobs(),
            notes={"system": machine.system, **self.net.notes()},
            most_nics=CAPABILITIES.most_nics,
            limits="groups",
        )
