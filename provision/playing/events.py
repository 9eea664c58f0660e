"""What ansible-runner tells of a play, event by event: pure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ENDS = {
    "runner_on_ok": "ok",
    "runner_on_skipped": "skipped",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One task on one host: ``status`` is start, ok, changed, skipped, failed or unreachable."""

    host: str
    task: str
    status: str
    elapsed_s: float


@dataclass(slots=True)
class Played:
    """What a play left: ``results`` by host and task, ``stats`` as set by set_stats."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def note(line: bytes, played: Played, began: dict[tuple[str, str], float]) -> Iterator[TaskEvent]:
    """Take one line of the runner's output in."""
    try:
        event = json.loads(line)
        kind, data = event["event"], event.get("event_data") or {}
    except (ValueError, KeyError, TypeError):
        played.words += filter(None, [line.decode(errors="replace").strip()])
        return
    if kind in ("error", "verbose", "warning") and event.get("stdout"):
        played.words.append(event["stdout"].strip())
    if kind == "playbook_on_no_hosts_matched":
        played.unmatched.append(str(data.get("play", "?")))
    if kind == "playbook_on_stats":
        played.hosts |= set(data.get("processed", {}))
        played.stats |= data.get("artifact_data", {})
    if kind == "runner_item_on_failed":
        played.failed.append(_failure(data))
    host, task = str(data.get("host")), str(data.get("task"))
    if kind == "runner_on_start":
        began[host, task] = time.monotonic()
        yield TaskEvent(host, task, "start", 0.0)
    elif kind in ENDS:
        yield _ended(kind, data, played, time.monotonic() - began.get((host, task), 0.0))


def _ended(kind: str, data: Mapping[str, Any], played: Played, elapsed_s: float) -> TaskEvent:
    host, task, result = str(data["host"]), str(data["task"]), data.get("res", {})
    status = ENDS[kind]
    if status == "ok" and result.get("changed"):
        status = "changed"
    if status == "unreachable":
        played.unreachable.append(_failure(data))
    elif status == "failed" and not data.get("ignore_errors") and "results" not in result:
        played.failed.append(_failure(data))
    played.results.setdefault(host, {})[task] = result
    return TaskEvent(host, task, status, elapsed_s)


def _failure(data: Mapping[str, Any]) -> str:
    """Host, task, and the module's own words: what a command printed says more than its code."""
    result = data.get("res", {})
    said = [
        line.strip()
        for key in ("stderr", "module_stderr", "stdout", "module_stdout")
        for line in str(result.get(key) or "").splitlines()
        if line.strip() and "onnection to " not in line[:24]
    ]
    msg = str(result.get("msg") or "").strip()
    if said and msg.startswith(("non-zero return code", "MODULE FAILURE")):
        msg = ""
    words = " / ".join([*filter(None, [msg]), *said[-4:]]) or "no words"
    return f"{data.get('host')}: {data.get('task')}: {words}"
