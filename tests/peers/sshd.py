"""Machines behind SSH: an sshd in each namespace, and an ``ssh`` that knows them by name."""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from provision.host import DIE_WITH_US, Host

START_S = 20
HERE = Host()
SSHD = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/id.pub
ListenAddress {address}
PidFile none
UsePAM no
StrictModes no
"""
CONFIG = """
Host {name}
  HostName {address}
  IdentityFile {folder}/id
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
"""


@contextmanager
def behind_ssh(folder: Path, machines: Sequence[tuple[str, Host, str]]) -> Iterator[Path]:
    """Serve each (name, machine, address); yields a folder to put first in PATH.

    The ``ssh`` in it knows those names, for who runs it and for its children.
    """
    programs = prepare(folder, machines)
    with ExitStack() as stack:
        for name, host, _ in machines:
            stack.enter_context(serving(host, folder / f"{name}.conf"))
        yield programs


def prepare(folder: Path, machines: Sequence[tuple[str, Host, str]]) -> Path:
    """Keys and configurations for ``behind_ssh``, and the folder that it yields; nothing runs."""
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("id", "host"):
        HERE.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    known = "".join(f"{address} {key}\n" for _, _, address in machines)
    (folder / "known_hosts").write_text(known)
    (folder / "config").write_text(
        "".join(CONFIG.format(name=n, address=a, folder=folder) for n, _, a in machines)
    )
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/config "$@"\n')
    (programs / "ssh").chmod(0o755)
    for name, _, address in machines:
        (folder / f"{name}.conf").write_text(SSHD.format(folder=folder, address=address))
    return programs


@contextmanager
def serving(host: Host, conf: Path) -> Iterator[None]:
    """One sshd, by its configuration; at the end its sessions break."""
    with subprocess.Popen(
        [*DIE_WITH_US, *host.argv("/usr/sbin/sshd", "-D", "-e", "-f", str(conf))],
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, process_group=0,
    ) as sshd:  # fmt: skip
        assert sshd.stderr is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(sshd.stderr, selectors.EVENT_READ)
                assert selector.select(START_S), "sshd does not start"
            said = sshd.stderr.readline()
            assert b"listening" in said, f"sshd: {said.decode(errors='replace')}"
            # or it fills up; sessions that a client keeps open hold it longer than we live
            threading.Thread(
                target=_drain, args=(os.dup(sshd.stderr.fileno()),), daemon=True
            ).start()
            yield
        finally:
            HERE.run("pkill", "-P", str(sshd.pid), check=False)
            sshd.terminate()


def _drain(pipe: int) -> None:
    with open(pipe, "rb", buffering=0) as f:
        while f.read(4096):
            pass
