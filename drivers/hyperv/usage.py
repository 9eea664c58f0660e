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
    Call("Get-CimInstance", {"ClassName": f"{_CLASS}VirtualProcessor"}, select=_FIELDS),
    Call(
        "Get-NetAdapterStatistics",
        select=("Name", "ReceivedBytes", "SentBytes", *_PACKETS), lenient=True,
    ),
)  # fmt: skip
_CPU = re.compile(r"Hv LP (\d+)")
_VCPU = re.compile(r"(.+):Hv VP \d+")
UNIT_S = 1e-7


def usage(pool: Pool, testbed: str, cpus: int) -> Usage:
    """Now. Raises Refused and Unreachable; no host figures where a CPU lacks."""
    host, guests, nics = whole(pool.read([Batch(ops=[*LOOK])])[0])
    at_s = time()
    busy = {int(m[1]): _seconds(row) for row in host if (m := _CPU.fullmatch(str(row["Name"])))}
    whole_host = tuple(busy[n] for n in range(cpus)) if busy.keys() >= {*range(cpus)} else ()
    return Usage(at_s, whole_host, _guests(guests, testbed), {
        str(row["Name"]): (
            int(row["ReceivedBytes"] or 0), int(row["SentBytes"] or 0),
            sum(int(row[n] or 0) for n in _PACKETS[:3]),
            sum(int(row[n] or 0) for n in _PACKETS[3:]),
        )
        for row in nics
    })  # fmt: skip


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
