"""What is going on, as it happens: a live table, plain lines, or JSON lines. All on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Lock
from typing import IO, Any

MARKS = {"done": "ok", "failed": "FAILED", "skipped": "skipped", "start": "…", "phase": "…"}


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one subject; ``elapsed_s`` counts from that subject's start.

    ``status`` is start, phase, done, failed, skipped or note.
    """

    subject: str
    status: str
    detail: str = ""
    elapsed_s: float = 0.0


Sink = Callable[[Event], None]


class Progress:
    """Hands events to a sink, in order, from any thread, and keeps each subject's stopwatch."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._began: dict[str, float] = {}
        self._lock = Lock()

    def __call__(self, subject: str, status: str, detail: str = "") -> None:
        now = time.monotonic()
        with self._lock:
            if status == "start":
                self._began[subject] = now
            began = self._began.setdefault(subject, now)
            self._sink(Event(subject, status, detail, round(now - began, 3)))


def lines(out: IO[str]) -> Sink:
    """One line a change, for logs and pipes."""

    def sink(event: Event) -> None:
        if event.status == "note":
            print(f"{event.subject}: {event.detail}", file=out, flush=True)
            return
        if event.status == "start" and not event.detail:
            return
        mark = MARKS[event.status]
        words = f"{event.subject:<24} {mark:<8} {event.elapsed_s:6.1f} s  {event.detail}"
        print(words.rstrip(), file=out, flush=True)

    return sink


def ndjson(out: IO[str]) -> Sink:
    """One JSON object a line, with the moment (epoch)."""

    def sink(event: Event) -> None:
        print(json.dumps({"at": round(time.time(), 3)} | asdict(event)), file=out, flush=True)

    return sink


class Live:
    """A table that is redrawn in place; finished subjects scroll up as plain lines."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as Redrawn

        self.console = Console(stderr=True, highlight=False)
        self._rows: dict[str, tuple[Event, float]] = {}
        self._live = Redrawn(console=self.console, refresh_per_second=8, transient=True,
                             get_renderable=self._table)  # fmt: skip

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _table(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for event, at in list(self._rows.values()):
            elapsed_s = event.elapsed_s + now - at
            table.add_row(Spinner("dots"), event.subject, f"{elapsed_s:5.1f} s", event.detail)
        return table

    def __call__(self, event: Event) -> None:
        if event.status in ("start", "phase"):
            self._rows[event.subject] = (event, time.monotonic())
            return
        self._rows.pop(event.subject, None)
        if event.status == "note":
            self.console.print(f"[bold]{event.subject}[/]: {event.detail}")
            return
        mark, style = {"done": ("✔", "green"), "failed": ("✘", "red")}.get(
            event.status, ("-", "yellow")
        )
        self.console.print(
            f"[{style}]{mark}[/] {event.subject:<24} {event.elapsed_s:5.1f} s  {event.detail}"
        )


def quiet(_event: Event) -> None:
    """Nothing is shown."""


def stderr_is_terminal() -> bool:
    return sys.stderr.isatty()
