"""What tests of the VirtualBox driver need: a host with a base VM, a driver, things of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from drivers.virtualbox.driver import Virtualbox
from provision.driver import Target
from provision.host import Host
from provision.resources import Guest, Resource, Uplink, Vnic
from tests.contract.peer import TESTBED as CONTRACT
from tests.contract.peer import Peer, cabled, who
from tests.peers.vbox.life import off
from tests.peers.vbox.service import Service, served
from tests.peers.vbox.world import Machine, World
from tests.peers.wires import machine
from tests.root import machines

TESTBED, BASE, MANAGEMENT = "bed", "debian12", "vboxnet0"


def world_of(root: Path, host: Host) -> World:
    """A host's VirtualBox, with a base VM in its folder of machines."""
    root.mkdir(parents=True)

    def interfaces() -> list[str]:
        return [link["ifname"] for link in host.json("ip", "-j", "link")]

    world = World(root, interfaces, [MANAGEMENT])
    world.base(BASE)
    return world


@contextmanager
def beside(host: Host, world: World) -> Iterator[None]:
    """VirtualBox's own host-only networks, on the host as long as this lasts."""
    for name in world.hostonly:
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}x")
    yield


def host_of(host: Host, service: Service) -> Host:
    """The host with VBoxManage in its PATH."""
    path = f"{service.programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return Host(host.name, (*host.prefix, "env", f"PATH={path}"))


@dataclass(frozen=True)
class Bed:
    """A host with a NIC eth1 and eth2; ``driver`` makes one more driver for the testbed."""

    service: Service
    host: Host
    folder: Path

    @property
    def world(self) -> World:
        return self.service.world

    def driver(self, **more: Any) -> Virtualbox:
        return Virtualbox(replace(Target(TESTBED, self.folder, identity=who), **more), self.host)


@contextmanager
def bed(folder: Path) -> Iterator[Bed]:
    """A host that nobody else is on."""
    with ExitStack() as stack:
        bare = stack.enter_context(machine("vb7"))
        for nic in ("eth1", "eth2"):
            bare.run("ip", "link", "add", nic, "type", "veth", "peer", "name", f"{nic}x")
        world = world_of(folder / "VirtualBox VMs", bare)
        stack.enter_context(beside(bare, world))
        service = stack.enter_context(served(world, folder))
        yield Bed(service, host_of(bare, service), folder)


def guest(number: int = 1, **more: Any) -> Guest:
    """A guest whose NIC is bridged to ethN."""
    first, second = (f"08:00:27:00:{number:02x}:0{n}" for n in (0, 1))
    return replace(
        Guest(
            f"vm{number}", vcpus=1, memory_mib=512, image=BASE, accel="virtualbox",
            management=Vnic(MANAGEMENT, "virtio", first, f"198.19.250.{number + 9}/24"),
            nics=(Vnic(f"eth{number}", "virtio", second, f"198.18.{number}.2/24"),),
        ), **more
    )  # fmt: skip


@contextmanager
def foreign(world: World, testbed: str, thing: Resource) -> Iterator[Callable[[], bool]]:
    """A VM of that name without our mark, for a while; whether it is as it was."""
    assert isinstance(thing, Guest)
    name = f"{testbed}-{thing.name}"
    one = Machine(name, str(uuid4()), ("/",), world.root / name)
    one.save()
    world.machines.append(one)
    before = world.inventory()
    yield lambda: one in world.machines and world.inventory() == before
    world.machines.remove(one)
    one.settings.unlink()
    one.folder.rmdir()


@contextmanager
def contract(folder: Path) -> Iterator[Peer]:
    """The peer of the contract's tests, in a namespace for a host."""
    with machines.machine("pvvbox") as bare, cabled(bare):
        world = world_of(folder / "VirtualBox VMs", bare)
        with beside(bare, world), served(world, folder) as service:
            driver = Virtualbox(Target(CONTRACT, folder, identity=who), host_of(bare, service))
            nic = replace(guest().nics[0], switch="pvcontractu")
            first = guest(nics=(nic,))
            others = (
                replace(first, cap_percent=50),
                replace(first, vcpus=2, cap_percent=200),
                *(replace(first, nics=(replace(nic, model=m),)) for m in driver.facts.nic_models),
                replace(first, nics=(replace(nic, rate_mbit=100),)),
                replace(first, memory_mib=1024),
                replace(first, running=False),
            )

            def stop(g: Guest) -> None:
                with world.lock:
                    off(world, world.machine(f"{CONTRACT}-{g.name}"))

            yield Peer(
                driver, Uplink("pvcontractu"), (), first, others, stop,
                lambda thing: foreign(world, CONTRACT, thing), second=MANAGEMENT,
            )  # fmt: skip
            driver.close()
            assert not service.complaints
