"""What each driver is held against: a peer has a driver, and ways to act behind its back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from drivers.fake import Fake
from provision.access import Access
from provision.driver import Driver, Login, Target, Tls
from provision.host import Host
from provision.image import Image, find
from provision.resources import Guest, Resource, Switch, Uplink, Vnic, key
from provision.seed import Identity, identity
from provision.state import default
from provision.testbed import tag
from tests.root import machines

TESTBED = "contract"


@dataclass(frozen=True)
class Peer:
    """A running peer. ``switches`` has what the guest needs, the data switch last; () = no switch.

    ``uplink`` is None where uplinks have no state of their own; ``other_mtu`` is one that it takes.
    ``second`` is what another NIC of the guest stands on, by default the first of the switches.
    """

    driver: Driver
    uplink: Uplink | None
    switches: tuple[Switch, ...]
    guest: Guest
    other_guests: tuple[Guest, ...]
    stop: Callable[[Guest], None]
    foreign: Callable[[Resource], AbstractContextManager[Callable[[], bool]]]
    other_mtu: int = 1400
    second: str = ""


@dataclass(frozen=True)
class PeerType:
    """How a peer is started; ``marks`` are pytest's."""

    name: str
    start: Callable[[Path], AbstractContextManager[Peer]]
    marks: tuple[pytest.MarkDecorator, ...] = ()


def resources(uplink: str, **guest: object) -> tuple[Uplink, tuple[Switch, ...], Guest]:
    """An uplink, the two switches and a guest of the least size; ``guest`` overrides its fields."""
    switches = (Switch("pvcontractm"), Switch("pvcontractb", uplink=uplink))
    small = Guest(
        "vm1", vcpus=1, memory_mib=512, image="", accel="none",
        management=Vnic("pvcontractm", "virtio", "52:54:00:aa:00:01", "198.19.250.10/24"),
        nics=(Vnic("pvcontractb", "virtio", "52:54:00:aa:00:02", "198.18.250.2/24"),),
    )  # fmt: skip
    return Uplink(uplink), switches, replace(small, **guest)  # type: ignore[arg-type]


def variants(guest: Guest) -> tuple[Guest, ...]:
    """The guest with one thing changed, live or by a restart."""
    nic = guest.nics[0]
    return (
        replace(guest, weight=512),
        replace(guest, cap_percent=50),
        replace(guest, pins=("0",)),
        replace(guest, vcpus=2),
        replace(guest, nics=(replace(nic, model="e1000"),)),
    )


@contextmanager
def fake(folder: Path) -> Iterator[Peer]:
    driver = Fake(Target(TESTBED, folder))
    uplink, switches, guest = resources("eth1")

    def stop(g: Guest) -> None:
        driver.world[driver.at(key(g))] = replace(g, running=False)

    @contextmanager
    def foreign(thing: Resource) -> Iterator[Callable[[], bool]]:
        k = driver.at(key(thing))
        driver.world[k] = thing
        driver.marks[k] = "somebody"
        yield lambda: driver.world[k] == thing and driver.marks[k] == "somebody"
        del driver.world[k], driver.marks[k]

    yield Peer(driver, uplink, switches, guest, variants(guest), stop, foreign)


def who(guest: Guest) -> Identity:
    """An identity that nobody logs in with."""
    pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    return identity(guest, "ssh-ed25519 AAAA", pem)


@contextmanager
def kvm_simulated(folder: Path) -> Iterator[Peer]:
    """The test driver of libvirt itself, with the bridges and disks of a namespace for a host."""
    disk = folder / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
    image = Image("d" * 64, folder, disk, None, None, "", {"format": "qcow2"})
    target = Target(TESTBED, folder, "test:///default", image, who)
    with machines.machine("pvcontract") as host, cabled(host), kvm(target, host) as peer:
        yield peer


@contextmanager
def kvm_real(folder: Path) -> Iterator[Peer]:
    """The system's libvirtd on this machine, with guests that run."""
    image = find(default().images)
    if image is None:
        pytest.skip("needs the guest image: provision image build")
    # where QEMU's user may pass: pytest's own folders are root's alone
    with TemporaryDirectory(dir="/var/tmp", prefix="pvcontract-") as own, cabled(Host()):
        Path(own).chmod(0o755)
        target = Target(TESTBED, Path(own), "qemu:///system", image, who, start="boot")
        with kvm(target, Host()) as peer:
            yield peer


