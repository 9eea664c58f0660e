"""Run all programs of one sample at once, and count what the links and CPUs did meanwhile.

Needs Python 3.8 and nothing else. The one argument is the plan, JSON in base64:

``programs``   by name: the words that make it tell its version; searched in ``path``, then PATH
``streams``    each with ``pair``, ``nic`` and ``argv``, whose first word is a program and in which
               {folder} and its other keys stand for their values. It may have ``kernel``, how the
               names of kernel threads begin that work for it; ``asks``, what has to
               take a connection at ``server``:``port`` from ``local`` before anything starts;
               ``counter``, what is read at each tick (see Counter); and ``brings``, a file of the
               folder that is kept with the output
``helpers``    what serves meanwhile: ``name``, ``argv``, ``files`` (by name text, or text and how
               often, in a folder of its own that {home} stands for) and ``listens``, address and
               port once it is ready
``files``      text by name, for ``folder``
``interval_s``, ``deadline_s``, ``path``, ``folder``

Raw output grows in ``folder``/PAIR.txt; all that was seen is in ``folder``/streams.json at the end.
No program outlives this process, nor does this process outlive whoever reads its standard output.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import hashlib
import json
import os
import re
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
ANSWER_S = 5.0  # for a server to take a connection
LOOK_S = 0.5  # for a counter to be told
GRACE_S = 1.0  # between SIGTERM and SIGKILL
RESERVE = 1 << 16  # bytes, so that a full disk can be told
WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
HZ = os.sysconf("SC_CLK_TCK")


class Fault(Exception):
    """The sample cannot be taken; one line for each guest or cause."""


def refused(streams: list[dict[str, Any]]) -> list[str]:
    """The guests whose server does not take a connection, each with the reason."""
    waiting: dict[int, tuple[str, socket.socket]] = {}
    words = []
    poll = select.poll()
    for s in streams:
        who = f"{s['pair']}: {s['asks']} at {s['server']}:{s['port']}"
        sock = socket.socket()
        sock.setblocking(False)
        try:
            sock.bind((s["local"], 0))
        except OSError as e:
            words.append(f"{s['pair']}: {s['local']} of {s['nic']}: {e.strerror}")
            continue
        code = sock.connect_ex((s["server"], s["port"]))
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


class Processes:
    """The CPU time of children, of all that they start, and of kernel threads that work for them.

    Nothing is read of those that are none of these but who they are, once.
    """

    def __init__(self) -> None:
        self.root_of: dict[int, int] = {}  # by process: the child that it belongs to
        self.strangers: set[int] = set()

    def look(self, children: list[Any]) -> dict[int, float]:
        """Seconds so far, by child."""
        for child in children:
            self.root_of.setdefault(child.pid, child.pid)
        there = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        self.strangers &= there
        for pid in sorted(there - self.strangers - self.root_of.keys()):
            self._meet(pid, children)
        found = dict.fromkeys((child.pid for child in children), 0.0)
        for pid in self.root_of.keys() & there:
            # what its own children had is its own once it has waited for them
            found[self.root_of[pid]] += sum(map(int, _stat(pid)[1][11:15])) / HZ
        return found

    def _meet(self, pid: int, children: list[Any]) -> None:
        name, fields = _stat(pid)
        parent = self.root_of.get(int(fields[1]))
        hired = [c.pid for c in children if c.kernel and name.startswith(c.kernel)]
        if parent is not None:
            self.root_of[pid] = parent
        elif hired:
            self.root_of[pid] = hired[0]
        else:
            self.strangers.add(pid)


def _stat(pid: int) -> tuple[str, list[str]]:
    """A process's name and what follows it in its stat; zeros where it is gone."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return "", ["0"] * 15
    return head.partition("(")[2], tail.split()


class Counter:
    """A figure that a server tells: ``send`` to ``address``, its answer has ``pattern``.

    ``own`` is by how much each look itself raises it. The connection is kept.
    """

    def __init__(self, wish: dict[str, Any]) -> None:
        self.address, self.send = tuple(wish["address"]), wish["send"].encode()
        self.pattern, self.own = re.compile(wish["pattern"].encode()), wish["own"]
        self.socket: socket.socket | None = None
        self.looks = 0
        self.rows: list[tuple[float, float]] = []

    def look(self) -> None:
        """One reading with its moment; none where it does not answer in time."""
        try:
            if self.socket is None:
                self.socket = socket.create_connection(self.address, LOOK_S)
            begun = time.time()
            self.socket.sendall(self.send)
            self.looks += 1
            told = b""
            while not (found := self.pattern.search(told)):
                told += self.socket.recv(1 << 16) or self._closed()
        except OSError:
            self.close()
            return
        middle = (begun + time.time()) / 2
        self.rows.append((round(middle, 6), float(found[1]) - self.own * self.looks))

    def _closed(self) -> bytes:
        raise ConnectionResetError

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


