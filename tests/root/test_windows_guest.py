"""A Windows guest of the peer: who it becomes, what is let through, and netserver for real."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from provision import image, seed, state
from provision.access import _made, _public
from provision.errors import WorldError
from provision.host import Host
from provision.resources import Guest
from provision.windows import powershell
from provision.windows.guest import FOLDER, script
from tests.hyperv import bed
from tests.hyperv.test_windows_scripts import SCRIPTS
from tests.peers.hyperv.session import execute
from tests.peers.nsguest import Card, Hardware
from tests.peers.scratch import scratch
from tests.peers.windows.guest import WinGuest, seed_of
from tests.peers.windows.machine import Machine
from tests.peers.windows.session import Inside
from tests.peers.wires import machine
from tests.peers.wsman.process import Process
from tests.root import machines

pytestmark = [
    *machines.marks,
    pytest.mark.skipif(
        image.find(state.default().images) is None, reason="needs the guest image: make image"
    ),
]
ADDRESS, PORT = "198.18.1.2", 12865
LINK = {"address": ADDRESS, "port": PORT, "client": "198.18.1.1"}
GUEST = bed.guest(os="windows")


def ask(machine: Machine, name: str, **given: Any) -> dict[str, Any]:
    """What a script tells, as it is sent. Raises WorldError."""
    process = Process(" ".join(powershell.command(SCRIPTS[name])), {})
    process.feed(json.dumps(given).encode(), end=True)
    execute(Inside(machine, process), process)
    return powershell.answer("vm1", bytes(process._out["stdout"]).decode())


def files(guest: Guest) -> dict[str, bytes]:
    private = _made()
    who = seed.identity(guest, _public(private, "vm1"), private)
    return seed_of(seed.iso(who))


@pytest.fixture
def host() -> Iterator[Host]:
    """Where bridges would be; its own NIC "lg" is the client's."""
    with machine("pvwinhost") as found:
        found.run("ip", "link", "add", "lan0", "type", "bridge")
        found.run("ip", "addr", "add", "198.18.1.1/24", "dev", "lan0")
        found.run("ip", "link", "set", "lan0", "up")
        yield found


@contextmanager
def booted(host: Host, complaints: list[str], told: dict[str, bytes]) -> Iterator[WinGuest]:
    cards = tuple(Card(v.mac, b, "hv_netvsc") for v, b in
                  ((GUEST.management, None), (GUEST.nics[0], "lan0")))  # fmt: skip
    with scratch("pvx-win-", Path("/var/tmp")) as folder:
        guest = WinGuest("pvwin", folder, host, complaints.append)
        try:
            guest.boot(Hardware(1, 512, cards), told)
            yield guest
        finally:
            guest.close()


def reaches(host: Host, port: int) -> bool:
    word = f"exec 3<>/dev/tcp/{ADDRESS}/{port}"
    done = subprocess.run(host.argv("timeout", "0.5", "bash", "-c", word), check=False,
                          capture_output=True)  # fmt: skip
    return done.returncode == 0


def test_from_a_seed_to_a_netserver_and_shut_again(host: Host) -> None:
    complaints: list[str] = []
    golden = image.find(state.default().images)
    assert golden
    program = (golden.folder / "bin" / "netserver").read_bytes()
    right = hashlib.sha256(program).hexdigest()
    with booted(host, complaints, files(GUEST)) as guest:
        here = guest.machine
        assert here is not None
        seen = ask(here, "inspect")
        assert (seen["hostname"], [n["name"] for n in seen["nics"]]) == ("vm1", ["mgmt", "link1"])
        host.run("ping", "-c", "1", "-W", "2", ADDRESS)
        assert not reaches(host, 22), "SSH is for the management network alone"
        assert ask(here, "netserver", do="tell", folder=FOLDER)["sha256"] == ""
        part = here.drives.at(f"{FOLDER}\\netserver.exe.part")
        part.write_bytes(program)
        with pytest.raises(WorldError, match=f"its SHA-256 is {right}, not 00ff"):
            ask(here, "netserver", do="accept", folder=FOLDER, sha256="00ff")
        told = ask(here, "netserver", do="accept", folder=FOLDER, sha256=right)
        assert told["sha256"] == right
        assert "Netperf version" in told["version"]
        for _ in range(2):  # afresh
            ask(here, "netserver", do="serve", folder=FOLDER, endpoints=[LINK], lifetime_s=600)
            assert reaches(host, PORT)
            assert len(here.alive()) == 1
        other = dict(LINK, client="198.18.1.77")
        ask(here, "netserver", do="serve", folder=FOLDER, endpoints=[other], lifetime_s=600)
        assert not reaches(host, PORT), "only its own client is let through"
        ask(here, "netserver", do="stop", folder=FOLDER)
        assert not here.alive()
        assert {r.name for r in here.state.rules} == {"provision-ssh", "provision-ping"}
        busy = subprocess.Popen(
            here.inside.argv("python3", "-c", BUSY), stdout=subprocess.PIPE, text=True
        )
        assert busy.stdout is not None
        assert busy.stdout.readline() == "ready\n"
        with busy, pytest.raises(WorldError, match="port 12865 is in use by another program"):
            try:
                ask(here, "netserver", do="serve", folder=FOLDER, endpoints=[LINK], lifetime_s=9)
            finally:
                busy.kill()
        assert not here.state.tasks
    assert complaints == []


BUSY = (
    "import socket, time; s = socket.create_server(('198.18.1.2', 12865));"
    " print('ready', flush=True); time.sleep(60)"
)


def test_without_a_seed_nobody_gets_in(host: Host) -> None:
    complaints: list[str] = []
    with booted(host, complaints, {}) as guest:
        assert guest.machine is not None
        assert guest.machine.state.rules == []
        assert not guest.machine.sshd
    with booted(host, complaints, files(bed.guest())):
        assert complaints == ["cloudbase-init: user-data of '#cloud-config\\n{\\n \"ho'"]


def test_a_key_that_others_may_read_is_found_out(host: Host) -> None:
    """OpenSSH on Windows refuses it, and so does this one."""
    complaints: list[str] = []
    told = files(GUEST)
    text = script("identity.ps1").replace("'*S-1-5-32-544:F'", "'*S-1-1-0:F'")
    assert text != script("identity.ps1")
    with booted(host, complaints, told | {"user-data": text.encode()}):
        assert any("icacls" in one for one in complaints)
