"""A day of one small testbed on a vSphere peer, step by step, for tests that disturb it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drivers.vsphere.driver import Vsphere
from drivers.vsphere.wire import Limits, Wire, WireType
from provision.driver import Login, Target, Tls
from provision.image import Image, from_file
from provision.resources import Guest, Resource, Switch, Vnic, key
from provision.testbed import tag
from tests.contract.peer import who
from tests.peers import oracle
from tests.peers.vcsim import Vcsim, vcsim
from tests.vsphere import world
from tests.vsphere.wire import Wires

TESTBED = "faults"
TAG = tag(TESTBED)
TEMPLATE = "template"
MODELS = ("VPX", "ESX", "IMAGE")
SWITCH = Switch(f"pv{TAG}b1", "vswitch", "vmnic1")
NIC = Vnic(SWITCH.name, "vmxnet3", "00:50:56:00:00:02", "198.18.1.2/24")
GUEST = Guest(
    "vm1", vcpus=1, memory_mib=512, image=TEMPLATE, accel="esxi", nics=(NIC,),
    management=Vnic("VM Network", "vmxnet3", "00:50:56:00:00:01", "198.19.1.10/24"),
)  # fmt: skip
LIVE = replace(GUEST, weight=512, cap_percent=50, nics=(replace(NIC, rate_mbit=100),))
OTHER = replace(GUEST, vcpus=2, nics=(replace(NIC, model="e1000"),))


@dataclass
class Bed:
    """A simulator and what was there before the testbed. ``image`` makes guests of a file."""

    server: Vcsim
    si: Any
    folder: Path
    wires: Wires = field(default_factory=Wires)
    image: Image | None = None
    before: tuple[object, ...] = ()
    _witness: list[Vsphere] = field(default_factory=list)

    def target(self, **more: Any) -> Target:
        login = Login(self.server.user, lambda: self.server.password)
        return Target(**{
            "testbed": TESTBED, "folder": self.folder, "uri": self.server.uri, "tag": TAG,
            "identity": who, "login": login, "tls": Tls(ca=self.server.ca), "image": self.image,
            **more,
        })  # fmt: skip

    def driver(
        self, limits: Limits | None = None, wire: WireType | None = None, **more: Any
    ) -> Vsphere:
        return Vsphere(
            self.target(**more), limits or Limits(tools_s=0, task_s=20), wire or self.wires
        )

    @property
    def witness(self) -> Vsphere:
        """A driver that only ever looks, over a wire without troubles."""
        if not self._witness:
            self._witness.append(self.driver(wire=Wire))
        return self._witness[0]

    def there(self) -> tuple[object, ...]:
        """All that the server has, its files included but for disks that guests stand on."""
        kept = [f"{TEMPLATE}/"]  # its snapshots come and go with what stands on them
        if self.image is not None:
            kept.append(f"provision/{self.image.digest[:16]}/")
        found = sorted(str(p.relative_to(self.store)) for p in self.store.rglob("*") if p.is_file())
        files = [name for name in found if not name.startswith(tuple(kept))]
        return (*world.inventory(self.si), files)

    @property
    def store(self) -> Path:
        """Where the simulator keeps its only datastore's files."""
        return next(p for p in self.server.log.parent.iterdir() if "LocalDS_0" in p.name)

    def fresh(self) -> Vsphere:
        """A driver that has not uploaded the image yet, on a server that has not got it."""
        if self.image is not None:
            shutil.rmtree(self.store / "provision" / self.image.digest[:16], ignore_errors=True)
        return self.driver()

    def of(self, want: Guest) -> Guest:
        """The guest on this bed's image."""
        return replace(want, image=self.image.digest) if self.image is not None else want


@contextmanager
def bed(model: str, folder: Path, *, snapshot: bool = True, **more: Any) -> Iterator[Bed]:
    """``model`` is VPX or ESX, or IMAGE: a vCenter, and guests on a file's disk.

    ``snapshot``: the template has one; ``more`` is the simulator's.
    """
    with vcsim("VPX" if model == "IMAGE" else model, pnics=4, vms=0, **more) as server:
        si = server.connect()
        vm = oracle.create(si, TEMPLATE, with_disk=True)
        if snapshot:
            oracle.done(vm.CreateSnapshot_Task("base", None, False, False))
        found = Bed(server, si, folder)
        if model == "IMAGE":
            disk = folder / "disk.qcow2"
            argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"]
            subprocess.run(argv, check=True, timeout=30)
            found.image = from_file(disk)
        found.before = found.there()
        yield found
        for one in found._witness:
            one.close()


