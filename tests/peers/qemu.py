"""One guest in QEMU: its process, QEMU's monitor (QMP), and the agent within the guest."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.host import DIE_WITH_US, Host
from provision.image import Image

START_S = 20
COMMAND_S = 120
#: vSphere's vNIC types and what emulates them
MODELS: Mapping[str, str] = {
    "VirtualE1000": "e1000-82545em",
    "VirtualE1000e": "e1000e",
    "VirtualVmxnet3": "vmxnet3",
}
FIRST_SLOT = 0x10
Message = dict[str, Any]


class QemuError(Exception):
    """QEMU did not start, or refused a command."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is started. ``nics`` are (model, MAC, tap); ``restore`` names a state on the disk."""

    folder: Path
    image: Image
    disk: Path
    seed: Path
    cpus: int
    memory_mib: int
    nics: Sequence[tuple[str, str, str]]
    restore: str = ""

    def argv(self) -> list[str]:
        image = self.image
        words = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off",
            "-smp", str(self.cpus), "-m", str(self.memory_mib),
            "-serial", f"file:{self.folder}/console",
            "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.cmdline,
            "-drive", f"id=disk,if=none,file={self.disk},format=qcow2,cache=unsafe",
            "-device", "virtio-blk-pci,drive=disk,addr=0x4",
            "-drive", f"id=seed,if=none,file={self.seed},format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=seed,addr=0x5",
            "-device", "virtio-rng-pci,addr=0x6", "-device", "virtio-serial-pci,addr=0x7",
            "-chardev", f"socket,id=agent,path={self.folder}/agent",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-chardev", f"socket,id=monitor,path={self.folder}/monitor",
            "-mon", "chardev=monitor,mode=control",
        ]  # fmt: skip
        for number, (model, mac, tap) in enumerate(self.nics):
            words += ["-netdev", f"tap,id=n{number},ifname={tap},script=no,downscript=no"]
            words += ["-device", f"{MODELS[model]},netdev=n{number},mac={mac},romfile=,"
                      f"addr={FIRST_SLOT + number:#x}"]  # fmt: skip
        return [*words, "-loadvm", self.restore] if self.restore else words


class Qmp:
    """QEMU's monitor. ``events`` has what happens by itself; None is QEMU's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.events: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Run a command; raises QemuError where it fails."""
        with self._lock:
            try:
                words = {"execute": command, "arguments": arguments}
                self._connection.sendall(json.dumps(words).encode() + b"\n")
                answer = self._answers.get(timeout=COMMAND_S)
            except (OSError, queue.Empty) as e:
                raise QemuError(f"{command}: no answer") from e
        if answer is None or "error" in answer:
            raise QemuError(f"{command}: {answer and answer['error']['desc']}")
        return answer["return"]

    def human(self, line: str) -> None:
        """Run a command of the monitor for people, whose every word is a complaint."""
        if said := self("human-monitor-command", **{"command-line": line}).strip():
            raise QemuError(f"{line}: {said}")

    def _read(self) -> None:
        with suppress(OSError), self._connection.makefile("r") as lines:
            for line in lines:
                message = json.loads(line)
                if "event" in message:
                    self.events.put(message)
                elif "QMP" not in message:
                    self._answers.put(message)
        self._answers.put(None)
        self.events.put(None)


class GuestAgent:
    """qemu-guest-agent in the guest, here for VMware Tools: it says who the guest is."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._number = 0

    def call(self, number: int) -> None:
        """Ask whether it is there: QEMU keeps the question until the guest listens.

        The byte before it drops what was half said.
        """
        self._number = number
        with suppress(OSError):
            self._send("guest-sync-delimited", b"\xff", arguments={"id": number})

    def reports(self) -> Iterator[tuple[int, str, Mapping[str, list[str]]]]:
        """Once it is there: the call's number, the host name, and IPv4 addresses by MAC.

        A machine's reset may be several, each with a call: there may be as many reports.
        """
        name = ""
        with suppress(OSError, ValueError):
            while line := self._lines.readline():
                # what a \xff provokes is an error without a return
                answer = json.loads(line.rpartition(b"\xff")[2] or b"{}")
                if answer.get("return") == self._number:
                    self._send("guest-get-host-name", id="name")
                    self._send("guest-network-get-interfaces", id="nics")
                elif "return" in answer and answer.get("id") == "name":
                    name = answer["return"]["host-name"]
                elif "return" in answer and answer.get("id") == "nics":
                    yield self._number, name, _addresses(answer["return"])

    def _send(self, command: str, before: bytes = b"", **more: Any) -> None:
        words = json.dumps({"execute": command, **more})
        self._connection.sendall(before + words.encode() + b"\n")


def _addresses(interfaces: Sequence[Message]) -> dict[str, list[str]]:
    return {
        nic["hardware-address"]: [
            found["ip-address"]
            for found in nic.get("ip-addresses", ())
            if found["ip-address-type"] == "ipv4"
        ]
        for nic in interfaces
        if "hardware-address" in nic
    }


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    qmp: Qmp
    agent: GuestAgent


@contextmanager
def running(machine: Machine, host: Host) -> Iterator[Running]:
    """Start QEMU on the host, and kill it; the thread that starts it must outlive it.

    Raises QemuError where it does not start.
    """
    (machine.folder / "console").touch()
    with _listening(machine.folder / "monitor") as monitor, \
            _listening(machine.folder / "agent") as agent, \
            (machine.folder / "stderr").open("wb") as err, \
            subprocess.Popen(
                [*DIE_WITH_US, *host.argv(*machine.argv())],
                stdin=subprocess.DEVNULL, stdout=err, stderr=err, process_group=0,
            ) as process:  # fmt: skip
        try:
            try:
                to_agent, _ = agent.accept()
                to_monitor, _ = monitor.accept()
            except TimeoutError as e:
                said = (machine.folder / "stderr").read_text(errors="replace")
                raise QemuError(f"QEMU did not start: {said}") from e
            with to_agent, to_monitor:
                yield Running(process, Qmp(to_monitor), GuestAgent(to_agent))
        finally:
            process.kill()


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(START_S)
        yield server
