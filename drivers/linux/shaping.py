"""Cables and vNICs at the speed of a wire."""

from __future__ import annotations

import json
from collections.abc import Iterable

from drivers.linux.script import Script

# A bucket must hold the largest packet that a guest's segmentation offload hands over (64 KiB and
# the headers of its segments), or each would be cut up here at the CPU's cost; and what the wire
# carries while a busy CPU is late to serve it (4 ms, the longest tick), or the rate is not reached.
GSO_BYTES = 80 * 1024
LATE_S = 0.004
# Behind it, as behind a NIC: a ring of 256 full frames, or 20 ms of a fast wire.
RING_BYTES = 256 * 1514
QUEUE_S = 0.020
BYTES_PER_MBIT = 125_000


def mbit(qdiscs: str, nic: str) -> int | None:
    """The speed a NIC is shaped to; 0, unlike any wish, where it is no whole number."""
    for qdisc in json.loads(qdiscs or "[]"):
        if qdisc.get("kind") == "tbf" and qdisc.get("dev") == nic:
            found, rest = divmod(int(qdisc["options"]["rate"]), BYTES_PER_MBIT)
            return 0 if rest else found
    return None


def shape(script: Script, ends: Iterable[tuple[str, str]], rate_mbit: int | None) -> None:
    """What each end sends, at the wire's speed, counted in bytes of Ethernet frames without FCS.

    ``ends`` are NICs, each with its namespace, "" = the host's own.
    """
    for nic, inside in ends:
        if rate_mbit is None:
            where = f"tc {'-n ' + inside if inside else ''}"
            script.sh(f"{where} qdisc del dev {nic} root 2>/dev/null || :")
            continue
        bytes_per_s = rate_mbit * BYTES_PER_MBIT
        burst = max(GSO_BYTES, int(bytes_per_s * LATE_S))
        limit = burst + max(RING_BYTES, int(bytes_per_s * QUEUE_S))
        script.tc("qdisc", "replace", "dev", nic, "root", "tbf", "rate", f"{rate_mbit}mbit",
                  "burst", str(burst), "limit", str(limit), inside=inside)  # fmt: skip
