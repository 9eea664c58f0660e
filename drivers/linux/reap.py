"""Ends all processes of a network namespace; runs on the host, as ``python3 - NAMESPACE < this``.

It needs nothing but Python 3.9. It prints each process that it had to end.
"""

import os
import select
import signal
import sys
import time
from pathlib import Path

GRACE_S = 2.0
KILL_S = 5.0


def inside(namespace: Path, proc: Path = Path("/proc")) -> list[int]:
    """The processes in the namespace that this file names; those that end meanwhile count not."""
    mine = namespace.stat()
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            its = (entry / "ns" / "net").stat()
        except OSError:  # gone, or a zombie, which has none
            continue
        if (its.st_dev, its.st_ino) == (mine.st_dev, mine.st_ino):
            found.append(int(entry.name))
    return found


def end(pids: list[int]) -> list[int]:
    """SIGTERM, then SIGKILL to what is left after the grace; returns those that live even then."""
    living: dict[int, int] = {}
    for pid in pids:
        try:
            living[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    for number, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, KILL_S)):
        for fd in living:
            _signal(fd, number)
        _await(living, patience_s)
    for fd in living:
        os.close(fd)
    return sorted(living.values())


def _signal(fd: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return


def _await(living: dict[int, int], patience_s: float) -> None:
    """Wait until all have ended; those that have leave ``living``."""
    deadline = time.monotonic() + patience_s
    poll = select.poll()
    for fd in living:
        poll.register(fd, select.POLLIN)
    while living and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            os.close(fd)
            del living[fd]


def main(namespace: str) -> int:
    """Until none is left: what is ended may have had children meanwhile."""
    for _ in range(10):
        pids = inside(Path("/run/netns") / namespace)
        if os.getpid() in pids:
            print("cannot end the namespace that it runs in", file=sys.stderr)
            return 1
        if not pids:
            return 0
        print(*pids)
        if stubborn := end(pids):
            print("still there after SIGKILL:", *stubborn, file=sys.stderr)
            return 1
    print("new processes keep coming", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