class Child:
    """A program in a group of its own, which ends with us; held while ``barrier`` is open."""

    def __init__(self, name: str, argv: list[str], folder: Path) -> None:
        self.name, self.argv = name, argv
        self.out, self.err = folder / f"{name}.txt", folder / f"{name}.err"
        self.status: int | None = None
        self.ended: list[float] | None = None
        self.exec: list[float] = []
        self.cpu: list[float] = []
        self.kernel = ""

    def fork(self, barrier: tuple[int, int] | None) -> None:
        """Fork, with a barrier up to it."""
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

    def _child(self, parent: int, barrier: tuple[int, int] | None, report: int) -> None:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(self.out, flags, 0o600), 1)
        os.dup2(os.open(self.err, flags, 0o600), 2)
        if barrier is not None:
            os.close(barrier[1])
        os.write(report, b".")
        if barrier is not None:
            os.read(barrier[0], 1)  # its end of file is the signal to go
        os.write(report, f"{time.time():.6f} {time.monotonic():.6f}".encode())
        os.execv(self.argv[0], self.argv)

    def ready(self) -> None:
        if os.read(self.report, 1) != b".":
            raise Fault(f"{self.name}: {self._told() or 'ended before its start'}")

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
            raise Fault(f"{self.name}: {fault}")
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

    def words(self) -> str:
        """What it said on standard error, in one line."""
        lines = self.err.read_text(errors="backslashreplace").splitlines()
        return " / ".join(lines[-3:])

    def serve(self, listens: tuple[str, int]) -> None:
        """Start it at once, until it takes connections. Raises Fault where it does not."""
        self.fork(None)
        self.ready()
        self.started()
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            if self.reap() or self.status is not None:
                raise Fault(f"{self.name}: ended at its start: {self.words() or 'no words'}")
            with socket.socket() as sock:
                sock.settimeout(LOOK_S)
                if not sock.connect_ex(listens):
                    return
            signal.sigtimedwait({signal.SIGCHLD}, 0.02)  # nothing tells when a port is bound
        raise Fault(f"{self.name}: does not listen at {listens[0]}:{listens[1]}: {self.words()}")


class Stream(Child):
    """One program that carries what is measured, and what is known of it."""

    def __init__(self, wish: dict[str, Any], argv: list[str], folder: Path) -> None:
        Child.__init__(self, wish["pair"], argv, folder)
        self.wish, self.folder = wish, folder
        self.kernel = wish.get("kernel", "")
        self.counter = Counter(wish["counter"]) if wish.get("counter") else None

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
            counted=self.counter.rows if self.counter else None,
            brought=self._brought(),
        )  # fmt: skip

    def _brought(self) -> str:
        try:
            return (self.folder / self.wish["brings"]).read_text(errors="backslashreplace")
        except (KeyError, OSError):
            return ""


class Record:
    """What the clocks, links, CPUs and counters said, tick by tick."""

    def __init__(self, streams: list[Stream], helpers: list[Child]) -> None:
        self.streams, self.helpers = streams, helpers
        self.processes = Processes()
        self.own_cpu: list[float] = []
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
        self.own_cpu.append(round(time.process_time(), 4))
        children = [*self.streams, *self.helpers]
        used = self.processes.look(children)
        for child in children:  # what is gone has no less than it had
            child.cpu.append(max([used[child.pid], *child.cpu[-1:]]))
        for s in self.streams:
            if s.counter:
                s.counter.look()


def watch(
    plan: dict[str, Any], streams: list[Stream], helpers: list[Child], record: Record
) -> str | None:
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
            if bad := [s.name for s in streams if s.reap()]:
                return f"{', '.join(bad)} failed"
            for helper in helpers:
                if helper.reap() or helper.status is not None:
                    return f"{helper.name} ended: {helper.words() or 'no words'}"
        record.tick()
        if time.monotonic() - began > plan["deadline_s"]:
            return f"no end after {plan['deadline_s']:g} s"
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in reader.poll(0)):
            return "nobody reads the output any more"
    return None


