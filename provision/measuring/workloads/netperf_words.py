"""netperf's words and what it says back: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from provision.measuring.capture import Interim, Output
from provision.measuring.workload import INTERVAL_S, Direction, Options

MEGABIT, TRANSACTIONS = "10^6bits/s", "Trans/s"
INTERIM = re.compile(r"NETPERF_(INTERIM_RESULT|UNITS|INTERVAL|ENDING)\[(\d+)\]")
KEY = re.compile(r"[A-Z][A-Z0-9_]*")
Kind = Literal["stream", "datagram", "request", "connection"]
#: what netperf is asked to tell; a missing one is a fault, for unknown keys are dropped silently
COMMON = ("THROUGHPUT", "THROUGHPUT_UNITS", "DIRECTION", "ELAPSED_TIME", "LOCAL_CPU_UTIL",
          "REMOTE_CPU_UTIL")  # fmt: skip
BUFFERS = ("LSS_SIZE_REQ", "RSS_SIZE_REQ", "LSS_SIZE_END", "LSR_SIZE_END", "RSS_SIZE_END",
           "RSR_SIZE_END")  # fmt: skip
BYTES = ("LOCAL_BYTES_SENT", "LOCAL_BYTES_RECVD", "REMOTE_BYTES_SENT", "REMOTE_BYTES_RECVD",
         "LOCAL_SEND_SIZE", "LOCAL_RECV_SIZE", "REMOTE_SEND_SIZE", "REMOTE_RECV_SIZE")  # fmt: skip
SEGMENTS = ("LOCAL_TRANSPORT_RETRANS", "REMOTE_TRANSPORT_RETRANS", "TRANSPORT_MSS")
CALLS = ("LOCAL_SEND_CALLS", "LOCAL_RECV_CALLS", "REMOTE_SEND_CALLS", "REMOTE_RECV_CALLS")
LATENCY = ("MIN_LATENCY", "MEAN_LATENCY", "P50_LATENCY", "P90_LATENCY", "P99_LATENCY",
           "MAX_LATENCY", "STDDEV_LATENCY")  # fmt: skip
KEYS: Mapping[Kind, tuple[str, ...]] = {
    "stream": COMMON + BYTES + BUFFERS + SEGMENTS,
    "datagram": COMMON + BYTES + CALLS,
    "request": (*COMMON, "REQUEST_SIZE", "RESPONSE_SIZE", *LATENCY),
    "connection": (*COMMON, "REQUEST_SIZE", "RESPONSE_SIZE", *LATENCY),
}


def argv(kind: Kind, direction: Direction, options: Options) -> list[str]:
    """The command, with places in braces for what differs from pair to pair.

    ``direction`` is the guest's; all clients run on the load generator. The negative ``-D`` looks
    at the clock on every call instead of guessing.
    """
    test, words = _test(kind, direction, options)
    unit = "x" if kind in ("request", "connection") else "m"
    return [
        "netperf", "-4", "-H", "{server}", "-L", "{local}", "-p", "{control_port}",
        "-t", test, "-l", str(options.length_s), "-D", f"-{INTERVAL_S}",
        "-P", "0", "-f", unit, "-c", "-C", "--", *words, "-P", ",{data_port}",
        "-k", ",".join(KEYS[kind]),
    ]  # fmt: skip


def _test(kind: Kind, direction: Direction, options: Options) -> tuple[str, list[str]]:
    """Message sizes are pairs since one value alone does not reach a far sender (the manual)."""
    if kind in ("request", "connection"):
        sizes = f"{options.request_bytes},{options.response_bytes}"
        return "TCP_RR" if kind == "request" else "TCP_CRR", ["-r", sizes]
    size = options.message_bytes if kind == "stream" else options.datagram_bytes
    words = ["-m", f"{size},{size}", "-M", f"{size},{size}"]
    if kind == "stream":
        buffer = str(options.socket_buffer_bytes)
        test = "TCP_MAERTS" if direction == "send" else "TCP_STREAM"
        return test, [*words, "-s", buffer, "-S", buffer]
    # no classic test has a far sender of datagrams; without -R 1 netperf refuses to be routed
    return "omni", ["-T", "UDP", "-d", "recv" if direction == "send" else "send", *words, "-R", "1"]


def parse(text: str) -> Output:
    """Read the output of ``netperf -D -- -k``; cut off anywhere, it gives what is whole."""
    rows: dict[int, dict[str, str]] = {}
    result: dict[str, str] = {}
    words: list[str] = []
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if found := INTERIM.fullmatch(key):
            rows.setdefault(int(found[2]), {})[found[1]] = value
        elif sign and KEY.fullmatch(key):
            result[key] = value
        elif line.strip():
            words.append(line.strip())
    whole = [row for _, row in sorted(rows.items()) if len(row) == 4]
    interims, units = [], set(filter(None, [result.get("THROUGHPUT_UNITS")]))
    for row in whole:
        try:
            interims.append(
                Interim(float(row["ENDING"]), float(row["INTERVAL"]), float(row["INTERIM_RESULT"]))
            )
        except ValueError:
            words.append(f"not an interim result: {row}")
        units.add(row["UNITS"])
    return Output(tuple(interims), result, frozenset(units), tuple(words))
