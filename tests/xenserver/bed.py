"""What tests of the peer, and of the driver on it, ask of it by the bare client package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from XenAPI import Failure

from tests.peers.xapi import Peer, xapi
from tests.peers.xapi.xen import Domain

MIB = 1 << 20
NULL = "OpaqueRef:NULL"
PLAIN = {"other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}


@dataclass
class Client:
    """A session to a peer, and short ways to ask it for things."""

    peer: Peer
    session: Any

    @property
    def api(self) -> Any:
        return self.session.xenapi

    def clone(self, template: str = "debian12", name: str = "vm1") -> str:
        """A VM of the template, without its VIFs."""
        vm: str = self.api.VM.clone(self.peer.vm(template), name)
        self.api.VM.provision(vm)
        for vif in self.api.VM.get_VIFs(vm):
            self.api.VIF.destroy(vif)
        return vm

    def vif(self, vm: str, network: int = 1, device: str = "0", mac: str = "") -> str:
        found: str = self.api.VIF.create({
            "device": device, "network": self.peer.networks[network], "VM": vm, "MAC": mac,
            "MTU": "1500", **PLAIN,
        })  # fmt: skip
        return found

    def vdi(self, size: int = 8 * MIB, **more: Any) -> str:
        found: str = self.api.VDI.create({
            "SR": self.peer.sr, "virtual_size": str(size), "type": "user", "sharable": False,
            "read_only": False, "other_config": {}, **more,
        })  # fmt: skip
        return found

    def vbd(self, vm: str, vdi: str, **more: Any) -> str:
        found: str = self.api.VBD.create({
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False, "mode": "RW",
            "type": "Disk", "empty": False, **PLAIN, **more,
        })  # fmt: skip
        return found

    def disks(self, vm: str) -> list[str]:
        vbds = (self.api.VBD.get_record(one) for one in self.api.VM.get_VBDs(vm))
        return [vbd["VDI"] for vbd in vbds if vbd["type"] == "Disk"]

    def start(self, vm: str, *, paused: bool = False) -> None:
        self.api.VM.start(vm, paused, False)

    def domain(self, vm: str) -> Domain:
        """What Xen has of it."""
        xen = self.peer.world.xens[self.api.VM.get_resident_on(vm)]
        return xen.domains[int(self.api.VM.get_domid(vm))]

    def remove(self, vm: str) -> None:
        """The VM and its snapshots, and the disks of all."""
        if self.api.VM.get_power_state(vm) != "Halted":
            self.api.VM.hard_shutdown(vm)
        for one in (*self.api.VM.get_snapshots(vm), vm):
            disks = self.disks(one)
            self.api.VM.destroy(one)
            for disk in disks:
                self.api.VDI.destroy(disk)

    def wait(self, kind: str, token: str = "") -> dict[str, Any]:
        """The next events of a class."""
        found: dict[str, Any] = getattr(self.api.event, "from")([kind], token, 20.0)
        return found


@contextmanager
def client(**more: Any) -> Iterator[Client]:
    """A peer and a session to it; the pool is as before at the end, and nobody is logged in."""
    with xapi(**more) as peer:
        found = Client(peer, peer.connect())
        yield found
        found.api.session.logout()
        assert not peer.sessions()


def refused(call: Any, *args: Any) -> list[str]:
    """What the call is answered, which must be an error."""
    with pytest.raises(Failure) as e:
        call(*args)
    return list(e.value.details)
