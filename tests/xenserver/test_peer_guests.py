"""The peer's guests: on the bridge of the PIF that was named, and who they were made to be."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from provision import image, seed, state
from provision.access import Access
from provision.errors import WorldError
from provision.host import Host, hang_up
from provision.resources import Guest, Vnic
from provision.verify import inspect
from tests.peers.xapi.lab import XapiLab, xapi_lab
from tests.root import machines

pytestmark = [
    *machines.marks,
    pytest.mark.skipif(
        image.find(state.default().images) is None, reason="needs the guest image: make image"
    ),
]
MIB = 1 << 20
PLAIN = {"other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}


@dataclass
class Bed:
    """A lab, a session to it, and keys to its guests."""

    lab: XapiLab
    session: Any
    access: Access

    @property
    def api(self) -> Any:
        return self.session.xenapi

    def guest(self, name: str, number: int, link: int = 1) -> Guest:
        return Guest(
            name, vcpus=2, memory_mib=512, image="debian12", accel="xen",
            management=Vnic(
                "eth0", "netfront", f"00:16:3e:00:00:{2 * number:02x}",
                f"{self.lab.management[10 + number]}/24",
            ),
            nics=(Vnic(f"eth{link}", "netfront", f"00:16:3e:00:00:{2 * number + 1:02x}",
                       f"198.18.202.{1 + number}/24"),),
        )  # fmt: skip

    def clone(self, guest: Guest) -> str:
        """A VM of the template with the guest's NICs; who it is to be is not told yet."""
        vm: str = self.api.VM.clone(self.lab.peer.vm(guest.image), guest.name)
        self.api.VM.provision(vm)
        for vif in self.api.VM.get_VIFs(vm):
            self.api.VIF.destroy(vif)
        for device, nic in enumerate((guest.management, *guest.nics)):
            self.api.VIF.create({
                "device": str(device), "network": self.lab.peer.networks[int(nic.switch[3:])],
                "VM": vm, "MAC": nic.mac, "MTU": "1500", **PLAIN,
            })  # fmt: skip
        return vm

    def hand_over(self, vm: str, data: bytes) -> None:
        """A disk with these contents, attached."""
        vdi = self.api.VDI.create({
            "SR": self.lab.peer.sr, "virtual_size": str(4 * MIB), "type": "user",
            "sharable": False, "read_only": False, "other_config": {},
        })  # fmt: skip
        assert self.upload(vdi, data) == 200
        self.api.VBD.create({
            "VM": vm, "VDI": vdi, "userdevice": "1", "bootable": False, "mode": "RO",
            "type": "Disk", "empty": False, **PLAIN,
        })  # fmt: skip

    def upload(self, vdi: str, data: bytes, **more: str) -> int:
        context = ssl.create_default_context(cafile=str(self.lab.peer.ca))
        link = http.client.HTTPSConnection(self.lab.address, timeout=30, context=context)
        query = {"session_id": self.session.handle, "vdi": vdi, "format": "raw", **more}
        link.request("PUT", f"/import_raw_vdi?{urlencode(query)}", body=data)
        status = link.getresponse().status
        link.close()
        return status

    def who(self, guest: Guest) -> seed.Identity:
        self.access.trust([guest])
        return seed.identity(guest, self.access.public_key(), self.access.host_key(guest.name))

    def reported(self, vm: str) -> dict[str, str]:
        """What its agent says, once it has said something."""
        token, wait = "", getattr(self.api.event, "from")
        while (metrics := self.api.VM.get_guest_metrics(vm)) == "OpaqueRef:NULL":
            reply = wait([f"vm/{vm}"], token, 30.0)
            assert reply["events"], "its agent says nothing"
            token = reply["token"]
        found: dict[str, str] = self.api.VM_guest_metrics.get_networks(metrics)
        return found


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with xapi_lab() as lab:
        session = lab.peer.connect()
        lab.wires.generator.run("ip", "addr", "add", "198.18.202.1/24", "dev", "lg1")
        for n in (1, 2):
            lab.wires.generator.run("ip", "link", "set", f"lg{n}", "up")
        yield Bed(lab, session, Access(tmp_path_factory.mktemp("keys")))
        session.xenapi.session.logout()


def ping(host: Host, address: str) -> None:
    host.run("ping", "-n", "-c", "1", "-W", "2", address)


