"""The WS-Man endpoint of the Hyper-V peer, by the real pywinrm, and pypsrp as a second opinion."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import winrm.protocol
from pypsrp.exceptions import AuthenticationError
from pypsrp.shell import CommandState, Process, WinRS
from pypsrp.wsman import WSMan
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)  # fmt: skip

from tests.peers import certs
from tests.peers.wsman import faults
from tests.peers.wsman.endpoint import Endpoint, Trouble, endpoint
from tests.peers.wsman.process import Process as Ran
from tests.peers.wsman.shells import Quotas

USER, PASSWORD = "bench", "pass $word'é"
NO_SHELL = faults.no_shell().code


class Programs:
    """What commands do here, by their first word. ``ended`` has those that came to their end."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.go = threading.Event()

    def __call__(self, process: Ran) -> int:
        word = process.line.split()[0]
        if word == "cat":
            process.write(process.read())
        elif word == "much":
            process.write(b"x" * 200_000)
            process.write(b"e" * 100, "stderr")
        elif word == "slow":
            process.write(b"first")
            self.go.wait(20)
            process.write(b"last")
        elif word == "wait":
            process.pause(60)
        elif word == "length":
            process.write(str(len(process.line)).encode())
        self.ended.append(word)
        return 3


@contextmanager
def serving(folder: Path, **more: Any) -> Iterator[tuple[Endpoint, Programs]]:
    programs = Programs()
    with endpoint(programs, folder, USER, PASSWORD, **more) as found:
        yield found, programs
        assert not found.complaints


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[Endpoint, Programs]]:
    with serving(tmp_path) as found:
        yield found


def client(at: Endpoint, **more: Any) -> winrm.protocol.Protocol:
    given: dict[str, Any] = {
        "transport": "ntlm", "username": USER, "password": PASSWORD, "proxy": None,
        "message_encryption": "auto" if at.ca else "always", "ca_trust_path": None,
        "read_timeout_sec": 10, "operation_timeout_sec": 5, **more,
    }  # fmt: skip
    return winrm.protocol.Protocol(at.uri, **given)


def run(at: winrm.protocol.Protocol, line: str, stdin: bytes | None = None) -> Any:
    shell = at.open_shell()
    command = at.run_command(shell, line, skip_cmd_shell=True)
    for begin in range(0, len(stdin or b""), 90_000):
        assert stdin is not None
        part = stdin[begin : begin + 90_000]
        at.send_command_input(shell, command, part, end=begin + 90_000 >= len(stdin))
    found = at.get_command_output(shell, command)
    at.cleanup_command(shell, command)
    at.close_shell(shell)
    return found


def test_a_command_by_sealed_messages(plain: tuple[Endpoint, Programs]) -> None:
    at, _ = plain
    assert run(client(at), "cat", b"a secret" * 40_000) == (b"a secret" * 40_000, b"", 3)
    out, err, code = run(client(at), "much")
    assert (len(out), err, code) == (200_000, b"e" * 100, 3)
    counted = at.counts()
    assert counted["Create"] == counted["Delete"] == counted["Signal"] == 2
    assert counted["Send"] == 4
    assert counted["Receive"] >= 200_000 // at.quotas.chunk
    assert at.shells.open == []


def test_nothing_is_readable_on_the_wire(plain: tuple[Endpoint, Programs]) -> None:
    """A relay between client and host sees the login and no words of ours."""
    at, _ = plain
    passed = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as relay:
        port = relay.getsockname()[1]
        threading.Thread(target=_relay, args=(relay, at.listener.port, passed), daemon=True).start()
        found = winrm.protocol.Protocol(
            f"http://127.0.0.1:{port}/wsman", "ntlm", USER, PASSWORD, proxy=None,
            message_encryption="always",
        )  # fmt: skip
        assert run(found, "cat", b"SECRETSECRET")[0] == b"SECRETSECRET"
    assert b"multipart/encrypted" in passed
    for word in (b"SECRET", b"U0VDUkVU", b"CommandLine", b"ShellId", PASSWORD.encode()):
        assert word not in passed, word


