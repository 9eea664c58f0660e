"""netperf's arguments, and its captured output read back, whole or cut anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import UserError
from provision.measuring.capture import number
from provision.measuring.workload import Options, Pair
from provision.measuring.workloads import WORKLOADS, find
from provision.measuring.workloads.netperf_words import KEYS, MEGABIT, argv, parse

CAPTURED = Path(__file__).parent / "netperf"
PAIR = Pair("vm1", "198.18.1.2", "198.18.1.1", 12865, 12866, "eth1")


def captured(name: str) -> str:
    return (CAPTURED / name).read_text()


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_a_sample_is_taken_as_in_the_paper() -> None:
    words = argv("stream", "receive", Options(duration_s=10, ramp_s=2))
    assert option(words, "-t") == "TCP_STREAM"
    assert option(words, "-l") == "14"
    test = words[words.index("--") :]
    # both of each pair: one value alone does not reach the far sender
    assert (option(test, "-m"), option(test, "-M")) == ("8192,8192", "8192,8192")
    assert (option(test, "-s"), option(test, "-S")) == ("65536", "65536")
    assert set(option(test, "-k").split(",")) == set(KEYS["stream"])
    assert option(argv("stream", "send", Options()), "-t") == "TCP_MAERTS"


def test_transactions_and_datagrams_have_sizes_of_their_own() -> None:
    options = Options(request_bytes=64, response_bytes=1024, datagram_bytes=200)
    for kind, test in (("request", "TCP_RR"), ("connection", "TCP_CRR")):
        words = argv(kind, "both", options)  # type: ignore[arg-type]
        assert (option(words, "-t"), option(words, "-r")) == (test, "64,1024")
        assert "P99_LATENCY" in option(words, "-k")
    for way, far in (("send", "recv"), ("receive", "send")):
        words = argv("datagram", way, options)  # type: ignore[arg-type]
        assert (option(words, "-T"), option(words, "-d")) == ("UDP", far)
        assert option(words, "-m") == "200,200"


def test_both_ways_at_once_are_two_streams_of_a_pair() -> None:
    made = WORKLOADS["netperf-both"].plan([PAIR], Options())
    assert [s["pair"] for s in made["streams"]] == ["vm1.send", "vm1.receive"]
    tests = [option(s["argv"], "-t") for s in made["streams"]]
    assert tests == ["TCP_MAERTS", "TCP_STREAM"]
    assert [s["data_port"] for s in made["streams"]] == [PAIR.data_port, 0]
    received = [f.received for f in WORKLOADS["netperf-both"].flows([PAIR])]
    assert received == [True, False]


def test_every_pair_has_a_stream_with_all_that_the_command_needs() -> None:
    other = Pair("vm2", "198.18.2.2", "198.18.2.1", 12867, 12868, "eth2")
    made = WORKLOADS["netperf-send"].plan([PAIR, other], Options())
    words = [[w.format(**s) for w in s["argv"]] for s in made["streams"]]
    assert option(words[1], "-H") == "198.18.2.2"
    assert option(words[1], "-L") == "198.18.2.1"
    assert option(words[1], "-p") == "12867"
    assert words[1][-3] == ",12868"
    assert made["deadline_s"] > Options().length_s


@pytest.mark.parametrize(
    "wrong", [{"duration_s": 0}, {"ramp_s": 0.1}, {"message_bytes": 0}, {"socket_buffer_bytes": 0}]
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError):
        Options(**wrong)  # type: ignore[arg-type]


def test_an_unknown_workload_is_told_with_the_near_one() -> None:
    with pytest.raises(UserError, match=r"did you mean 'netperf-send'\?.*netperf-receive"):
        find("netperf-sent")
    assert find("netperf-send").direction == "send"


@pytest.mark.parametrize(("name", "way"), [("send.txt", "Receive"), ("receive.txt", "Send")])
def test_captured_output_is_read(name: str, way: str) -> None:
    output = parse(captured(name))
    assert output.missing(KEYS["stream"]) == ()
    assert output.words == ()
    assert output.result["DIRECTION"] == way
    assert output.units == {MEGABIT}
    assert len(output.interims) == 10
    assert number(output, "ELAPSED_TIME") == 2.0
    mean = sum(i.rate * i.interval_s for i in output.interims) / 2.0
    assert mean == pytest.approx(number(output, "THROUGHPUT"), rel=0.01)
    for before, after in zip(output.interims, output.interims[1:], strict=False):
        assert after.begin_s == pytest.approx(before.end_s, abs=0.002)


def test_output_that_was_cut_gives_what_is_whole() -> None:
    output = parse(captured("cut.txt"))
    assert len(output.interims) == 6
    assert output.missing(KEYS["stream"]) == KEYS["stream"]


def test_a_key_that_netperf_did_not_tell_is_missed() -> None:
    output = parse(captured("few.txt"))
    assert output.missing(["ELAPSED_TIME", "THROUGHPUT"]) == ("ELAPSED_TIME",)
    assert number(output, "ELAPSED_TIME") is None


def test_what_netperf_says_in_words_is_kept() -> None:
    output = parse(captured("refused.txt"))
    assert output.words[0].startswith("establish control: are you sure there is a netserver")
    assert output.interims == ()


@given(st.integers(0, len(captured("send.txt"))))
def test_cut_anywhere_it_never_invents_a_result(length: int) -> None:
    whole, part = parse(captured("send.txt")), parse(captured("send.txt")[:length])
    assert len(part.interims) <= len(whole.interims)
    # all but the last, whose last figure may be cut in the middle
    assert part.interims[:-1] == whole.interims[: max(len(part.interims) - 1, 0)]
    told = list(part.result)
    assert all(part.result[k] == whole.result[k] for k in told[:-1])


@given(st.text())
def test_no_text_whatever_breaks_the_parser(text: str) -> None:
    parse(text)
    parse("NETPERF_UNITS[0]=x\nNETPERF_ENDING[0]=" + text)
