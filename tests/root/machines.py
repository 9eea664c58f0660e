"""Machines to test on: network namespaces that a test makes, with cables between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from provision.host import Host

marks = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
    pytest.mark.skipif(not shutil.which("ip"), reason="needs iproute2"),
]


def sh(*words: str) -> str:
    """Run a command here; a failure fails the test with the command's own words."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not done.returncode, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@contextmanager
def machine(name: str) -> Iterator[Host]:
    """A namespace of this name as a machine of its own."""
    sh("ip", "netns", "add", name)
    try:
        yield Host().inside(name)
    finally:
        sh("ip", "netns", "del", name)


SERVER = """
import socket, sys, time
server = socket.create_server((sys.argv[1], 5001))
server.settimeout(10)
print("ready", flush=True)
far, _ = server.accept()
far.settimeout(10)
size, started = 0, time.monotonic()
while data := far.recv(1 << 16):
    size += len(data)
print(size * 8 / 1e6 / (time.monotonic() - started))
"""
CLIENT = """
import socket, sys, time
far = socket.create_connection((sys.argv[1], 5001), timeout=10)
far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    far.sendall(bytes(8192))
"""


def stream_mbit(sender: Host, receiver: Host, address: str, seconds: float) -> float:
    """What one TCP stream carries to an address of the receiver's, in Mbit/s."""
    with subprocess.Popen(
        receiver.argv(sys.executable, "-c", SERVER, address), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            sender.run(sys.executable, "-c", CLIENT, address, str(seconds))
            return float(server.stdout.read())
        finally:
            server.kill()
