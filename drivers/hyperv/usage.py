"""Counters of the host, all in one request.

The hypervisor's own counters are raw ones of the class PERF_100NSEC_TIMER: time in units of 100 ns.
Microsoft: "Detecting bottlenecks in a virtualized environment".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from time import time

from drivers.hyperv import words
from drivers.hyperv.ops import Batch, Call, Row
from drivers.hyperv.pool import Pool, whole
from provision.driver import Usage

_CLASS = "Win32_PerfRawData_HvStats_HyperVHypervisor"
_FIELDS = ("Name", "PercentTotalRunTime")
_KINDS = ("Unicast", "Multicast", "Broadcast")
_PACKETS = tuple(f"{way}{kind}Packets" for way in ("Received", "Sent") for kind in _KINDS)
LOOK = (
    Call("Get-CimInstance", {"ClassName": f"{_CLASS}LogicalProcessor"}, select=_FIELDS),
    Call("Get-CimInstance", {"ClassName": f"{_CLASS}RootVirtualProcessor"}, select=_FIELDS),
    Call("Get-CimInstance", {"ClassName": f"{_CLASS}VirtualProcessor"}, select=_FIELDS),
    Call(
        "Get-NetAdapterStatistics",
        select=("Name", "ReceivedBytes", "SentBytes", *_PACKETS), lenient=True,
    ),
)  # fmt: skip
_CPU = re.compile(r"Hv LP (\d+)")
_ROOT = re.compile(r"Root VP (\d+)")
_VCPU = re.compile(r"(.+):Hv VP \d+")
UNIT_S = 1e-7


def usage(pool: Pool, testbed: str, cpus: int) -> Usage:
    """Now. Raises Refused and Unreachable; no host figures where a CPU lacks."""
    host, root, guests, nics = whole(pool.read([Batch(ops=[*LOOK])])[0])
    at_s = time()
    busy, root_busy = _by_number(host, _CPU), _by_number(root, _ROOT)
    return Usage(
        at_s=at_s,
        host_busy_s=tuple(busy[n] for n in range(cpus)) if len(busy) >= cpus else (),
        guest_busy_s=_guests(guests, testbed),
        nics={str(row["Name"]): _nic(row) for row in nics},
        dom0_busy_s=tuple(root_busy[n] for n in sorted(root_busy)),
    )


def _by_number(rows: Iterable[Row], name: re.Pattern[str]) -> dict[int, float]:
    """Busy seconds by the number that stands in an instance's name."""
    return {int(m[1]): _seconds(row) for row in rows if (m := name.fullmatch(str(row["Name"])))}


def _nic(row: Row) -> tuple[int, int, int, int]:
    counts = [int(row[n] or 0) for n in ("ReceivedBytes", "SentBytes", *_PACKETS)]
    return counts[0], counts[1], sum(counts[2:5]), sum(counts[5:])


def _guests(rows: Iterable[Row], testbed: str) -> dict[str, float]:
    """CPU time by guest: that of its vCPUs together."""
    found: dict[str, float] = {}
    prefix = words.vm_name(testbed, "")
    for row in rows:
        match = _VCPU.fullmatch(str(row["Name"]))
        if match and match[1].startswith(prefix):
            name = match[1][len(prefix) :]
            found[name] = found.get(name, 0.0) + _seconds(row)
    return found


def _seconds(row: Row) -> float:
    return int(row["PercentTotalRunTime"] or 0) * UNIT_S
