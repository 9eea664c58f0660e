"""Run all netperf clients of one sample at once, and count what the links and CPUs did meanwhile.

Needs Python 3.8 and nothing else. The one argument is the plan, JSON in base64: ``argv`` (its
first word is the program), ``streams`` (each with ``argv``, in which {server}, {local},
{control_port} and {data_port} stand for its own, with these, ``pair`` and ``nic``),
``interval_s``, ``deadline_s``, ``path`` (searched for netperf before PATH) and ``folder``. Raw
output grows in ``folder``/PAIR.txt; all that was seen is in ``folder``/streams.json at the end. No
netperf outlives this process, nor does this process outlive whoever reads its standard output.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FORMAT = 1
PR_SET_PDEATHSIG = 1
ANSWER_S = 5.0  # for a netserver to take a connection
GRACE_S = 1.0  # between SIGTERM and SIGKILL
WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
HZ = os.sysconf("SC_CLK_TCK")


class Fault(Exception):
    """The sample cannot be taken; one line for each guest or cause."""


def refused(streams: list[dict[str, Any]]) -> list[str]:
    """The guests whose netserver does not take a connection, each with the reason."""
    waiting: dict[int, tuple[str, socket.socket]] = {}
    words = []
    poll = select.poll()
    for s in streams:
        who = f"{s['pair']}: netserver at {s['server']}:{s['control_port']}"
        sock = socket.socket()
        sock.setblocking(False)
        try:
            sock.bind((s["local"], 0))
        except OSError as e:
            words.append(f"{s['pair']}: {s['local']} of {s['nic']}: {e.strerror}")
            continue
        code = sock.connect_ex((s["server"], s["control_port"]))
        if code in (0, errno.EINPROGRESS):
            waiting[sock.fileno()] = (who, sock)
            poll.register(sock, select.POLLOUT)
        else:
            words.append(f"{who} does not answer: {os.strerror(code)}")
    deadline = time.monotonic() + ANSWER_S
    while waiting and time.monotonic() < deadline:
        for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            poll.unregister(fd)
            who, sock = waiting.pop(fd)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            sock.close()
            if code:
                words.append(f"{who} does not answer: {os.strerror(code)}")
    words += [f"{who} does not answer within {ANSWER_S:g} s" for who, _ in waiting.values()]
    return sorted(words)


def links() -> dict[str, list[int]]:
    """Every link but lo: [rx_bytes, rx_packets, tx_bytes, tx_packets]."""
    found = {}
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, figures = line.partition(":")
        n = figures.split()
        if name.strip() != "lo":
            found[name.strip()] = [int(n[0]), int(n[1]), int(n[8]), int(n[9])]
    return found


def cpus() -> list[float]:
    """Seconds that each CPU was busy since boot; waiting for a disk is idle."""
    lines = Path("/proc/stat").read_text().splitlines()
    rows = [line.split() for line in lines if line.startswith("cpu") and line[3] != " "]
    # user nice system (idle iowait) irq softirq steal; guest time is within user
    return [sum(int(r[i]) for i in (1, 2, 3, 6, 7, 8)) / HZ for r in rows]


def cpu_s(pid: int) -> float:
    """The CPU time of a child so far; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / HZ


