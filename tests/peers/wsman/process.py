"""A process that a shell runs: its streams, its end, and that it may be killed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: does a process's work and returns its exit code
Program = Callable[["Process"], int]


class Killed(BaseException):
    """Raised in a process that was told to end."""


@dataclass
class Process:
    """``line`` is the whole command line; ``env`` and ``codepage`` are its shell's.

    ``through_cmd``: cmd.exe reads the line first.
    """

    line: str
    env: Mapping[str, str]
    codepage: int = 437
    through_cmd: bool = True
    id: str = field(default_factory=lambda: str(uuid.uuid4()).upper())
    code: int | None = None
    _in: bytearray = field(default_factory=bytearray)
    _in_ended: bool = False
    _out: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    _killed: bool = False
    _change: threading.Condition = field(default_factory=threading.Condition)

    # for the program

    def read(self) -> bytes:
        """All of the standard input, when it has ended."""
        with self._change:
            self._change.wait_for(lambda: self._in_ended or self._killed)
            self.alive()
            found, self._in = bytes(self._in), bytearray()
            return found

    def read_line(self) -> bytes:
        """The next line with its end; what is left at the end of input, b"" after it."""
        with self._change:
            self._change.wait_for(lambda: b"\n" in self._in or self._in_ended or self._killed)
            self.alive()
            line, mark, rest = bytes(self._in).partition(b"\n")
            self._in = bytearray(rest)
            return line + mark

    def write(self, data: bytes, stream: str = "stdout") -> None:
        with self._change:
            self.alive()
            self._out[stream] += data
            self._change.notify_all()

    def alive(self) -> None:
        """Raises Killed where somebody ended it."""
        if self._killed:
            raise Killed

    def pause(self, duration_s: float) -> None:
        """Take one's time, but not longer than one lives."""
        with self._change:
            self._change.wait_for(lambda: self._killed, duration_s)
            self.alive()

    # for the endpoint

    def start(self, program: Program, ended: Callable[[], None]) -> None:
        def run() -> None:
            code = 1
            try:
                code = program(self)
            except Killed:
                pass
            finally:
                with self._change:
                    self.code = code
                    self._change.notify_all()
                ended()

        threading.Thread(target=run, name=f"winrs {self.id}", daemon=True).start()

    def feed(self, data: bytes, *, end: bool) -> bool:
        """Whether anybody takes it."""
        with self._change:
            if self._in_ended or self.code is not None:
                return False
            self._in += data
            self._in_ended = end
            self._change.notify_all()
            return True

    def take(self, most: int, timeout_s: float) -> dict[str, bytes] | None:
        """The next output, which may be none at the end; None where none comes in time."""
        until = time.monotonic() + timeout_s
        with self._change:
            some = lambda: any(self._out.values()) or self.code is not None  # noqa: E731
            if not self._change.wait_for(some, max(0, until - time.monotonic())):
                return None
            found = {}
            for stream, waiting in self._out.items():
                found[stream] = bytes(waiting[:most])
                del waiting[:most]
                most -= len(found[stream])
            return found

    @property
    def done(self) -> bool:
        """Whether it has ended, and all of its output was taken."""
        return self.code is not None and not any(self._out.values())

    def kill(self) -> None:
        with self._change:
            self._killed = True
            self._change.notify_all()
