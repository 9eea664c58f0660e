"""A machine that commands run on: this one, a network namespace of it, or one over SSH."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.errors import HostError, Unreachable

#: a command must not outlive us: after a kill -9, what it was about to do would come after ``down``
DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
#: how long a command may take of which nothing else is known. A far machine may be a slow or a
#: busy one; that it is gone, ssh tells within a minute (``ssh_options``)
NEAR_S, FAR_S = 60.0, 300.0
NOT_FOUND = 127
SSH_FAILED = 255  # ssh's own exit code, as distinct from the far command's


@dataclass(frozen=True, slots=True)
class Host:
    """Where commands go. ``prefix`` comes before each; ``far_shell`` says that one joins the words.

    ssh hands the words to the far side's shell as one line, so they are quoted for it. ``sysfs`` is
    where the kernel's devices are; only tests have it elsewhere.
    """

    name: str = "localhost"
    prefix: tuple[str, ...] = ()
    far_shell: bool = False
    sysfs: str = "/sys"

    @property
    def local(self) -> bool:
        """Whether files and processes here are this process's own."""
        return not self.prefix

    def inside(self, namespace: str) -> Host:
        """The same machine, seen from within a network namespace of it."""
        words = ("ip", "netns", "exec", namespace)
        prefix = (*self.prefix, shlex.join(words)) if self.far_shell else (*self.prefix, *words)
        return Host(f"{self.name}/{namespace}", prefix, self.far_shell)

    def argv(self, *words: str) -> list[str]:
        """The whole command, for those who start it themselves."""
        return [*self.prefix, shlex.join(words)] if self.far_shell else [*self.prefix, *words]

    def run(
        self, *words: str, input: str | None = None, timeout_s: float | None = None,
        check: bool = True,
    ) -> str:  # fmt: skip
        """What the command prints.

        Raises HostError with the command's last words when it fails or outlasts ``timeout_s``
        (it is then killed), Unreachable when ssh itself fails.
        """
        limit_s = timeout_s if timeout_s is not None else FAR_S if self.far_shell else NEAR_S
        try:
            done = subprocess.run(
                [*DIE_WITH_US, *self.argv(*words)], input=input, capture_output=True, text=True,
                check=False, errors="replace", timeout=limit_s,
                stdin=subprocess.DEVNULL if input is None else None,
                process_group=0,  # a Ctrl-C is for us: it must not cut a command short
            )  # fmt: skip
        except FileNotFoundError as e:
            raise HostError(f"{self.name}: {e.filename or words[0]}: not installed") from e
        except subprocess.TimeoutExpired as e:
            raise HostError(f"{self.name}: {shlex.join(words)}: no end after {limit_s:g} s") from e
        if done.returncode == NOT_FOUND and done.stderr.startswith("setpriv: failed to execute"):
            raise HostError(f"{self.name}: {self.argv(*words)[0]}: not installed")
        if done.returncode == SSH_FAILED and self.far_shell:
            raise Unreachable(
                f"{self.name}: {_last(done.stderr)}", hint=shlex.join([*self.prefix, "true"])
            )
        if check and done.returncode:
            raise HostError(
                f"{self.name}: {shlex.join(words)}: exit {done.returncode}: "
                f"{_last(done.stderr or done.stdout)}"
            )
        return done.stdout

    def json(self, *words: str) -> Any:
        """What the command prints, read as JSON; nothing printed is an empty list."""
        return json.loads(self.run(*words) or "[]")

    def read(self, path: str | Path) -> str:
        """The text of a file, stripped; raises HostError where it cannot be read."""
        if self.local:
            try:
                return Path(path).read_text(errors="replace").strip()
            except OSError as e:
                raise HostError(f"{self.name}: {path}: {e.strerror}") from e
        return self.run("cat", str(path)).strip()

    def write(self, path: str | Path, text: str) -> None:
        """Write a file that exists or may be made, such as one of sysfs, in one call."""
        if self.local:
            try:
                Path(path).write_text(text)
            except OSError as e:
                raise HostError(f"{self.name}: {path}: cannot write: {e.strerror}") from e
        else:
            self.run("tee", str(path), input=text)

    def push(self, source: Path, target: str, timeout_s: float = 3600) -> None:
        """Copy a file there, whole or not at all (it is renamed into place)."""
        part = f"{target}.part"
        with source.open("rb") as f:
            done = subprocess.run(
                self.argv("sh", "-c", 'cat > "$1" && mv "$1" "$2"', "push", part, target),
                stdin=f, capture_output=True, timeout=timeout_s, check=False,
            )  # fmt: skip
        if done.returncode:
            raise HostError(f"{self.name}: {target}: {_last(done.stderr.decode(errors='replace'))}")


def ssh(target: str, **how: Any) -> Host:
    """The machine behind ``ssh target``; ``how`` as in ``ssh_options``."""
    return Host(target, ("ssh", *ssh_options(**how), "--", target), far_shell=True)


def ssh_options(
    *,
    control: Path | None = None,
    key: Path | None = None,
    known_hosts: Path | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """Words for ssh: by keys only, host keys checked.

    ``control`` is a folder for a shared connection that outlives a command by five minutes.
    """
    told = ["BatchMode=yes", "ConnectTimeout=10", "LogLevel=ERROR", "ServerAliveInterval=15"]
    if control is not None:
        told += ["ControlMaster=auto", f"ControlPath={control}/%C", "ControlPersist=300"]
    if key is not None:
        told += ["IdentitiesOnly=yes", f"IdentityFile={key}"]
    if known_hosts is not None:
        told += ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={known_hosts}"]
    return [word for option in (*told, *options) for word in ("-o", option)]


def hang_up(host: Host) -> None:
    """End the shared connection to a machine behind ssh; no error where there is none."""
    if host.far_shell:
        words = [*host.prefix[:-2], "-O", "exit", *host.prefix[-2:]]
        subprocess.run(words, capture_output=True, check=False)


def _last(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return " / ".join(lines[-3:]) if lines else "(no words)"
