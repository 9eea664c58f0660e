"""What a report calls things, what its rates count, and like remarks told once."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest

from provision.measuring.capture import load
from provision.measuring.results import WORDS, Run, Sample, Subject
from provision.measuring.workloads.netperf_words import parse
from provision.reporting import document, remarks, rows, terminal, write
from provision.reporting.figures import _called
from provision.reporting.words import grouped, together
from tests.unit.streams import sample
from tests.unit.test_report import Page


def http(repetition: int, conn_per_s: float = 300) -> Sample:
    """One that counts connections, beside the Mbit/s of their objects."""
    one = sample("http-closed", 9.5, repetition)
    per_s = {"vm1": 0.6 * conn_per_s, "vm2": 0.4 * conn_per_s}
    finding = replace(one.finding, transactions_per_s=per_s, counts="conn/s")
    return replace(one, workload="http-closed-4k", finding=finding)


def forwarding(repetition: int) -> Sample:
    one = sample("netperf-send", 80, repetition)
    finding = replace(one.finding, offered_mbit={"vm1": 60.0, "vm2": 40.0})
    return replace(one, workload="forwarding-64B-100M", finding=finding)


def run_of(root: Path, *samples: Sample) -> Run:
    run = Run.create(root, "demo", {})
    for one in samples:
        run.append(one)
    return run


def test_every_field_has_words() -> None:
    assert set(WORDS) == {f.name for f in fields(Subject)}
    assert not [words for words in WORDS.values() if "_" in words]


def test_what_was_measured_is_told_in_the_fields_words(tmp_path: Path) -> None:
    one = replace(sample("netperf-send", 100, 1), notes={"nic_asked": "paravirtual",
                  "generator_netperf": "2.7.0", "root partition": "2 of 8 CPUs"})  # fmt: skip
    page = write([run_of(tmp_path, one).path]).read_text()
    for words in (
        "<dt>vNIC model</dt><dd>virtio</dd>",
        "<dt>vNIC as asked for</dt><dd>paravirtual</dd>",
        "<dt>netperf of the load generator</dt><dd>2.7.0</dd>",
        "<dt>root partition</dt><dd>2 of 8 CPUs</dd>",
        "<dt>window, s</dt><dd>10</dd>",
    ):
        assert words in page
    for internal in ("nic_asked", "socket_buffer_bytes", "<dt>accel<", "HTTP clients", "HAProxy"):
        assert internal not in page


def test_each_workload_has_its_own_unit_everywhere(tmp_path: Path) -> None:
    """Transactions are not told, nor drawn, as Mbit/s."""
    run = run_of(tmp_path, *(http(n, 300 + n) for n in (1, 2, 3)), sample("netperf-send", 100, 1))
    first, second = rows([run.path])
    assert (first["conn/s"], first["Mbit/s"]) == ("302.0 ± 2.5", "9.5 ± 0.0")
    assert (second["conn/s"], second["Mbit/s"]) == ("-", "100.0")
    assert "trans/s" not in first
    assert (first["per guest"], second["per guest"]) == ("120 to 182", "40 to 60")
    page = Page(write([run.path]).read_text())
    table = page.text[page.text.index("Every sample") :]
    assert "conn/s" in table
    assert "301.0" in table
    figure = (run.path / "figures" / "throughput.svg").read_text()
    assert ">conn/s<" in figure
    assert ">Mbit/s of payload<" in figure
    assert ">302<" in figure
    found = {w["workload"]: w for w in document([run.path])["runs"][0]["workloads"]}
    assert found["http-closed-4k"]["unit"] == "conn/s"
    assert found["http-closed-4k"]["guests"]["vm1"]["mean"] == pytest.approx(181.2)


def test_what_was_forwarded_is_no_payload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, forwarding(1), forwarding(2))
    page = Page(write([run.path]).read_text())
    assert "payload" not in page.text
    assert "frames as on the wire, each with its checksum, preamble and gap" in page.text
    terminal([run.path])
    assert "- Mbit/s of forwarding: frames as on the wire" in capsys.readouterr().out
    assert ">Mbit/s on the wire<" in (run.path / "figures" / "throughput.svg").read_text()


LIMIT = "limits: a CPU was {} % busy, and the load generator shares it"


def limited(workload: str, repetition: int, percent: int) -> Sample:
    one = sample("netperf-send", 100, repetition)
    finding = replace(one.finding, warnings=(LIMIT.format(percent),))
    return replace(one, workload=workload, finding=finding)


def test_what_little_a_guest_had_is_told(tmp_path: Path) -> None:
    (row,) = rows([run_of(tmp_path, sample("netperf-send", 2.5, 1)).path])
    assert row["per guest"] == "1.0 to 1.5"


def test_like_remarks_are_told_once(tmp_path: Path) -> None:
    names = [f"netperf-{way}" for way in ("send", "receive", "both", "rr")]
    samples = [limited(name, n, 91 + 2 * n + i) for i, name in enumerate(names) for n in (1, 2, 3)]
    told = [words for words in remarks(document([run_of(tmp_path, *samples).path]))
            if "limits" in words]  # fmt: skip
    assert told == ["all workloads: " + LIMIT.format("93 to 100")]
    some = run_of(tmp_path, *samples[:6], sample("netperf-crr", 100, 1), *samples[6:9])
    (told_,) = [words for words in remarks(document([some.path])) if "limits" in words]
    assert told_ == "netperf-send, netperf-receive, netperf-both: " + LIMIT.format("93 to 99")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["vm1: 344.1 Mbit/s, its far end 388.2", "vm1: 1,344.7 Mbit/s, its far end 380.25"],
         ["vm1: 344.1 to 1,344.7 Mbit/s, its far end 380.25 to 388.2"]),
        (["CPU 3 was 95 % busy", "CPU 2 was 97 % busy"],
         ["CPU 3 was 95 % busy", "CPU 2 was 97 % busy"]),
        (["vm1: 198.18.1.2:12865 does not answer", "vm1: 198.18.2.2:12865 does not answer"],
         ["vm1: 198.18.1.2:12865 does not answer", "vm1: 198.18.2.2:12865 does not answer"]),
        (["the clock is +1.2 s off", "the clock is -0.3 s off"],
         ["the clock is -0.3 to +1.2 s off"]),
        (["a CPU was 91 to 95 % busy", "a CPU was 93 to 99 % busy"], ["a CPU was 91 to 99 % busy"]),
        (["the same", "the same"], ["the same"]),
    ],
)  # fmt: skip
def test_only_figures_that_were_measured_are_put_together(
    words: list[str], told: list[str]
) -> None:
    assert grouped(words) == told


def test_who_a_remark_is_about_is_kept() -> None:
    assert together([("a", "1 % off"), ("b", "3 % off"), ("a", "2 % off")]) == [
        (["a", "b"], "1 to 3 % off")
    ]


@pytest.mark.parametrize(("count", "pictures"), [(1, 1), (12, 1), (41, 2)])
def test_figures_are_readable_however_much_was_measured(
    tmp_path: Path, count: int, pictures: int
) -> None:
    """No label covers another: each bar has a line of its own, and a picture is a page at most."""
    names = [f"forwarding-1500B-{n}M@neighbour+forward-95" for n in range(count)]
    run = run_of(tmp_path, *(replace(forwarding(1), workload=name) for name in names))
    write([run.path])
    found = sorted((run.path / "figures").glob("throughput*.svg"), key=lambda p: p.stem)
    assert len(found) == pictures
    told = []
    for path in found:
        place = re.compile(r'y="([\d.]+)"[^>]*>(forwarding[^<]+)<')
        lines = [(float(y), name) for y, name in place.findall(path.read_text())]
        assert len(lines) <= 40
        assert all(below - above > 12 for (above, _), (below, _) in pairwise(lines)), "of 9 points"
        told += [name for _, name in lines]
    assert told == names


def test_a_line_is_called_by_whom_its_frames_are_for() -> None:
    streams = load(Path(__file__).parent / "netperf" / "streams.json", parse).streams
    own, other = streams[0], replace(streams[0], pair="packets.py")
    plain = sample("netperf-send", 100, 1).finding
    assert [_called(s, plain) for s in (own, other)] == ["vm1", "neighbours"]
    assert _called(other, forwarding(1).finding) == "all guests"
