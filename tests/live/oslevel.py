"""What the days of guests without a hypervisor have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.live.conftest import Shell


def group(guest: str, controller: str, file: str) -> str:
    """What the kernel itself says of a guest's control group, whatever the tool says."""
    root = Path("/sys/fs/cgroup")
    at = root / controller if (root / controller).is_dir() else root
    return (at / f"provision.test.{guest}" / file).read_text().strip()


def measured(shell: Shell, rate_mbit: int) -> dict[str, Any]:
    """A run both ways; every guest at about its cable's speed, and each sample believed."""
    result: dict[str, Any] = shell.json(
        "run", "netperf-send", "netperf-receive", "-n", "test", "--seconds", "2", "--repeat", "1",
        "--redo", "3",
    )  # fmt: skip
    valid = [s for s in result["runs"][0]["samples"] if s["valid"]]
    assert {s["workload"] for s in valid} == {"netperf-send", "netperf-receive"}
    for sample in valid:
        rates = sample["finding"]["guests_mbit"]
        assert set(rates) == {"vm1", "vm2"}
        assert all(rate_mbit / 2 < rate < 1.05 * rate_mbit for rate in rates.values()), rates
    return result


def killed_while_it_makes(shell: Shell, thing: str, *up: str) -> None:
    """An ``up`` that dies, by SIGKILL, once this thing is begun."""
    running = shell.start(*up)
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith(thing):
            break
    running.kill()
    running.wait()
    running.stderr.close()
