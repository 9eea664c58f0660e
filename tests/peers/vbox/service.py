"""VBoxSVC: serves the VBoxManage programs, and goes on with what it began when they are killed."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from provision.errors import ProvisionError
from tests.peers.vbox import commands
from tests.peers.vbox.world import SyntaxFault, VboxError, World

SYNTAX = 2


@dataclass(frozen=True)
class Call:
    number: int
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Told:
    out: str = ""
    err: str = ""
    code: int = 0


@dataclass
class Trouble:
    """What becomes of a call: done or not, then an error, or the client is killed."""

    acts: bool = True
    error: VboxError | None = None
    then: Callable[[], None] | None = None


@dataclass
class Service:
    """``hook`` may trouble a call; ``complaints`` are calls that VBoxManage would not take."""

    world: World
    folder: Path
    hook: Callable[[Call], Trouble | None] | None = None
    complaints: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def programs(self) -> Path:
        """The folder to put first in PATH."""
        return self.folder / "bin"

    def calm(self) -> None:
        """No trouble any more, and calls are counted anew."""
        with self._lock:
            self.hook = None
            self.calls.clear()

    def answer(self, argv: tuple[str, ...]) -> Told:
        with self._lock:
            call = Call(len(self.calls) + 1, argv)
            self.calls.append(call)
            hook = self.hook
        trouble = (hook(call) if hook else None) or Trouble()
        told = self._act(argv) if trouble.acts else Told(code=1)
        if trouble.error is not None:
            told = Told(err=trouble.error.told(), code=1)
        if trouble.then is not None:
            trouble.then()
        return told

    def _act(self, argv: tuple[str, ...]) -> Told:
        try:
            with self.world.lock:
                return Told(commands.run(self.world, argv))
        except SyntaxFault as e:
            self.complaints.append(f"{argv}: {e}")
            usage = f"Usage:\n\nVBoxManage {argv[0] if argv else ''}\n\n"
            return Told(err=f"{usage}{e.told()}", code=SYNTAX)
        except VboxError as e:
            return Told(err=e.told(), code=1)
        except (AssertionError, OSError, ValueError, KeyError, IndexError, ProvisionError) as e:
            # what this peer has not, or its own fault: the test shall fail
            self.complaints.append(f"{argv}: {type(e).__name__}: {e}")
            return Told(err=f"VBoxManage: error: not in this peer: {e}\n", code=1)


@contextmanager
def served(world: World, folder: Path) -> Iterator[Service]:
    """Serve a world; the VBoxManage that asks it is in ``programs``."""
    service, path = Service(world, folder), folder / "vboxsvc"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            argv = self.rfile.read().decode().split("\0")[:-1]
            told = service.answer(tuple(argv))
            out = told.out.encode()
            try:
                self.wfile.write(f"{told.code} {len(out)}\n".encode() + out + told.err.encode())
            except BrokenPipeError:
                return  # killed meanwhile

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads, request_queue_size = True, 64

    service.programs.mkdir(parents=True)
    text = Path(__file__).with_name("client.pl").read_text().replace("@SOCKET@", str(path))
    program = service.programs / "VBoxManage"
    program.write_text(text)
    program.chmod(0o755)
    with Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield service
        finally:
            server.shutdown()
