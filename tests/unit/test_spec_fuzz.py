"""Whatever the text, it is a spec or a SpecError whose places are inside the text."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from provision import spec as specs
from provision.errors import SpecError
from provision.spec import file as specfile
from provision.spec import words as specwords
from provision.spec import yamltext as yamlread

PARTS = sorted({part for path in specwords.fields() for part in path})
WORDS = st.sampled_from(
    [*PARTS, "kvm", "ovs", "1GiB", "spread", "0-3", "-1", "0x10", "~", "null", "true", "1.5", "*a",
     "&a", "!!str", "!x", "<<", "eth1", "52:54:00:12:34:56", "10.0.0.0/8", "'", '"', "%", "@", "|",
     "[", "]", "{", "}", ":", ": ", "- ", "? ", ",", "\n", "\n  ", "\n    ", "\t", " #", "---\n",
     "...\n", "\r\n", "\x85", "\u2028", "\\", "\ufeff", "\x00", "\ud800", "é", "𝄞"]
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(PARTS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)
SETTINGS = settings(max_examples=400)


def check(text: str | bytes, *sets: tuple[str, str]) -> None:
    try:
        found = specfile.loads(text, "f.yml", sets)
    except SpecError as e:
        assert e.problems
        for problem in e.problems:
            inside(problem, text)
    else:
        data = json.loads(json.dumps(specs.describe(found)))
        assert specs.restore(data) == found == specfile.loads(specfile.text(found), "again")


def inside(problem: str, text: str | bytes) -> None:
    assert problem.isprintable(), problem
    place = re.match(r"f\.yml:([0-9]+):([0-9]+): ", problem)
    if place is None:
        assert problem.startswith("--set ")
        return
    plain = text.decode("utf-8-sig", "replace") if isinstance(text, bytes) else text
    lines = plain.removeprefix("\ufeff").split("\n")
    line, column = int(place[1]), int(place[2])
    assert 1 <= line <= len(lines), problem
    assert 1 <= column <= len(lines[line - 1]) + 1, problem  # the line's end counts


@SETTINGS
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"\xef\xbb\xbf\xff")
@example(b"\xef\xbb")
@example(b"%YAML 1")
@example(b"%TAG ! !")
@example(b'"\\U0011FFFF"')
@example(b"a: |9999999\n x")
@example(b"!<")
def test_bytes(raw: bytes) -> None:
    check(raw)


@SETTINGS
@given(st.lists(WORDS | st.text(max_size=3), max_size=30).map("".join))
@example("uplinks: [eth1,\n\n\n")
@example("name: 'x\n")
@example("a: &a [1]\n? *a\n: 1")
@example("guests: {count: " + "9" * 5000 + "}")
@example("guests: {count: 0x" + "f" * 5000 + "}")
@example("run: {duration: " + "9" * 30 + "}")
@example("guests: {count: 1e999}")
@example("network: {prefix: 0x" + "f" * 30 + "}")
def test_words(text: str) -> None:
    check(text)


@SETTINGS
@given(VALUES)
def test_values(value: object) -> None:
    check(json.dumps(value, ensure_ascii=False))


@SETTINGS
@given(st.lists(st.tuples(st.lists(WORDS, max_size=4).map(".".join), WORDS), max_size=4))
def test_sets(sets: list[tuple[str, str]]) -> None:
    check("guests: {count: 2}\nhypervisor: kvm\nuplinks: []\n", *sets)


@SETTINGS
@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    plain = json.loads(re.sub("NaN|-?Infinity", "0.5", json.dumps(value)))
    try:
        text = yamlread.write(plain)
        text.encode()
    except ValueError:  # a lone surrogate
        return
    found = yamlread.read(text)
    if found.whole:
        assert found.data == plain
