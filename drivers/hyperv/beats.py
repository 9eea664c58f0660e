"""Waiting for guests' integration services: one request asks for all who are waited for."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Condition
from time import monotonic

from drivers.hyperv.sight import Sight


@dataclass(slots=True)
class Beats:
    """One thread asks, for everybody; each goes on as soon as its own guest answers."""

    sight: Sight
    _wanted: set[str] = field(default_factory=set)
    _asking: bool = False
    _changed: Condition = field(default_factory=Condition)

    def wait(self, guest: str, timeout_s: float) -> bool:
        """Whether the guest's integration services answered in time. Raises as Sight does."""
        deadline = monotonic() + timeout_s
        with self._changed:
            self._wanted.add(guest)
        try:
            while (left_s := deadline - monotonic()) > 0:
                with self._changed:
                    if guest not in self._wanted:
                        return True
                    if self._asking:
                        self._changed.wait(left_s)
                        continue
                    self._asking, wanted = True, set(self._wanted)
                self._ask(wanted)
            with self._changed:
                return guest not in self._wanted
        finally:
            with self._changed:
                self._wanted.discard(guest)

    def _ask(self, wanted: set[str]) -> None:
        alive: set[str] = set()
        try:
            alive, _ = self.sight.beats(wanted)
        finally:
            with self._changed:
                self._asking = False
                self._wanted -= alive
                self._changed.notify_all()
