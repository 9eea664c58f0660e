"""The shells of the Hyper-V peer's endpoint: how they end, quotas, limits, and what breaks."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from winrm.exceptions import (
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)  # fmt: skip

from tests.hyperv.wire import NO_SHELL, USER, Programs, client, run, serving
from tests.peers.wsman import faults
from tests.peers.wsman.endpoint import Endpoint, Trouble, endpoint
from tests.peers.wsman.shells import Quotas


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
    assert programs.ended.empty()
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
    assert programs.ended.get(timeout=20) == "slow" and len(at.shells.open) == 1


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
    if action == "Send" and acts:
        assert programs.ended.get(timeout=20) == "cat"
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
