"""A run's folder: what is written is what is read, by this version and after a crash."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from errno import ENOSPC
from pathlib import Path

import pytest

from provision.errors import UserError, WorkloadError
from provision.measuring.results import RESULTS, Run, differences, runs
from tests.unit.streams import sample


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs", "demo", {"spec": {"name": "demo"}, "facts": {"vm1": {}}})


def test_samples_are_read_as_they_were_written(run: Run) -> None:
    taken = [
        sample("netperf-send", 100.5, 1),
        sample("netperf-send", 99.25, 2, attempt=2, reasons=("vm1: netperf ended", "and more")),
    ]
    for one in taken:
        run.append(one)
    assert Run(run.path).samples() == taken
    assert [s.valid for s in run.samples()] == [True, False]


def test_what_older_versions_wrote_is_read(run: Run) -> None:
    """They knew one NIC a guest, and the stream had the guest's name."""
    one = sample("netperf-send", 100, 1)
    old = asdict(one)
    del old["finding"]["links_mbit"], old["subject"]["nics_each"]
    with (run.path / RESULTS).open("a") as f:
        f.write(json.dumps(old) + "\n")
    (found,) = run.samples()
    assert found == one
    assert found.finding.streams_mbit == found.finding.guests_mbit
    assert found.subject.nics_each == 1


def test_the_folder_tells_what_was_run(run: Run) -> None:
    assert run.document("spec") == {"name": "demo"}
    assert run.document("nothing") == {}
    head = run.head()
    assert (head["format"], head["run"], head["testbed"]) == (1, run.id, "demo")
    stamp, name, tail = run.id.split("-")
    assert (len(stamp), name, len(tail)) == (16, "demo", 4)


def test_two_runs_in_one_second_are_two_folders(tmp_path: Path) -> None:
    made = {Run.create(tmp_path, "demo", {}).id for _ in range(20)}
    assert len(made) == 20
    assert {r.id for r in runs(tmp_path)} == made


def test_a_line_cut_off_by_a_crash_is_left_out(run: Run) -> None:
    run.append(sample("netperf-send", 100, 1))
    whole = (run.path / RESULTS).read_text()
    run.append(sample("netperf-send", 101, 2))
    longer = (run.path / RESULTS).read_text()
    for end in (len(whole) + 1, len(longer) - 1):
        (run.path / RESULTS).write_text(longer[:end])
        assert len(run.samples()) == 1


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    asked = {"run": {"workloads": ["netperf-send", "netperf-receive"], "repeat": 2}}
    run = Run.create(tmp_path, "demo", {"spec": asked, "facts": {}})
    taken = [sample(w, 100, n) for n in (1, 2) for w in ("netperf-send", "netperf-receive")]
    for one in taken:
        (run.path / one.raw).mkdir(parents=True)
        (run.path / one.raw / "streams.json").write_text("{}")
        run.append(one)
    assert run.gaps(run.samples()) == []
    text = (run.path / RESULTS).read_text()
    (run.path / RESULTS).write_text(text[:-9])
    assert run.gaps(run.samples()) == [
        "the last line of results.jsonl is cut off, and left out",
        "the run ended early: 3 of 4 repetitions were taken",
    ]
    (run.path / RESULTS).write_text(text)
    (run.path / "facts.json").unlink()
    (run.path / taken[2].raw / "streams.json").unlink()
    (gone,) = run.gaps(taken)
    assert gone == f"gone from the run's folder: facts.json, {taken[2].raw}/streams.json"
    shutil.rmtree(run.path / "raw")
    assert run.gaps(taken) == ["gone from the run's folder: facts.json, raw/"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no run is kept here"),
        ("no json\n", "no run is kept here"),
        ('{"format": 2}\n', "format 2; this version reads 1"),
        ("[]\n", "does not begin as"),
        ('{"format": null}\n', "does not begin as"),
        (
            '{"format": 1, "testbed": "x"}\n{"workload": "netperf-send"}\n',
            "line 2 is no sample: direction: Field required",
        ),
    ],
)
def test_what_is_not_ours_is_refused(run: Run, text: str, words: str) -> None:
    (run.path / RESULTS).write_text(text)
    with pytest.raises(UserError, match=words):
        run.samples()


def test_a_folder_without_results_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run is kept here"):
        Run(tmp_path).samples()


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkloadError, match="cannot be written: Not a directory"):
        Run.create(tmp_path / "file", "demo", {})


def test_a_sample_is_on_the_disk_when_append_returns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append((run.path / RESULTS).read_text())

    monkeypatch.setattr(os, "fsync", fsync)
    run.append(sample("netperf-send", 100, 1))
    assert json.loads(synced[-1].splitlines()[-1])["workload"] == "netperf-send"


def test_samples_of_one_thing_differ_in_nothing() -> None:
    assert differences([sample("netperf-send", 1, 1), sample("netperf-receive", 2, 1)]) == []
    assert differences([]) == []


def test_a_disk_that_fills_costs_no_sample_that_was_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append(sample("netperf-send", 100, 1))

    def full(_fd: int) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkloadError, match="No space left on device") as caught:
            run.append(sample("netperf-send", 110, 2))
    assert caught.value.hint == f"df -h {run.path}: free some"
    run.append(sample("netperf-send", 120, 2))
    assert [s.finding.aggregate_mbit for s in run.samples()] == [100, 120]
