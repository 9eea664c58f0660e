"""A WS-Man endpoint with small programs behind it, and pywinrm in front: for tests of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import winrm.protocol

from tests.peers.wsman import faults
from tests.peers.wsman.endpoint import Endpoint, endpoint
from tests.peers.wsman.process import Process as Ran

USER, PASSWORD = "bench", "pass $word'é"
NO_SHELL = faults.no_shell().code


class Programs:
    """What commands do here, by their first word. ``ended`` has those that came to their end."""

    def __init__(self) -> None:
        self.ended: queue.Queue[str] = queue.Queue()
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
        self.ended.put(word)
        return 3


@contextmanager
def serving(folder: Path, **more: Any) -> Iterator[tuple[Endpoint, Programs]]:
    programs = Programs()
    with endpoint(programs, folder, USER, PASSWORD, **more) as found:
        yield found, programs
        assert not found.complaints


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
