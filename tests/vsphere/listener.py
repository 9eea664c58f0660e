"""A TLS server that writes down what it hears, passes it on, or answers with something else."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.peers.vcsim import Vcsim

Answer = Callable[[ssl.SSLSocket], None]


@dataclass
class Listener:
    """A TLS server that keeps all that it is told, by connection; "" of one that told nothing."""

    uri: str
    heard: list[bytes] = field(default_factory=list)

    @property
    def all(self) -> bytes:
        return b"".join(self.heard)


@contextmanager
def listener(contexts: Sequence[ssl.SSLContext], answer: Answer) -> Iterator[Listener]:
    """The Nth connection meets the Nth certificate, and any later one the last."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        found = Listener(f"https://127.0.0.1:{door.getsockname()[1]}/")
        threads: list[threading.Thread] = []

        def serve(raw: socket.socket, number: int) -> None:
            raw.settimeout(10)
            context = contexts[min(number, len(contexts) - 1)]
            with suppress(OSError), context.wrap_socket(raw, server_side=True) as link:
                answer(_Ear(link, found, number))  # type: ignore[arg-type]
            raw.close()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    raw, _ = door.accept()
                    found.heard.append(b"")
                    one = threading.Thread(target=serve, args=(raw, len(found.heard) - 1))
                    threads.append(one)
                    one.start()

        main = threading.Thread(target=accept)
        main.start()
        yield found
        door.shutdown(socket.SHUT_RDWR)
        main.join(10)
        for thread in threads:
            thread.join(10)


class _Ear:
    """A connection that writes down what it hears."""

    def __init__(self, link: ssl.SSLSocket, to: Listener, number: int) -> None:
        self._link, self._to, self._number = link, to, number

    def recv(self, most: int) -> bytes:
        data = self._link.recv(most)
        self._to.heard[self._number] += data
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


def relay(server: Vcsim) -> Answer:
    """Everything goes on to the real server."""

    def answer(link: ssl.SSLSocket) -> None:
        url = urlsplit(server.uri)
        plain = ssl.create_default_context(cafile=str(server.ca))
        raw = socket.create_connection((url.hostname, url.port), 10)
        with plain.wrap_socket(raw, server_hostname=url.hostname) as far:
            while _pass_on(link, far):
                pass

    return answer


def _pass_on(link: ssl.SSLSocket, far: ssl.SSLSocket) -> bool:
    """What either says, to the other; whether both are still there."""
    pairs = ((link, far), (far, link))
    ready = [link] * bool(link.pending()) + [far] * bool(far.pending())
    ready = ready or select.select([link, far], [], [], 10)[0]
    for one, other in pairs:
        if one in ready:
            one.settimeout(0.05)  # what came may be TLS's own, with nothing in it for us
            try:
                data = one.recv(65536)
            except TimeoutError:
                continue
            if not data:
                return False
            other.settimeout(10)
            other.sendall(data)
    return bool(ready)


def says(text: bytes) -> Answer:
    """One answer to whatever is asked, and the end."""

    def answer(link: ssl.SSLSocket) -> None:
        link.recv(65536)
        link.sendall(text)

    return answer
