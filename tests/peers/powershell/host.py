"""What a script sees of the machine that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tests.peers.powershell.errors import ErrorRecord, PSError
from tests.peers.powershell.values import PSObject, Table

if TYPE_CHECKING:
    from tests.peers.powershell.interpreter import Interpreter


@dataclass
class Call:
    """One call of a cmdlet, before its parameters are bound. ``piped`` None: nothing was."""

    name: str
    positional: list[Any]
    named: Table
    piped: list[Any] | None
    action: str
    shell: Interpreter = field(repr=False)

    def error(self, record: ErrorRecord) -> None:
        """An error that need not end the cmdlet: whether it does is the caller's preference."""
        if self.action == "stop":
            raise PSError(record)
        self.shell.noted(record, self.action)


Cmdlet = Callable[[Call], Iterable[Any]]


@dataclass(frozen=True)
class Ended:
    """What a program left: its exit code, and what it wrote."""

    code: int
    out: str = ""
    err: str = ""


class Files(Protocol):
    """The files of the host, by Windows paths. All raise FileFault."""

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes, *, append: bool = False) -> None: ...

    def remove(self, path: str) -> None: ...

    def is_file(self, path: str) -> bool: ...

    def is_folder(self, path: str) -> bool: ...

    def make_folder(self, path: str) -> None: ...

    def remove_empty(self, path: str) -> None: ...


class FileFault(Exception):
    """``kind`` is the .NET exception's full name."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Mutexes(Protocol):
    """The host's named mutexes, which one process has at a time."""

    def take(self, name: str, timeout_s: float) -> bool: ...

    def give(self, name: str) -> bool: ...


class Host(Protocol):
    """A machine, as seen by one process on it."""

    files: Files
    mutexes: Mutexes

    def alive(self) -> None:
        """Raises where the process was told to end."""

    def pause(self, duration_s: float) -> None: ...

    def read_line(self) -> str | None:
        """The next line of standard input, without its end; None after the last."""

    def read_all(self) -> str: ...

    def write_out(self, text: str) -> None: ...

    def write_err(self, text: str) -> None: ...

    def complain(self, text: str) -> None:
        """Tell the test of what no sound script does."""

    def versions(self) -> PSObject | Table: ...

    def environment(self, name: str) -> str | None: ...

    def cmdlet(self, name: str) -> Cmdlet | None: ...

    def program(self, name: str) -> Callable[[list[str]], Ended] | None: ...

    def unknown(self, name: str) -> None:
        """Nothing has the name that a script calls."""
