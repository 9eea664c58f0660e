"""Replies of HTTP/1 as http.client itself reads them."""

from __future__ import annotations

import io
import socket
from http.client import HTTPException, HTTPResponse, RemoteDisconnected

import pytest

from drivers.https import receive

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = [
    OK + b"Content-Length: 5\r\nSet-Cookie: a=1; Path=/\r\n\r\nhello",
    OK + b"content-length:0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n1234567890\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: b\r\n\r\n",
    OK + b"Connection: close\r\n\r\nuntil the end",
    OK + b"X: a\r\nX: b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
]
BROKEN = [
    b"",
    b"\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 two hundred\r\n\r\n",
    OK + b"Content-Length: 5\r\n\r\nhell",
    OK + b"Content-Length: -5\r\n\r\nhello",
    OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    OK + b"A: b\r\n" * 101 + b"\r\n",
    OK + b"A: " + b"b" * 70000 + b"\r\n\r\n",
]


class _Said(socket.socket):
    """A socket that has said this."""

    text: bytes

    def makefile(self, *_args: object, **_more: object) -> io.BytesIO:  # type: ignore[override]
        return io.BytesIO(self.text)


@pytest.mark.parametrize("text", WHOLE)
def test_a_reply_is_what_http_client_makes_of_it(text: bytes) -> None:
    with _Said() as link:
        link.text = text
        its = HTTPResponse(link)
        its.begin()
        body = its.read()
    found = receive(io.BytesIO(text))
    assert (found.status, found.reason, found.body) == (its.status, its.reason, body)
    assert found.closes is bool(its.will_close)
    assert found.headers == {name.lower(): its.getheader(name) for name in its.headers}


@pytest.mark.parametrize("text", BROKEN)
def test_a_reply_that_is_none_is_told_apart(text: bytes) -> None:
    with pytest.raises(HTTPException):
        receive(io.BytesIO(text))


def test_replies_follow_each_other() -> None:
    file = io.BytesIO(WHOLE[0] + WHOLE[2] + WHOLE[1])
    assert [receive(file).body for _ in range(3)] == [b"hello", b"hello1234567890", b""]
    with pytest.raises(RemoteDisconnected):
        receive(file)
