"""The WS-Man endpoint of the Hyper-V peer: who comes in, and that all of it is sealed.

By the real pywinrm, and pypsrp as a second opinion.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
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
    WinRMTransportError,
)  # fmt: skip

from tests.hyperv.wire import PASSWORD, USER, Programs, client, run, serving
from tests.peers import certs
from tests.peers.wsman.endpoint import Endpoint, endpoint


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
    assert programs.ended.empty() and not at.log


@pytest.mark.parametrize("name", [USER, f".\\{USER}", f"HV1\\{USER}"])
def test_names_of_a_local_user(plain: tuple[Endpoint, Programs], name: str) -> None:
    assert run(client(plain[0], username=name), "cat", b"x")[0] == b"x"


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"username": "nobody"}])
def test_a_wrong_login_is_refused(plain: tuple[Endpoint, Programs], wrong: dict[str, str]) -> None:
    at, programs = plain
    with pytest.raises(InvalidCredentialsError):
        run(client(at, **wrong), "cat")
    assert at.refused == 1 and not at.log and programs.ended.empty()


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
