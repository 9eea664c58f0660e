"""One VM of the vSphere peer, as a guest that runs: QEMU is started, reset, saved as the VM is."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from provision import seed
from provision.errors import ProvisionError
from provision.host import Host
from provision.image import Image
from tests.peers import cloudinit
from tests.peers.qemu import MODELS, Machine, QemuError, Running, running
from tests.peers.vcsim import Event, Vcsim
from tests.peers.wires import Wires

HERE = Host()
FAULTS = (AssertionError, OSError, ProvisionError, QemuError)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What guests have in common. ``complaints`` is why a guest is not as its VM should be."""

    peer: Vcsim
    wires: Wires
    image: Image
    folder: Path
    complaints: list[str] = field(default_factory=list)


class Guest:
    """One VM's guest. All is done by its one thread, which outlives QEMU."""

    def __init__(self, desk: Desk, vm: str, number: int) -> None:
        self._desk = desk
        self._vm = vm
        self._prefix = f"t{number}n"
        self._folder = desk.folder / vm
        self._disk = self._folder / "disk.qcow2"
        self._seed = self._folder / "seed.iso"
        self._now: Running | None = None
        self._taps: Mapping[str, str] = {}
        self._stack = ExitStack()
        self._number = 0
        self._told: str | None = None
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=vm, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while (event := self.events.get()) is not None:
                why = ""
                try:
                    self._handle(event)
                except FAULTS as e:
                    why = f"{event['event']} {self._vm}: {e}"
                    self._desk.complaints.append(why)
                if "number" in event:
                    self._desk.peer.answer(event["number"], why)
        finally:
            self._stop()

    def _handle(self, event: Event) -> None:
        match event["event"]:
            case "powerOn":
                self._start(event)
            case "powerOff" | "gone":
                self._stop()
            case "reset":
                self._reset(event)
            case "rewired":
                self._rewire(event)
            case "snapshot":
                self._state("savevm", "-c", event["snapshot"])
            case "unsnapshot":
                self._state("delvm", "-d", event["snapshot"])
            case "revert":
                self._stop()
                if event["memory"]:
                    self._start(event, event["snapshot"])
                else:
                    self._on_disk("-a", event["snapshot"])
            case "destroy":
                self._stop()
                shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, event: Event, restore: str = "") -> None:
        self._stop()
        if not event["disks"]:
            self._desk.complaints.append(f"{event['name']}: no disk: nothing boots")
            return
        self._make_disk()
        self._write_seed(event)
        self._desk.wires.sync(event["switches"])
        nics = []
        for number, nic in enumerate(event["nics"] or ()):
            tap = f"{self._prefix}{number}"
            group = nic["network"] if nic["connected"] else ""
            self._desk.wires.plug(tap, group, event["switches"])
            nics.append((nic["model"], nic["mac"], tap))
        assert all(model in MODELS for model, _, _ in nics), f"no such NIC here: {nics}"
        self._taps = {mac: tap for _, mac, tap in nics}
        machine = Machine(
            self._folder, self._desk.image, self._disk, self._seed,
            event["cpus"], event["memory_mib"], nics, restore,
        )  # fmt: skip
        now = self._stack.enter_context(running(machine, self._desk.wires.esx))
        self._now, self._number = now, event["number"]
        for method in (self._watch, self._report):
            threading.Thread(target=method, args=(now,), daemon=True).start()
        now.agent.call(self._number)

    def _stop(self) -> None:
        self._now = None
        try:
            self._stack.close()
        finally:
            self._desk.wires.unplug(self._prefix)

    def _watch(self, now: Running) -> None:
        """Hear of resets and of the end, whoever is behind them."""
        while (event := now.qmp.events.get()) is not None:
            if event["event"] == "RESET":
                now.agent.call(self._number)
        if self._now is now:  # not killed: the guest shut itself down, or QEMU died
            self._desk.peer.tools({"vm": self._vm, "number": self._number, "down": True})
            self.events.put({"event": "gone"})

    def _report(self, now: Running) -> None:
        for number, name, addresses in now.agent.reports():
            self._desk.peer.tools(
                {"vm": self._vm, "number": number, "host": name, "nics": addresses}
            )

    def _reset(self, event: Event) -> None:
        assert self._now, "no guest runs"
        self._write_seed(event)
        self._number = event["number"]
        self._now.qmp("system_reset")

    def _rewire(self, event: Event) -> None:
        """Follow the NICs to other port groups; none comes or goes while the guest runs."""
        self._desk.wires.sync(event["switches"])
        nics = {nic["mac"]: nic for nic in event["nics"] or ()}
        assert nics.keys() == self._taps.keys(), "NICs of a running guest are not simulated"
        for mac, tap in self._taps.items():
            group = nics[mac]["network"] if nics[mac]["connected"] else ""
            self._desk.wires.move(tap, group, event["switches"])

    def _state(self, running: str, off: str, name: str) -> None:
        if self._now:
            self._now.qmp.human(f"{running} {name}")
        else:
            self._on_disk(off, name)

    def _on_disk(self, option: str, name: str) -> None:
        self._make_disk()
        HERE.run("qemu-img", "snapshot", option, name, str(self._disk))

    def _make_disk(self) -> None:
        self._folder.mkdir(exist_ok=True)
        if not self._disk.exists():
            below = str(self._desk.image.disk)
            words = ("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, str(self._disk))
            HERE.run("qemu-img", *words)

    def _write_seed(self, event: Event) -> None:
        """Give the guest what its guestinfo says, in place where it runs; or nothing.

        One that has had its userdata keeps what it was told for as long as its metadata, and with
        it the instance's id, is the same: cloud-init does that work once for an instance.
        """
        metadata = event["extra"].get("guestinfo.metadata")
        if "guestinfo.userdata" not in event["extra"] and metadata and metadata == self._told:
            return
        self._told = metadata
        try:
            found = seed.iso(cloudinit.identity(event["extra"]))
        except (ProvisionError, KeyError, TypeError, ValueError) as e:
            self._desk.complaints.append(f"{event['name']}: no identity: {e!r}")
            found = bytes(seed.SYSTEM_AREA)
        size = self._seed.stat().st_size if self._seed.exists() else 0
        with self._seed.open("r+b" if self._now else "wb") as f:
            f.write(found.ljust(size, b"\0")[: size if self._now else None])
