"""The report from folders alone: the table, the document, the page and its figures."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from errno import ENOSPC
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from provision.errors import WorkloadError
from provision.measuring.results import Run
from provision.measuring.stats import Interval
from provision.reporting import document, remarks, rows, spread, terminal, write
from tests.unit.streams import SUBJECT, sample

STREAMS = Path(__file__).parent / "netperf" / "streams.json"
HOSTILE = "<script>alert('x')</script>"


def filled(root: Path, name: str, factor: float = 1, **subject: object) -> Run:
    """A run of three samples, one of them not valid, with raw output."""
    run = Run.create(root, name, {})
    for one in (
        sample("netperf-send", 100 * factor, 1),
        sample("netperf-send", 900 * factor, 2, reasons=(f"vm1: netperf ended: {HOSTILE}",)),
        sample("netperf-send", 110 * factor, 2, attempt=2),
    ):
        run.append(replace(one, subject=replace(SUBJECT, **subject)))  # type: ignore[arg-type]
    for one in run.samples():
        raw = run.path / one.raw
        raw.mkdir(parents=True)
        (raw / "streams.json").write_bytes(STREAMS.read_bytes())
    return run


def test_the_table_says_what_the_samples_say(tmp_path: Path) -> None:
    run = filled(tmp_path, "demo")
    assert rows([run.path]) == [
        {
            "workload": "netperf-send", "Mbit/s": "105.0 ± 63.5", "per guest": "40 to 66",
            "Jain (least)": "0.962 (0.962)", "skew ms": "5", "NICs %": "0.30", "CPU %": "60",
            "CPU %/Mbit": "0.573", "valid": "2 of 3, 1 redone",
        }
    ]  # fmt: skip


def test_the_table_has_each_nic_where_guests_have_several(tmp_path: Path) -> None:
    """A run beside it whose guests have one has the column too."""
    several = Run.create(tmp_path, "several", {})
    one = sample("netperf-send", 100, 1)
    links = {"vm1.link1": 45.0, "vm1.link2": 15.0, "vm2.link1": 20.0, "vm2.link2": 20.0}
    subject = replace(SUBJECT, nics_each=2)
    finding = replace(one.finding, links_mbit=links)
    several.append(replace(one, subject=subject, finding=finding))
    before, after = rows([filled(tmp_path, "demo").path, several.path])
    assert list(before) == list(after)
    assert (before["per guest"], before["per NIC"]) == ("40 to 66", "40 to 66")
    assert (after["per guest"], after["per NIC"]) == ("40 to 60", "15 to 45")


def test_the_terminal_cuts_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    terminal([filled(tmp_path, "demo").path])
    head, row, reason, few = capsys.readouterr().out.splitlines()
    assert row.split() == [
        "netperf-send", "105.0", "±", "63.5", "40", "to", "66", "0.962", "(0.962)", "5", "0.30",
        "60", "0.573", "2", "of", "3,", "1", "redone",
    ]  # fmt: skip
    assert head.split()[:2] == ["workload", "Mbit/s"]
    assert reason == f"- netperf-send: invalid: vm1: netperf ended: {HOSTILE}"
    assert few == "- netperf-send: two samples are too few for a useful interval"


def test_the_document_is_plain_data(tmp_path: Path) -> None:
    run = filled(tmp_path, "demo")
    data = json.loads(json.dumps(document([run.path])))
    assert data["format"] == 1
    (only,) = data["runs"]
    assert (only["id"], only["testbed"], only["subject"]["nic"]) == (run.id, "demo", "virtio")
    (workload,) = only["workloads"]
    assert workload["aggregate_mbit"]["mean"] == 105
    assert (workload["taken"], workload["invalid"], workload["skew_ms"]) == (3, 1, 5)
    assert [s["valid"] for s in only["samples"]] == [True, False, True]


class Page(HTMLParser):
    """What a browser would make of it: tags, text, and all that is fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v
                         and not v.startswith("#")]  # fmt: skip

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_believes_nobody(tmp_path: Path) -> None:
    run = filled(tmp_path, "demo")
    page = Page(write([run.path]).read_text())
    assert page.fetched == []
    assert "script" not in page.tags
    assert HOSTILE in page.text
    assert page.tags.count("svg") == 3
    assert "105.0 ± 63.5" in page.text
    assert json.loads((run.path / "report.json").read_text())["runs"][0]["id"] == run.id


def test_the_figures_are_kept_in_both_forms(tmp_path: Path) -> None:
    run = filled(tmp_path, "demo", wire_mbit=1000)
    write([run.path])
    found = sorted(p.name for p in (run.path / "figures").iterdir())
    stems = ("cpu", "netperf-send", "throughput")
    assert found == [f"{stem}.{form}" for stem in stems for form in ("png", "svg")]
    for path in (run.path / "figures").glob("*.svg"):
        assert ET.fromstring(path.read_text()).tag == "{http://www.w3.org/2000/svg}svg"
    texts = (run.path / "figures" / "netperf-send.svg").read_text()
    assert "common window" in texts
    assert "vm1" in texts


