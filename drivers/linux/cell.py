"""Control groups that hold OS-level guests; runs on the host, as ``python3 - VERB JSON < this``.

It needs nothing but Python 3.9. A guest's group is ``NAME`` in the root of each controller of
cgroup v1, or of v2; a group of that name is ours. ``serve`` leaves one process behind, in the
group, that listens in the guest's network namespace and starts an sshd for each connection.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

CONTROLLERS = ("cpu", "cpuset", "memory")
PERIOD_US = 100_000
NEWNS, NEWUTS, NEWNET = 0x00020000, 0x04000000, 0x40000000
SLAVE, BIND, BIND_ALL = 0x00084000, 0x00001000, 0x00005000  # MS_SLAVE|MS_REC, MS_BIND|MS_REC
NOBODY = 1 << 60  # more memory than that is no limit
KILL_S = 10.0
SERVING = "provision-sshd"


class Tree:
    """Where this host has its controllers, by name; ``v2``: those of the new sort."""

    def __init__(self, mounts: Path = Path("/proc/mounts")) -> None:
        self.roots: dict[str, Path] = {}
        self.v2: set[str] = set()
        for line in mounts.read_text().splitlines():
            _, at, kind, options = line.split()[:4]
            if kind == "cgroup":
                for word in options.split(","):
                    if word in (*CONTROLLERS, "cpuacct"):
                        self.roots.setdefault(word, Path(at))
            elif kind == "cgroup2":
                have = (Path(at) / "cgroup.controllers").read_text().split()
                for word in set(have) & set(CONTROLLERS):
                    self.roots[word] = Path(at)
                    self.v2.add(word)
        if "cpu" in self.v2:
            self.roots["cpuacct"] = self.roots["cpu"]

    def groups(self, name: str) -> list[Path]:
        """One for each hierarchy."""
        return sorted({root / name for root in self.roots.values()})


def enable(tree: Tree) -> None:
    for word in tree.v2:
        (tree.roots[word] / "cgroup.subtree_control").write_text(f"+{word}\n")


def put(tree: Tree, name: str, limits: dict[str, Any]) -> None:
    """``limits``: weight (256 is normal), quota_percent, cpus (a list, "" = all), memory_mib."""
    enable(tree)
    for group in tree.groups(name):
        group.mkdir(exist_ok=True)
    cpu, cpuset, memory = (tree.roots[c] / name for c in CONTROLLERS)
    quota = limits["quota_percent"] * PERIOD_US // 100
    if "cpu" in tree.v2:
        weight = max(1, min(10_000, (limits["weight"] * 100 + 128) // 256))
        (cpu / "cpu.weight").write_text(f"{weight}\n")
        (cpu / "cpu.max").write_text(f"{quota} {PERIOD_US}\n")
    else:
        (cpu / "cpu.shares").write_text(f"{limits['weight'] * 4}\n")
        (cpu / "cpu.cfs_period_us").write_text(f"{PERIOD_US}\n")
        (cpu / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    if "cpuset" not in tree.v2:
        (cpuset / "cpuset.mems").write_text((tree.roots["cpuset"] / "cpuset.mems").read_text())
    every = (tree.roots["cpuset"] / "cpuset.cpus").read_text() if "cpuset" not in tree.v2 else "\n"
    (cpuset / "cpuset.cpus").write_text(f"{limits['cpus']}\n" if limits["cpus"] else every)
    file = "memory.max" if "memory" in tree.v2 else "memory.limit_in_bytes"
    (memory / file).write_text(f"{limits['memory_mib'] << 20}\n")


def read(tree: Tree, name: str) -> dict[str, Any]:
    """As ``put`` takes them, with what runs inside and the CPU time used; None = no limit."""
    cpu, cpuset, memory = (tree.roots[c] / name for c in CONTROLLERS)
    acct = tree.roots.get("cpuacct", tree.roots["cpu"]) / name
    if "cpu" in tree.v2:
        weight = (int((cpu / "cpu.weight").read_text()) * 256 + 50) // 100
        quota, period = (cpu / "cpu.max").read_text().split()
    else:
        weight = int((cpu / "cpu.shares").read_text()) // 4
        quota = (cpu / "cpu.cfs_quota_us").read_text().strip()
        period = (cpu / "cpu.cfs_period_us").read_text()
    file = "memory.max" if "memory" in tree.v2 else "memory.limit_in_bytes"
    limit = (memory / file).read_text().strip()
    if "cpu" in tree.v2:
        stat = dict(line.split() for line in (acct / "cpu.stat").read_text().splitlines())
        busy_s = int(stat["usage_usec"]) / 1e6
    elif (acct / "cpuacct.usage").exists():
        busy_s = int((acct / "cpuacct.usage").read_text()) / 1e9
    else:
        busy_s = 0.0
    return {
        "weight": weight,
        "quota_percent": None if quota in ("max", "-1") else int(quota) * 100 // int(period),
        "cpus": (cpuset / "cpuset.cpus").read_text().strip(),
        "memory_mib": None if limit == "max" or int(limit) >= NOBODY else int(limit) >> 20,
        "busy_s": busy_s,
        "pids": pids(cpu),
    }


def pids(group: Path) -> list[int]:
    return [int(word) for word in (group / "cgroup.procs").read_text().split() if word != "0"]


def look(tree: Tree, prefix: str) -> dict[str, Any]:
    """All groups whose names begin so, as ``read`` gives them, without what goes meanwhile."""
    found = {}
    for group in tree.roots["cpu"].glob(f"{prefix}*"):
        try:
            found[group.name] = read(tree, group.name)
        except FileNotFoundError:
            continue  # half made, or on its way out
    return found


def end(tree: Tree, name: str) -> None:
    """Kill all that is in the group, and remove it; no error where there is none."""
    deadline = time.monotonic() + KILL_S
    for group in tree.groups(name):
        while group.exists():
            inside = pids(group)
            if not inside:
                try:
                    group.rmdir()
                except OSError:  # what was killed is not reaped yet
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)  # v1 has no event for it
                continue
            if time.monotonic() > deadline:
                raise OSError(f"processes {inside} do not end")
            _kill(inside)


def _kill(victims: list[int]) -> None:
    poll, fds = select.poll(), []
    for pid in victims:
        try:
            fds.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(fds[-1], signal.SIGKILL)
        except ProcessLookupError:
            continue
        poll.register(fds[-1], select.POLLIN)
    for _ in fds:
        for fd, _event in poll.poll(1000):
            poll.unregister(fd)
    for fd in fds:
        os.close(fd)


def enter(tree: Tree, name: str) -> None:
    for group in tree.groups(name):
        (group / "cgroup.procs").write_text(f"{os.getpid()}\n")


def serve(tree: Tree, name: str, how: dict[str, Any]) -> None:
    """Returns once it listens; ``how``: namespace, inside, address, hostname, folder, sshd."""
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        said = os.fdopen(told).read()
        if said != "listens":
            raise OSError(said or "it died while it started")
        return
    try:
        os.close(told)
        os.setsid()
        listener = _settle(tree, name, how)
        os.write(tell, b"listens")
        os.close(tell)
    except OSError as e:
        os.write(tell, str(e).encode())
        os._exit(1)
    _accept(listener, how)


def _settle(tree: Tree, name: str, how: dict[str, Any]) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(what: str, *words: object) -> None:
        if getattr(libc, what)(*words):
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    enter(tree, name)
    call("unshare", NEWNS | NEWUTS)
    socket.sethostname(how["hostname"])
    call("mount", None, b"/", None, SLAVE, None)
    folder = Path(how["folder"])
    if (folder / "shadow").exists():
        call("mount", str(folder / "shadow").encode(), b"/etc/shadow", None, BIND, None)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    away = os.open(f"/run/netns/{how['namespace']}", os.O_RDONLY)
    call("setns", away, NEWNET)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((how["address"], 22))
    listener.listen(128)
    if not how["inside"]:
        call("setns", home, NEWNET)
    else:  # its own /sys, which shows the NICs of this namespace
        groups = os.open("/sys/fs/cgroup", os.O_PATH)
        call("mount", b"sysfs", b"/sys", b"sysfs", 0, None)
        call("mount", f"/proc/self/fd/{groups}".encode(), b"/sys/fs/cgroup", None, BIND_ALL, None)
        os.close(groups)
    os.close(home)
    os.close(away)
    log = os.open(str(folder / "console"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    for fd, to in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, to)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    libc.prctl(15, SERVING.encode())
    (folder / "pid").write_text(f"{os.getpid()}\n")
    return listener


def _accept(listener: socket.socket, how: dict[str, Any]) -> None:
    """An sshd a connection, as inetd does; it ends with the group."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    words = [how["sshd"], "-i", "-e", "-f", f"{how['folder']}/sshd_config"]
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for to in (0, 1):
                os.dup2(connection.fileno(), to)
            os.execv(words[0], words)
        connection.close()


def main(words: list[str]) -> int:
    verb, asked = words[0], json.loads(words[1])
    try:
        act(verb, Tree(), asked)
    except OSError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


def act(verb: str, tree: Tree, asked: dict[str, Any]) -> None:
    name = asked["name"]
    if lacks := [c for c in CONTROLLERS if c not in tree.roots]:
        raise OSError(f"no cgroup controller {', '.join(lacks)} is mounted")
    if verb == "look":
        print(json.dumps(look(tree, name)))
    elif verb == "put":
        put(tree, name, asked["limits"])
    elif verb == "serve":
        serve(tree, name, asked)
    elif verb == "end":
        end(tree, name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
