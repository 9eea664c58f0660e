"""A vSphere peer with a driver to it, and the guests that tests ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drivers.vsphere.driver import Vsphere
from drivers.vsphere.wire import Limits
from provision.driver import Login, Target, Tls
from provision.resources import Guest, Switch, Vnic
from provision.seed import Identity, identity
from provision.testbed import tag
from tests.peers import oracle
from tests.peers.vcsim import Vcsim, vcsim
from tests.vsphere import world
from tests.vsphere.wire import Wires

TESTBED = "drv"
TAG = tag(TESTBED)
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
SWITCH = Switch(f"pv{TAG}b1", "vswitch", "vmnic1")
TEMPLATES = {"VPX": "DC0_H0_VM0", "ESX": "ha-host_VM0"}


def who(guest: Guest) -> Identity:
    return identity(guest, "ssh-ed25519 AAAA", PEM)


def guest(image: str, name: str = "vm1", number: int = 1, **more: Any) -> Guest:
    octets = f"{number >> 8:02x}:{number & 255:02x}"
    made = Guest(
        name, vcpus=1, memory_mib=512, image=image, accel="esxi",
        management=Vnic("VM Network", "vmxnet3", f"00:50:56:00:{octets}", "198.19.1.10/24"),
        nics=(Vnic(SWITCH.name, "vmxnet3", f"00:50:56:01:{octets}", "198.18.1.2/24"),),
    )  # fmt: skip
    return replace(made, **more)


@dataclass
class Bed:
    """A simulator, a driver on it, and what was there before it."""

    peer: Vcsim
    model: str
    si: Any
    before: tuple[object, ...]
    folder: Path
    wires: Wires

    def target(self, **more: Any) -> Target:
        login = Login(self.peer.user, lambda: self.peer.password)
        return Target(**{
            "testbed": TESTBED, "folder": self.folder, "uri": self.peer.uri, "tag": TAG,
            "login": login, "tls": Tls(ca=self.peer.ca), "identity": who, **more,
        })  # fmt: skip

    def driver(self, limits: Limits | None = None, **more: Any) -> Vsphere:
        return Vsphere(self.target(**more), limits, self.wires)

    @property
    def image(self) -> str:
        return TEMPLATES[self.model]

    def vm(self, name: str = "vm1") -> Any:
        return world.named(self.si, f"{TESTBED}-{name}")

    @property
    def datastore(self) -> Path:
        """Where the simulator keeps its only datastore's files."""
        return next(p for p in self.peer.log.parent.iterdir() if "LocalDS_0" in p.name)


@contextmanager
def opened(model: str, folder: Path, **more: Any) -> Iterator[Bed]:
    """Its template has a snapshot; ``more`` as in ``vcsim``. What was sent is judged at the end."""
    with vcsim(model, pnics=4, vms=1, **more) as peer:
        si = peer.connect()
        template = world.named(si, TEMPLATES[model])
        oracle.done(template.CreateSnapshot_Task("base", "", False, False))
        found = Bed(peer, model, si, world.inventory(si), folder, Wires(judged=True))
        yield found
        assert not found.wires.faults
