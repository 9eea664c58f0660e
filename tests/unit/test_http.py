"""HTTP samples: what ab and our arrivals said, read back, and every reason against a sample."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.measuring.capture import Capture, Link, Series, Stream, number
from provision.measuring.counters import Asked
from provision.measuring.verdict import Finding, judge
from provision.measuring.window import Window
from provision.measuring.workload import HEADER_BYTES, Options
from provision.measuring.workloads import find, read, series
from provision.measuring.workloads.http_words import (
    NEEDED,
    ab_latency_us,
    latency_us,
    parts,
    read_ab,
    read_arrivals,
)
from tests.unit.streams import PAIRS, START_S

RECORDED = Path(__file__).parent / "http"
SIZE, PER_S = 2048, 100.0
OPTIONS = Options(duration_s=10, ramp_s=2, clients=4, arrivals_per_s=100)
(CLOSED,), (OPEN,) = series(["http-closed"], [2]), series(["http-open"], [2])


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def test_each_size_is_a_series_of_its_own() -> None:
    made = series(["http-closed", "netperf-send"], [0, 64, 0])
    assert [w.name for w in made] == ["http-closed-0k", "http-closed-64k", "netperf-send"]
    order = made[1].plan(PAIRS, OPTIONS)
    assert [h["files"]["www/object"] for h in order["helpers"]] == [["x", 65536]] * 2
    assert [h["listens"] for h in order["helpers"]] == [
        ["198.18.1.1", 12866],
        ["198.18.2.1", 12868],
    ]
    assert len(json.dumps(order)) < 20_000, "it is one word of a command"
    argv = order["streams"][0]["argv"]
    assert argv[argv.index("-t") + 1] == "14"
    assert argv.index("-t") < argv.index("-n"), "-t sets -n too"
    with pytest.raises(Exception, match="did you mean 'http-closed'"):
        find("http-close")


def test_what_ab_said_is_read() -> None:
    output = read_ab(recorded("closed"))
    assert output.missing(NEEDED) == ()
    assert output.result["size"] == str(SIZE)
    assert output.result["failed"] == "0"
    assert "non_2xx" not in output.result
    done = number(output, "done")
    assert done
    assert number(output, "octets") == pytest.approx(done * SIZE, rel=0.01)
    latency = ab_latency_us(output)
    assert 50 < latency["MIN"] <= latency["P50"] <= latency["P90"] <= latency["MAX"] < 2e6
    assert read("http-closed-2k", recorded("closed")) == output
    failed = read_ab(recorded("closed-503"))
    assert failed.result["non_2xx"] == failed.result["done"] != "0"


def test_what_our_arrivals_said_is_read() -> None:
    text = recorded("open")
    output, told = read_arrivals(text), parts(text)
    assert len(output.interims) == len(told) == len(text.splitlines())
    assert output.result["begun"] == output.result["done"] == "100"
    assert sum(n for p in told for n in p.latency.values()) == 100
    failed = read_arrivals(recorded("open-503"))
    assert failed.result == {"done": "0", "begun": "100", "error status 503": "100"}


def test_percentiles_are_of_what_was_done_within_the_window() -> None:
    row = {"end": 10.2, "interval": 0.2, "begun": 100, "done": 100, "octets": 1, "late_us": 0,
           "errors": {}, "latency": {"300": 89, "400": 10, "500": 1}}  # fmt: skip
    late = row | {"end": 99.0, "latency": {"700": 900}}
    told = parts(f"{json.dumps(row)}\n{json.dumps(late)}\n")
    assert latency_us(told, Window(10.0, 11.0)) == {
        "MIN": 1000, "P50": 1000, "P90": 10_000, "P99": 10_000, "MAX": 100_000,
    }  # fmt: skip
    assert latency_us(told, Window(20.0, 21.0)) == {}


@given(st.integers(0, 3000), st.sampled_from(["closed", "open"]))
def test_cut_anywhere_nothing_is_invented(length: int, load: str) -> None:
    whole = recorded(load)
    reader = read_ab if load == "closed" else read_arrivals
    part = reader(whole[:length])
    if load == "closed":  # the last figure may be cut within
        told = list(part.result)[:-1]
        assert all(whole.count(part.result[k]) for k in told)
    else:
        assert part.interims == reader(whole).interims[: len(part.interims)]


@given(st.text())
def test_no_text_whatever_breaks_the_readers(text: str) -> None:
    for line in (text, '{"end":1,"latency":' + text):
        read_ab(line)
        read_arrivals(line)


AB = {"size": str(SIZE), "clients": "4", "elapsed_s": "14.000", "done": "1400", "failed": "0",
      "octets": str(1400 * SIZE), "connect": "0", "receive": "0", "length": "0",
      "exceptions": "0", "centile_0": "0.5", "centile_50": "1.0", "centile_90": "2.0",
      "centile_99": "9.5", "centile_100": "20.0"}  # fmt: skip
AT = [START_S - 0.5 + 0.1 * n for n in range(160)]
GROWN = [PER_S * min(max(t - START_S, 0.0), 14.0) for t in AT]


def stream(guest: str, **changes: str) -> Stream:
    """One that was served a hundred times a second for 14 s."""
    output = replace(read_ab(""), result=AB | changes, words=())
    return Stream(guest, START_S, output, "", "", Series(AT, GROWN))


def open_stream(**changes: object) -> Stream:
    """The same by arrivals, a line every 0.2 s."""
    row = {"interval": 0.2, "begun": 20, "done": 20, "octets": 1, "late_us": 10, "errors": {},
           "latency": {"320": 20}} | changes  # fmt: skip
    lines = [json.dumps({"end": START_S + 0.2 * n, **row}) for n in range(1, 71)]
    text = "\n".join(lines) + "\n"
    return Stream("vm1", START_S, read_arrivals(text), text, "", Series(AT, GROWN))


def link(per_s: float = PER_S, packets: float = 6.0, size: int = SIZE) -> Link:
    """A NIC that carried that many connections, both ways alike."""
    count = [per_s / PER_S * g * packets for g in GROWN]
    octets = [
        g * per_s / PER_S * size + c * HEADER_BYTES for g, c in zip(GROWN, count, strict=True)
    ]
    return Link(Series(AT, octets), Series(AT, count), Series(AT, octets), Series(AT, count))


def judged(*streams: Stream, carried: Link | None = None, open_load: bool = False) -> Finding:
    nics = {"c1": carried or link(), "c2": link()}
    cpu = Series(AT, [0.1 * (t - AT[0]) for t in AT])
    names = {s.pair for s in streams}
    pairs = tuple(p for p in PAIRS if p.name in names)
    capture = Capture(
        host="lg", kernel="6.1", versions={}, released_s=START_S, ended_s=AT[-1], stopped=None,
        streams=streams, links={p.port_nic: nics[p.port_nic] for p in pairs}, cpus=(cpu,),
        clients=cpu, clock_jump_s=0.0,
    )  # fmt: skip
    return judge(capture, Asked(OPEN if open_load else CLOSED, OPTIONS, pairs, True))


def test_a_good_sample_is_valid_and_adds_up() -> None:
    found = judged(stream("vm1"), stream("vm2"))
    assert found.reasons == ()
    assert found.unit == "conn/s"
    assert found.aggregate == pytest.approx(2 * PER_S)
    assert found.guests_mbit["vm1"] == pytest.approx(PER_S * SIZE * 8 / 1e6)
    assert found.latency_us["vm1"] == {
        "MIN": 500, "P50": 1000, "P90": 2000, "P99": 9500, "MAX": 20_000,
    }  # fmt: skip
    assert found.disagreement_percent == {"vm1": pytest.approx(0), "vm2": pytest.approx(0)}
    opened = judged(open_stream(), open_load=True)
    assert opened.reasons == opened.warnings == ()
    assert opened.latency_us["vm1"]["P50"] == pytest.approx(10**3.2)


STILL = Series(AT, [PER_S * (min(max(t - START_S, 0), 5) + max(min(t - START_S, 14) - 7, 0))
                    for t in AT])  # fmt: skip


ONE = stream("vm1")


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (replace(ONE, fault="ab ended with exit 22"), "vm1: ab ended with exit 22"),
        (stream("vm1", size="107"), "vm1: the object had 107 bytes, not 2048"),
        (stream("vm1", clients="5"), "vm1: 5 clients, not 4"),
        (stream("vm1", elapsed_s="9.2"), "vm1: ran 9.2 s instead of 14 s"),
        (stream("vm1", non_2xx="7"), "vm1: 7 of 1400 answers were not 2xx"),
        (stream("vm1", failed="3", length="2", receive="1"),
         "vm1: 3 of 1400 failed: receive 1, length 2"),
        (replace(ONE, counter=None), "vm1: the origin never told its count"),
        (replace(ONE, counter=Series(AT, [0.0] * len(AT))), "vm1: nothing was served"),
        (replace(ONE, counter=Series(AT[:60], GROWN[:60])),
         "vm1: the origin's count was not told over the whole window"),
        (replace(ONE, counter=STILL), "vm1: no request came to the origin for 2."),
        (stream("vm1", done="1500"),
         "vm1: 1500 connections were answered, the origin was asked 1400 times"),
        (open_stream(begun=15), "vm1: 75.0 connections/s were begun, not 100"),
        (open_stream(errors={"timeout": 2}), "vm1: 140 of 1400 failed: timeout"),
    ],
)  # fmt: skip
def test_a_client_that_is_not_as_asked_makes_the_sample_invalid(one: Stream, reason: str) -> None:
    found = judged(one, open_load=bool(one.raw))
    assert any(words.startswith(reason) for words in found.reasons), found.reasons


def test_connections_that_the_nic_did_not_carry_make_the_sample_invalid() -> None:
    assert judged(stream("vm1"), carried=link(packets=3)).reasons == (
        "vm1: c1 of the load generator received 300 packets/s for 100 connections/s",
        "vm1: c1 of the load generator sent 300 packets/s for 100 connections/s",
    )
    small = judged(stream("vm1"), carried=link(size=SIZE // 2)).reasons
    assert small[0] == "vm1: c1 of the load generator received 0.8 Mbit/s, the objects are 1.6"


def test_a_late_load_generator_is_told_and_within_the_latencies() -> None:
    found = judged(open_stream(late_us=35_000), open_load=True)
    assert found.valid
    assert found.warnings == (
        "vm1: the load generator began connections up to 35 ms late, which is within their "
        "latencies",
    )