def drawn(run: Run, tmp_path: Path) -> str:
    write([run.path])
    return (run.path / "figures" / "throughput.svg").read_text()


def test_no_interval_is_drawn_below_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowest: list[float] = []
    real = Axes.errorbar

    def errorbar(axes: Axes, x: float, y: float, xerr: Any, **more: Any) -> object:
        low, high = np.asarray(xerr).reshape(2, 1)[:, 0]
        lowest.append(x - low)
        assert high > x, "the interval above the mean stays whole"
        return real(axes, x, y, xerr=xerr, **more)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    run = Run.create(tmp_path, "demo", {})
    run.append(sample("netperf-send", 100, 1))
    run.append(sample("netperf-send", 200, 2))
    assert "too few" in drawn(run, tmp_path)
    assert lowest == [0]


def test_few_samples_are_told_beside_the_figure_only_where_they_are_few(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "demo", {})
    for n in (1, 2, 3):
        run.append(sample("netperf-send", 100 + n, n))
    assert "too few" not in drawn(run, tmp_path)


def test_a_width_that_was_not_reached_is_told(tmp_path: Path) -> None:
    for within, told in ((5, True), (90, False)):
        run = Run.create(tmp_path, "demo", {"spec": {"run": {"within_percent": within}}})
        for n, mbit in enumerate((100, 110), 1):
            run.append(sample("netperf-send", mbit, n))
        words = "netperf-send: the interval is ±60.5 % after 2 repetitions; ±5 % was asked"
        assert (words in remarks(document([run.path]))) is told


def test_other_load_on_the_host_is_told_once_a_workload(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "demo", {})
    for n, others in ((1, 31.0), (2, 34.0), (3, 5.0)):
        one = sample("netperf-send", 100, n)
        run.append(replace(one, finding=replace(one.finding, others_percent=others)))
    data = document([run.path])
    assert data["runs"][0]["workloads"][0]["warnings"] == [
        "31 to 34 % of a CPU of the host went to neither the guests nor the load generator's "
        "programs"
    ]
    write([run.path])
    assert "all else" in (run.path / "figures" / "cpu.svg").read_text()


def test_what_is_missing_from_a_run_is_a_remark(tmp_path: Path) -> None:
    run = filled(tmp_path, "demo")
    assert not any("gone" in words for words in remarks(document([run.path])))
    shutil.rmtree(run.path / "raw")
    assert "gone from the run's folder: raw/" in remarks(document([run.path]))


def test_a_report_is_the_same_every_time(tmp_path: Path) -> None:
    run = filled(tmp_path, "demo")
    assert write([run.path]).read_text() == write([run.path]).read_text()


def test_runs_stand_side_by_side_and_are_not_averaged(tmp_path: Path) -> None:
    folders = [filled(tmp_path, "one").path, filled(tmp_path, "two", 0.5, nic="e1000").path]
    cells = rows(folders)
    assert [(c["run"], c["Mbit/s"], c["ratio"]) for c in cells] == [
        ("1", "105.0 ± 63.5", "1"),
        ("2", "52.5 ± 31.8", "0.50 (0.37 to 0.67)"),
    ]
    page = write(folders)
    assert page == folders[1] / "compared.html"
    assert "the runs differ in vNIC model: virtio / e1000" in page.read_text()
    assert not (folders[1] / "report.html").exists()
    assert "Run 2: netperf-send, repetition 2" in page.read_text()


def test_a_run_without_samples_and_one_without_a_valid_one_are_told(tmp_path: Path) -> None:
    empty = Run.create(tmp_path, "empty", {})
    assert "No sample was taken" in write([empty.path]).read_text()
    empty.append(sample("netperf-send", 5, 1, reasons=("stopped early: signal 15",)))
    assert rows([empty.path])[0]["Mbit/s"] == "none"
    assert "stopped early: signal 15" in write([empty.path]).read_text()


def test_no_interval_is_shown_of_one_sample() -> None:
    assert spread(Interval(1, 105.0, None, None)) == "105.0"
    assert spread(Interval(3, 37105.4, 1.0, 12.3)) == "37,105 ± 12"


def test_a_disk_that_is_full_leaves_the_report_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = filled(tmp_path, "demo")
    page = write([run.path])
    before = page.read_text(), (run.path / "report.json").read_text()
    run.append(sample("netperf-send", 120, 3))
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        real(path, data[:10])
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkloadError, match="No space left") as caught:
        write([run.path])
    assert caught.value.hint.startswith("df -h")
    assert (page.read_text(), (run.path / "report.json").read_text()) == before
    assert not list(run.path.glob("*.part"))
