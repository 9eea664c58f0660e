"""Quantities as people write them ("1GiB", "400mbit", "10s") and CPU lists, there and back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NUMBER = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?\s*([a-z/]*)", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
LAST_CPU = 8191  # the most that Linux can be built for


def counted(number: int, noun: str) -> str:
    """``1 guest``, ``2 guests``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, slots=True)
class Unit:
    """One kind of quantity, counted in whole base units.

    ``whole`` is what is counted. ``sizes`` goes from the base unit upwards: the spellings of
    each, the usual one first, and how many base units it is.
    """

    what: str
    whole: str
    sizes: tuple[tuple[tuple[str, ...], int], ...]
    example: str

    @property
    def base(self) -> str:
        return self.sizes[0][0][0]

    def read(self, text: str) -> int:
        """In base units; a number alone is in base units already. Raises ValueError."""
        found = _NUMBER.fullmatch(text.strip())
        scales: dict[str, int] = {
            s.lower(): scale for spellings, scale in self.sizes for s in spellings
        }
        scale = scales.get((found[3] or self.base).lower()) if found else None
        if found is None or scale is None:
            raise ValueError(f"should be {self.what} such as {self.example}")
        decimals = found[2] or ""
        value, rest = divmod(int(found[1] + decimals) * scale, int(f"1{'0' * len(decimals)}"))
        if rest:
            raise ValueError(f"should be a whole number of {self.whole}")
        return value

    def write(self, value: int) -> str:
        """In the largest unit that gives a whole number."""
        spelling, scale = next(
            (s[0], n) for s, n in reversed(self.sizes) if n == 1 or (value and value % n == 0)
        )
        return f"{value // scale}{spelling}"


MEMORY = Unit(
    "a memory size",
    "MiB",
    ((("MiB", "M"), 1), (("GiB", "G"), 1024), (("TiB", "T"), 1024**2)),
    "'512MiB' or '1GiB'",
)
RATE = Unit(
    "a rate",
    "mbit",
    ((("mbit", "mbit/s", "mbps"), 1), (("gbit", "gbit/s", "gbps"), 1000)),
    "'400mbit' or '1gbit'",
)
TIME = Unit(
    "a time",
    "seconds",
    ((("s", "sec"), 1), (("min", "m"), 60), (("h",), 3600)),
    "'10s' or '2min'",
)
#: a KB is 1024 bytes, as netperf and the papers have it
SIZE = Unit(
    "a size",
    "bytes",
    ((("B",), 1), (("KB", "K", "KiB"), 1024), (("MB", "M", "MiB"), 1024**2)),
    "'8KB' or '1MB'",
)


def cpus(text: str) -> tuple[int, ...]:
    """The CPUs of a list such as ``0-3,8``, ascending; none for "". Raises ValueError."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError("should be a CPU list such as '0-3,8'")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ValueError(f"should be a CPU list: the range {part.strip()} runs backwards")
        if last > LAST_CPU:
            raise ValueError(f"should be a CPU list: no host has a CPU {last}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def cpu_list(numbers: Iterable[int]) -> str:
    """The shortest list of these CPUs, such as ``0-3,8``; "" for none."""
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
