"""Who the server is, who we are to it, and where guests are to be: told before anything is sent."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from drivers.vsphere.driver import Vsphere
from drivers.vsphere.wire import Limits
from provision.driver import Login, Target, Tls
from provision.errors import PreflightError, Unreachable, Unsupported, UserError
from tests.peers import certs, oracle
from tests.peers.vcsim import Vcsim, vcsim, vim
from tests.vsphere.wire import Wires

QUICK = Limits(connect_s=3, call_s=5)


@pytest.fixture(scope="module")
def peer() -> Iterator[Vcsim]:
    with vcsim(hosts=2, cluster_hosts=1, pools=2, datastores=2, pnics=3) as found:
        yield found


class Password:
    """One that counts how often it is asked for."""

    def __init__(self, text: str) -> None:
        self.text, self.asked = text, 0

    def __call__(self) -> str:
        self.asked += 1
        return self.text


def target(peer: Vcsim, password: Password | None = None, **more: object) -> Target:
    login = Login(peer.user, password or Password(peer.password))
    made = Target(
        "tb", Path("/nowhere"), peer.uri, tag="abcd", login=login, tls=Tls(ca=peer.ca),
        host="DC0_H0", storage="LocalDS_0",
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def test_the_password_is_sent_only_to_the_server_that_is_meant(peer: Vcsim, tmp_path: Path) -> None:
    other = certs.make(tmp_path)
    for tls, said in (
        (Tls(ca=other.ca), "not trusted"),
        (Tls(fingerprint="0" * 64), f"is {peer.fingerprint}, not {'0' * 64}"),
        (Tls(), "not trusted"),
    ):
        password, wires = Password(peer.password), Wires()
        with pytest.raises(Unreachable, match=said) as told:
            Vsphere(target(peer, password, tls=tls), QUICK, wires)
        assert password.asked == 0 and wires.log == []
        assert "openssl" in told.value.hint


def test_a_fingerprint_is_asked_on_each_connection(peer: Vcsim) -> None:
    tls = Tls(fingerprint=peer.fingerprint)
    driver = Vsphere(target(peer, tls=tls), QUICK)
    assert "tls" not in driver.facts.notes
    driver.close()
    wire = driver.session._wire
    wire.to = replace(wire.to, tls=Tls(fingerprint="0" * 64))
    with pytest.raises(Unreachable, match="its certificate's SHA-256 is"):
        [*driver.look([("guest", "vm1")])]


def test_no_check_only_where_it_is_asked_for_and_it_is_noted(peer: Vcsim) -> None:
    driver = Vsphere(target(peer, tls=Tls(verify=False)), QUICK)
    assert driver.facts.notes["tls"] == "not verified, as the spec says"
    driver.close()


def test_a_wrong_password_is_tried_once_and_never_shown(peer: Vcsim) -> None:
    password = Password("hunter2-and-more")
    with pytest.raises(Unreachable, match=r"refuses user 'root': wrong name or password") as told:
        Vsphere(target(peer, password), QUICK)
    assert password.asked == 1
    assert password.text not in f"{told.value} {told.value.hint} {told.value!r}"
    assert password.text not in repr(target(peer, password))


@pytest.mark.parametrize(
    "uri", ["http://vc/", "vc", "https://u:p@vc/", "https://vc:x/", "esx://vc"]
)
def test_a_uri_that_cannot_be_is_the_users_mistake(peer: Vcsim, uri: str) -> None:
    with pytest.raises(UserError, match=r"hypervisor\.uri"):
        Vsphere(target(peer, uri=uri), QUICK)


def test_no_login_and_no_ca_are_the_users_mistakes(peer: Vcsim, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no login"):
        Vsphere(target(peer, login=None), QUICK)
    for text in (None, "no certificate"):
        ca = tmp_path / "ca.pem"
        if text is not None:
            ca.write_text(text)
        with pytest.raises(UserError, match=r"hypervisor\.tls\.ca"):
            Vsphere(target(peer, tls=Tls(ca=ca)), QUICK)


def test_nobody_there_is_told_with_a_command(peer: Vcsim) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        uri = f"https://127.0.0.1:{held.getsockname()[1]}/"
        with pytest.raises(Unreachable, match="refused") as told:
            Vsphere(target(peer, uri=uri), QUICK)
    assert told.value.hint.startswith("curl ")
    with pytest.raises(Unreachable, match="no such host"):
        Vsphere(target(peer, uri="https://no-such-host.invalid/"), QUICK)


def test_one_that_never_answers_is_given_up(peer: Vcsim) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(Unreachable, match="no answer within"):
            Vsphere(target(peer, uri=uri), Limits(connect_s=0.3, call_s=0.3))


class _Other(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def other_server(made: certs.Certs) -> Iterator[str]:
    """An HTTPS server that is no vSphere; its URI."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    with HTTPServer(("127.0.0.1", 0), _Other) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(("address", "said"), [("127.0.0.1", "404"), ("127.0.0.9", "not trusted")])
