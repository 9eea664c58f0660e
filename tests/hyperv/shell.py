"""Cmdlets on a Hyper-V peer, by pywinrm and a runner of the tests' own, for tests of the peer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import winrm.protocol
from winrm.exceptions import WSManFaultError

from tests.peers.hyperv.peer import PARENT, Peer

RUNNER = (Path(__file__).parent / "runner.ps1").read_text()
CHUNK = 90_000
UTF8 = 65001
MB, GB = 1 << 20, 1 << 30
CHILD = "C:\\Images\\vm1.vhdx"


class CmdletError(Exception):
    """``id`` is FullyQualifiedErrorId, ``category`` CategoryInfo's."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__(f"{found['message']} [{found['id']}]")
        self.id: str = found["id"]
        self.category: str = found["category"]


def encoded(script: str) -> str:
    return base64.b64encode(script.encode("utf-16-le")).decode()


def arguments(script: str) -> list[str]:
    return [
        "-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass",
        "-OutputFormat", "Text", "-EncodedCommand", encoded(script),
    ]  # fmt: skip


@dataclass
class Shell:
    """A PowerShell that runs on the host for as long as it is asked things."""

    protocol: winrm.protocol.Protocol
    shell: str
    command: str

    def __call__(self, cmdlet: str, *select: str, **params: Any) -> list[dict[str, Any]]:
        """The rows that a cmdlet gives. Raises CmdletError."""
        return self.ask({"cmdlet": cmdlet, "params": params, "select": select})

    def program(self, name: str, *words: str) -> tuple[int, str]:
        (found,) = self.ask({"program": name, "words": words})
        return found["code"], "\n".join(found["lines"])

    def write(self, path: str, data: bytes) -> None:
        self.ask({"write": path, "data": base64.b64encode(data).decode()})

    def ask(self, op: dict[str, Any]) -> list[dict[str, Any]]:
        line = base64.b64encode(json.dumps(op, ensure_ascii=False).encode()) + b"\n"
        for at in range(0, len(line), CHUNK):
            self.protocol.send_command_input(self.shell, self.command, line[at : at + CHUNK])
        said = b""
        while not said.endswith(b"\n"):
            out, err, code, done = self.protocol.get_command_output_raw(self.shell, self.command)
            said += out
            assert not done, f"PowerShell ended with {code}: {err.decode()}"
        found = json.loads(base64.b64decode(said))
        if not found["ok"]:
            raise CmdletError(found)
        rows: list[dict[str, Any]] = found["rows"]
        return rows


def protocol(peer: Peer, **more: Any) -> winrm.protocol.Protocol:
    """Sealed NTLM, or HTTPS with the peer's CA."""
    secure = peer.ca is not None
    given: dict[str, Any] = {
        "transport": "ssl" if secure else "ntlm", "username": peer.user, "password": peer.password,
        "message_encryption": "auto" if secure else "always", "read_timeout_sec": 30,
        "operation_timeout_sec": 20, "proxy": None, **more,
    }  # fmt: skip
    given.setdefault("ca_trust_path", str(peer.ca) if secure else None)
    return winrm.protocol.Protocol(peer.uri, **given)


@contextmanager
def connected(peer: Peer) -> Iterator[Shell]:
    found = protocol(peer)
    shell = found.open_shell(codepage=UTF8)
    try:
        command = found.run_command(
            shell, "powershell.exe", arguments(RUNNER), console_mode_stdin=False,
            skip_cmd_shell=True,
        )  # fmt: skip
        yield Shell(found, shell, command)
    finally:
        with suppress(WSManFaultError):  # it went with its host
            found.close_shell(shell)


def refused(shell: Shell, cmdlet: str, **params: Any) -> CmdletError:
    with pytest.raises(CmdletError) as e:
        shell(cmdlet, **params)
    return e.value


def vm(shell: Shell, name: str = "vm1", generation: int = 2, **more: Any) -> None:
    shell("New-VM", Name=name, Generation=generation, MemoryStartupBytes=GB, **more)


def child(shell: Shell, path: str = CHILD) -> str:
    shell("New-VHD", Path=path, ParentPath=PARENT, Differencing=True)
    return path
