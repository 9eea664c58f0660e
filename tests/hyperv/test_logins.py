"""Who we say we are, and how that is protected; and pypsrp has the same talk as pywinrm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pypsrp.shell import CommandState, Process, WinRS
from pypsrp.wsman import WSMan

from drivers.hyperv import hostnet, shell, wire
from drivers.hyperv.ops import Batch, answers, request
from drivers.hyperv.wire import Limits, door
from provision.driver import Login, Tls
from provision.errors import PreflightError
from tests.hyperv import bed
from tests.peers.hyperv.peer import hyperv_host

LIMITS = Limits()


class Notes:
    """Stands for pywinrm's classes, and keeps what they are called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.calls.append((args, more))
        return self


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Notes:
    """What the transport, which is what logs in, is told."""
    found = Notes()
    monkeypatch.setattr(wire, "_Transport", found)
    monkeypatch.setattr(wire, "Protocol", Notes())
    monkeypatch.setattr(wire, "HAVE_KERBEROS", True)
    return found


@pytest.mark.parametrize(
    ("uri", "auth", "sealed"),
    [
        ("http://hv7", "", "always"),
        ("http://hv7:8080", "ntlm", "always"),
        ("http://hv7", "kerberos", "always"),
        ("https://hv7", "kerberos", "auto"),
        ("https://hv7", "ntlm", "auto"),
        ("https://hv7", "basic", "auto"),
    ],
)
def test_what_is_not_in_tls_is_sealed(told: Notes, uri: str, auth: str, sealed: str) -> None:
    door(uri, auth, Login("LAB\\bench", lambda: "secret"), Tls(), LIMITS).protocol()
    ((url,), how) = told.calls[0]
    port = 8080 if "8080" in uri else wire.PORTS[uri.partition(":")[0]]
    assert url == f"{uri.partition(':')[0]}://hv7:{port}/wsman"
    assert how["auth_method"] == (auth or "ntlm")
    assert how["message_encryption"] == sealed
    assert (how["username"], how["password"]) == ("LAB\\bench", "secret")
    assert how["server_cert_validation"] == "validate"
    assert how["service"] == "HTTP"  # the principal that Kerberos asks a ticket for
    assert how["proxy"] is None


def test_a_certificate_as_a_login(told: Notes, tmp_path: Path) -> None:
    """No password is asked for, and none is sent."""
    cert, private = tmp_path / "me.pem", tmp_path / "me.key"
    tls = Tls(client_cert=cert, client_key=private)

    def never() -> str:
        raise AssertionError("a password is not needed")

    for login in (None, Login("bench", never)):
        door("https://hv7", "certificate", login, tls, LIMITS).protocol()
        _, how = told.calls[-1]
        assert how["auth_method"] == "certificate"
        assert (how["cert_pem"], how["cert_key_pem"]) == (str(cert), str(private))
        assert (how["username"], how["password"]) == ("", "")


def test_the_servers_certificate(told: Notes, tmp_path: Path) -> None:
    login = Login("bench", lambda: "secret")
    for tls, judged in (
        (Tls(), "validate"), (Tls(verify=False), "ignore"), (Tls(fingerprint="ab" * 32), "ignore"),
    ):  # fmt: skip
        door("https://hv7", "ntlm", login, tls, LIMITS).protocol()
        assert told.calls[-1][1]["server_cert_validation"] == judged
        assert told.__dict__.get("fingerprint", "") == tls.fingerprint


def test_the_password_is_fetched_at_each_login(told: Notes) -> None:
    """A vault may have another by then."""
    given = iter(["first", "second"])
    to = door("http://hv7", "ntlm", Login("bench", lambda: next(given)), Tls(), LIMITS)
    for password in ("first", "second"):
        to.protocol()
        assert told.calls[-1][1]["password"] == password
    assert "first" not in repr(to) and "second" not in repr(to)


def test_kerberos_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HAVE_KERBEROS", False)
    with pytest.raises(PreflightError, match="kerberos needs") as told:
        door("http://hv7", "kerberos", Login("bench", lambda: "x"), Tls(), LIMITS)
    assert "pywinrm[kerberos]" in (told.value.hint or "")


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_another_client_has_the_same_talk(tls: bool) -> None:
    """The runner as shipped, by pypsrp: the same lines give the same rows."""
    with hyperv_host(tls=tls, password="ascii only") as peer:
        batch = Batch(ops=[*hostnet.LOOK])
        with bed.driver(peer) as driver:
            ours = driver.pool.read([batch])
        host, _, port = peer.uri.split("/")[2].partition(":")
        trusted: Any = str(peer.ca) if tls else False
        wsman = WSMan(
            host, port=int(port), ssl=tls, auth="negotiate", username=peer.user,
            password=peer.password, cert_validation=trusted, no_proxy=True,
        )  # fmt: skip
        words = [*shell._WORDS, shell.encoded_runner()]
        with wsman, WinRS(wsman) as theirs:
            process = Process(theirs, "powershell.exe", words, no_shell=True)
            process.begin_invoke()
            process.send(request("1", [batch]), end=False)
            process.send(request("2", [replace(batch, ops=batch.ops[:1])]), end=True)
            while process.state != CommandState.DONE:
                process.poll_invoke()
            process.end_invoke()
        lines = [li for li in process.stdout.split(b"\n") if li.startswith(shell.MARKER)]
        first, second = (li[len(shell.MARKER) :].strip() for li in lines)
        assert answers(first, [batch]) == ("1", ours)
        assert answers(second, [replace(batch, ops=batch.ops[:1])])[0] == "2"
        assert process.rc == 0
        assert not peer.endpoint.shells.open
