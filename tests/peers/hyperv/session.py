"""What WinRM runs on the host: powershell.exe, as WinRS starts it."""

from __future__ import annotations

import base64
import binascii
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.peers.hyperv import cmdlets, programs
from tests.peers.hyperv.binding import ALIASES, tables
from tests.peers.hyperv.world import World
from tests.peers.powershell import host
from tests.peers.powershell.errors import PSError, Unsupported, method_failed
from tests.peers.powershell.host import Cmdlet, Ended, Files
from tests.peers.powershell.interpreter import Interpreter
from tests.peers.powershell.values import PSObject, text
from tests.peers.wsman.process import Process

TICK_S = 0.02
#: what stands on standard error where nobody asked for plain text
CLIXML = (
    '#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
    '<Obj S="progress" RefId="0"><TN RefId="0"><T>System.Management.Automation.PSCustomObject</T>'
    "<T>System.Object</T></TN><MS><I64 N=\"SourceId\">1</I64></MS></Obj></Objs>"
)  # fmt: skip
_FLAGS = {"-nologo", "-noprofile", "-noninteractive"}
_VALUED = {"-executionpolicy", "-outputformat", "-inputformat", "-encodedcommand"}


@dataclass
class Named:
    """A mutex. ``owner`` None and ``abandoned``: who had it ended with it."""

    owner: object | None = None
    abandoned: bool = False


@dataclass
class Mutexes:
    """The host's named mutexes."""

    change: threading.Condition = field(default_factory=threading.Condition)
    all: dict[str, Named] = field(default_factory=dict)

    def abandon(self, owner: object) -> None:
        """A process ended: what it had is anybody's, who is told so."""
        with self.change:
            for one in self.all.values():
                if one.owner is owner:
                    one.owner, one.abandoned = None, True
            self.change.notify_all()


class Held:
    """The mutexes as one process sees them."""

    def __init__(self, mutexes: Mutexes, process: Process) -> None:
        self._mutexes, self._process = mutexes, process

    def take(self, name: str, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        with self._mutexes.change:
            found = self._mutexes.all.setdefault(name.lower(), Named())
            while found.owner not in (None, self._process):
                self._process.alive()
                left = until - time.monotonic()
                if timeout_s >= 0 and left <= 0:
                    return False
                self._mutexes.change.wait(TICK_S)
            found.owner, abandoned = self._process, found.abandoned
            found.abandoned = False
        if abandoned:
            raise method_failed(
                "WaitOne",
                1,
                "System.Threading.AbandonedMutexException",
                "The wait completed due to an abandoned mutex.",
            )
        return True

    def give(self, name: str) -> bool:
        with self._mutexes.change:
            found = self._mutexes.all.get(name.lower())
            if found is None or found.owner is not self._process:
                return False
            found.owner = None
            self._mutexes.change.notify_all()
            return True


class Windows:
    """The host of a script: one process on a simulated Windows."""

    def __init__(self, world: World, mutexes: Mutexes, process: Process) -> None:
        self.world, self._process = world, process
        self.files: Files = world.volume
        self.mutexes: host.Mutexes = Held(mutexes, process)
        self.encoding = "utf-8" if process.codepage == 65001 else f"cp{process.codepage}"

    def alive(self) -> None:
        self._process.alive()

    def pause(self, duration_s: float) -> None:
        self._process.pause(duration_s)

    def read_line(self) -> str | None:
        found = self._process.read_line()
        if not found:
            return None
        return found.decode(self.encoding, "replace").rstrip("\n").removesuffix("\r")

    def read_all(self) -> str:
        return self._process.read().decode(self.encoding, "replace")

    def write_out(self, text: str) -> None:
        self._process.write(text.encode(self.encoding, "replace"))

    def write_err(self, text: str) -> None:
        self._process.write(text.encode(self.encoding, "replace"), "stderr")

    def complain(self, text: str) -> None:
        self.world.complain(text)

    def versions(self) -> PSObject:
        return PSObject({"PSVersion": "5.1.20348.558", "PSEdition": "Desktop", "CLRVersion": "4.0"})

    def environment(self, name: str) -> str | None:
        known = {"computername": self.world.name, "systemroot": "C:\\Windows",
                 "programdata": "C:\\ProgramData", "systemdrive": "C:"}  # fmt: skip
        return known.get(name.lower())

    def cmdlet(self, name: str) -> Cmdlet | None:
        return cmdlets.find(self.world, name)

    def program(self, name: str) -> Callable[[list[str]], Ended] | None:
        return programs.find(self.world, name)

    def unknown(self, name: str) -> None:
        bare = name.lower().removesuffix(".exe")
        if ALIASES.get(bare, bare).lower() not in tables() and bare not in ("cpugroups", "bcdedit"):
            self.world.complain(f"no such command: {name}")


def powershell(world: World, mutexes: Mutexes, process: Process) -> int:
    """Run the command line of a process that WinRS started, which has to be PowerShell's."""
    try:
        return execute(Windows(world, mutexes, process), process)
    finally:
        mutexes.abandon(process)


def execute(machine: host.Host, process: Process) -> int:
    """Run PowerShell's command line on a machine; its exit code."""
    script, plain = _script(machine.complain, process)
    if script is None:
        process.write(b"This command line is not simulated.\r\n", "stderr")
        return 1
    if not plain:
        machine.write_err(CLIXML)
    return run(machine, script)


def run(machine: host.Host, script: str) -> int:
    """Run a script on a machine; its exit code."""
    try:
        found, code = Interpreter(machine).run(script)
        for one in found:
            machine.write_out(f"{text(one)}\r\n")
    except PSError as e:
        machine.write_err(f"{e.record.message}\r\n    + FullyQualifiedErrorId : {e.record.id}\r\n")
        return 1
    except Unsupported as e:
        machine.complain(f"PowerShell: {e}")
        machine.write_err(f"not known here: {e}\r\n")
        return 1
    except Exception as e:  # noqa: BLE001 (our own defect must not look like the host's)
        where = "".join(traceback.format_exception(e)[-3:])
        machine.complain(f"the peer is broken: {e!r}: {where}")
        return 1
    return code


def _script(complain: Callable[[str], None], process: Process) -> tuple[str | None, bool]:
    """What -EncodedCommand says, and whether errors are asked for as plain text."""
    words = process.line.split()
    program = words[0].strip('"').rpartition("\\")[2].lower() if words else ""
    given: dict[str, str] = {}
    at = 1
    while at < len(words):
        word = words[at].lower()
        if word in _VALUED and at + 1 < len(words):
            given[word] = words[at + 1]
            at += 1
        elif word not in _FLAGS:
            complain(f"powershell.exe {words[at]}: not simulated")
            return None, False
        else:
            given[word] = ""
        at += 1
    if program not in ("powershell.exe", "powershell") or "-encodedcommand" not in given:
        complain(f"a process that is not simulated: {process.line[:80]}")
        return None, False
    try:
        data = base64.b64decode(given["-encodedcommand"], validate=True)
        script = data.decode("utf-16-le")
    except (binascii.Error, UnicodeDecodeError) as e:
        complain(f"-EncodedCommand: {e}")
        return None, False
    if "-noninteractive" not in given:
        complain("powershell.exe without -NonInteractive waits for answers")
    return script, given.get("-outputformat", "").lower() == "text"
