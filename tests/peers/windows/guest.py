"""A Windows guest as a namespace: its firewall shut, until cloudbase-init ran what its seed says.

Its sshd is Linux's, with Windows' own files; what ssh starts there is a relay, since PowerShell
runs here. Its paths are folders: ``C:`` is one of the guest's disk.
"""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from provision.host import Host
from provision.seed import Identity
from tests.peers.hyperv.session import execute, run
from tests.peers.nsguest import SSHD, Hardware, NsGuest
from tests.peers.windows.files import Drives
from tests.peers.windows.machine import Machine, begin
from tests.peers.windows.session import Inside
from tests.peers.windows.state import State
from tests.peers.wsman.process import Process

CMD_LIMIT = 8191
RELAY = """#!/usr/bin/python3 -SE
import json, socket, sys
with socket.socket(socket.AF_UNIX) as to:
    to.connect("/powershell.sock")
    line = " ".join(["powershell.exe", *sys.argv[1:]])
    to.sendall(json.dumps([line, sys.stdin.read()]).encode() + b"\\n")
    said = json.loads(to.makefile().read())
sys.stdout.write(said["out"])
sys.stderr.write(said["err"])
sys.exit(said["code"])
"""
SSH = "/C:/ProgramData/ssh"
KEYS = SSHD.replace("/etc/ssh/host_key", f"{SSH}/ssh_host_ed25519_key").replace(
    "/etc/ssh/authorized_keys", f"{SSH}/administrators_authorized_keys"
)
HOST_KEY = "ProgramData/ssh/ssh_host_ed25519_key"


def seed_of(iso: bytes) -> dict[str, bytes]:
    """The files of a disk that cloudbase-init takes for a seed, {} where it is none."""
    import pycdlib

    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(iso))
    if disc.pvd.volume_identifier.decode().strip().lower() != "cidata":
        return {}
    found = {}
    for child in disc.list_children(joliet_path="/"):
        if not child.is_dir():
            name, out = child.file_identifier().decode("utf-16-be"), io.BytesIO()
            disc.get_file_from_iso_fp(out, joliet_path=f"/{name}")
            found[name] = out.getvalue()
    return found


class WinGuest(NsGuest):
    """As a NsGuest; ``complain`` hears of what no sound script does."""

    def __init__(self, tag: str, folder: Path, host: Host, complain: Callable[[str], None]) -> None:
        super().__init__(tag, folder, host)
        self._complain = complain
        self._seed: Mapping[str, bytes] = {}
        self.machine: Machine | None = None

    def boot(self, hardware: Hardware, seed: Mapping[str, bytes]) -> None:
        """As ``start``, with the files of the DVD that is in the drive."""
        self._seed = seed
        self.start(hardware, None)

    def _become(self, _who: Identity) -> None:
        raise AssertionError("Windows has no such document")

    def _boot(self, inside: Host, shown: Path, hostname: str, _serving: object) -> None:
        self._furnish()
        kept = self._root / "registry"
        state = State.load(kept)
        for known in state.cards:
            known.device = ""
        hardware = self._hardware
        for number, card in enumerate(hardware.cards):
            state.plug(card.mac, f"eth{number}", self._tap(number), legacy=card.driver == "tulip")
        machine = Machine(
            state, kept, inside, self._host, Drives(self._root, self._seed), hardware.cpus,
            hardware.memory_mib, self._complain, lambda words: self._do(lambda: begin(words)),
        )  # fmt: skip
        self.machine = machine
        state.apply_links(inside, self._host)
        state.apply_rules(inside)
        self._cloudbase_init(machine)
        self._stack.callback(machine.end_all)
        self._serve(machine)
        key = self._root / "C:" / HOST_KEY
        up = (machine.sshd or state.services["sshd"] == "Automatic") and key.exists()
        words = ["/usr/sbin/sshd", "-D", "-e"] if up else ["/usr/bin/sleep", "infinity"]
        super()._boot(inside, shown, state.hostname, words)

    def _start(self, hardware: Hardware, who: Identity | None) -> None:
        self._hardware = hardware
        super()._start(hardware, who)

    def _furnish(self) -> None:
        """What every such guest has, whoever it becomes."""
        (self._root / "C:" / "ProgramData").mkdir(parents=True, exist_ok=True)
        relay = self._root / "local" / "bin" / "powershell.exe"
        relay.write_text(RELAY)
        relay.chmod(0o755)
        passwd = self._root / "etc" / "passwd"
        if "Administrator" not in passwd.read_text():
            with passwd.open("a") as f:
                f.write("Administrator:x:0:0::/root:/bin/sh\n")
            with (self._root / "etc" / "shadow").open("a") as f:
                f.write("Administrator:*:19000:0:99999:7:::\n")
        (self._root / "etc" / "ssh").mkdir(exist_ok=True)
        (self._root / "etc" / "ssh" / "sshd_config").write_text(KEYS)

    def _cloudbase_init(self, machine: Machine) -> None:
        """Its hostname and user-data plugins, once for each instance-id."""
        if not self._seed:
            return
        meta = json.loads(self._seed["meta-data"])
        if meta["instance-id"] == machine.state.instance:
            return
        user_data = self._seed["user-data"].decode()
        if not user_data.startswith("#ps1_sysnative\n"):
            self._complain(f"cloudbase-init: user-data of {user_data[:20]!r}")
            return
        machine.state.hostname = meta["local-hostname"][:15]
        process = Process("user-data", {})
        code = run(Inside(machine, process), user_data)
        if code:
            said = bytes(process._out["stderr"]).decode("cp437")
            self._complain(f"cloudbase-init: user-data ended with {code}: {said}")
            return
        machine.state.instance = meta["instance-id"]
        machine.keep()

    def _serve(self, machine: Machine) -> None:
        """Run what ssh asks for, until the guest is off."""
        path = self._root / "powershell.sock"
        path.unlink(missing_ok=True)
        door = socket.socket(socket.AF_UNIX)
        door.bind(str(path))
        door.listen(16)
        self._stack.callback(_shut, door)

        def accept() -> None:
            while True:
                try:
                    found, _ = door.accept()
                except OSError:
                    return
                threading.Thread(target=_answer, args=(machine, found), daemon=True).start()

        threading.Thread(target=accept, name=f"{self._tag} powershell", daemon=True).start()


def _answer(machine: Machine, to: socket.socket) -> None:
    with to, to.makefile("rb") as lines, suppress(OSError):
        line, given = json.loads(lines.readline())
        if len(line) + len('cmd.exe /c ""') > CMD_LIMIT:
            told = {"code": 1, "out": "", "err": "The command line is too long.\r\n"}
        else:
            process = Process(line, {})
            process.feed(given.encode(), end=True)
            code = execute(Inside(machine, process), process)
            out, err = (bytes(process._out[n]).decode("cp437") for n in ("stdout", "stderr"))
            told = {"code": code, "out": out, "err": err}
        to.sendall(json.dumps(told).encode())


def _shut(door: socket.socket) -> None:
    with suppress(OSError):
        door.shutdown(socket.SHUT_RDWR)
    door.close()
