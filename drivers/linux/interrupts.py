"""A Linux host's interrupts by CPU, from /proc/interrupts (proc(5)); pure."""

from __future__ import annotations

#: each CPU's own, which no device raises; the others of that sort have names in place of numbers
_OWN = "xen-percpu"


def by_cpu(text: str) -> tuple[int, ...]:
    """How many interrupts of devices each CPU that is online has served; () where nothing is told.

    Under Xen the events by which domains call each other count as well.
    """
    lines = text.splitlines()
    cpus = len(lines[0].split()) if lines else 0
    found = [0] * cpus
    for line in lines[1:]:
        name, _, rest = line.partition(":")
        if not name.strip().isdigit() or _OWN in rest:
            continue
        for cpu, count in enumerate(rest.split()[:cpus]):
            found[cpu] += int(count) if count.isdigit() else 0
    return tuple(found)
