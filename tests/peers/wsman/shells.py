"""Shells and their commands: [MS-WSMV] 3.1.4, with the quotas of a WinRM that nobody tuned."""

from __future__ import annotations

import base64
import binascii
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from tests.peers.wsman import faults
from tests.peers.wsman.process import Process, Program
from tests.peers.wsman.soap import CMD, CONFIG, NS, SHELL, Message, seconds

CMD_LIMIT = 8191
LINE_LIMIT = 32767
_OPTIONS = {
    "WINRS_NOPROFILE", "WINRS_CODEPAGE", "WINRS_CONSOLEMODE_STDIN", "WINRS_SKIP_CMD_SHELL",
    "WSMAN_CMDSHELL_OPTION_KEEPALIVE",
}  # fmt: skip
_ENDS = ("/signal/terminate", "/signal/ctrl_c", "/signal/ctrl_break")


@dataclass(frozen=True)
class Quotas:
    """As ``winrm get winrm/config`` shows them on a Windows Server; ``chunk`` is of one answer."""

    shells_per_user: int = 30
    processes_per_shell: int = 25
    operations_per_user: int = 1500
    envelope_kib: int = 500
    idle_s: float = 7200
    chunk: int = 32768


@dataclass
class Shell:
    """One that a client opened; it ends when nothing was asked of it for ``idle_s``."""

    id: str
    idle_s: float
    codepage: int
    env: dict[str, str]
    used_at: float = field(default_factory=time.monotonic)
    busy: int = 0
    commands: dict[str, Process] = field(default_factory=dict)

    def expired(self) -> bool:
        return not self.busy and time.monotonic() - self.used_at > self.idle_s


