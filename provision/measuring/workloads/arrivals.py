"""Open load on an HTTP server: connections begin at a fixed rate, whether or not it keeps up.

A program for the load generator: Python 3.8 and nothing else. Each connection asks once and is
closed by the server. Latency counts from the moment at which the connection was to begin, so that
neither a slow server nor a late start of ours hides waiting (no coordinated omission). Every
INTERVAL_S one line of JSON tells what began, what was done, what failed and why, and latencies as
a histogram whose buckets are hundredths of the decimal logarithm of microseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import math
import os
import resource
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

INTERVAL_S = 0.2
CLOCK_MONOTONIC, ABSOLUTE = 1, 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class Itimerspec(ctypes.Structure):
    _fields_ = (("interval", Timespec), ("value", Timespec))


def timer(first_ns: int, interval_ns: int) -> int:
    """A descriptor that can be read at the first moment, and then at each interval."""
    fd: int = LIBC.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK)
    spec = Itimerspec(Timespec(*divmod(interval_ns, 10**9)), Timespec(*divmod(first_ns, 10**9)))
    if fd < 0 or LIBC.timerfd_settime(fd, ABSOLUTE, ctypes.byref(spec), None):
        raise OSError(ctypes.get_errno(), "timerfd")
    return fd


@dataclass
class Part:
    """What happened since the last line."""

    begun: int = 0
    done: int = 0
    octets: int = 0
    late_us: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)


@dataclass
class Connection:
    """One of them; ``meant_ns`` is when it was to begin."""

    sock: socket.socket
    meant_ns: int
    told: bytes = b""
    length: int = 0
    head: int = 0
    whole_ns: int = 0


class Load:
    """All connections, and the schedule that they follow."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.request = f"GET {asked.path} HTTP/1.0\r\nHost: {asked.host}\r\n\r\n".encode()
        self.poll = select.epoll()
        self.open: dict[int, Connection] = {}
        self.part = Part()
        self.interval_ns = round(1e9 / asked.rate)
        self.first_ns = time.monotonic_ns() + self.interval_ns
        self.next = 0
        self.total = round(asked.rate * asked.seconds)

    def run(self) -> None:
        clock = timer(self.first_ns, self.interval_ns)
        self.poll.register(clock, select.EPOLLIN)
        said_ns = time.monotonic_ns()
        end_ns = self.first_ns + round(self.asked.seconds * 1e9)
        while (now_ns := time.monotonic_ns()) < end_ns or self.open:
            for fd, _ in self.poll.poll(INTERVAL_S / 4):
                if fd == clock:
                    os.read(clock, 8)
                    self.arrive()
                else:
                    self.serve(self.open[fd])
            if now_ns - said_ns >= INTERVAL_S * 1e9:
                self.tell((now_ns - said_ns) / 1e9)
                said_ns = now_ns
                self.expire(now_ns)
        self.tell((time.monotonic_ns() - said_ns) / 1e9)

    def arrive(self) -> None:
        """Begin all that are due."""
        while self.next < self.total:
            meant_ns = self.first_ns + self.next * self.interval_ns
            if (late_ns := time.monotonic_ns() - meant_ns) < 0:
                return
            self.next += 1
            self.part.begun += 1
            self.part.late_us = max(self.part.late_us, late_ns // 1000)
            self.begin(meant_ns)

    def begin(self, meant_ns: int) -> None:
        try:
            sock = socket.socket()
        except OSError as e:  # as many are open as may be
            self.part.errors[str(e.strerror)] += 1
            return
        sock.setblocking(False)
        code = sock.connect_ex((self.asked.host, self.asked.port))
        if code not in (0, errno.EINPROGRESS):
            self.part.errors[f"connect: {os.strerror(code)}"] += 1
            sock.close()
            return
        self.open[sock.fileno()] = Connection(sock, meant_ns)
        self.poll.register(sock, select.EPOLLOUT)

    def serve(self, one: Connection) -> None:
        """Go on with one that can be written to or read from."""
        try:
            if not one.length and not one.told and one.head == 0:
                if code := one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self.end(one, f"connect: {os.strerror(code)}")
                    return
                one.sock.sendall(self.request)
                one.head = -1  # asked, and no whole head yet
                self.poll.modify(one.sock, select.EPOLLIN)
                return
            part = one.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as e:
            self.end(one, str(e.strerror))
            return
        if not part:
            self.end(one, self.fault(one))
            return
        one.length += len(part)
        if one.head < 0:
            one.told += part
            found = one.told.find(b"\r\n\r\n")
            one.head = found + 4 if found >= 0 else -1
        if one.head > 0 and one.length - one.head >= self.asked.size and not one.whole_ns:
            one.whole_ns = time.monotonic_ns()

    def fault(self, one: Connection) -> str:
        """What is wrong with a whole answer; "" = nothing."""
        if one.head <= 0:
            return "no answer"
        status = one.told.split(b" ", 2)[1:2]
        if status != [b"200"]:
            return f"status {status[0].decode(errors='replace') if status else '?'}"
        size = one.length - one.head
        return "" if size == self.asked.size else f"size {size}"

    def end(self, one: Connection, fault: str) -> None:
        del self.open[one.sock.fileno()]
        one.sock.close()
        if fault:
            self.part.errors[fault] += 1
            return
        self.part.done += 1
        self.part.octets += one.length
        latency_us = max(1.0, (one.whole_ns - one.meant_ns) / 1000)
        self.part.latency[round(100 * math.log10(latency_us))] += 1

    def expire(self, now_ns: int) -> None:
        """Give up those that have waited too long."""
        old_ns = now_ns - round(self.asked.timeout * 1e9)
        for one in [c for c in self.open.values() if c.meant_ns < old_ns]:
            self.end(one, "timeout")

    def tell(self, interval_s: float) -> None:
        part, self.part = self.part, Part()
        line: dict[str, Any] = {
            "end": round(time.time(), 6), "interval": round(interval_s, 6), "begun": part.begun,
            "done": part.done, "octets": part.octets, "late_us": part.late_us,
            "errors": part.errors, "latency": part.latency,
        }  # fmt: skip
        print(json.dumps(line, separators=(",", ":")), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--rate", type=float, required=True, help="connections per second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--size", type=int, required=True, help="of each answer's body, bytes")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Load(parser.parse_args()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
