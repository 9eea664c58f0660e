"""A vCenter or an ESXi host for a test: govmomi's simulator, with rules of its own in govcsim."""

from __future__ import annotations

import json
import queue
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pyVim import connect as pyvim_connect
from pyVmomi import vim as typed_vim
from pyVmomi import vmodl as typed_vmodl

from tests.peers import certs, vcsim_build
from tests.peers.scratch import scratch

READY_S = 30
END_S = 10
Event = Mapping[str, Any]
#: pyVmomi's own types know neither optional arguments nor methods by their wire names
vim: Any = typed_vim
vmodl: Any = typed_vmodl
pyvim: Any = pyvim_connect


@dataclass(frozen=True, slots=True)
class Vcsim:
    """One that runs. ``ca`` is a PEM file, ``fingerprint`` SHA-256 in hex.

    ``events`` has what it did, oldest first: see ``govcsim/events.go``; None is its end.
    ``log`` is what it wrote to its standard error. ``tools`` has a guest report, see
    ``govcsim/tools.go``.
    """

    uri: str
    user: str
    password: str = field(repr=False)
    ca: Path
    fingerprint: str
    log: Path
    events: queue.SimpleQueue[Event | None]
    answer: Callable[[int, str], None]
    tools: Callable[[Mapping[str, Any]], None]

    def connect(self) -> Any:
        """A service instance over a connection of its own, for a test to ask what is there."""
        url = urlsplit(self.uri)
        stub = pyvim.SmartStubAdapter(
            host=url.hostname, port=url.port,
            sslContext=ssl.create_default_context(cafile=str(self.ca)),
        )  # fmt: skip
        si = vim.ServiceInstance("ServiceInstance", stub)
        si.RetrieveContent().sessionManager.Login(self.user, self.password, None)
        return si


@contextmanager
def vcsim(
    model: str = "VPX",
    *,
    pnics: int | Sequence[int] = 2,
    hosts: int = 1,
    cluster_hosts: int = 0,
    pools: int = 0,
    datastores: int = 1,
    vms: int = 0,
    cpus: int = 4,
    memory_mib: int = 16384,
    api: str = "",
    idle_s: float = 0,
    delay_ms: Mapping[str, int] | None = None,
    lacking: Sequence[str] = (),
    agent: bool = False,
    user: str = "root",
    password: str = "vcsim's own",
) -> Iterator[Vcsim]:
    """Start one on a free port of loopback, and end it.

    ``model`` is VPX (a vCenter with ``hosts`` hosts DC0_H0…, and a cluster of ``cluster_hosts``
    with ``pools`` pools below its root) or ESX. ``pnics`` are how many at 1 Gbit/s, or each one's
    speed in Mbit/s (0 = the link is down). ``api`` is the version offered ("" = 6.5). ``delay_ms``
    is by method, "*" for all. ``lacking`` are privileges, as ``Network.Assign`` or
    ``Network.Assign@HostSystem``; ``govcsim/privileges.go`` has those that calls need. With
    ``agent``, what happens to VMs waits for ``answer``.
    Raises PreflightError where it cannot be built.
    """
    speeds = [1000] * pnics if isinstance(pnics, int) else [*pnics]
    delays = [f"{method}:{ms}" for method, ms in (delay_ms or {}).items()]
    with scratch("pvx-vcsim-", Path(tempfile.gettempdir())) as folder:
        made = certs.make(folder)
        argv = [
            str(vcsim_build.program()), f"-esx={str(model == 'ESX').lower()}",
            f"-cert={made.cert}", f"-key={made.key}", f"-user={user}:{password}",
            f"-hosts={hosts}", f"-cluster={cluster_hosts}", f"-pools={pools}",
            f"-datastores={datastores}", f"-vms={vms}", f"-cpus={cpus}", f"-memory={memory_mib}",
            f"-pnics={','.join(map(str, speeds))}", f"-api={api}", f"-idle={idle_s}s",
            f"-delay={','.join(delays)}", f"-lacking={','.join(lacking)}",
            f"-agent={str(agent).lower()}",
        ]  # fmt: skip
        log = folder / "stderr"
        with _started(argv, folder, log) as process:
            assert process.stdin is not None
            events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
            reader = threading.Thread(target=_read, args=(process.stdout, events), daemon=True)
            reader.start()
            try:
                first = events.get(timeout=READY_S)
            except queue.Empty:
                first = None
            assert first, f"vcsim did not start: {log.read_text()}"
            ears = _Ears(process.stdin)
            yield Vcsim(
                f"https://{first['address']}/", user, password, made.ca, made.fingerprint,
                log, events, ears.answer, ears.tools,
            )  # fmt: skip


@contextmanager
def _started(argv: list[str], folder: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """The process; it ends with us in any case, since its standard input does."""
    with log.open("w") as err, subprocess.Popen(
        argv, env={"TMPDIR": str(folder), "PATH": ""}, text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, process_group=0,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _read(lines: IO[str] | None, events: queue.SimpleQueue[Event | None]) -> None:
    assert lines is not None
    for line in lines:
        events.put(json.loads(line))
    events.put(None)


class _Ears:
    """Its standard input, for many threads; what comes after its end is lost."""

    def __init__(self, to: IO[str]) -> None:
        self._to = to
        self._lock = threading.Lock()

    def answer(self, number: int, why_not: str = "") -> None:
        """Say that an event is dealt with, or why it cannot be."""
        self._write(f"{number} {' '.join(why_not.split())}")

    def tools(self, report: Mapping[str, Any]) -> None:
        """Say what a guest reports."""
        self._write(f"tools {json.dumps(report)}")

    def _write(self, line: str) -> None:
        with self._lock, suppress(BrokenPipeError, ValueError):
            self._to.write(f"{line}\n")