def test_a_guest_is_who_its_disk_says_and_goes_back(bed: Bed) -> None:
    want = bed.guest("vm1", 1)
    vm = bed.clone(want)
    bed.hand_over(vm, seed.iso(bed.who(want)))
    bed.api.VM.start(vm, False, False)
    address = want.management.address.split("/")[0]
    assert bed.reported(vm)["0/ip"] == address
    host = bed.access.host(want)
    try:
        assert {nic["driver"] for nic in inspect(host)["nics"]} == {"vif"}
        ping(bed.lab.wires.generator, "198.18.202.2")
        host.run("touch", "/root/before")
        snap = bed.api.VM.snapshot(vm, "clean", [])
        host.run("touch", "/root/after")
        bed.api.VM.revert(snap)
        assert bed.api.VM.get_power_state(vm) == "Halted"
        with pytest.raises(WorldError):
            ping(bed.lab.wires.generator, "198.18.202.2")
        bed.api.VM.start(vm, False, False)
        assert bed.reported(vm)["1/ipv4/0"] == "198.18.202.2"
        hang_up(host)
        assert host.run("ls", "/root").split() == ["before"]
    finally:
        hang_up(host)
    bed.api.VM.hard_shutdown(vm)


def test_who_it_is_may_stand_in_the_xenstore(bed: Bed) -> None:
    want = bed.guest("vm2", 2)
    vm = bed.clone(want)
    document = {"vm-data/provision": seed.document(bed.who(want))}
    bed.api.VM.set_xenstore_data(vm, document)
    bed.api.VM.start(vm, False, False)
    assert "1/ip" in bed.reported(vm)
    ping(bed.lab.wires.generator, "198.18.202.3")
    vif = next(v for v in bed.api.VM.get_VIFs(vm) if bed.api.VIF.get_device(v) == "1")
    bed.api.VIF.move(vif, bed.lab.peer.networks[2])
    with pytest.raises(WorldError):
        ping(bed.lab.wires.generator, "198.18.202.3")
    bed.api.VM.hard_shutdown(vm)


def test_a_guest_on_the_wrong_network_is_not_reached(bed: Bed) -> None:
    want = bed.guest("vm3", 3, link=2)
    vm = bed.clone(want)
    bed.hand_over(vm, seed.iso(bed.who(want)))
    bed.api.VM.start(vm, False, False)
    bed.reported(vm)
    with pytest.raises(WorldError):
        ping(bed.lab.wires.generator, "198.18.202.4")
    bed.api.VM.hard_shutdown(vm)


def test_without_the_platform_device_its_nics_are_emulated(bed: Bed) -> None:
    want = bed.guest("vm4", 4)
    vm = bed.clone(want)
    bed.hand_over(vm, seed.iso(bed.who(want)))
    bed.api.VM.add_to_platform(vm, "nic_type", "e1000")
    bed.api.VM.add_to_xenstore_data(vm, "vm-data/disable_pf", "1")
    bed.api.VM.start(vm, False, False)
    for thread in bed.lab.peer.world.machines.threads:  # type: ignore[attr-defined]
        thread.join(60)
    host = bed.access.host(want)
    try:
        assert {nic["driver"] for nic in inspect(host)["nics"]} == {"e1000"}
    finally:
        hang_up(host)
    assert bed.api.VM.get_guest_metrics(vm) == "OpaqueRef:NULL"  # it has no agent
    bed.api.VM.hard_shutdown(vm)


def test_an_upload_is_refused_where_a_host_refuses_it(bed: Bed, tmp_path: Path) -> None:
    vdi = bed.api.VDI.create({
        "SR": bed.lab.peer.sr, "virtual_size": str(2 * MIB), "type": "user", "sharable": False,
        "read_only": False, "other_config": {},
    })  # fmt: skip
    assert bed.upload(vdi, b"x" * (2 * MIB + 1)) == 500
    assert bed.upload(vdi, b"x", session_id="OpaqueRef:nobody") == 401
    assert bed.upload("OpaqueRef:gone", b"x") == 500
    assert bed.upload(vdi, b"x", format="qcow2") == 404
    for size, status in ((1, "success"), (2 * MIB + 1, "failure")):
        task = bed.api.task.create("upload", "")
        bed.upload(vdi, b"x" * size, task_id=task)
        assert bed.api.task.get_status(task) == status
        bed.api.task.destroy(task)
    bed.api.VDI.destroy(vdi)
