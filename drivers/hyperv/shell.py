"""One shell of the host with our runner in it: requests go in a line each, answers come so.

A shell and its PowerShell serve one thread at a time, and are ended whatever happens. MS-WSMV:
Create, Command, Send, Receive, Delete.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from time import monotonic
from typing import Any

from requests.exceptions import SSLError
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMOperationTimeoutError,
    WSManFaultError,
)

from drivers.hyperv.api import Lost
from drivers.hyperv.ops import Batch, Refused, Row, answers, request
from drivers.hyperv.wire import BROKEN, Door

MARKER = b"provision:"
CHUNK = 100_000  # a message has an envelope and base64 around it; the host takes 500 kB of them
IDLE = "PT600S"  # a shell whose controller is gone ends so; a user has no more than 30
SHELL_GONE = 2150858843
ACCESS_DENIED = 5
_WORDS = (
    "-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-OutputFormat",
    "Text", "-EncodedCommand",
)  # fmt: skip
Answer = list[list[Row]] | Refused


class NotSent(Exception):
    """The host has not got the whole of a request, and so did none of it; ``__cause__`` is why."""


@cache
def encoded_runner() -> str:
    """The script as PowerShell takes it on its command line: as shipped, and never with data."""
    script = files("drivers.hyperv").joinpath("runner.ps1").read_text("utf-8")
    return base64.b64encode(script.encode("utf-16-le")).decode()


class Shell:
    """Opens with the first request. ``broken`` once something went wrong: then it is to go."""

    def __init__(self, door: Door) -> None:
        self.broken = False
        self.messages = 0
        self._door = door
        self._protocol: Any = door.protocol()
        self._shell = ""
        self._command = ""
        self._asked = 0
        self._used = monotonic()
        self._held = b""
        self._errors = b""

    def ask(self, batches: Sequence[Batch]) -> list[Answer]:
        """What became of each batch.

        Raises NotSent where the host did nothing of them, Lost where it may have.
        """
        self._asked += 1
        name = str(self._asked)
        try:
            self._send(request(name, batches))
            found = self._receive(name, batches)
        except BaseException:
            self.broken = True
            raise
        self._used = monotonic()
        return found

    def close(self) -> None:
        """End the shell, and with it PowerShell; no error where it is gone already."""
        with suppress(*BROKEN):
            if self._shell:
                self._freshen(now=self.broken)
                self._protocol.close_shell(self._shell)
        with suppress(*BROKEN):
            self._protocol.transport.close_session()
        self._shell = ""

    def _send(self, line: bytes) -> None:
        """Until its last piece is sent, nothing of a line is done."""
        pieces = [line[n : n + CHUNK] for n in range(0, len(line), CHUNK)]
        try:
            self._open()
            for piece in pieces[:-1]:
                self._call("send_command_input", self._shell, self._command, piece)
        except BROKEN as e:
            if self._final(e):
                raise self._door.unreachable(e) from e
            raise NotSent from e
        try:
            self._call("send_command_input", self._shell, self._command, pieces[-1])
        except WSManFaultError as e:
            if e.wsman_fault_code == SHELL_GONE:
                raise NotSent from e
            raise Lost(e) from e
        except BROKEN as e:
            raise Lost(e) from e

    def _open(self) -> None:
        if self._shell:
            self._freshen()
            return
        self._shell = self._call("open_shell", idle_timeout=IDLE)
        words = [*_WORDS, encoded_runner()]
        self._command = self._call(
            "run_command", self._shell, "powershell.exe", words,
            console_mode_stdin=False, skip_cmd_shell=True,
        )  # fmt: skip

    def _final(self, e: BaseException) -> bool:
        """Whether another try would end the same, or lock the account."""
        if isinstance(e, InvalidCredentialsError):
            return not self._shell  # else what was encrypted met another connection
        denied = isinstance(e, WSManFaultError) and e.wsman_fault_code == ACCESS_DENIED
        return denied or isinstance(e, SSLError)

    def _freshen(self, now: bool = False) -> None:
        """A connection that rested may be shut, and what was encrypted for it be lost with it."""
        if now or monotonic() - self._used > self._door.limits.idle_s:
            self._protocol.transport.close_session()
            self._protocol.transport.encryption = None

    def _receive(self, name: str, batches: Sequence[Batch]) -> list[Answer]:
        deadline = monotonic() + self._door.limits.batch_s
        while True:
            try:
                out, errors, code, done = self._call(
                    "get_command_output_raw", self._shell, self._command
                )
            except WinRMOperationTimeoutError as e:
                if monotonic() > deadline:
                    raise Lost(f"none within {self._door.limits.batch_s:g} s") from e
                continue
            except BROKEN as e:
                raise Lost(e) from e
            self._held += out
            self._errors = (self._errors + errors)[-2000:]
            *lines, self._held = self._held.split(b"\n")
            for line in lines:
                if (found := _read(line, name, batches)) is not None:
                    return found
            if done:
                said = " ".join(self._errors.decode(errors="replace").split())
                raise Lost(f"PowerShell ended with {code}: {said or 'no word'}")

    def _call(self, method: str, *args: Any, **more: Any) -> Any:
        self.messages += 1
        return getattr(self._protocol, method)(*args, **more)


def _read(line: bytes, name: str, batches: Sequence[Batch]) -> list[Answer] | None:
    """The answer that a line of output is, None where it is none of this request's."""
    if not line.startswith(MARKER):
        return None
    try:
        told, found = answers(line[len(MARKER) :].strip(), batches)
    except (ValueError, KeyError, TypeError) as e:
        raise Lost(f"what came is no answer: {e}") from e
    return found if told == name else None