@contextmanager
def cabled(host: Host, *names: str) -> Iterator[None]:
    """Uplinks on the host: each one end of a veth pair."""
    names = names or ("pvcontractu",)
    for name in names:
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}f")
    try:
        yield
    finally:
        for name in names:
            host.run("ip", "link", "del", name, check=False)


@contextmanager
def kvm(target: Target, host: Host) -> Iterator[Peer]:
    libvirt: Any = pytest.importorskip("libvirt")
    from drivers.kvm.driver import Kvm

    driver = Kvm(target, host)
    conn = libvirt.open(target.uri)
    digest = target.image.digest if target.image is not None else ""
    uplink, switches, guest = resources("pvcontractu", image=digest, accel=driver.facts.accel)

    def stop(g: Guest) -> None:
        conn.lookupByName(f"{TESTBED}-{g.name}").destroy()

    @contextmanager
    def foreign(thing: Resource) -> Iterator[Callable[[], bool]]:
        if isinstance(thing, Guest):
            kind = "test" if driver.facts.simulated else "qemu"
            domain = conn.defineXML(
                f"<domain type='{kind}'><name>{TESTBED}-{thing.name}</name><memory>65536</memory>"
                "<os><type>hvm</type></os></domain>"
            )
            before = domain.XMLDesc()
            yield lambda: bool(conn.lookupByName(domain.name()).XMLDesc() == before)
            domain.undefine()
        else:
            host.run("ip", "link", "add", thing.name, "type", "bridge")
            before = host.run("ip", "-json", "link", "show", thing.name)
            yield lambda: host.run("ip", "-json", "link", "show", thing.name) == before
            host.run("ip", "link", "del", thing.name)

    yield Peer(driver, uplink, switches, guest, variants(guest), stop, foreign)
    conn.close()
    driver.close()


@contextmanager
def xen(_folder: Path) -> Iterator[Peer]:
    """A real Xen under emulation, which the live tests share."""
    libvirt: Any = pytest.importorskip("libvirt")
    from drivers.xen.driver import Xen
    from tests.peers.xen.lab import shared

    lab = shared()
    host, state = lab.xen.host, Path("/var/lib/provision")
    lab.images_at(state)
    # its ssh is told of the host's key; libvirt's own would ask ~/.ssh
    uri = f"{lab.uri}?keyfile={lab.xen.key}&no_verify=1"
    driver = Xen(Target(TESTBED, state / "testbeds" / TESTBED, uri, lab.image, who), host)
    conn = libvirt.open(uri)
    uplink, switches, guest = resources("eth1", image=lab.image.digest, accel="pv", memory_mib=192)
    management = replace(guest.management, model="netfront")
    nic = replace(guest.nics[0], model="netfront")
    guest = replace(guest, management=management, nics=(nic,))
    others = (
        *(v for v in variants(guest) if v.nics == guest.nics),
        replace(guest, nics=(replace(nic, rate_mbit=100),)),
        replace(guest, nics=()),
    )

    def stop(g: Guest) -> None:
        conn.lookupByName(f"{TESTBED}-{g.name}").destroy()

    @contextmanager
    def foreign(thing: Resource) -> Iterator[Callable[[], bool]]:
        if isinstance(thing, Guest):
            domain = conn.defineXML(
                f"<domain type='xen'><name>{TESTBED}-{thing.name}</name><memory>65536</memory>"
                "<os><type machine='xenpv'>linux</type><kernel>/boot/none</kernel></os></domain>"
            )
            before = domain.XMLDesc()
            yield lambda: bool(conn.lookupByName(domain.name()).XMLDesc() == before)
            domain.undefine()
        else:
            host.run("ip", "link", "add", thing.name, "type", "bridge")
            before = host.run("ip", "-json", "link", "show", thing.name)
            yield lambda: host.run("ip", "-json", "link", "show", thing.name) == before
            host.run("ip", "link", "del", thing.name)

    yield Peer(driver, uplink, switches, guest, others, stop, foreign)
    conn.close()
    driver.close()


