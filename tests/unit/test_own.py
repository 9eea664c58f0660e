"""A user's own workload: its description, and what its samples come to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import SpecError, UserError
from provision.measuring.capture import Stream
from provision.measuring.counters import Asked
from provision.measuring.verdict import Finding, judge
from provision.measuring.workloads import find, read, series
from provision.measuring.workloads.own import Own
from provision.spec.file import loads
from provision.spec.own import digest, load
from tests.unit.streams import OPTIONS, PAIRS, START_S, capture, link
from tests.unit.streams import stream as carried

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-workload" / "sockperf-tcp.yml"
#: of a real run
SAID = """\
sockperf: Test ended
sockperf: Total of 51234 messages sent in 3.001 sec
sockperf: Summary: Message Rate is 17072 [msg/sec]
sockperf: Summary: BandWidth is 22.794 MBps (182.350 Mbps)
"""


def test_the_example_is_ten_lines_and_says_all() -> None:
    own = find(str(EXAMPLE))
    assert isinstance(own, Own)
    assert len(EXAMPLE.read_text().splitlines()) <= 10
    assert own.generator
    assert own.extravars["own_role"] == str(EXAMPLE.parent / "sockperf")
    order = own.plan(PAIRS, OPTIONS)
    assert order["programs"] == {"sockperf": ["--version"]}
    first = order["streams"][0]
    assert first["port"] == first["data_port"] == 12866
    words = [word.format(**first) for word in first["argv"]]
    assert words[words.index("-i") + 1] == "198.18.1.2"
    assert words[words.index("-t") + 1] == "14"
    assert float(own.read(SAID).result["figure"]) == 182.35
    assert own.read("segmentation fault\n").words == ("segmentation fault",)
    assert digest(own) != digest(replace(own, scale=1.0))
    assert read(own.name, SAID).result == {}, "a report of it needs no file"


def test_a_spec_names_it_by_its_file(tmp_path: Path) -> None:
    spec = loads("run: {workloads: [own-workload/sockperf-tcp.yml, netperf-rr]}", "spec",
                 folder=EXAMPLE.parents[1])  # fmt: skip
    assert spec.run.workloads == (str(EXAMPLE), "netperf-rr")
    assert [w.name for w in series(spec.run.workloads, [0])] == ["sockperf-tcp", "netperf-rr"]
    with pytest.raises(SpecError, match=r"no such file: 'gone.yml'; a path is relative"):
        loads("run: {workloads: [gone.yml]}", "spec", folder=tmp_path)
    (tmp_path / "same.yml").write_text(EXAMPLE.read_text().replace("./", f"{EXAMPLE.parent}/"))
    with pytest.raises(UserError, match="several workloads are called sockperf-tcp"):
        series([str(EXAMPLE), str(tmp_path / "same.yml")], [0])


def test_every_fault_of_a_description_is_told_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "own.yml"
    path.write_text("""\
name: My load
role: ./nowhere
program: [tool, "{sever}"]
figure: "([0-9]+) (.*)"
unit: msg/s
compare: yes
colour: red
asks: 99
""")
    with pytest.raises(SpecError) as e:
        load(path)
    said = str(e.value)
    for words in (
        ":1:1: name: should be a small letter",
        ":2:1: role: no role there: './nowhere'",
        ":3:17: program.1: there is no place {sever}; there are {server}",
        ":4:1: figure: should have one group, which is the figure, not 2",
        ":7:1: colour: no such field",
        ":8:1: asks: should be 'control_port' or 'data_port', not 99",
    ):
        assert words in said, said
    with pytest.raises(SpecError, match="No such file"):
        load(tmp_path / "gone.yml")


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    path = tmp_path / "own.yml"
    path.write_text(EXAMPLE.read_text().replace("unit: Mbit/s", "unit: msg/s")
                    .replace("./", f"{EXAMPLE.parent}/"))  # fmt: skip
    with pytest.raises(SpecError, match="only Mbit/s of one direction can be compared"):
        load(path)


OWN = replace(load(EXAMPLE), direction="send", scale=1.0)


def stream(said: str, fault: str = "", ended_s: float = START_S + 14) -> Stream:
    return Stream("vm1", START_S, OWN.read(said), said, fault, ended_s=ended_s, nic="c1")


def judged(one: Stream, own: Own = OWN) -> Finding:
    pair = PAIRS[:1]
    nic = {"c1": link(carried("vm1", [100.0] * 70))}
    return judge(capture([one], nic), Asked(own, OPTIONS, pair, True))


def test_a_figure_that_the_nic_confirms_is_the_common_windows() -> None:
    good = judged(stream("BandWidth is 12 MBps (101.0 Mbps)"))
    assert good.reasons == ()
    assert good.aggregate_mbit == pytest.approx(100), "the NIC's, over the window"
    assert good.disagreement_percent == {"vm1": pytest.approx(1, abs=0.1)}
    own = replace(OWN, unit="msg/s", compare=False, latency_us=(("P99", r"(\d+) us"),))
    text = "BandWidth is 1 MBps (5000 Mbps)\n17 us\n"
    counted = judged(replace(stream(text), output=own.read(text)), own)
    assert (counted.aggregate, counted.unit) == (5000, "msg/s")
    assert counted.latency_us == {"vm1": {"P99": 17}}


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (stream("BandWidth is 12 MBps (120.0 Mbps)"),
         "vm1: sockperf says 120.0 Mbit/s, c1 of the load generator carried 100.0"),
        (stream("no such words"), "vm1: nothing in its output is like"),
        (stream("BandWidth is 0 MBps (0.0 Mbps)"), "vm1: its figure is 0"),
        (stream(SAID, fault="sockperf ended with exit 1"), "vm1: sockperf ended with exit 1"),
        (stream(SAID, ended_s=START_S + 9), "vm1: ended 3.00 s before the window did"),
    ],
)  # fmt: skip
def test_a_figure_that_is_none_makes_the_sample_invalid(one: Stream, reason: str) -> None:
    assert any(r.startswith(reason) for r in judged(one).reasons), judged(one).reasons
