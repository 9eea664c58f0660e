"""What the peer's wire does to calls, seen by the real client package."""

from __future__ import annotations

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from XenAPI import Session

from tests.peers.xapi import Peer
from tests.peers.xapi.wire import When
from tests.xenserver.bed import Client, client, refused


@pytest.fixture
def at() -> Iterator[Client]:
    with client() as found:
        yield found


def record(name: str) -> dict[str, object]:
    return {"name_label": name, "other_config": {}}


def made(at: Client, name: str) -> int:
    return len(at.peer.find("network", name_label=name))


def test_an_error_instead(at: Client) -> None:
    trouble = at.peer.wire.arm("network.create", "BRIDGE_NAME_EXISTS", "mine", nth=2)
    at.api.network.create(record("a"))
    assert not trouble.struck
    assert refused(at.api.network.create, record("a")) == ["BRIDGE_NAME_EXISTS", "mine"]
    assert trouble.struck and made(at, "a") == 1
    at.api.network.create(record("a"))
    assert at.peer.wire.done() == ["network.create"] * 2
    sent = at.peer.wire.sent("network.create")
    assert [call.done for call in sent] == [True, False, True]
    assert sent[1].error == ("BRIDGE_NAME_EXISTS", "mine")


@pytest.mark.parametrize("error", [("NO_SUCH_CODE",), ("HANDLE_INVALID", "VM")])
def test_an_error_that_is_none_is_not_even_armed(at: Client, error: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        at.peer.wire.arm("network.create", *error)


def test_a_task_that_fails(at: Client) -> None:
    vm = at.clone()
    at.peer.wire.arm("VM.start", "HOST_NOT_ENOUGH_FREE_MEMORY", "2", "1", when="task")
    task = getattr(at.api, "Async").VM.start(vm, False, False)  # noqa: B009
    assert at.api.task.get_status(task) == "failure"
    assert at.api.task.get_error_info(task) == ["HOST_NOT_ENOUGH_FREE_MEMORY", "2", "1"]
    assert at.api.VM.get_power_state(vm) == "Halted"
    at.api.task.destroy(task)


@pytest.mark.parametrize(("when", "number"), [("cut before", 0), ("cut after", 1)])
def test_a_connection_that_breaks(at: Client, when: When, number: int) -> None:
    at.peer.wire.arm("network.create", when=when)
    link = at.peer.transport()
    session = Session(at.peer.uri, transport=link)
    session.login_with_password(at.peer.user, at.peer.password)
    with pytest.raises(OSError):
        link.single_request(*_request(at.peer, session, "network.create", record("a")))
    assert made(at, "a") == number
    session.xenapi.session.logout()


def test_the_package_itself_calls_twice_where_a_connection_breaks(at: Client) -> None:
    """Why a driver needs a transport of its own."""
    at.peer.wire.arm("network.create", when="cut after")
    at.api.network.create(record("a"))
    assert made(at, "a") == 2


def test_a_slow_answer_comes_when_it_is_let(at: Client) -> None:
    trouble = at.peer.wire.arm("network.create", when="slow")
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(at.api.network.create(record("a"))))
    thread.start()
    with at.peer.world.store.lock:
        assert at.peer.world.store.changed.wait_for(lambda: made(at, "a") == 1, 20)
    assert answers == []
    trouble.release.set()
    thread.join(20)
    assert len(answers) == 1


def test_a_session_that_ends_is_renewed_by_the_package(at: Client) -> None:
    before = at.session.handle
    at.peer.wire.arm("network.create", when="expired")
    at.api.network.create(record("a"))
    assert at.session.handle != before and made(at, "a") == 1
    assert [call.done for call in at.peer.wire.sent("network.create")] == [False, True]


def test_sessions_end_when_they_idle() -> None:
    with client() as at:
        before, at.peer.world.idle_s = at.session.handle, 0.1
        threading.Event().wait(0.3)  # the peer's own clock is what is waited for
        at.api.pool.get_all()
        assert at.session.handle != before


@pytest.mark.parametrize(("when", "number"), [("kill before", 0), ("kill after", 1)])
def test_who_calls_is_killed(at: Client, when: When, number: int) -> None:
    go = multiprocessing.get_context("fork").Event()

    def work() -> None:
        go.wait(20)
        session = at.peer.connect()
        session.xenapi.network.get_all()
        session.xenapi.network.create(record("a"))

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    at.peer.wire.arm("changes", when=when, pid=child.pid)
    go.set()
    child.join(20)
    assert child.exitcode == -signal.SIGKILL
    assert made(at, "a") == number
    at.peer.expire()
    at.session = at.peer.connect()


def test_who_says_nothing_holds_nobody_up(at: Client) -> None:
    host, port = at.peer.doors[0].address
    with socket.create_connection((host, port)):
        began = time.monotonic()
        at.api.pool.get_all()
        assert time.monotonic() - began < 20


def _request(peer: Peer, session: Session, method: str, *args: Any) -> tuple[str, str, bytes]:
    import xmlrpc.client

    text = xmlrpc.client.dumps((session.handle, *args), method)
    return peer.uri.removeprefix("https://"), "/", text.encode()
