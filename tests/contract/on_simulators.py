"""Peers that speak a hypervisor's protocol: vSphere, Hyper-V, XenServer, VirtualBox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from provision.driver import Login, Target, Tls
from provision.resources import Guest, Switch, Uplink, Vnic
from provision.testbed import tag
from tests.contract.peer import TESTBED, Peer, variants, who


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
