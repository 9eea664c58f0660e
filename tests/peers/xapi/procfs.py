"""What a dom0's /proc says of its interrupts, and what its kernel does of what is written there."""

from __future__ import annotations

import errno
import time
from functools import partial

from tests.peers.xapi.dom0 import Dom0
from tests.peers.xapi.fuse import File, Tree
from tests.peers.xapi.xl import bitmap


def tree(dom0: Dom0) -> Tree:
    """The files, by their paths."""
    irqs = {
        str(irq): {
            "smp_affinity_list": File(partial(_list, dom0, irq), partial(_place, dom0, irq)),
            "effective_affinity_list": File(partial(_list, dom0, irq)),
            "smp_affinity": File(partial(_mask, dom0, irq), partial(_place_mask, dom0, irq)),
        }
        for irq in dom0.xen.irq_names
    }
    return {
        "irq": irqs,
        "interrupts": File(partial(_interrupts, dom0)),
        "uptime": File(lambda: f"{time.time() - dom0.xen.booted_at:.2f} 1.00\n"),
        "boot_id": File(lambda: f"{dom0.xen.boot_id}\n"),
        "network.conf": File(lambda: f"{dom0.xen.next_backend}\n"),
    }


def _list(dom0: Dom0, irq: int) -> str:
    with dom0.world.store.lock:
        dom0.xen.rebalance()  # irqbalance has been at it since
        return bitmap(dom0.xen.irqs[irq], 1 << 16) + "\n"


def _mask(dom0: Dom0, irq: int) -> str:
    with dom0.world.store.lock:
        dom0.xen.rebalance()
        return f"{sum(1 << cpu for cpu in dom0.xen.irqs[irq]):x}\n"


def _place(dom0: Dom0, irq: int, text: str) -> None:
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not (first.isdigit() and (last.isdigit() if dash else True)):
            raise OSError(errno.EINVAL, "no list of CPUs")
        cpus |= set(range(int(first), int(last or first) + 1))
    _serve(dom0, irq, cpus)


def _place_mask(dom0: Dom0, irq: int, text: str) -> None:
    try:
        bits = int(text.strip().replace(",", ""), 16)
    except ValueError:
        raise OSError(errno.EINVAL, "no mask") from None
    _serve(dom0, irq, {n for n in range(bits.bit_length()) if bits >> n & 1})


def _serve(dom0: Dom0, irq: int, cpus: set[int]) -> None:
    """The kernel wants at least one of dom0's CPUs that is on."""
    with dom0.world.store.lock:
        domain = dom0.xen.domains[0]
        there = cpus & set(range(domain.online or domain.vcpus))
        if not there:
            raise OSError(errno.EINVAL, "none of these CPUs is on")
        dom0.xen.irqs[irq] = frozenset(there)


def _interrupts(dom0: Dom0) -> str:
    with dom0.world.store.lock:
        dom0.xen.rebalance()
        vcpus = range(dom0.xen.domains[0].vcpus)
        lines = ["     " + "".join(f"{f'CPU{n}':>11}" for n in vcpus)]
        for irq, name in dom0.xen.irq_names.items():
            served = dom0.xen.irqs[irq]
            counts = "".join(f"{1000 if n == min(served) else 0:>11}" for n in vcpus)
            lines.append(f"{irq:>4}:{counts}  xen-pirq    -msi-x     {name}")
        return "\n".join(lines) + "\n"