@dataclass(frozen=True)
class Step:
    """``ready`` brings what the step starts from, whatever there is; ``holds`` says it is done.

    ``doing`` is what errors have to say.
    """

    ready: Callable[[Bed, Vsphere], None]
    act: Callable[[Bed, Vsphere], object]
    holds: Callable[[Bed], bool]
    doing: str


def clear(_bed: Bed, driver: Vsphere) -> None:
    """Nothing of ours."""
    driver.drop(key(GUEST))
    driver.drop(key(SWITCH))


def _has(*wants: Resource) -> Callable[[Bed, Vsphere], None]:
    def ready(at: Bed, driver: Vsphere) -> None:
        for want in (SWITCH, *wants):
            driver.put(at.of(want) if isinstance(want, Guest) else want)

    return ready


def _alone(at: Bed, driver: Vsphere) -> None:
    """The switch, and no guest."""
    driver.drop(key(GUEST))
    _has()(at, driver)


def _bare(at: Bed, driver: Vsphere) -> None:
    """As ``_alone``, and a port group that holds nobody to a rate."""
    clear(at, driver)
    _has()(at, driver)


def _new(at: Bed, driver: Vsphere) -> None:
    _alone(at, driver)
    _has(GUEST)(at, driver)


def _kept(at: Bed, driver: Vsphere) -> None:
    _has(GUEST)(at, driver)
    driver.checkpoint(key(GUEST))


def _put(want: Resource) -> tuple[Callable[[Bed, Vsphere], None], Callable[[Bed], bool]]:
    def mine(at: Bed) -> Resource:
        return at.of(want) if isinstance(want, Guest) else want

    return (
        lambda at, driver: driver.put(mine(at)),
        lambda at: at.witness.read(key(want)) == mine(at),
    )


def _shots(at: Bed) -> list[str]:
    """The names of the guest's snapshots."""
    tree = world.named(at.si, f"{TESTBED}-{GUEST.name}").snapshot
    found, left = [], [*tree.rootSnapshotList] if tree else []
    while left:
        one = left.pop()
        found.append(str(one.name))
        left += one.childSnapshotList
    return found


def _runs(at: Bed) -> bool:
    return at.witness.read(key(GUEST)) == at.of(GUEST)


def _checkpoint(_at: Bed, driver: Vsphere) -> None:
    driver.checkpoint(key(GUEST))


def _one_checkpoint(at: Bed) -> bool:
    return _shots(at) == ["provision-clean"] and _runs(at)


def _drop(want: Resource) -> tuple[Callable[[Bed, Vsphere], None], Callable[[Bed], bool]]:
    return (
        lambda _at, driver: driver.drop(key(want)),
        lambda at: at.witness.read(key(want)) is None,
    )


_SWITCH, _VM = f"switch {SWITCH.name}", f"guest {GUEST.name}"
STEPS: Mapping[str, Step] = {
    "switch": Step(clear, *_put(SWITCH), f"put {_SWITCH}"),
    "mtu": Step(_alone, *_put(replace(SWITCH, mtu=9000)), f"put {_SWITCH}"),
    "uplink": Step(_alone, *_put(replace(SWITCH, uplink="vmnic2")), f"put {_SWITCH}"),
    "guest": Step(_bare, *_put(LIVE), f"put {_VM}"),
    "live": Step(_has(GUEST), *_put(LIVE), f"put {_VM}"),
    "restart": Step(_kept, *_put(OTHER), f"put {_VM}"),
    "stop": Step(_has(GUEST), *_put(replace(GUEST, running=False)), f"put {_VM}"),
    "start": Step(_has(replace(GUEST, running=False)), *_put(GUEST), f"put {_VM}"),
    "checkpoint": Step(_new, _checkpoint, _one_checkpoint, f"checkpoint {_VM}"),
    "checkpoint again": Step(_kept, _checkpoint, _one_checkpoint, f"checkpoint {_VM}"),
    "revert": Step(_kept, lambda _at, driver: driver.revert(key(GUEST)), _runs, f"revert {_VM}"),
    "drop guest": Step(_kept, *_drop(GUEST), f"drop {_VM}"),
    "drop switch": Step(_alone, *_drop(SWITCH), f"drop {_SWITCH}"),
}