@contextmanager
def native(folder: Path) -> Iterator[Peer]:
    """The machine itself, with two cables for NICs."""
    from drivers.libvirt.marks import tap
    from drivers.native.driver import Native

    with cabled(Host(), "pvcontractu", "pvcontractv"):
        for name in ("pvcontractu", "pvcontractv"):
            Host().run("ip", "link", "set", name, "up")
        driver = Native(Target(TESTBED, folder, identity=who))
        uplink = Uplink("pvcontractu", up=True)
        nic = Vnic("pvcontractu", "uplink", "", "198.18.250.2/24")
        guest = Guest(
            "vm1", vcpus=1, memory_mib=512, image="", accel="host",
            management=Vnic("host", "uplink", "", "198.19.250.10/24"), nics=(nic,),
        )  # fmt: skip
        group = Path("/sys/fs/cgroup/cpu") / f"provision.{TESTBED}.vm1" / "cgroup.procs"

        def stop(g: Guest) -> None:
            for pid in group.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            end = time.monotonic() + 10
            while group.read_text().split() and time.monotonic() < end:
                time.sleep(0.01)  # until the kernel has reaped them

        @contextmanager
        def foreign(thing: Resource) -> Iterator[Callable[[], bool]]:
            name = tap(TESTBED, "vm1", 0)
            Host().run("ip", "link", "add", name, "type", "bridge")
            before = Host().run("ip", "-json", "link", "show", name)
            yield lambda: Host().run("ip", "-json", "link", "show", name) == before
            Host().run("ip", "link", "del", name)

        other = replace(nic, address="198.18.251.3/24")
        others = (*variants(guest)[:-1], replace(guest, memory_mib=256),
                  replace(guest, nics=(other,)))  # fmt: skip
        yield Peer(driver, uplink, (), guest, others, stop, foreign, second="pvcontractv")
        driver.close()


@contextmanager
def container(_folder: Path) -> Iterator[Peer]:
    """Containers on the machine itself."""
    from drivers.container import oci
    from drivers.container.driver import Container

    image = find(default().images)
    if image is None:
        pytest.skip("needs the guest image: provision image build")
    with TemporaryDirectory(dir="/var/tmp", prefix="pvcontract-") as own, cabled(Host()):
        access = Access(Path(own) / "keys")  # a container lives as long as its sshd

        def somebody(g: Guest) -> Identity:
            return identity(g, access.public_key(), access.host_key(g.name))

        driver = Container(Target(TESTBED, Path(own), image=image, identity=somebody))
        uplink, switches, guest = resources(
            "pvcontractu", image=image.digest, accel="container", memory_mib=256
        )
        management = replace(guest.management, model="veth")
        nic = replace(guest.nics[0], model="veth")
        guest = replace(guest, management=management, nics=(nic,))
        others = (*variants(guest)[:-1], replace(guest, memory_mib=512),
                  replace(guest, nics=(replace(nic, rate_mbit=100),)),
                  replace(guest, running=False))  # fmt: skip

        def stop(g: Guest) -> None:
            Host().run("runc", "kill", f"{TESTBED}-{g.name}", "KILL")
            end = time.monotonic() + 10
            while driver.guests.runtime.look()[f"{TESTBED}-{g.name}"].status == "running":
                assert time.monotonic() < end

        @contextmanager
        def foreign(thing: Resource) -> Iterator[Callable[[], bool]]:
            if not isinstance(thing, Guest):
                Host().run("ip", "link", "add", thing.name, "type", "bridge")
                before = Host().run("ip", "-json", "link", "show", thing.name)
                yield lambda: Host().run("ip", "-json", "link", "show", thing.name) == before
                Host().run("ip", "link", "del", thing.name)
                return
            with TemporaryDirectory(dir="/var/tmp") as bundle:
                name = f"{TESTBED}-{thing.name}"
                root = Path(bundle) / "rootfs"
                root.mkdir()
                Host().run("mount", "--bind", str(image.folder / "tree"), str(root))
                text = oci.config("somebody", thing.name, "", name, had=driver.guests.machine
                                  .capabilities)  # fmt: skip
                config = json.loads(text)
                config["process"]["args"] = ["/bin/sleep", "1000"]
                config["linux"]["namespaces"][-1] = {"type": "network"}
                (Path(bundle) / "config.json").write_text(json.dumps(config))
                driver.guests.runtime.start(thing.name, Path(bundle))
                before = Host().run("runc", "state", name)
                yield lambda: Host().run("runc", "state", name) == before
                Host().run("runc", "delete", "--force", name)
                Host().run("umount", str(root))

        yield Peer(driver, uplink, switches, guest, others, stop, foreign)
        driver.close()