def stop(children: list[Any]) -> None:
    """End those that still run, and wait for them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            child.kill(number)
        deadline = time.monotonic() + GRACE_S
        while any(c.status is None for c in children) and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic()))
            for child in children:
                child.reap()


def find(plan: dict[str, Any]) -> dict[str, str]:
    """The path of each program. Raises Fault with those that are not there, and missing links."""
    path = f"{plan['path']}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=path) for name in plan["programs"]}
    if gone := [name for name, where in found.items() if where is None]:
        raise Fault("\n".join(f"{name}: not found on the load generator" for name in gone))
    have = links()
    words = [
        f"{s['pair']}: the load generator has no link {s['nic']}; it has: {', '.join(have)}"
        for s in plan["streams"]
        if s["nic"] not in have
    ]
    if words:
        raise Fault("\n".join(words))
    return {name: str(where) for name, where in found.items()}


def told_of(name: str, where: str, words: list[str]) -> dict[str, str]:
    """Which program it is."""
    said = subprocess.run([where, *words], capture_output=True, text=True, check=False)
    version = (said.stdout.strip() or said.stderr.strip()).splitlines() if words else []
    return {
        "path": where, "version": version[0].strip() if version else "",
        "sha256": hashlib.sha256(Path(where).read_bytes()).hexdigest(),
    }  # fmt: skip


def helper(wish: dict[str, Any], programs: dict[str, str], folder: Path) -> Child:
    """What serves meanwhile, its files written."""
    home = folder / wish["name"].replace(" ", "-")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    home.chmod(0o755)  # a server may give up root
    for name, text in wish["files"].items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        body = text.replace("{home}", str(home)) if isinstance(text, str) else text[0] * text[1]
        (home / name).write_text(body)
    argv = [programs[wish["argv"][0]], *(w.replace("{home}", str(home)) for w in wish["argv"][1:])]
    return Child(wish["name"].replace(" ", "-"), argv, folder)


def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """The document of one sample."""
    folder = Path(plan["folder"])
    programs = find(plan)
    barrier = os.pipe()
    streams: list[Stream] = []
    helpers: list[Child] = []
    record = Record(streams, helpers)
    try:
        for name, text in plan.get("files", {}).items():
            (folder / name).write_text(text)
        for wish in plan.get("helpers", ()):
            helpers.append(helper(wish, programs, folder))
            helpers[-1].serve(tuple(wish["listens"]))
        if words := refused([s for s in plan["streams"] if s.get("asks")]):
            raise Fault("\n".join(words))
        versions = {n: told_of(n, programs[n], words) for n, words in plan["programs"].items()}
        for wish in plan["streams"]:
            first, *rest = wish.pop("argv")
            places = dict(wish, folder=folder)
            argv = [programs[first], *(word.format(**places) for word in rest)]
            stream = Stream(wish, argv, folder)
            stream.fork(barrier)
            streams.append(stream)
        for s in streams:
            s.ready()
        record.tick()
        released = [time.time(), time.monotonic()]
        os.close(barrier[1])
        for s in streams:
            s.started()
        why = watch(plan, streams, helpers, record)
        if why is None:
            record.tick()  # what serves still tells its counters
    finally:
        stop([*streams, *helpers])
    if why is not None:
        record.tick()
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < RESERVE:  # what ended may have given some back
        why = f"no space is left in {folder} of the load generator"
    return {
        "format": FORMAT, "plan": plan, "host": os.uname().nodename, "kernel": os.uname().release,
        "programs": versions, "released": released, "stopped": why,
        "ticks": {"epoch": record.epoch, "monotonic": record.monotonic, "cpu_s": record.cpu,
                  "links": record.links},
        "streams": [s.told() for s in streams],
        "helpers": [{"name": h.name, "cpu_s": h.cpu} for h in helpers],
        "recorder": {"cpu_s": record.own_cpu},
    }  # fmt: skip


def keep(document: dict[str, Any], target: Path, reserve: Path) -> None:
    """Write the document; on a full disk the reserve, and raw output that it has, make room."""
    part = target.with_suffix(".part")
    text = json.dumps(document, separators=(",", ":"))
    reserve.unlink()
    try:
        part.write_text(text)
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        for stream in document["streams"]:
            target.with_name(f"{stream['pair']}.txt").unlink()
        part.write_text(text)
    part.replace(target)


def main(words: list[str]) -> int:
    plan = json.loads(base64.b64decode(words[0]))
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    target = Path(plan["folder"], "streams.json")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if target.exists():
            target.unlink()
        target.with_name("pid").write_text(str(os.getpid()))  # for who wants to end it
        reserve = target.with_name("reserve")
        reserve.write_bytes(bytes(RESERVE))
        document = measure(plan)
        keep(document, target, reserve)
    except Fault as e:
        print(e, file=sys.stderr)
        return 3
    except OSError as e:
        print(f"the load generator: {e.filename or plan['folder']}: {e.strerror}", file=sys.stderr)
        return 3
    print(json.dumps({"streams": len(document["streams"]), "stopped": document["stopped"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