def _relay(relay: socket.socket, port: int, passed: bytearray) -> None:
    while True:
        try:
            near, _ = relay.accept()
        except OSError:
            return
        far = socket.create_connection(("127.0.0.1", port))
        for a, b in ((near, far), (far, near)):
            threading.Thread(target=_pass, args=(a, b, passed), daemon=True).start()


def _pass(a: socket.socket, b: socket.socket, passed: bytearray) -> None:
    while data := a.recv(65536):
        passed += data
        b.sendall(data)
    b.close()


def test_over_http_unsealed_is_refused(plain: tuple[Endpoint, Programs]) -> None:
    at, programs = plain
    with pytest.raises(WinRMTransportError, match="500"):
        run(client(at, message_encryption="never"), "cat")
    with pytest.raises(InvalidCredentialsError):
        run(client(at, transport="basic", message_encryption="never"), "cat")
    assert not programs.ended and not at.log


@pytest.mark.parametrize("name", [USER, f".\\{USER}", f"HV1\\{USER}"])
def test_names_of_a_local_user(plain: tuple[Endpoint, Programs], name: str) -> None:
    assert run(client(plain[0], username=name), "cat", b"x")[0] == b"x"


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"username": "nobody"}])
def test_a_wrong_login_is_refused(plain: tuple[Endpoint, Programs], wrong: dict[str, str]) -> None:
    at, programs = plain
    with pytest.raises(InvalidCredentialsError):
        run(client(at, **wrong), "cat")
    assert at.refused == 1 and not at.log and not programs.ended


@pytest.mark.parametrize("transport", ["ssl", "ntlm"])
def test_https_with_its_ca(tmp_path: Path, transport: str) -> None:
    with serving(tmp_path, tls=True) as (at, _):
        password = PASSWORD.replace("é", "e") if transport == "ssl" else PASSWORD
        assert at.ca is not None
        found = client(at, transport=transport, ca_trust_path=str(at.ca), password=password)
        if transport == "ssl":  # requests writes Basic in latin-1, and the password is not that
            with pytest.raises(InvalidCredentialsError):
                run(found, "cat")
        else:
            assert run(found, "cat", b"x")[0] == b"x"


def test_basic_over_https(tmp_path: Path) -> None:
    with endpoint(Programs(), tmp_path, USER, "ascii only", tls=True) as at:
        given = {"transport": "ssl", "password": "ascii only"}
        assert run(client(at, ca_trust_path=str(at.ca), **given), "cat", b"x")[0] == b"x"
        other = certs.make(_folder(tmp_path / "other"))
        for ca in (str(other.ca), None):  # somebody else's, and the system's
            with pytest.raises(requests.exceptions.SSLError):
                run(client(at, ca_trust_path=ca, **given), "cat")
        with socket.create_connection(("127.0.0.1", at.listener.port)) as raw:
            context = ssl.create_default_context(cafile=str(at.ca))
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                der = tls.getpeercert(binary_form=True)
        assert der is not None and hashlib.sha256(der).hexdigest() == at.fingerprint


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    with (
        serving(tmp_path, tls=True, expired=True) as (at, _),
        pytest.raises(requests.exceptions.SSLError, match="expired"),
    ):
        run(client(at, ca_trust_path=str(at.ca)), "cat")


@pytest.mark.parametrize(
    ("tls", "auth"),
    [(False, "ntlm"), (False, "negotiate"), (True, "ntlm"), (True, "negotiate"), (True, "basic")],
)
def test_the_second_opinion(tmp_path: Path, tls: bool, auth: str) -> None:
    with endpoint(Programs(), tmp_path, USER, "ascii only", tls=tls) as at:

        def connect(password: str) -> WSMan:
            trusted: Any = str(at.ca) if tls else False
            return WSMan(
                "127.0.0.1", port=at.listener.port, ssl=tls, auth=auth, username=USER,
                password=password, cert_validation=trusted, no_proxy=True,
            )  # fmt: skip

        with connect("ascii only") as wsman, WinRS(wsman) as shell:
            process = Process(shell, "cat", no_shell=True)
            process.begin_invoke()
            process.send(b"hello", end=True)
            while process.state != CommandState.DONE:
                process.poll_invoke()
            process.end_invoke()
            assert (process.stdout, process.rc) == (b"hello", 3)
        assert at.shells.open == [] and not at.complaints
        with pytest.raises(AuthenticationError), connect("wrong") as wsman, WinRS(wsman):
            pass