@contextmanager
def vcenter(folder: Path) -> Iterator[Peer]:
    """A host of a vCenter: guests are clones."""
    with vsphere(folder, "VPX", "DC0_H0_VM0") as peer:
        yield peer


@contextmanager
def esxi(folder: Path) -> Iterator[Peer]:
    """An ESXi host by itself: guests are put together on a template's disk."""
    with vsphere(folder, "ESX", "ha-host_VM0") as peer:
        yield peer


@contextmanager
def vsphere(folder: Path, model: str, template: str) -> Iterator[Peer]:
    """Govmomi's simulator, with the published rules that it lacks."""
    pytest.importorskip("pyVmomi")
    from drivers.vsphere.driver import Vsphere
    from tests.peers import oracle, vcsim
    from tests.vsphere import world

    with vcsim.vcsim(model, pnics=4, vms=1) as server:
        si = server.connect()
        oracle.done(world.named(si, template).CreateSnapshot_Task("base", "", False, False))
        login = Login(server.user, lambda: server.password)
        short = tag(TESTBED)
        driver = Vsphere(Target(
            TESTBED, folder, server.uri, identity=who, tag=short, login=login,
            tls=Tls(ca=server.ca),
        ))  # fmt: skip
        names = (f"pv{short}b1", f"pv{short}b2")
        switches = tuple(Switch(name, "vswitch", f"vmnic{n}") for n, name in enumerate(names, 1))
        guest = Guest(
            "vm1", vcpus=1, memory_mib=512, image=template, accel=driver.facts.accel,
            management=Vnic("VM Network", "vmxnet3", "00:50:56:00:00:01", "198.19.250.10/24"),
            nics=(Vnic(names[-1], "vmxnet3", "00:50:56:00:00:02", "198.18.250.2/24"),),
        )  # fmt: skip
        whole = replace(guest, reserve_percent=100, memory_reserve_mib=512)
        rated = replace(guest.nics[0], rate_mbit=100)
        more = (
            whole,
            replace(whole, latency="high"),
            replace(guest, nics=(rated,)),
            replace(guest, running=False),
        )

        def stop(g: Guest) -> None:
            oracle.done(world.named(si, f"{TESTBED}-{g.name}").PowerOffVM_Task())

        yield Peer(
            driver, None, switches, guest, (*variants(guest), *more), stop,
            lambda thing: world.foreign(si, TESTBED, thing),
        )  # fmt: skip
        driver.close()


@contextmanager
def hyperv_synthetic(folder: Path) -> Iterator[Peer]:
    """Generation 2, over HTTP with sealed messages."""
    with hyperv(folder, "synthetic", "legacy", tls=False) as peer:
        yield peer


@contextmanager
def hyperv_legacy(folder: Path) -> Iterator[Peer]:
    """Generation 1, over HTTPS."""
    with hyperv(folder, "legacy", "synthetic", tls=True) as peer:
        yield peer


@contextmanager
def hyperv(folder: Path, model: str, other: str, *, tls: bool) -> Iterator[Peer]:
    """A host behind WinRM that holds to the published tables and rules."""
    pytest.importorskip("winrm")
    from drivers.hyperv.driver import Hyperv
    from tests.hyperv.bed import foreign
    from tests.peers.hyperv import vms
    from tests.peers.hyperv.peer import PARENT, hyperv_host

    with hyperv_host(nics=4, tls=tls, cpu_groups=True) as host:
        lan = host.foreign_switch("lan")
        short = tag(TESTBED)
        driver = Hyperv(Target(
            TESTBED, folder, host.uri, identity=who, tag=short, tls=Tls(ca=host.ca),
            login=Login(host.user, lambda: host.password),
        ))  # fmt: skip
        names = (f"pv{short}b1", f"pv{short}b2")
        switches = tuple(
            Switch(name, "vswitch", f"Ethernet {n}") for n, name in enumerate(names, 2)
        )
        guest = Guest(
            "vm1", vcpus=1, memory_mib=512, image=PARENT, accel=driver.facts.accel,
            management=Vnic(lan.name, "synthetic", "00:15:5d:00:00:01", "198.19.250.10/24"),
            nics=(Vnic(names[-1], model, "00:15:5d:00:00:02", "198.18.250.2/24"),),
        )  # fmt: skip
        nic = guest.nics[0]
        synthetic = replace(nic, model="synthetic")
        more = (
            replace(guest, nics=(replace(nic, model=other),)),
            replace(guest, nics=(replace(synthetic, rate_mbit=100),)),
            replace(guest, reserve_percent=20, cap_percent=50),
            replace(guest, memory_mib=1024),
            replace(guest, running=False),
        )

        def stop(g: Guest) -> None:
            with host.world.lock:
                vms.turn_off(host.world, host.vm(f"{TESTBED}-{g.name}"))

        yield Peer(
            driver, Uplink("Ethernet 4", up=True, ipv6=True, lro=True), switches, guest,
            (*variants(guest)[:-1], *more), stop, lambda thing: foreign(host, TESTBED, thing),
            other_mtu=9000,
        )  # fmt: skip
        driver.close()


