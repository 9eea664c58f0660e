"""Runs a command, and ends it with all that it started when its own standard input ends.

So a play never outlives its controller, however that ends, kill -9 included: the kernel closes the
pipe. Ansible's workers are sessions of their own, which neither a signal to a process group nor
ansible-runner's cancel reaches; with a worker its ssh goes, and with that what it runs far away.
A program by itself, of the standard library alone: ``python guard.py COMMAND…``.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE_S = 5.0
PR_SET_CHILD_SUBREAPER = 36  # prctl(2): whose parent has died becomes our child, so none is lost


def main(command: list[str]) -> int:
    """The command's exit code; -SIGKILL where it had to be ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    ended = os.pidfd_open(process.pid)
    ready, _, _ = select.select([0, ended], [], [])  # nothing is ever written to us
    if ended not in ready:  # what a play leaves by itself, ssh's shared connections, may stay
        end_all_below(os.getpid())
    return process.wait()


def end_all_below(root: int) -> None:
    """See that no process below ``root`` goes on."""
    held = _hold(root)
    for handle in held.values():
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    deadline = time.monotonic() + GRACE_S
    for handle in held.values():
        # a handle can be read once its process has ended
        select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        os.close(handle)


def _hold(root: int) -> dict[int, int]:
    """Stop all below a process; a handle of each.

    Stopped one after another until no new one shows, none of them can fork unseen.
    """
    held: dict[int, int] = {}
    while new := [pid for pid in _below(root) if pid not in held]:
        for pid in new:
            with suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
                signal.pidfd_send_signal(held[pid], signal.SIGSTOP)
    return held


def _below(root: int) -> list[int]:
    """All below a process, by the kernel's list of parents; the dead are left out."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) & 0xFF)