def test_what_takes_long_is_asked_for_again(plain: tuple[Endpoint, Programs]) -> None:
    at, programs = plain
    found = client(at, operation_timeout_sec=1, read_timeout_sec=5)
    shell = found.open_shell()
    command = found.run_command(shell, "slow", skip_cmd_shell=True)
    assert found.get_command_output_raw(shell, command)[0] == b"first"
    with pytest.raises(WinRMOperationTimeoutError):
        found.get_command_output_raw(shell, command)
    programs.go.set()
    assert found.get_command_output(shell, command) == (b"last", b"", 3)
    with pytest.raises(WSManFaultError) as e:
        found.send_command_input(shell, command, b"too late")
    assert e.value.wsman_fault_code == faults.no_reader().code


def test_what_is_closed_or_ended_is_killed(plain: tuple[Endpoint, Programs]) -> None:
    at, programs = plain
    found = client(at)
    shell = found.open_shell()
    first, second = (found.run_command(shell, "wait", skip_cmd_shell=True) for _ in range(2))
    assert at.shells.running == 2
    found.cleanup_command(shell, first)
    with pytest.raises(WSManFaultError) as e:
        found.get_command_output_raw(shell, first)
    assert e.value.wsman_fault_code == NO_SHELL
    found.close_shell(shell, close_session=False)
    at.wait_quiet()
    assert programs.ended == []
    for lost in (lambda: found.close_shell(shell), lambda: found.run_command(shell, "cat"),
                 lambda: found.get_command_output_raw(shell, second)):  # fmt: skip
        with pytest.raises(WSManFaultError) as e:
            lost()
        assert e.value.wsman_fault_code == NO_SHELL


def test_a_process_outlives_its_client(plain: tuple[Endpoint, Programs]) -> None:
    at, programs = plain
    found = client(at)
    found.run_command(found.open_shell(), "slow", skip_cmd_shell=True)
    found.transport.close_session()
    assert at.shells.running == 1
    programs.go.set()
    at.wait_quiet()
    assert programs.ended == ["slow"] and len(at.shells.open) == 1


def test_a_shell_that_is_idle_expires(tmp_path: Path) -> None:
    with serving(tmp_path, quotas=Quotas(idle_s=0.2)) as (at, _):
        found = client(at)
        shell = found.open_shell()
        found.run_command(shell, "cat", skip_cmd_shell=True)
        until = time.monotonic() + 20
        while at.shells.open:
            assert time.monotonic() < until
            threading.Event().wait(0.02)
        with pytest.raises(WSManFaultError) as e:
            found.run_command(shell, "cat")
        assert e.value.wsman_fault_code == NO_SHELL
        at.wait_quiet()
        assert at.shells.expired == 1


def test_quotas(tmp_path: Path) -> None:
    quotas = Quotas(shells_per_user=2, processes_per_shell=2, envelope_kib=100)
    with serving(tmp_path, quotas=quotas) as (at, _):
        found = client(at)
        shell = found.open_shell()
        found.open_shell()
        with pytest.raises(WSManFaultError, match="maximum number of 2 concurrent shells") as e:
            found.open_shell()
        assert e.value.wsman_fault_code == 2150859173
        for _ in range(2):
            command = found.run_command(shell, "wait", skip_cmd_shell=True)
        with pytest.raises(WSManFaultError, match="processes"):
            found.run_command(shell, "wait", skip_cmd_shell=True)
        with pytest.raises(WinRMTransportError, match="413"):
            found.send_command_input(shell, command, b"x" * 100_000)
        client(at).close_shell(shell)
        client(at).open_shell()


