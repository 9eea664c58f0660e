"""Guests that answer: what vSphere's peer powers on, QEMU boots, wired as the peer's host is.

A guest's identity comes from its VM's guestinfo alone, its NICs from its VM's configuration, and
its traffic over the physical NIC that its vSwitch names. Where any of it is wrong, the guest boots
and nobody reaches it, as on a real host; ``EsxLab.complaints`` has what was wrong.

A VM's disk counts for no more than that there is one: each guest boots our own image, by a kernel
that QEMU loads, from a virtio disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from provision import image, state
from tests.peers import oracle
from tests.peers.esx_guest import FAULTS, Desk, Guest
from tests.peers.scratch import scratch
from tests.peers.vcsim import Event, vcsim
from tests.peers.wires import subnets, wires

MANAGEMENT = "VM Network"
END_S = 30


@dataclass(frozen=True, kw_only=True)
class EsxLab(Desk):
    """An ESXi host, or a vCenter with one host, whose guests boot.

    ``wires.controller`` is this machine's address in ``management``, the subnet of the port group
    "VM Network". ``history`` has all events, oldest first.
    """

    management: IPv4Network
    history: list[Event] = field(default_factory=list)

    def template(self, name: str = "debian12", *, mark: bool = False) -> Any:
        """Make a VM to clone from, with a disk and the snapshot "base"; ``mark``: as template."""
        vm = oracle.create(self.peer.connect(), name, with_disk=True)
        oracle.done(vm.CreateSnapshot_Task("base", None, False, False))
        if mark:
            vm.MarkAsTemplate()
        return vm

    def console(self, vm: Any) -> str:
        """What the VM's guest wrote to its serial port."""
        return (self.folder / str(vm._moId) / "console").read_text(errors="replace")


@contextmanager
def esx_lab(
    model: str = "VPX",
    *,
    pnics: int = 3,
    management: str = "",
    between: str = "",
    **more: Any,
) -> Iterator[EsxLab]:
    """Start one; ``more`` as in ``vcsim``. Needs root. Nothing that runs outlives the process.

    vmnic0 leads here, and vmnicN to lgN of the namespace ``wires.generator``, whose own NIC "mgmt"
    has the second address of ``between``. Subnets that are not given are free ones.
    """
    found = image.find(state.default().images)
    assert found, "the guest image is not built: make image"
    with ExitStack() as stack:
        free = stack.enter_context(subnets())
        nets = IPv4Network(management or free[0]), IPv4Network(between or free[1])
        folder = stack.enter_context(scratch("pvx-esx-", Path("/var/tmp")))
        laid = stack.enter_context(wires(pnics, *nets))
        peer = stack.enter_context(vcsim(model, pnics=pnics, agent=True, **more))
        lab = EsxLab(peer=peer, wires=laid, management=nets[0], image=found, folder=folder)
        stack.callback(_Hypervisor(lab).end)
        yield lab


class _Hypervisor:
    """Hands each VM's events to that VM's own thread, in order."""

    def __init__(self, lab: EsxLab) -> None:
        self._lab = lab
        self._guests: dict[str, Guest] = {}
        self._thread = threading.Thread(target=self._run, name="esx", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (event := self._lab.peer.events.get()) is not None:
            self._lab.history.append(event)
            if event["event"] == "network":
                self._network(event)
            elif "number" in event:
                vm = event["vm"]
                if vm not in self._guests:
                    self._guests[vm] = Guest(self._lab, vm, len(self._guests))
                self._guests[vm].events.put(event)

    def _network(self, event: Event) -> None:
        try:
            self._lab.wires.sync(event["switches"])
        except FAULTS as e:
            self._lab.complaints.append(f"network: {e}")
        self._lab.peer.answer(event["number"], "")

    def end(self) -> None:
        """Kill all guests, and wait for their end."""
        self._lab.peer.events.put(None)
        self._thread.join(END_S)
        for guest in self._guests.values():
            guest.events.put(None)
        for guest in self._guests.values():
            guest.thread.join(END_S)
