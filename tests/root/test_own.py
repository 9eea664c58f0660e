"""The example of a user's own workload, run for real between namespaces."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import WorkloadError
from provision.measuring.results import Run, Subject
from provision.measuring.take import Bench, measure
from provision.playing import Player
from provision.spec.own import load
from tests.root.machines import marks
from tests.root.streamlab import OPTIONS, RATE_MBIT, lab

pytestmark = [
    *marks,
    pytest.mark.skipif(not shutil.which("sockperf"), reason="needs sockperf: tools/setup test"),
]
EXAMPLE = Path(__file__).parents[2] / "examples" / "own-workload" / "sockperf-tcp.yml"
SUBJECT = Subject(
    "kvm", "1", "here", "tcg", "virtio", 2, 1, "none", "", OPTIONS.duration_s, OPTIONS.ramp_s,
    OPTIONS.message_bytes, OPTIONS.socket_buffer_bytes, RATE_MBIT,
)  # fmt: skip


def test_the_example_runs_and_its_faults_are_told(tmp_path: Path) -> None:
    own = load(EXAMPLE)
    (tmp_path / "lab").mkdir()
    with lab("pvow", 2, tmp_path / "lab") as made:
        bench = Bench(Run.create(tmp_path, "test", {}), made.inventory(), made.pairs, SUBJECT,
                      made.usage, apart=False)  # fmt: skip
        with pytest.raises(WorkloadError, match="the server of sockperf-tcp at 198"):
            measure(bench, [own], repeat=1, redo=0)
        Player(tmp_path / "ready", made.inventory()).play("own.yml", "own", own.extravars)
        (*_, sample) = measure(bench, [replace(own, name="ready")], repeat=1, redo=2)
        finding = sample.finding
        assert finding.valid, finding.reasons
        assert sample.notes["generator_sockperf"].startswith("sockperf")
        for guest in ("vm1", "vm2"):
            assert 0.5 * RATE_MBIT < finding.guests_mbit[guest] < RATE_MBIT
        wrong = made.take(replace(own, scale=2.0), OPTIONS, tmp_path / "wrong")
        assert all("vm1: sockperf says" in r or "vm2: sockperf says" in r for r in wrong.reasons)
        assert len(wrong.reasons) == 2
