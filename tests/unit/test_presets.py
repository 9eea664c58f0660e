"""Presets: their matrix is the paper's, their marks its figures, and samples are never those."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import presets
from provision.errors import UserError
from provision.measuring.results import Run
from provision.measuring.workloads import find, is_one, series
from provision.reporting import document, terminal, write
from provision.running import asked
from provision.spec import Spec, restore
from tests.unit.streams import SUBJECT, sample


def _spec(**guests: int) -> Spec:
    return restore({"guests": guests})


@pytest.mark.parametrize("name", list(presets.PRESETS))
@pytest.mark.parametrize("scale", [1, 0.5, 0.05, 0.001])
def test_a_preset_is_a_run_that_the_spec_knows_at_any_scale(name: str, scale: float) -> None:
    chosen = presets.choose(name, scale)
    spec = asked(_spec(count=4, nics_each=2), (), {}, chosen)
    assert all(map(is_one, spec.run.workloads))
    assert spec.run.duration_s >= 1
    assert spec.run.repeat >= 2
    needs = [find(word) for word in spec.run.workloads]
    assert max(w.guests for w in needs) == chosen.preset.guests
    assert max(w.nics_each for w in needs) == chosen.preset.nics_each
    remarks = chosen.document(spec)["remarks"]
    assert any(f"shortened (scale {scale:g})" in words for words in remarks) == (scale < 1)


@pytest.mark.parametrize("name", list(presets.PRESETS))
def test_every_mark_is_about_what_is_run_at_any_scale(name: str) -> None:
    preset = presets.PRESETS[name]
    marks = preset.marks(preset.published)
    assert marks
    for scale in (1.0, 0.01):
        names = preset.matrix(preset.published, scale)
        workloads = {w.name for w in series(names, preset.run.get("object_kib", (0,)))}
        assert {m.workload for m in marks} <= workloads
    assert all(m.low <= m.high for m in marks)


def test_the_papers_matrix() -> None:
    preset = presets.PRESETS["wuerzburg-2011"]
    names = preset.matrix(preset.published, 1)
    assert len(names) == len(set(names)) == 4 * 8 + 4 * 2 + 4 * 5
    assert {"forwarding-64B-10M@1", "forwarding-1500B-1000M@1", "forwarding-500B-max-3src@1",
            "forwarding-64B-max+forward-95"} <= set(names)  # fmt: skip
    short = preset.matrix(preset.published, 0.05)
    assert {"forwarding-64B-10M@1", "forwarding-64B-1000M@1"} <= set(short)
    assert "forwarding-64B-400M@1" not in short


def test_the_command_line_goes_over_the_preset() -> None:
    spec = asked(_spec(count=4), (), {"repeat": 5, "seconds": 3}, presets.choose("vmware-2007"))
    assert (spec.run.repeat, spec.run.duration_s) == (5, 3)
    assert spec.run.socket_buffer_bytes == 65536


def test_a_testbed_that_is_not_one_for_it_is_refused_with_what_would_make_it_so() -> None:
    with pytest.raises(UserError) as e:
        asked(_spec(count=1), (), {}, presets.choose("wuerzburg-2011"))
    assert "2 guests, and there are 1 and 2 NICs in each guest, and there are 1" in str(e.value)
    assert e.value.hint == "provision up -n lab --vms 2 --set guests.nics_each=2"
    with pytest.raises(UserError, match="did you mean 'vmware-2007'"):
        presets.choose("vmware2007")


def _run(root: Path, name: str, changes: dict[str, Any], values: dict[str, float]) -> Path:
    """A run of a preset with three samples of each of these workloads, one of them invalid."""
    chosen = presets.choose(name, 0.05)
    spec = asked(_spec(count=4, nics_each=2), (), {}, chosen)
    run = Run.create(root, "demo", {presets.DOCUMENT: chosen.document(spec)})
    for workload, mean in values.items():
        for n, step in enumerate((-1, 1, 500), 1):
            one = sample("netperf-send", mean + step, n, reasons=("late",) if step > 1 else ())
            finding = replace(one.finding, **changes)
            subject = replace(SUBJECT, wire_mbit=100)
            run.append(replace(one, workload=workload, finding=finding, subject=subject))
    return run.path


def test_published_figures_are_laid_beside_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _run(tmp_path, "vmware-2007", {}, {"netperf-send@4": 150})
    [run] = document([folder])["runs"]
    row = next(r for r in run["published"]["rows"] if r["workload"] == "netperf-send@4")
    # two streams, each on a NIC of 100 Mbit/s
    assert row["ours"] == pytest.approx(75)
    assert row["ours_low"] < 75 < row["ours_high"]
    systems = {p["system"]: (p["low"], p["high"]) for p in row["published"]}
    assert systems == {"native, 4 CPUs": (100, 100), "ESX Server 3.0.1": (88, 90),
                       "XenEnterprise 3.2.0": (61, 61)}  # fmt: skip
    other = next(r for r in run["published"]["rows"] if r["workload"] == "netperf-receive@4")
    assert other["ours"] is None
    assert len(run["samples"]) == 3
    terminal([folder])
    said = " ".join(capsys.readouterr().out.split())
    assert "vmware-2007 at scale 0.05: beside what VMware, Networking Performance" in said
    assert "ESX Server 3.0.1 88 to 90" in said
    page = write([folder]).read_text()
    assert "XenEnterprise 3.2.0 61" in page
    kept = json.loads((folder / "report.json").read_text())
    assert kept["runs"][0]["published"]["scale"] == 0.05


def test_what_a_neighbour_changes_is_beside_the_papers_tables(tmp_path: Path) -> None:
    names = {"forwarding-64B-max@1": 100.0, "forwarding-64B-max+heavy": 80.0,
             "forwarding-64B-max+forward-50": 90.0}  # fmt: skip
    folder = _run(tmp_path, "wuerzburg-2011", {"neighbours_mbit": {"vm2": (37.0, 36.0)}}, names)
    [run] = document([folder])["runs"]
    rows = {(r["workload"], r["figure"]): r for r in run["published"]["rows"]}
    assert rows["forwarding-64B-max+heavy", "change %"]["ours"] == pytest.approx(-20)
    heavy = rows["forwarding-64B-max+heavy", "change %"]["published"]
    assert {p["system"]: p["low"] for p in heavy}["OpenVZ"] == -18.2
    half = "forwarding-64B-max+forward-50"
    assert rows[half, "neighbour offered Mbit/s"]["ours"] == 37
    assert rows[half, "neighbour measured Mbit/s"]["ours"] == 36
    assert rows["forwarding-64B-max+light", "change %"]["ours"] is None
