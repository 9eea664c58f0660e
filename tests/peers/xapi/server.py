"""A host's door: HTTPS with XML-RPC on it, and the handler that takes a disk's contents."""

from __future__ import annotations

import socket
import ssl
import threading
import xmlrpc.client
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.parsers.expat import ExpatError

from tests.peers.xapi.values import Failure
from tests.peers.xapi.wire import Cut

READ_S = 60
IMPORT = "/import_raw_vdi"
#: the answer to a request that is none, as XenAPI's page on the wire protocol has it
MALFORMED = b"<html><body><h1>HTTP 500 internal server error</h1></body></html>"

Dispatch = Callable[[str, Sequence[Any]], Any]
Upload = Callable[[str, str, bytes, str], None]


@dataclass(frozen=True)
class Where:
    """An address; ``port`` 0 is any. ``inside`` calls things in the namespace that has it."""

    address: str
    port: int = 0
    inside: Callable[[Callable[[], Any]], Any] = lambda work: work()


class Door:
    """Serves one host at an address while it is open; the port is kept while it is shut.

    ``dispatch`` gives a call's value or raises Failure or Cut; ``upload`` takes a session, a VDI
    its contents, and the task that it ends ("" = none).
    """

    def __init__(
        self, where: Where, context: ssl.SSLContext, dispatch: Dispatch, upload: Upload
    ) -> None:
        self.context, self.dispatch, self.upload = context, dispatch, upload
        self.inside = where.inside
        self._kept = self.inside(lambda: _bound(where.address, where.port))
        self.address: tuple[str, int] = self._kept.getsockname()
        self._server: _Server | None = None
        self._links: set[socket.socket] = set()
        self._lock = threading.Lock()

    def open(self) -> None:
        server = _Server(self)
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def shut(self) -> None:
        """Nobody listens any more, and all connections break."""
        server, self._server = self._server, None
        if server is None:
            return
        server.server_close()  # first, or a client that is cut off comes back in
        with self._lock:
            links = [*self._links]
        for link in links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        threading.Thread(target=server.shutdown, daemon=True).start()

    def close(self) -> None:
        self.shut()
        self._kept.close()

    def hold(self, link: socket.socket) -> None:
        with self._lock:
            self._links.add(link)

    def drop(self, link: socket.socket) -> None:
        with self._lock:
            self._links.discard(link)


def _bound(address: str, port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind((address, port))
    return found


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, door: Door) -> None:
        self.door = door
        super().__init__(door.address, _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = door.inside(lambda: _bound(*door.address))
        self.server_activate()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    timeout = READ_S
    server: _Server

    def setup(self) -> None:
        door = self.server.door
        raw = self.request
        raw.settimeout(READ_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = door.context.wrap_socket(raw, server_side=True)
        door.hold(self.request)
        super().setup()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()
        self.server.door.drop(self.request)
        with suppress(OSError):
            self.request.close()

    def log_message(self, *_words: object) -> None:
        """Not on the terminal."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            params, method = xmlrpc.client.loads(body)
        except (ExpatError, xmlrpc.client.ResponseError, ValueError, TypeError, KeyError):
            self._say(500, "text/html", MALFORMED)
            return
        if self.path not in ("/", "/RPC2") or method is None:
            self._say(404, "text/html", MALFORMED)
            return
        try:
            found = {"Status": "Success", "Value": self.server.door.dispatch(method, params)}
        except Failure as e:
            found = {"Status": "Failure", "ErrorDescription": e.details}
        except Cut:
            self._cut()
            return
        text = xmlrpc.client.dumps((found,), methodresponse=True)
        self._say(200, "text/xml", text.encode())

    def do_PUT(self) -> None:
        """``PUT /import_raw_vdi?session_id=…&vdi=…&format=raw``: what comes is the disk's start.

        ``task_id`` names a task of the client's that it ends, as xapi does.
        """
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        length = self.headers.get("Content-Length")
        if url.path != IMPORT or not {"session_id", "vdi"} <= query.keys():
            self._say(404, "text/html", MALFORMED, close=True)
        elif self.headers.get("Transfer-Encoding") or length is None:
            self._say(403, "text/html", MALFORMED, close=True)
        elif query.get("format", "raw") != "raw":
            self._say(404, "text/html", MALFORMED, close=True)
        else:
            self._take(query, self.rfile.read(int(length)))

    def _take(self, query: dict[str, str], data: bytes) -> None:
        try:
            self.server.door.upload(
                query["session_id"], query["vdi"], data, query.get("task_id", "")
            )
        except Failure as e:
            code = 401 if e.details[0] == "SESSION_INVALID" else 500
            self._say(code, "text/html", MALFORMED, close=True)
        except Cut:
            self._cut()
        else:
            self._say(200, "application/octet-stream", b"", close=True)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)

    def _say(self, code: int, kind: str, body: bytes, *, close: bool = False) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
