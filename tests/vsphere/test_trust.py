"""Who the server is: nothing is sent to one that is not proven, and no password is tried twice."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from drivers.vsphere.driver import Vsphere
from drivers.vsphere.wire import Limits
from provision.driver import Login, Target, Tls
from provision.errors import Unreachable, UserError
from provision.resources import key
from tests.peers import certs
from tests.peers.vcsim import Vcsim, vcsim
from tests.vsphere.day import SWITCH, TAG
from tests.vsphere.listener import listener, relay, says
from tests.vsphere.wire import Wires

QUICK = Limits(connect_s=2, call_s=2, task_s=5, tools_s=0)


@pytest.fixture(scope="module")
def server() -> Iterator[Vcsim]:
    with vcsim("ESX", pnics=2, password="heard-or-not") as found:
        yield found


def context(made: certs.Certs) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(made.cert, made.key)
    return found


def made(folder: Path, name: str, **more: object) -> certs.Certs:
    (folder / name).mkdir()
    return certs.make(folder / name, **more)  # type: ignore[arg-type]


def opened(server: Vcsim, uri: str, tls: Tls, wires: Wires | None = None, **more: str) -> Vsphere:
    login = Login(more.get("user", server.user), lambda: more.get("password", server.password))
    target = Target("trust", Path("/nonexistent"), uri, tag=TAG, login=login, tls=tls)
    return Vsphere(target, QUICK, wires or Wires())


def test_a_server_that_is_proven_hears_the_password(server: Vcsim, tmp_path: Path) -> None:
    """So that where none is heard below, it is not for want of ears."""
    good = made(tmp_path, "good")
    with listener([context(good)], relay(server)) as to:
        opened(server, to.uri, Tls(ca=good.ca)).close()
        opened(server, to.uri, Tls(fingerprint=good.fingerprint)).close()
    assert to.all.count(server.password.encode()) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("authority", "not trusted"),
        ("host", "not trusted.*IP address mismatch"),
        ("expired", "not trusted.*expired"),
        ("fingerprint", "SHA-256 is [0-9a-f]{64}, not"),
        ("system", "not trusted"),
    ],
)
def test_one_that_is_not_hears_nothing(
    server: Vcsim, tmp_path: Path, wrong: str, said: str
) -> None:
    good = made(tmp_path, "good", address="127.0.0.1" if wrong != "host" else "192.0.2.1",
                expired=wrong == "expired")  # fmt: skip
    other = made(tmp_path, "other")
    tls = {
        "authority": Tls(ca=other.ca), "fingerprint": Tls(fingerprint=other.fingerprint),
        "system": Tls(),
    }.get(wrong, Tls(ca=good.ca))  # fmt: skip
    with (
        listener([context(good)], relay(server)) as to,
        pytest.raises(Unreachable, match=said) as e,
    ):
        opened(server, to.uri, tls)
    assert to.heard and not to.all
    assert "openssl s_client" in e.value.hint


@pytest.mark.parametrize("by", ["ca", "fingerprint"])
@pytest.mark.parametrize("later", range(1, 3))
def test_one_that_changes_hears_no_password(
    server: Vcsim, tmp_path: Path, by: str, later: int
) -> None:
    """Each new connection is judged, so somebody who comes between later gets nothing either."""
    good, other = made(tmp_path, "good"), made(tmp_path, "other")
    tls = Tls(ca=good.ca) if by == "ca" else Tls(fingerprint=good.fingerprint)
    contexts = [*[context(good)] * later, context(other)]
    with listener(contexts, relay(server)) as to:
        try:
            driver = opened(server, to.uri, tls)
        except Unreachable:
            assert later == 1
        else:
            driver.session._wire.DropConnections()
            with pytest.raises(Unreachable):
                driver.read(key(SWITCH))
            driver.close()
    assert len(to.heard) > later
    assert not b"".join(to.heard[later:])
    assert to.all.count(server.password.encode()) == later - 1


def test_a_wrong_password_is_tried_once(server: Vcsim) -> None:
    wires = Wires()
    with pytest.raises(Unreachable, match=r"wrong name or password") as e:
        opened(server, server.uri, Tls(ca=server.ca), wires, password="wrong")
    assert [c.method for c in wires.log if c.method == "Login"] == ["Login"]
    assert "wrong" not in str(e.value).replace("wrong name or password", "")


def test_a_password_that_became_wrong_is_tried_once_more(server: Vcsim) -> None:
    """An account is locked after a few tries, so all threads together have one."""
    wires, words = Wires(), [server.password]
    login = Login(server.user, lambda: words[-1])
    target = Target("trust", Path("/nonexistent"), server.uri, tag=TAG, login=login,
                    tls=Tls(ca=server.ca))  # fmt: skip
    driver = Vsphere(target, QUICK, wires)
    words.append("changed")
    driver.session._wire.cookie = 'vmware_soap_session="none"'
    wires.calm()
    errors: list[Exception] = []

    def look() -> None:
        try:
            driver.read(key(SWITCH))
        except Unreachable as e:
            errors.append(e)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(errors) == 8
    assert sum(c.method == "Login" for c in wires.log) == 1
    driver.close()


HTTP = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HTTP % (b"404 Not Found", 0, b""), "404 Not Found"),
        (HTTP % (b"503 Service Unavailable", 0, b""), "503 Service Unavailable"),
        (HTTP % (b"200 OK", 6, b"<html>"), "not as vSphere does|is no"),
        (HTTP % (b"200 OK", 4, b"<a/>"), "does not know"),
        (b"220 smtp.example ESMTP\r\n", "not as vSphere does"),
        (b"", "."),
        (HTTP % (b"200 OK", 400, b"<name"), "not as vSphere does"),
    ],
    ids=["404", "503", "html", "xml", "smtp", "nothing", "cut short"],
)
def test_a_server_that_is_no_vsphere(server: Vcsim, tmp_path: Path, text: bytes, said: str) -> None:
    good = made(tmp_path, "good")
    with listener([context(good)], says(text)) as to, pytest.raises(Unreachable, match=said) as e:
        opened(server, to.uri, Tls(ca=good.ca))
    assert urlsplit(to.uri).netloc in str(e.value)
    assert "\n" not in str(e.value) and e.value.hint
    assert server.password.encode() not in to.all


def test_nobody_is_there(server: Vcsim) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    with pytest.raises(Unreachable, match="refused"):
        opened(server, f"https://127.0.0.1:{port}/", Tls(ca=server.ca))
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,  # takes a connection, and never speaks
        pytest.raises(Unreachable, match="no answer within 2 s"),
    ):
        opened(server, f"https://127.0.0.1:{deaf.getsockname()[1]}/", Tls(ca=server.ca))
    with pytest.raises(Unreachable, match="no such host"):
        opened(server, "https://nobody.invalid/", Tls(ca=server.ca))


def test_a_uri_or_ca_that_is_none(server: Vcsim, tmp_path: Path) -> None:
    for uri in (
        "http://esx.example/",
        "esx.example",
        "https://root:x@esx.example/",
        "https://a:b/",
    ):
        with pytest.raises(UserError, match=r"hypervisor\.uri"):
            opened(server, uri, Tls(ca=server.ca))
    (tmp_path / "ca.pem").write_text("no PEM")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(UserError, match=r"hypervisor\.tls\.ca"):
            opened(server, server.uri, Tls(ca=tmp_path / name))
