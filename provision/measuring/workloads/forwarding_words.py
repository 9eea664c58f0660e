"""Frames on a wire, and what the program that sends and counts them says back: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from provision.measuring.capture import Series
from provision.measuring.window import Window

#: beyond a frame without its checksum: that, the preamble and the least gap between frames
WIRE_BYTES = 24
STRAY = 3  # frames by the sending NIC that are none of the flow's, such as ARP

KINDS = ("sent", "counted", "arrived", "dropped")  # what each tick tells by guest


def delay_ns(frame_bytes: int, target_mbit: float) -> float:
    """From the start of one frame to the next (ns), so that a wire carries ``target_mbit``.

    8000 · (s + 24) / b with s the frame without its checksum, as pktgen counts it, and b the rate
    (Schlosser, Duelli, Goll 2011, on pktgen's delay).
    """
    return 8000 * (frame_bytes + WIRE_BYTES) / target_mbit


def wire_mbit(frames_per_s: float, frame_bytes: int) -> float:
    """The same the other way: what so many frames are on a wire."""
    return frames_per_s * 8 * (frame_bytes + WIRE_BYTES) / 1e6


@dataclass(frozen=True, slots=True)
class Told:
    """What the program said; series by guest, moments of the load generator's clock.

    ``begins_s`` is when the run that counts began, after a search; ``delay_ns`` what was sent at;
    ``words`` are lines that are no record.
    """

    generator: str
    begins_s: float | None
    delay_ns: float | None
    sent: Mapping[str, Series]
    counted: Mapping[str, Series]
    arrived: Mapping[str, Series]
    dropped: Mapping[str, Series]
    backlogged: Series | None
    trials: int
    words: tuple[str, ...]

    def growth(self, series: Series | None, window: Window) -> float:
        """What a counter grew by in the window; 0 where it was not seen."""
        rate = series.rate(window.begin_s, window.end_s) if series else None
        return (rate or 0.0) * window.length_s

    def lost(self, guest: str) -> float:
        """Frames of the run that counts that never came back."""
        sent, counted = (self._since(of.get(guest)) for of in (self.sent, self.counted))
        return max(0.0, sent - counted - STRAY)

    def lost_percent(self, guest: str) -> float:
        sent = self._since(self.sent.get(guest))
        return 100 * self.lost(guest) / sent if sent > 0 else 100.0

    def _since(self, series: Series | None) -> float:
        """From the run's begin to its end: its first reading after it said that it begins."""
        if series is None or self.begins_s is None:
            return 0.0
        first = next((v for t, v in zip(series.at_s, series.values, strict=True)
                      if t >= self.begins_s), None)  # fmt: skip
        return 0.0 if first is None else series.values[-1] - first


def parse(text: str) -> Told:
    """Read its output; cut off anywhere, it gives what is whole."""
    generator, begins, delay, trials = "", None, None, 0
    at: list[float] = []
    rows: dict[str, dict[str, list[float]]] = {k: {} for k in KINDS}
    backlog: list[float] = []
    words = []
    for line in text.splitlines():
        try:
            said = json.loads(line)
            if "at" in said:
                at.append(float(said["at"]))
                backlog.append(float(said["backlogged"]))
                for kind, of in rows.items():
                    for guest, value in said[kind].items():
                        of.setdefault(guest, []).append(float(value))
            elif "generator" in said:
                generator = f"{said['generator']} {said['version']}"
            elif "begins" in said:
                begins, delay = float(said["begins"]), float(said["delay_ns"])
            elif "trial" in said:
                trials += 1
        except (ValueError, TypeError, KeyError, AttributeError):
            words.append(line.strip())

    def series(kind: str) -> dict[str, Series]:
        return {g: Series(at, values) for g, values in rows[kind].items() if len(values) == len(at)}

    return Told(
        generator, begins, delay, series("sent"), series("counted"), series("arrived"),
        series("dropped"),
        Series(at, backlog) if backlog else None, trials, tuple(filter(None, words)),
    )  # fmt: skip
