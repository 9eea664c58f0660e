"""Quantities and CPU lists, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision import units
from provision.units import MEMORY, RATE, SIZE, TIME, Unit


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [
        (MEMORY, "1GiB", 1024),
        (MEMORY, "512MiB", 512),
        (MEMORY, "1.5 GiB", 1536),
        (MEMORY, "2G", 2048),
        (MEMORY, "1tib", 1024**2),
        (MEMORY, "768", 768),
        (RATE, "1gbit", 1000),
        (RATE, "400Mbit/s", 400),
        (RATE, "2.5 Gbps", 2500),
        (TIME, "10s", 10),
        (TIME, "1.5min", 90),
        (TIME, "1h", 3600),
        (SIZE, "8KB", 8192),
        (SIZE, "64K", 65536),
        (SIZE, "100B", 100),
    ],
)
def test_reads(unit: Unit, text: str, value: int) -> None:
    assert unit.read(text) == value


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (MEMORY, "1GB"),  # decimal or not? nobody can know
        (MEMORY, "-1GiB"),
        (MEMORY, "1 2GiB"),
        (MEMORY, "1e3"),
        (MEMORY, "0.3MiB"),
        (MEMORY, ""),
        (MEMORY, "GiB"),
        (MEMORY, "\u0661GiB"),
        (RATE, "1GB"),
        (RATE, "1gb"),
        (RATE, "500kbit"),
        (TIME, "1500ms"),
        (TIME, "0.5s"),
    ],
)
def test_refuses(unit: Unit, text: str) -> None:
    with pytest.raises(ValueError, match="should be"):
        unit.read(text)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (MEMORY, 1024, "1GiB"),
        (MEMORY, 1536, "1536MiB"),
        (MEMORY, 0, "0MiB"),
        (RATE, 1000, "1gbit"),
        (RATE, 2500, "2500mbit"),
        (TIME, 90, "90s"),
        (TIME, 120, "2min"),
        (SIZE, 8192, "8KB"),
        (SIZE, 100, "100B"),
    ],
)
def test_writes(unit: Unit, value: int, text: str) -> None:
    assert unit.write(value) == text


@given(st.sampled_from([MEMORY, RATE, TIME, SIZE]), st.integers(0, 10**12))
def test_there_and_back(unit: Unit, value: int) -> None:
    assert unit.read(unit.write(value)) == value


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-3,8", (0, 1, 2, 3, 8)), ("8, 0-1,1", (0, 1, 8)), ("5", (5,)), ("4-4", (4,)), ("", ())],
)
def test_cpus(text: str, numbers: tuple[int, ...]) -> None:
    assert units.cpus(text) == numbers


@pytest.mark.parametrize("text", ["3-1", "a", "0-", ",", "1,,2", "-1", "^1", "8192", "0-99999"])
def test_refuses_cpus(text: str) -> None:
    with pytest.raises(ValueError, match="CPU list"):
        units.cpus(text)


@given(st.sets(st.integers(0, units.LAST_CPU), max_size=40))
def test_cpu_lists_there_and_back(numbers: set[int]) -> None:
    assert units.cpus(units.cpu_list(numbers)) == tuple(sorted(numbers))


def test_cpu_list_is_the_shortest() -> None:
    assert units.cpu_list([8, 1, 0, 2, 3, 10, 9]) == "0-3,8-10"
