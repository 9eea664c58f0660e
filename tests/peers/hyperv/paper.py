"""What a guest says of itself, and guests that only say so: nothing boots, and all is told."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from provision.errors import ProvisionError
from provision.seed import Identity
from tests.peers.hyperv.model import Machine, Nic
from tests.peers.hyperv.world import World
from tests.peers.nsguest import identity_of
from tests.peers.powershell.host import FileFault
from tests.peers.powershell.values import text

LINUX = "MicrosoftUEFICertificateAuthority"


def seen(mac: str) -> str:
    """A MAC as Linux shows it."""
    return ":".join(mac[i : i + 2] for i in range(0, 12, 2)).lower()


def boots(one: Machine) -> bool:
    """Whether Linux starts: from a disk, and not where only Windows' loader is trusted."""
    trusted = text(one.config.settings.get("SecureBootTemplate", "")) == LINUX
    secure = one.generation == 2 and one.config.secure_boot and not trusted
    return any(d.path and not d.dvd for d in one.config.drives) and not secure


def identity(world: World, one: Machine) -> Identity | None:
    """Who the VM's DVD says that it is; None where none says anything."""
    for drive in one.config.drives:
        if drive.dvd and drive.path:
            try:
                return identity_of(world.volume.read(drive.path))
            except (FileFault, ProvisionError, ValueError, LookupError) as e:
                world.complain(f"{one.name}: no identity in {drive.path}: {e!r}")
    return None


def report(one: Machine, who: Identity | None, run: float) -> None:
    """The guest's daemons are up: its heart beats, and it tells its addresses."""
    if one.started_at != run or one.state != "Running":
        return  # it was stopped meanwhile
    one.ready = True
    for adapter in one.config.adapters:
        nics = [n for n in (who.nics if who else ()) if n.mac == seen(adapter.mac)]
        adapter.addresses = tuple(n.address.partition("/")[0] for n in nics)


class Paper:
    """No guest boots, and all is told as if one had, ``boot_s`` later."""

    def __init__(self, world: World, boot_s: float = 0) -> None:
        self._world, self._boot_s = world, boot_s

    def start(self, machine: Machine) -> None:
        who, run = identity(self._world, machine), machine.started_at
        if not boots(machine):
            return
        if not self._boot_s:
            return report(machine, who, run)
        timer = threading.Timer(self._boot_s, self._report, (machine, who, run))
        timer.daemon = True
        timer.start()

    def _report(self, machine: Machine, who: Identity | None, run: float) -> None:
        with self._world.lock:
            report(machine, who, run)

    def stop(self, machine: Machine) -> None: ...

    def rewire(self, machine: Machine) -> None: ...

    def snapshot(self, machine: Machine, name: str) -> None: ...

    def revert(self, machine: Machine, name: str) -> None: ...

    def forget(self, machine: Machine, name: str) -> None: ...

    def remove(self, machine: Machine) -> None: ...

    def sync(self) -> None: ...

    def counters(self, _nic: Nic) -> Mapping[str, int]:
        return {}
