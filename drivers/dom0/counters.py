"""Counters of a Xen host at one moment: its CPUs, dom0's vCPUs, each domain, and NICs.

``xenpm`` knows how long each CPU was idle, in ms, where Xen manages its power states; ``xl
vcpu-list`` counts tenths of a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from drivers.dom0 import xl
from drivers.linux.interrupts import by_cpu
from drivers.linux.links import sections
from provision.host import Host

_COUNT = """
echo @@at; date +%s.%N
echo @@uptime; cat /proc/uptime
echo @@idle; xenpm get-cpuidle-states 2>/dev/null || :
echo @@vcpus; xl vcpu-list
echo @@nics; cat /proc/net/dev
echo @@irqs; cat /proc/interrupts
"""
_CPU = re.compile(r"cpu id\s*:\s*(\d+)")
_IDLE = re.compile(r"idle time\(ms\)\s*:\s*(\d+)")
RX_BYTES, RX_PACKETS, TX_BYTES, TX_PACKETS = 0, 1, 8, 9  # columns of /proc/net/dev


@dataclass(frozen=True, slots=True)
class Counts:
    """``host_busy_s`` has one figure a CPU, () where Xen does not count them.

    ``dom0_busy_s`` has one a vCPU, ``domains`` CPU time by domain's id; ``nics`` is (rx_bytes,
    tx_bytes, rx_packets, tx_packets) by dom0's name of each. ``irqs`` are the interrupts that each
    of dom0's CPUs served.
    """

    at_s: float
    host_busy_s: tuple[float, ...]
    dom0_busy_s: tuple[float, ...]
    domains: Mapping[int, float]
    nics: Mapping[str, tuple[int, int, int, int]]
    irqs: tuple[int, ...] = ()


def count(host: Host) -> Counts:
    """All in one command. Raises HostError, Unreachable."""
    found = sections(host.run("sh", "-c", _COUNT))
    every = xl.vcpus(found["vcpus"])
    domains: dict[int, float] = {}
    for vcpu in every:
        domains[vcpu.domid] = round(domains.get(vcpu.domid, 0.0) + vcpu.time_s, 1)
    return Counts(
        at_s=float(found["at"]),
        host_busy_s=busy(found["idle"], float(found["uptime"].split()[0])),
        dom0_busy_s=tuple(v.time_s for v in every if v.domid == xl.DOM0),
        domains=domains,
        nics=nics(found["nics"]),
        irqs=by_cpu(found.get("irqs", "")),
    )


def busy(idle: str, uptime_s: float) -> tuple[float, ...]:
    """How long each CPU was not idle, from ``xenpm get-cpuidle-states``; () where it counts none.

    Xen was up somewhat longer than dom0, so that only differences say anything.
    """
    numbers = [int(n) for n in _CPU.findall(idle)]
    times = [int(ms) / 1000 for ms in _IDLE.findall(idle)]
    if not times or len(numbers) != len(times):
        return ()
    return tuple(uptime_s - t for _, t in sorted(zip(numbers, times, strict=True)))


def nics(text: str) -> dict[str, tuple[int, int, int, int]]:
    """From /proc/net/dev."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        columns = rest.split()
        if colon and len(columns) > TX_PACKETS:
            rx, tx, rxp, txp = (
                int(columns[n]) for n in (RX_BYTES, TX_BYTES, RX_PACKETS, TX_PACKETS)
            )
            found[name.strip()] = (rx, tx, rxp, txp)
    return found
