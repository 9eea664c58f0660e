"""Restarts a Xen host, and waits until it is back: dom0's tools and libvirt's daemon."""

from __future__ import annotations

import time
from collections.abc import Callable

from drivers.dom0.look import state
from drivers.libvirt.connect import Connection
from provision.errors import HostError, PreflightError, Unreachable, WorldError
from provision.host import Host, hang_up

BACK_S = 1200  # servers take minutes until their firmware has seen all there is
PAUSE_S = 1.0  # a host that comes back gives no event: it has to be asked for
_BOOT_ID = ("cat", "/proc/sys/kernel/random/boot_id")


def refuse(host: Host, ours: set[int]) -> None:
    """Raise PreflightError where the host must not be restarted now; ``ours`` are domains' ids."""
    if host.local:
        raise PreflightError(
            "restarting this machine would end provision itself",
            hint="run it on another machine: hypervisor.uri: xen+ssh://root@HOST/system",
        )
    others = [d.name for d in state(host).domains if d.domid not in {0, *ours}]
    if others:
        raise PreflightError(
            f"{host.name} would be restarted, and guests of others run there: {', '.join(others)}",
            hint="shut them down first",
        )


def restart(link: Connection, say: Callable[[str], None]) -> None:
    """Return once it is back. Raises HostError where it is not within BACK_S."""
    host = link.host
    before = host.run(*_BOOT_ID).strip()
    say("restarting the host")
    # nothing is to be lost: by the time ssh's own connection ends, systemd has taken the order
    host.run("sh", "-c", "sync; systemctl reboot", check=False)
    deadline, last = time.monotonic() + BACK_S, "no answer"
    while time.monotonic() < deadline:
        hang_up(host)  # a shared connection to a host that went away would hang
        try:
            if host.run(*_BOOT_ID, timeout_s=30).strip() != before:
                state(host)
                link.reopen()
                say("the host is back")
                return
            last = "it has not gone down yet"
        except (HostError, Unreachable, WorldError) as e:
            last = str(e)
        time.sleep(PAUSE_S)
    raise HostError(f"{host.name}: not back within {BACK_S} s of its restart: {last}")
