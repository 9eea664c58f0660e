"""The OCI runtime: runc, of all well-kept ones the one that runs wherever cgroups are mounted.

Found by trying on a host with cgroup v1 beside v2 and no service manager: libvirt 9.0's LXC driver
fails there (virCgroupV2BindMount: /sys/fs/cgroup/unified), crun 1.8 refuses such hosts, and
systemd-nspawn wants systemd. runc needs no daemon and keeps its state in /run, which a restart of
the host empties.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from drivers.container.oci import GUEST, TESTBED
from provision.errors import Foreign, HostError
from provision.host import Host

START_S = 60
#: runc's own words go to the guest's console: what it starts has its output, and outlives it
_START = 'cd "$1" && exec runc run --detach --bundle "$1" "$2" </dev/null >>console 2>&1'
RUNNING = "running"


@dataclass(frozen=True, slots=True)
class State:
    """A container that the runtime knows; ``guest`` is "" where it is not this testbed's."""

    guest: str
    status: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """Containers ``TESTBED-GUEST``; an annotation is the mark."""

    host: Host
    testbed: str

    def name(self, guest: str) -> str:
        return f"{self.testbed}-{guest}"

    def look(self) -> dict[str, State]:
        """All containers that the runtime has, by its names."""
        rows = json.loads(self.host.run("runc", "list", "--format", "json") or "[]") or []
        found = {}
        for row in rows:
            marks = row.get("annotations") or {}
            ours = marks.get(TESTBED) == self.testbed
            found[row["id"]] = State(marks.get(GUEST, "") if ours else "", row["status"])
        return found

    def refuse(self, guest: str, there: dict[str, State]) -> None:
        """Raises Foreign where a container of that name lacks our mark."""
        name = self.name(guest)
        if name in there and there[name].guest != guest:
            raise Foreign(
                f"container {name} exists on {self.host.name} without our mark",
                hint=f"runc state {name}",
            )

    def start(self, guest: str, bundle: Path) -> None:
        """Returns once its first process runs."""
        words = ("sh", "-c", _START, "start", str(bundle), self.name(guest))
        try:
            self.host.run(*words, timeout_s=START_S)
        except HostError as e:
            said = self.host.run("tail", "-n", "3", str(bundle / "console"), check=False)
            told = " / ".join(line.strip() for line in said.splitlines() if line.strip())
            raise HostError(f"{self.host.name}: runc: {told or e}", hint="runc list") from e

    def remove(self, guest: str) -> None:
        """Whatever runs in it is killed; no error where it does not exist."""
        self.host.run("runc", "delete", "--force", self.name(guest))

    def pause(self, guest: str) -> None:
        self.host.run("runc", "pause", self.name(guest))

    def resume(self, guest: str) -> None:
        self.host.run("runc", "resume", self.name(guest))