def test_another_server_or_name_is_told_apart(
    peer: Vcsim, tmp_path: Path, address: str, said: str
) -> None:
    made = certs.make(tmp_path, address)
    with other_server(made) as uri, pytest.raises(Unreachable, match=said):
        Vsphere(target(peer, uri=uri, tls=Tls(ca=made.ca)), QUICK)


def test_which_host_and_where_is_asked_with_what_there_is(peer: Vcsim) -> None:
    with pytest.raises(UserError, match=r"host: which host\? there are: DC0_C0_H0, DC0_H0"):
        Vsphere(target(peer, host=""), QUICK)
    with pytest.raises(UserError, match="did you mean 'DC0_H1'"):
        Vsphere(target(peer, host="DC0_H9"), QUICK)
    with pytest.raises(UserError, match=r"hypervisor\.storage: which datastore"):
        Vsphere(target(peer, storage=""), QUICK)
    with pytest.raises(UserError, match="did you mean 'LocalDS_"):
        Vsphere(target(peer, storage="LocalDS"), QUICK)
    with pytest.raises(UserError, match=r"hypervisor\.pool: there is no resource pool 'mine'"):
        Vsphere(target(peer, pool="mine"), QUICK)


def test_a_pool_is_found_by_its_name_or_path(peer: Vcsim) -> None:
    pools = oracle.all_of(peer.connect(), vim.ResourcePool)
    wanted = next(name for name in pools if "P1" in name or "RP1" in name)
    driver = Vsphere(target(peer, host="DC0_C0_H0", pool=wanted), QUICK)
    assert driver.place.pool._moId == pools[wanted]._moId
    driver.close()


def test_what_is_lacking_is_named_with_the_work_that_needs_it() -> None:
    lacking = ("Network.Assign", "Host.Config.Network@HostSystem")
    with vcsim(lacking=lacking, pnics=2) as poor:
        driver = Vsphere(target(poor), QUICK)
        found = {c.what: c for c in driver.examine() if not c.ok}
        assert {"privilege Network.Assign", "privilege Host.Config.Network"} == found.keys() - {
            "datastore LocalDS_0"
        }
        assert "switches and port groups" in found["privilege Host.Config.Network"].detail
        assert "Network.Assign" in found["privilege Network.Assign"].fix
        driver.close()


def test_a_host_that_is_not_fit_is_told(peer: Vcsim) -> None:
    host = oracle.all_of(peer.connect(), vim.HostSystem)["DC0_H1"]
    oracle.done(host.EnterMaintenanceMode_Task(0, None, None))
    with pytest.raises(PreflightError, match="maintenance"):
        Vsphere(target(peer, host="DC0_H1"), QUICK)
    oracle.done(host.ExitMaintenanceMode_Task(0))


def test_a_guest_that_is_to_be_restored_is_refused(peer: Vcsim) -> None:
    with pytest.raises(Unsupported, match=r"guests\.start"):
        Vsphere(target(peer, start="restore"), QUICK)


def test_a_closed_driver_has_logged_out(peer: Vcsim) -> None:
    manager = peer.connect().content.sessionManager
    before = len(manager.sessionList)
    driver = Vsphere(target(peer), QUICK)
    assert len(manager.sessionList) == before + 1
    driver.close()
    assert len(manager.sessionList) == before
    driver.close()
