"""A guest as an OCI runtime is told (Open Container Initiative, Runtime Specification 1.0); pure.

Limits are not here: the guest's control groups are made, with them, before it starts.
"""

from __future__ import annotations

import json
from typing import Any

TESTBED, GUEST = "provision.testbed", "provision.guest"
#: what Docker gives, and what a machine's root does to its NICs; by number (linux/capability.h)
CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7,
    "SETPCAP": 8, "NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "NET_RAW": 13, "IPC_LOCK": 14,
    "SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_NICE": 23, "SYS_RESOURCE": 24, "MKNOD": 27,
    "AUDIT_WRITE": 29, "SETFCAP": 31,
}  # fmt: skip
#: of all containers and the host: hidden, or for reading only; /proc/sys/net is the guest's own
MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/sched_debug", "/proc/timer_list",
          "/sys/firmware")  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys/fs", "/proc/sys/kernel",
             "/proc/sys/vm", "/proc/sysrq-trigger")  # fmt: skip
#: the first process: an sshd, which also reaps what others leave behind
INIT = ("/bin/sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SAFE = ["nosuid", "noexec", "nodev"]


def config(testbed: str, guest: str, namespace: str, group: str, *, had: int) -> str:
    """The text of ``config.json``; ``rootfs`` beside it is the root.

    ``had`` are the capabilities of the host's root, as bits: it can give no others.
    """
    every = [f"CAP_{word}" for word, bit in CAPABILITIES.items() if had >> bit & 1]
    told: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "annotations": {TESTBED: testbed, GUEST: guest},
        "hostname": guest,
        "root": {"path": "rootfs", "readonly": False},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(INIT),
            "env": [f"PATH={PATH}", "container=provision"],
            "cwd": "/",
            "capabilities": {s: every for s in ("bounding", "effective", "permitted")},
            "noNewPrivileges": False,
        },
        "mounts": [
            _mount("/proc", "proc", *_SAFE),
            _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666",
                   "mode=0620"),
            _mount("/dev/shm", "tmpfs", *_SAFE, "mode=1777"),
            _mount("/run", "tmpfs", "nosuid", "nodev", "mode=755"),
            _mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
            _mount("/sys", "sysfs", *_SAFE, "ro"),
            _mount("/sys/fs/cgroup", "cgroup", *_SAFE, "ro"),
        ],
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")),
                {"type": "network", "path": f"/run/netns/{namespace}"},
            ],
            "cgroupsPath": f"/{group}",
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
        },
    }  # fmt: skip
    return json.dumps(told, indent=1) + "\n"


def _mount(at: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": at, "type": kind, "source": kind, "options": list(options)}
