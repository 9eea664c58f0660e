"""HTTP and HTTPS for a host that may go away and come back at the same port."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

BACKLOG = 256


class Drop(Exception):
    """Raised by who answers: the connection breaks, and nothing is said."""


class Handler(BaseHTTPRequestHandler):
    """One connection. Answers leave in one piece: Nagle's algorithm would cost 40 ms each."""

    protocol_version = "HTTP/1.1"
    server_version = "Microsoft-HTTPAPI/2.0"
    sys_version = ""
    wbufsize = -1
    disable_nagle_algorithm = True
    tls: bool
    serve: Callable[[Handler, bytes], None]
    login: Any = None

    def log_message(self, *_args: object) -> None:
        pass

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            type(self).serve(self, data)
        except Drop:
            self.close_connection = True

    def reply(
        self, status: int, data: bytes = b"", kind: str = "application/soap+xml;charset=UTF-8",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:  # fmt: skip
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if data:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


class Listener:
    """Listens on a free port of loopback; each connection has a thread."""

    def __init__(
        self, serve: Callable[[Handler, bytes], None], files: tuple[Path, Path] | None
    ) -> None:
        self._context: ssl.SSLContext | None = None
        if files is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*files)
        self._handler = type(
            "Bound", (Handler,), {"serve": staticmethod(serve), "tls": files is not None}
        )
        self._socket, self.port = _bound()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._up = threading.Event()
        self._ended = False
        self.connections = 0
        self.up()
        threading.Thread(target=self._accept, name=f"listener {self.port}", daemon=True).start()

    def up(self) -> None:
        """Listen, again where it was taken down; the port was kept."""
        self._socket.listen(BACKLOG)
        self._up.set()

    def down(self) -> None:
        """Break all connections and refuse new ones."""
        self._up.clear()
        _break(self._socket)
        with self._lock:
            for connection in self._open:
                _break(connection)

    def close(self) -> None:
        self._ended = True
        self.down()
        self._up.set()

    def _accept(self) -> None:
        while True:
            self._up.wait()
            if self._ended:
                self._socket.close()
                return
            try:
                connection, address = self._socket.accept()
            except OSError:
                continue
            threading.Thread(target=self._run, args=(connection, address), daemon=True).start()

    def _run(self, connection: socket.socket, address: Any) -> None:
        if self._context is not None:
            # the handshake is the client's to begin, so it has its own thread
            try:
                connection = self._context.wrap_socket(connection, server_side=True)
            except (ssl.SSLError, OSError):
                connection.close()
                return
        with self._lock:
            self._open.add(connection)
            self.connections += 1
        try:
            self._handler(connection, address, None)
        except (OSError, ValueError):
            pass  # the client went away, or we broke it
        finally:
            with self._lock:
                self._open.discard(connection)
            _break(connection)
            connection.close()


def _bound() -> tuple[socket.socket, int]:
    """A port that was asked for by its number is kept while nobody listens at it."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(("127.0.0.1", port))
        except OSError:
            found.close()
        else:
            return found, port


def _break(connection: socket.socket) -> None:
    with suppress(OSError):  # where it is broken
        connection.shutdown(socket.SHUT_RDWR)
