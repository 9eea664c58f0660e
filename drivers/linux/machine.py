"""What a Linux host is, and what it has for guests that are processes of its own."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.linux.links import sections
from provision.host import Host

_PROBE = """
echo @@release; uname -r
echo @@name; uname -n
echo @@cpus; grep -c '^processor' /proc/cpuinfo
echo @@memory; grep -m1 MemTotal /proc/meminfo
echo @@system; . /etc/os-release 2>/dev/null && echo "$PRETTY_NAME" || :
echo @@root; id -u
echo @@capabilities; sed -n "s/^CapPrm:[[:space:]]*//p" /proc/self/status
echo @@sshd; PATH=$PATH:/usr/sbin:/sbin command -v sshd || :
echo @@python
/usr/bin/python3 -SEc 'import sys; print(sys.version_info >= (3, 9))' 2>/dev/null || :
echo @@v2; grep -cw cpu /sys/fs/cgroup/cgroup.controllers 2>/dev/null || :
echo @@runc; PATH=$PATH:/usr/sbin:/sbin; command -v runc && runc --version || :
echo @@overlay; grep -w overlay /proc/filesystems || { modprobe -q overlay && echo yes; } || :
echo @@locked; grep -q '^root:!' /etc/shadow 2>/dev/null && echo yes || :
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """The host. ``v2``: cgroup v2 shares out its CPU time; ``locked``: root has no password.

    ``sshd`` and ``runc`` are paths, "" = missing; ``overlay``: its kernel has overlayfs;
    ``capabilities`` are those of its root, as bits.
    """

    name: str
    release: str
    system: str
    cpus: int
    memory_mib: int
    root: bool
    sshd: str
    python: bool
    v2: bool
    locked: bool
    runc: str
    runc_version: str
    overlay: bool
    capabilities: int


def look(host: Host) -> Machine:
    """Ask the host, in one command."""
    seen = sections(host.run("sh", "-c", _PROBE))
    runc = seen["runc"].splitlines()
    return Machine(
        name=seen["name"],
        release=seen["release"],
        system=seen["system"],
        cpus=int(seen["cpus"]),
        memory_mib=int(seen["memory"].split()[1]) // 1024,
        root=seen["root"] == "0",
        sshd=seen["sshd"],
        python=seen["python"] == "True",
        v2=seen["v2"] not in ("", "0"),
        locked=bool(seen["locked"]),
        runc=runc[0] if runc else "",
        runc_version=runc[1].removeprefix("runc version ") if len(runc) > 1 else "",
        overlay=bool(seen["overlay"]),
        capabilities=int(seen["capabilities"] or "0", 16),
    )
