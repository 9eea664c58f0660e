"""OpenVZ through libvirt (https://libvirt.org/drvopenvz.html): containers made from its templates.

Guests are containers with numbers and UUIDs of ours; bridges and knobs are the Linux host's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import libvirt

from drivers.libvirt.connect import connect, words
from drivers.linux.hosted import Hosted, guest
from drivers.linux.machine import look
from drivers.openvz.facts import CAPABILITIES, CHANGE, OPENVZ, unfit
from drivers.openvz.guests import Guests
from provision.driver import Check, Facts, Target
from provision.errors import Unreachable, Unsupported
from provision.host import Host
from provision.resources import Guest, Key, Tuning, label

LOCAL = "openvz:///system"


class Openvz(Hosted[Guests]):
    """The driver. ``host`` overrides where commands go; by default it follows from the URI."""

    takes_image = False
    capabilities = CAPABILITIES

    def __init__(self, target: Target, host: Host | None = None) -> None:
        with ExitStack() as opening:
            self._link = connect(target.uri, host, LOCAL)
            opening.callback(self._link.close)
            super().__init__(self._link.host, target, Guests(self._link, target))
            try:
                vzctl = self._link.conn.getVersion()
            except libvirt.libvirtError as e:
                raise Unreachable(f"{target.uri or LOCAL}: {words(e)}") from e
            self._machine = look(self.host)
            self.facts = self._facts(_dotted(vzctl), disk=target.image is not None)
            opening.pop_all()

    def checkpoint(self, key: Key) -> None:
        raise Unsupported(f"{label(key)}: {CAPABILITIES.checkpoint}")

    def revert(self, key: Key) -> None:
        raise Unsupported(f"guest {guest(key)}: {CAPABILITIES.checkpoint}")

    def examine(self) -> Iterator[Check]:
        root = "root" if self._machine.root else "not root"
        yield Check("privileges", self._machine.root, root,
                    "hypervisor.uri: openvz+ssh://root@HOST/system")  # fmt: skip

    def close(self) -> None:
        self._link.close()

    def _facts(self, vzctl: str, *, disk: bool) -> Facts:
        machine = self._machine
        return Facts(
            hypervisor=OPENVZ,
            version=f"Linux {machine.release}, vzctl {vzctl}",
            host=machine.name,
            cpus=machine.cpus,
            memory_mib=machine.memory_mib,
            accel=OPENVZ,
            nic_models=CAPABILITIES.nic_models,
            words=CAPABILITIES.words,
            switch_flavours=CAPABILITIES.switches,
            kinds=frozenset({Guest.kind, Tuning.kind}) | self.net.kinds,
            uplinks=self.net.uplinks(),
            addresses=self.net.addresses(),
            windows=CAPABILITIES.windows,
            cannot={**CAPABILITIES.refused, **self.tuning.knobless()},
            change=CHANGE,
            parallel={Guest.kind: 2 * machine.cpus},
            knobs=self.tuning.knobs(),
            notes={"system": machine.system, **self.net.notes()},
            unfit=lambda guest: unfit(guest, machine.cpus, disk=disk),
            checkpoint=CAPABILITIES.checkpoint,
        )


def _dotted(version: int) -> str:
    """The one number that libvirt has for ``major.minor.micro``."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
