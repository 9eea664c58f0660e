"""What an HTTP sample is made with, nginx, ab and our own arrivals, and what they say: pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provision.measuring.capture import Interim, Output
from provision.measuring.window import Window

PROXY_PORT = 8080  # of each of the guest's own addresses
COUNTER = "/-counter"
TIMEOUT_S = 10
#: what ab is to say, and how it is called here
AB = {
    "size": r"Document Length: +(\d+) bytes",
    "clients": r"Concurrency Level: +(\d+)",
    "elapsed_s": r"Time taken for tests: +([\d.]+) seconds",
    "done": r"Complete requests: +(\d+)",
    "failed": r"Failed requests: +(\d+)",
    "non_2xx": r"Non-2xx responses: +(\d+)",
    "octets": r"HTML transferred: +(\d+) bytes",
}
NEEDED = tuple(name for name in AB if name != "non_2xx")
FAILED = re.compile(r"\(Connect: (\d+), Receive: (\d+), Length: (\d+), Exceptions: (\d+)\)")
CENTILE = re.compile(r"^(\d+),([\d.]+)$", re.MULTILINE)
SHARES = {"MIN": 0, "P50": 50, "P90": 90, "P99": 99, "MAX": 100}
BUCKETS = 100  # of latencies, by decade


def nginx_conf(address: str, port: int) -> str:
    """The origin's configuration: one process, files, and a count of what it was asked."""
    temp = "".join(
        f"  {what}_temp_path {{home}}/tmp;\n"
        for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off;
master_process off;
pid {{home}}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  server_tokens off;
  etag off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  open_file_cache max=16;
{temp}  server {{
    listen {address}:{port} backlog=4096;
    root {{home}}/www;
    location = {COUNTER} {{ stub_status; }}
  }}
}}
"""


def origin(name: str, address: str, port: int, size: int) -> dict[str, object]:
    """The origin of one pair, as a helper of the load generator's."""
    return {
        "name": name,
        "argv": ["nginx", "-p", "{home}", "-c", "{home}/nginx.conf", "-e", "stderr"],
        "files": {
            "nginx.conf": nginx_conf(address, port),
            "www/object": ["x", size],
            "tmp/none": "",
        },
        "listens": [address, port],
    }


def counter(address: str, port: int) -> dict[str, object]:
    """How the origin's count is read; each look is a request too."""
    return {
        "address": [address, port],
        "send": f"GET {COUNTER} HTTP/1.1\r\nHost: counter\r\n\r\n",
        "pattern": r"(\d+) \nReading",
        "own": 1,
    }


def read_ab(text: str) -> Output:
    """Ab's summary with its percentiles (milliseconds) behind it; cut, it gives what is whole."""
    found = {name: m[1] for name, pattern in AB.items() if (m := re.search(pattern, text))}
    if kinds := FAILED.search(text):
        found |= dict(zip(("connect", "receive", "length", "exceptions"), kinds.groups(),
                          strict=True))  # fmt: skip
    found |= {f"centile_{m[1]}": m[2] for m in CENTILE.finditer(text)}
    words = () if "done" in found else tuple(line.strip() for line in text.splitlines()[-2:])
    return Output((), found, frozenset(), words)


def ab_latency_us(output: Output) -> dict[str, float]:
    """Over ab's whole run, from before the connection to its last byte."""
    return {
        name: 1000 * float(output.result[key])
        for name, share in SHARES.items()
        if (key := f"centile_{share}") in output.result
    }


@dataclass(frozen=True, slots=True)
class Part:
    """What our arrivals did in the ``interval_s`` that ended at ``end_s`` (epoch)."""

    end_s: float
    interval_s: float
    begun: int
    done: int
    late_us: int
    errors: Mapping[str, int]
    latency: Mapping[int, int]

    @property
    def begin_s(self) -> float:
        return self.end_s - self.interval_s


def parts(text: str) -> list[Part]:
    """What arrivals said; a line that is cut, or none of its own, is left out."""
    found = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
            latency = {int(bucket): int(n) for bucket, n in row["latency"].items()}
            errors = {str(what): int(n) for what, n in row["errors"].items()}
            found.append(Part(float(row["end"]), float(row["interval"]), int(row["begun"]),
                              int(row["done"]), int(row["late_us"]), errors, latency))  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def read_arrivals(text: str) -> Output:
    """Its lines as interim results, and all of them together."""
    told = parts(text)
    failed: Counter[str] = Counter()
    for one in told:
        failed.update(one.errors)
    result = {
        "done": str(sum(p.done for p in told)),
        "begun": str(sum(p.begun for p in told)),
        **{f"error {what}": str(n) for what, n in failed.items()},
    }
    interims = tuple(Interim(p.end_s, p.interval_s, p.done / p.interval_s) for p in told
                     if p.interval_s > 0)  # fmt: skip
    return Output(interims, result if told else {}, frozenset(), ())


def latency_us(told: Sequence[Part], window: Window) -> dict[str, float]:
    """Of the connections that were done within the window, from when they were to begin."""
    total: Counter[int] = Counter()
    for one in told:
        if one.begin_s >= window.begin_s and one.end_s <= window.end_s:
            total.update(one.latency)
    count = sum(total.values())
    if not count:
        return {}
    found, seen, want = {}, 0, [(name, share / 100 * count) for name, share in SHARES.items()]
    for bucket in sorted(total):
        seen += total[bucket]
        while want and seen >= want[0][1]:
            found[want.pop(0)[0]] = 10 ** (bucket / BUCKETS)
    return found