class Shells:
    """All shells of an endpoint, for many threads. ``opened`` and ``closed`` count them."""

    def __init__(
        self, program: Program, user: str, quotas: Quotas, complain: Callable[[str], None]
    ) -> None:
        self._program, self._user, self._quotas, self._complain = program, user, quotas, complain
        self._lock = threading.Lock()
        self._shells: dict[str, Shell] = {}
        self._running = 0
        self.quiet = threading.Condition()
        self.opened = self.closed = self.expired = 0

    @property
    def open(self) -> list[str]:
        """The ids of those that are open."""
        with self._lock:
            self._expire()
            return [*self._shells]

    @property
    def running(self) -> int:
        """How many processes run, whoever may still hear of them."""
        with self.quiet:
            return self._running

    def end(self) -> None:
        """As when the host restarts."""
        with self._lock:
            for shell in self._shells.values():
                _kill(shell)
            self._shells.clear()

    def handle(self, message: Message) -> str:
        """The answer's body. Raises a Fault."""
        if message.resource == CONFIG and message.action == "Get":
            return f"<cfg:Config><cfg:MaxEnvelopeSizekb>{self._quotas.envelope_kib}" + (
                "</cfg:MaxEnvelopeSizekb></cfg:Config>"
            )
        if message.resource != CMD:
            self._complain(f"no such resource here: {message.resource}")
            raise faults.no_resource(message.resource)
        for name in message.options:
            if name not in _OPTIONS:
                self._complain(f"no such option: {name}")
        if message.action == "Create":
            return self._create(message)
        method = {
            "Command": self._command, "Send": self._send, "Receive": self._receive,
            "Signal": self._signal, "Delete": self._delete,
        }.get(message.action)  # fmt: skip
        if method is None:
            raise faults.no_action(message.uri)
        shell = self._shell(message.shell)
        try:
            return method(message, shell)
        finally:
            with self._lock:
                shell.busy -= 1
                shell.used_at = time.monotonic()

    def _expire(self) -> None:
        for shell in [s for s in self._shells.values() if s.expired()]:
            _kill(shell)
            del self._shells[shell.id]
            self.expired += 1

    def _shell(self, name: str) -> Shell:
        with self._lock:
            self._expire()
            if name not in self._shells:
                raise faults.no_shell()
            shell = self._shells[name]
            if sum(s.busy for s in self._shells.values()) >= self._quotas.operations_per_user:
                raise faults.too_many_operations(self._quotas.operations_per_user)
            shell.busy += 1
            return shell

    def _create(self, message: Message) -> str:
        body = message.body.find("rsp:Shell", NS)
        if body is None:
            raise faults.bad_schema("no rsp:Shell")
        streams = (
            body.findtext("rsp:InputStreams", "", NS),
            body.findtext("rsp:OutputStreams", "", NS),
        )
        if streams != ("stdin", "stdout stderr"):
            self._complain(f"a shell with the streams {streams}")
        idle_s = seconds(body.findtext("rsp:IdleTimeOut", "", NS) or f"PT{self._quotas.idle_s}S")
        with self._lock:
            self._expire()
            if len(self._shells) >= self._quotas.shells_per_user:
                raise faults.too_many_shells(self._quotas.shells_per_user)
            shell = Shell(
                (body.get("ShellId") or str(uuid.uuid4())).upper(),
                min(idle_s, self._quotas.idle_s),
                int(message.options.get("WINRS_CODEPAGE", 437)),
                {v.get("Name", ""): v.text or "" for v in body.iter(f"{{{SHELL}}}Variable")},
            )
            self._shells[shell.id] = shell
            self.opened += 1
        return (
            "<x:ResourceCreated><a:Address>http://127.0.0.1/wsman</a:Address>"
            f"<a:ReferenceParameters><w:ResourceURI>{CMD}</w:ResourceURI><w:SelectorSet>"
            f'<w:Selector Name="ShellId">{shell.id}</w:Selector></w:SelectorSet>'
            "</a:ReferenceParameters></x:ResourceCreated>"
            f"<rsp:Shell><rsp:ShellId>{shell.id}</rsp:ShellId><rsp:ResourceUri>{CMD}"
            f"</rsp:ResourceUri><rsp:Owner>{escape(self._user)}</rsp:Owner>"
            "<rsp:ClientIP>127.0.0.1</rsp:ClientIP>"
            f"<rsp:IdleTimeOut>PT{shell.idle_s:.3f}S</rsp:IdleTimeOut>"
            "<rsp:InputStreams>stdin</rsp:InputStreams>"
            "<rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>"
        )

    def _command(self, message: Message, shell: Shell) -> str:
        line = message.body.find("rsp:CommandLine", NS)
        if line is None:
            raise faults.bad_schema("no rsp:CommandLine")
        words = [line.findtext("rsp:Command", "", NS)]
        words += [a.text or "" for a in line.findall("rsp:Arguments", NS)]
        through_cmd = message.options.get("WINRS_SKIP_CMD_SHELL", "FALSE").upper() != "TRUE"
        process = Process(" ".join(words), shell.env, shell.codepage, through_cmd)
        if not through_cmd and len(process.line) > LINE_LIMIT:
            raise faults.line_too_long()
        process.id = (line.get("CommandId") or process.id).upper()
        with self._lock:
            alive = sum(p.code is None for p in shell.commands.values())
            if alive >= self._quotas.processes_per_shell:
                raise faults.too_many_processes(self._quotas.processes_per_shell)
            shell.commands[process.id] = process
        with self.quiet:
            self._running += 1
        program = _too_long if through_cmd and len(process.line) > CMD_LIMIT else self._program
        process.start(program, self._ended)
        return (
            f"<rsp:CommandResponse><rsp:CommandId>{process.id}</rsp:CommandId>"
            "</rsp:CommandResponse>"
        )

    def _ended(self) -> None:
        with self.quiet:
            self._running -= 1
            self.quiet.notify_all()

    def _process(self, message: Message, shell: Shell) -> Process:
        with self._lock:
            if message.command not in shell.commands:
                raise faults.no_shell()
            return shell.commands[message.command]

    def _send(self, message: Message, shell: Shell) -> str:
        process = self._process(message, shell)
        for stream in message.body.iter(f"{{{SHELL}}}Stream"):
            if stream.get("Name") != "stdin":
                raise faults.bad_schema(f"no stream {stream.get('Name')}")
            try:
                data = base64.b64decode(stream.text or "", validate=True)
            except binascii.Error as e:
                raise faults.bad_schema(str(e)) from e
            if not process.feed(data, end=stream.get("End", "").lower() in ("true", "1")):
                raise faults.no_reader()
        return "<rsp:SendResponse/>"

    def _receive(self, message: Message, shell: Shell) -> str:
        process = self._process(message, shell)
        # base64 and the envelope around it have to fit into what the client takes
        most = min(self._quotas.chunk, (message.envelope - 4096) * 3 // 4)
        found = process.take(most, message.timeout_s)
        if found is None:
            raise faults.timed_out()
        done, named = process.done, f'CommandId="{process.id}"'
        streams = "".join(
            f'<rsp:Stream Name="{name}" {named}>{base64.b64encode(data).decode()}</rsp:Stream>'
            for name, data in found.items() if data
        )  # fmt: skip
        if done:
            ends = (f'<rsp:Stream Name="{n}" {named} End="true"></rsp:Stream>' for n in found)
            streams += "".join(ends)
        code = f"<rsp:ExitCode>{process.code}</rsp:ExitCode>" if done else ""
        state = f"{SHELL}/CommandState/{'Done' if done else 'Running'}"
        return (
            f"<rsp:ReceiveResponse>{streams}"
            f'<rsp:CommandState {named} State="{state}">{code}</rsp:CommandState>'
            "</rsp:ReceiveResponse>"
        )

    def _signal(self, message: Message, shell: Shell) -> str:
        process = self._process(message, shell)
        code = message.body.findtext("rsp:Signal/rsp:Code", "", NS)
        if not code.lower().endswith(_ENDS):
            raise faults.bad_schema(f"no signal {code}")
        process.kill()
        with self._lock:
            shell.commands.pop(process.id, None)
        return "<rsp:SignalResponse/>"

    def _delete(self, message: Message, shell: Shell) -> str:
        with self._lock:
            self._shells.pop(message.shell, None)
            self.closed += 1
        _kill(shell)
        return ""


def _kill(shell: Shell) -> None:
    for process in shell.commands.values():
        process.kill()


def _too_long(process: Process) -> int:
    """What cmd.exe says of a line of more than 8191 characters."""
    process.write(b"The command line is too long.\r\n", "stderr")
    return 1