@contextmanager
def xenserver_hvm(folder: Path) -> Iterator[Peer]:
    """A pool whose slave is named: guests are HVM, and their NICs may be emulated."""
    more = {"nics": "rtl8139"}
    with xenserver(folder, "debian12", more, addresses=("127.0.0.1", "127.0.0.2")) as peer:
        yield peer


@contextmanager
def xenserver_pv(folder: Path) -> Iterator[Peer]:
    """A host by itself, with PV guests."""
    with xenserver(folder, "debian12-pv", {}) as peer:
        yield peer


@contextmanager
def xenserver(
    folder: Path, template: str, more: Mapping[str, str], addresses: Sequence[str] = ("127.0.0.1",)
) -> Iterator[Peer]:
    """The project's own simulator, which holds to the published data model."""
    pytest.importorskip("XenAPI")
    from drivers.xenserver.driver import XenServer
    from tests.peers.xapi import xapi
    from tests.xenserver import world

    with xapi(addresses) as server:
        short = tag(TESTBED)
        driver = XenServer(Target(
            TESTBED, folder, server.uris[-1], identity=who, tag=short, tls=Tls(ca=server.ca),
            login=Login(server.user, lambda: server.password), host="xs1",
        ))  # fmt: skip
        names = (f"pv{short}b1", f"pv{short}b2")
        switches = tuple(Switch(name, "ovs", f"eth{n}") for n, name in enumerate(names, 1))
        guest = Guest(
            "vm1", vcpus=1, memory_mib=512, image=template, accel=driver.facts.accel,
            management=Vnic("xenbr0", "netfront", "00:16:3e:00:00:01", "198.19.250.10/24"),
            nics=(Vnic(names[-1], "netfront", "00:16:3e:00:00:02", "198.18.250.2/24"),),
        )  # fmt: skip
        others = [*variants(guest)[:-1], replace(guest, running=False)]
        others.append(replace(guest, nics=(replace(guest.nics[0], rate_mbit=100),)))
        if model := more.get("nics"):
            everywhere = [replace(v, model=model) for v in (guest.management, *guest.nics)]
            others.append(replace(guest, management=everywhere[0], nics=(everywhere[1],)))
        yield Peer(
            driver, None, switches, guest, tuple(others),
            lambda g: server.stop(server.vm(f"{TESTBED}-{g.name}")),
            lambda thing: world.foreign(server, TESTBED, thing),
        )  # fmt: skip
        driver.close()
        assert not server.sessions()
        assert not server.tasks()


@contextmanager
def virtualbox(folder: Path) -> Iterator[Peer]:
    """VBoxManage as its manual has it, on a namespace for a host."""
    from tests.virtualbox.bed import contract

    with contract(folder) as peer:
        yield peer


live = (
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root and a libvirtd"),
)
#: one line a driver and peer
PEERS = (
    PeerType("fake", fake),
    PeerType("kvm-simulated", kvm_simulated, tuple(machines.marks)),
    PeerType("kvm", kvm_real, live),
    PeerType("container", container, live),
    PeerType("native", native, live),
    PeerType("xen", xen, (*live, pytest.mark.xen)),
    PeerType("vsphere-vcenter", vcenter),
    PeerType("vsphere-esxi", esxi),
    PeerType("xenserver-hvm", xenserver_hvm),
    PeerType("xenserver-pv", xenserver_pv),
    PeerType("virtualbox", virtualbox, tuple(machines.marks)),
    PeerType("hyperv-synthetic", hyperv_synthetic),
    PeerType("hyperv-legacy", hyperv_legacy),
)