def test_limits_of_the_command_line(plain: tuple[Endpoint, Programs]) -> None:
    found = client(plain[0])
    shell = found.open_shell()

    def length(size: int, *, skip: bool) -> Any:
        word = "x" * (size - len("length "))
        command = found.run_command(shell, "length", [word], skip_cmd_shell=skip)
        return found.get_command_output(shell, command)

    assert length(8191, skip=False) == (b"8191", b"", 3)
    assert length(8192, skip=False) == (b"", b"The command line is too long.\r\n", 1)
    assert length(32767, skip=True)[0] == b"32767"
    with pytest.raises(WSManFaultError, match="too long"):
        length(32768, skip=True)


@pytest.mark.parametrize("acts", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("action", ["Create", "Command", "Send", "Receive", "Signal", "Delete"])
def test_dropped_connections(plain: tuple[Endpoint, Programs], action: str, acts: bool) -> None:
    at, programs = plain
    at.hook = lambda r: Trouble(acts=acts, answer="drop") if r.action == action else None
    with pytest.raises(requests.exceptions.ConnectionError):
        run(client(at), "cat", b"x")
    opened, closed = at.shells.opened, at.shells.closed
    assert opened == (acts or action != "Create")
    assert closed == (acts and action == "Delete")
    assert at.counts()[action] == 1
    if action == "Send":
        assert (programs.ended == ["cat"]) or not acts
    at.calm()
    assert run(client(at), "cat", b"x")[0] == b"x"


def test_faults_and_statuses_that_a_test_asks_for(plain: tuple[Endpoint, Programs]) -> None:
    at, _ = plain
    found = client(at)
    at.hook = lambda r: Trouble(acts=False, answer=faults.too_many_operations(1))
    with pytest.raises(WSManFaultError) as e:
        found.open_shell()
    assert e.value.wsman_fault_code == 2150859174
    at.hook = lambda r: Trouble(acts=False, answer=503)
    with pytest.raises(WinRMTransportError, match="503"):
        found.open_shell()
    at.hook = lambda r: Trouble(delay_s=30)
    with pytest.raises(requests.exceptions.ReadTimeout):
        client(at, read_timeout_sec=2, operation_timeout_sec=1).open_shell()
    at.calm()
    assert at.shells.opened == 1


def test_a_host_that_goes_and_comes_back(plain: tuple[Endpoint, Programs]) -> None:
    at, _ = plain
    found = client(at)
    shell = found.open_shell()
    at.down()
    for _ in range(2):
        with pytest.raises(requests.exceptions.ConnectionError):
            found.run_command(shell, "cat")
        found.transport.close_session()
    at.up()
    with pytest.raises(WSManFaultError) as e:
        found.run_command(shell, "cat")
    assert e.value.wsman_fault_code == NO_SHELL
    assert run(client(at), "cat", b"x")[0] == b"x"


def test_what_is_no_request_is_a_fault(tmp_path: Path) -> None:
    with endpoint(Programs(), tmp_path, USER, "ascii", tls=True) as at:

        def post(data: bytes, path: str = "/wsman") -> requests.Response:
            url = at.uri.removesuffix("/wsman") + path
            return requests.post(
                url, data, auth=(USER, "ascii"), verify=str(at.ca), timeout=10,
                headers={"Content-Type": "application/soap+xml"},
            )  # fmt: skip

        for data in (b"<no", b"<a/>", b"\0"):
            answer = post(data)
            assert answer.status_code == 500 and b"2150858817" in answer.content
        assert post(b"x", "/other").status_code == 404
        assert not at.log


def test_many_at_once(plain: tuple[Endpoint, Programs]) -> None:
    at, _ = plain
    found: list[bytes] = []

    def one(number: int) -> None:
        found.append(run(client(at), "cat", str(number).encode())[0])

    threads = [threading.Thread(target=one, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == sorted(str(n).encode() for n in range(16))
