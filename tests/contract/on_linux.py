"""Peers that are real, or libvirt's own: KVM, Xen, the bare host, containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from provision.access import Access
from provision.driver import Target
from provision.host import Host
from provision.image import Image, find
from provision.resources import Guest, Resource, Uplink, Vnic
from provision.seed import Identity, identity
from provision.state import default
from tests.contract.peer import TESTBED, Peer, cabled, resources, variants, who
from tests.root import machines


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
