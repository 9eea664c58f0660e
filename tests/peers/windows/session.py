"""PowerShell on a Windows guest: one process that OpenSSH or cloudbase-init started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from tests.peers.hyperv import binding
from tests.peers.powershell import host
from tests.peers.powershell.errors import Unsupported
from tests.peers.powershell.host import Call, Cmdlet, Ended, FileFault
from tests.peers.powershell.values import PSObject
from tests.peers.windows import network, system
from tests.peers.windows.machine import Machine
from tests.peers.wsman.process import Process

Work = Callable[[Machine, binding.Bound], Iterable[Any]]
ENVIRONMENT = {"programdata": "C:\\ProgramData", "systemroot": "C:\\Windows", "systemdrive": "C:"}
#: what must be left to an icacls of a key: SYSTEM and Administrators, by their SIDs
ALONE = ["/inheritance:r", "/grant", "*S-1-5-32-544:F", "/grant", "*S-1-5-18:F"]


@cache
def known() -> Mapping[str, Work]:
    """By names in lower case."""
    return {name.lower(): work for room in (network, system) for name, work in room.CMDLETS.items()}


class Inside:
    """What a script sees of the guest. What is done is noted in ``machine.calls``."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine, self._process = machine, process
        self.files: host.Files = machine.drives
        self.mutexes: Any = None

    def alive(self) -> None:
        self._process.alive()

    def pause(self, duration_s: float) -> None:
        self._process.pause(duration_s)

    def read_line(self) -> str | None:
        raise Unsupported("a line of standard input")

    def read_all(self) -> str:
        return self._process.read().decode("cp437")

    def write_out(self, text: str) -> None:
        self._process.write(text.encode("cp437", "replace"))

    def write_err(self, text: str) -> None:
        self._process.write(text.encode("cp437", "replace"), "stderr")

    def complain(self, text: str) -> None:
        self._machine.complain(f"{self._machine.state.hostname}: {text}")

    def versions(self) -> PSObject:
        return PSObject({"PSVersion": "5.1.26100.1", "PSEdition": "Desktop", "CLRVersion": "4.0"})

    def environment(self, name: str) -> str | None:
        return ENVIRONMENT.get(name.lower())

    def cmdlet(self, name: str) -> Cmdlet | None:
        work = known().get(name.lower())
        if work is None:
            return None

        def run(call: Call) -> Iterable[Any]:
            bound = binding.bind(call)
            with self._machine.lock:
                self._machine.calls.append(bound.name)
                try:
                    return [*work(self._machine, bound)]
                except FileFault as e:
                    raise bound.failed(e.kind, "ObjectNotFound", str(e)) from e
                finally:
                    self._machine.keep()

        return run

    def program(self, name: str) -> Callable[[list[str]], Ended] | None:
        if name.lower() in ("icacls.exe", "icacls"):
            return self._icacls
        if name[1:3] == ":\\" and self.files.is_file(name):
            return lambda words: self._own(name, words)
        return None

    def unknown(self, name: str) -> None:
        self.complain(f"no such command: {name}")

    def _icacls(self, words: list[str]) -> Ended:
        path, *rest = words
        if rest != ALONE:
            self.complain(f"icacls {' '.join(words)}: not simulated")
            return Ended(87)
        try:
            self._machine.drives.at(path).chmod(0o600)
        except (OSError, FileFault):
            return Ended(2, "", "The system cannot find the file specified.\r\n")
        return Ended(0, f"processed file: {path}\r\n")

    def _own(self, name: str, words: list[str]) -> Ended:
        """A program that was brought."""
        path = self._machine.drives.at(name)
        path.chmod(0o755)
        said = self._machine.inside.run(str(path), *words)
        return Ended(0, said.replace("\n", "\r\n"))