class Stream:
    """One netperf, held at the barrier until the other end of that pipe is closed."""

    def __init__(self, wish: dict[str, Any], argv: list[str], folder: Path) -> None:
        self.wish, self.argv = wish, argv
        self.out, self.err = folder / f"{wish['pair']}.txt", folder / f"{wish['pair']}.err"
        self.status: int | None = None
        self.ended: list[float] | None = None
        self.exec: list[float] = []
        self.cpu: list[float] = []

    def hold(self, barrier: tuple[int, int]) -> None:
        """Fork up to the barrier."""
        parent = os.getpid()
        self.report, write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        try:
            self._child(parent, barrier, write)
        except OSError as e:
            os.write(write, f"!{self.argv[0]}: {e.strerror}".encode())
        finally:
            os._exit(127)

    def _child(self, parent: int, barrier: tuple[int, int], report: int) -> None:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(self.out, flags, 0o600), 1)
        os.dup2(os.open(self.err, flags, 0o600), 2)
        os.close(barrier[1])
        os.write(report, b".")
        os.read(barrier[0], 1)  # its end of file is the signal to go
        os.write(report, f"{time.time():.6f} {time.monotonic():.6f}".encode())
        os.execv(self.argv[0], self.argv)

    def ready(self) -> None:
        if os.read(self.report, 1) != b".":
            raise Fault(f"{self.wish['pair']}: {self._told() or 'ended before its start'}")

    def _told(self) -> str:
        told = b""
        while part := os.read(self.report, 4096):
            told += part
        os.close(self.report)
        return told.decode(errors="replace")

    def started(self) -> None:
        """Wait for the exec; the report's pipe closes by it."""
        told, _, fault = self._told().partition("!")
        if fault:
            raise Fault(f"{self.wish['pair']}: {fault}")
        self.exec = [float(word) for word in told.split()]

    def reap(self) -> bool:
        """Note the end, if it has come; true if it was a bad one."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status, self.ended = status, [time.time(), time.monotonic()]
        return bool(self.status)

    def kill(self, number: int) -> None:
        if self.status is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # not yet a group of its own
                os.kill(self.pid, number)

    def told(self) -> dict[str, Any]:
        """All about it, for the document."""
        status = -1 if self.status is None else self.status
        signalled = status != -1 and os.WIFSIGNALED(status)
        return dict(
            self.wish, argv=self.argv, exec=self.exec, ended=self.ended, cpu_s=self.cpu,
            exit=None if signalled or status == -1 else os.WEXITSTATUS(status),
            signal=os.WTERMSIG(status) if signalled else None,
            stdout=self.out.read_text(errors="backslashreplace"),
            stderr=self.err.read_text(errors="backslashreplace"),
        )  # fmt: skip


class Record:
    """What the clocks, links and CPUs said, tick by tick."""

    def __init__(self, streams: list[Stream]) -> None:
        self.streams = streams
        self.epoch: list[float] = []
        self.monotonic: list[float] = []
        self.cpu: list[list[float]] = []
        self.links: dict[str, list[list[int]]] = {}

    def tick(self) -> None:
        now = links()
        self.epoch.append(round(time.time(), 6))
        self.monotonic.append(round(time.monotonic(), 6))
        for name in now.keys() | self.links.keys():
            rows = self.links.setdefault(name, [[0, 0, 0, 0]] * (len(self.epoch) - 1))
            rows.append(now.get(name) or rows[-1])
        self.cpu.append(cpus())
        for s in self.streams:
            s.cpu.append(cpu_s(s.pid) if s.status is None else s.cpu[-1])


def watch(plan: dict[str, Any], streams: list[Stream], record: Record) -> str | None:
    """Until the last stream has ended; why they are to be stopped before, or None."""
    reader = select.poll()
    reader.register(1, 0)
    began = due = time.monotonic()
    while any(s.status is None for s in streams):
        due = max(due + plan["interval_s"], time.monotonic())
        while (left := due - time.monotonic()) > 0:
            got = signal.sigtimedwait(WATCHED, left)
            if got and got.si_signo != signal.SIGCHLD:
                return f"signal {got.si_signo}"
            if bad := [s.wish["pair"] for s in streams if s.reap()]:
                return f"{', '.join(bad)} failed"
        record.tick()
        if time.monotonic() - began > plan["deadline_s"]:
            return f"no end after {plan['deadline_s']:g} s"
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in reader.poll(0)):
            return "nobody reads the output any more"
    return None


def stop(streams: list[Stream]) -> None:
    """End those that still run, and wait for them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for s in streams:
            s.kill(number)
        deadline = time.monotonic() + GRACE_S
        while any(s.status is None for s in streams) and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic()))
            for s in streams:
                s.reap()


def check(plan: dict[str, Any]) -> str:
    """The path of netperf. Raises Fault with all that would make the sample worthless."""
    wanted: str = plan["argv"][0]
    netperf = shutil.which(wanted, path=f"{plan['path']}:{os.environ.get('PATH', os.defpath)}")
    if netperf is None:
        raise Fault(f"{wanted}: not found on the load generator")
    have = links()
    words = [
        f"{s['pair']}: the load generator has no link {s['nic']}; it has: {', '.join(have)}"
        for s in plan["streams"]
        if s["nic"] not in have
    ]
    if words := words or refused(plan["streams"]):
        raise Fault("\n".join(words))
    return netperf


def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """The document of one sample."""
    netperf = check(plan)
    version = subprocess.run([netperf, "-V"], capture_output=True, text=True, check=False)
    barrier = os.pipe()
    streams: list[Stream] = []
    record = Record(streams)
    try:
        for wish in plan["streams"]:
            argv = [netperf, *(word.format(**wish) for word in wish.pop("argv")[1:])]
            stream = Stream(wish, argv, Path(plan["folder"]))
            stream.hold(barrier)
            streams.append(stream)
        for s in streams:
            s.ready()
        record.tick()
        released = [time.time(), time.monotonic()]
        os.close(barrier[1])
        for s in streams:
            s.started()
        why = watch(plan, streams, record)
    finally:
        stop(streams)
    record.tick()
    return {
        "format": FORMAT, "plan": plan, "host": os.uname().nodename, "kernel": os.uname().release,
        "netperf": {"path": netperf, "version": version.stdout.strip(),
                    "sha256": hashlib.sha256(Path(netperf).read_bytes()).hexdigest()},
        "released": released, "stopped": why,
        "ticks": {"epoch": record.epoch, "monotonic": record.monotonic, "cpu_s": record.cpu,
                  "links": record.links},
        "streams": [s.told() for s in streams],
    }  # fmt: skip


def main(words: list[str]) -> int:
    plan = json.loads(base64.b64decode(words[0]))
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    target = Path(plan["folder"], "streams.json")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.exists():
        target.unlink()
    target.with_name("pid").write_text(str(os.getpid()))  # for who wants to end it
    try:
        document = measure(plan)
    except Fault as e:
        print(e, file=sys.stderr)
        return 3
    part = target.with_suffix(".part")
    part.write_text(json.dumps(document, separators=(",", ":")))
    part.replace(target)
    print(json.dumps({"streams": len(document["streams"]), "stopped": document["stopped"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
