"""Host knobs for real: control groups of a test's own, and an interrupt of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.linux.tuning import LinuxTuning, Places
from provision.errors import DriverError, HostError, PreflightError, Unsupported
from provision.host import Host
from provision.resources import Tuning, key

CPUSET, CPU = Path("/sys/fs/cgroup/cpuset"), Path("/sys/fs/cgroup/cpu")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="tunes a host: needs root"),
]
needs_v1 = pytest.mark.skipif(
    not (CPUSET / "cpuset.cpus").exists() or Path("/run/systemd/system").exists(),
    reason="needs cgroup v1's cpuset without systemd, as here the mover is used",
)
needs_two = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
FORKS = """
import os, signal
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
while not told:
    child = os.fork()
    os.waitpid(child, 0) if child else os._exit(0)
"""


def _root(controller: Path) -> Path:
    """A child group that a test takes for the root: only what a test puts there is there."""
    root = controller / f"pvtest-{os.getpid()}"
    root.mkdir()
    if controller == CPUSET:
        for file in ("cpuset.cpus", "cpuset.mems"):
            (root / file).write_text((controller / file).read_text())
    return root


@contextmanager
def _processes(roots: list[Path], *commands: list[str]) -> Iterator[list[int]]:
    running = [subprocess.Popen(c) for c in commands]
    try:
        for process in running:
            for root in roots:
                (root / "cgroup.procs").write_text(str(process.pid))
        yield [p.pid for p in running]
    finally:
        for process in running:
            process.terminate()
            process.wait()


@pytest.fixture
def host() -> Iterator[Places]:
    """A host of its own, as far as control groups go; it must be left as it was found."""
    before = Path("/proc/self/cgroup").read_text(), os.sched_getaffinity(0)
    roots = [_root(CPUSET), _root(CPU)]
    yield Places(cpuset=str(roots[0]), cpu=str(roots[1]))
    for root in roots:
        for group in root.glob("*/"):
            group.rmdir()
        root.rmdir()
    assert (Path("/proc/self/cgroup").read_text(), os.sched_getaffinity(0)) == before


def _inside(root: str, group: str = "provision-t1") -> set[int]:
    return {int(p) for p in (Path(root) / group / "cgroup.procs").read_text().split()}


SLEEP = ["sleep", "600"]


@needs_v1
@needs_two
def test_the_hosts_own_processes_keep_to_the_cpus_and_come_back(host: Places) -> None:
    tuning = LinuxTuning(Host(), "t1", host)
    with _processes([Path(host.cpuset)], SLEEP, SLEEP, SLEEP) as (one, two, pinned):
        os.sched_setaffinity(pinned, {1})
        masks = [os.sched_getaffinity(p) for p in (one, two, pinned)]
        before = tuning.read(("tuning", "dom0.cpus"))
        assert before == Tuning("dom0.cpus", "unset")
        for cpus in ("0", "1", "0"):
            tuning.put(Tuning("dom0.cpus", cpus))
            assert tuning.read(("tuning", "dom0.cpus")) == Tuning("dom0.cpus", cpus)
            assert [os.sched_getaffinity(p) for p in (one, two)] == [{int(cpus)}] * 2
        assert _inside(host.cpuset) == {one, two}, "what somebody pinned is left alone"
        assert os.sched_getaffinity(pinned) == {1}
        tuning.put(before)
        assert tuning.read(("tuning", "dom0.cpus")) == before
        assert [os.sched_getaffinity(p) for p in (one, two, pinned)] == masks
        assert not list(Path(host.cpuset).glob("provision-*"))
        assert {one, two, pinned} <= _inside(host.cpuset, ".")


@needs_v1
@needs_two
def test_what_forks_all_the_time_is_caught_and_let_go(host: Places) -> None:
    tuning = LinuxTuning(Host(), "t1", host)
    storm = [sys.executable, "-c", FORKS]
    with _processes([Path(host.cpuset)], storm, storm) as pids:
        tuning.put(Tuning("dom0.cpus", "0"))
        assert tuning.read(("tuning", "dom0.cpus")) == Tuning("dom0.cpus", "0")
        assert set(pids) <= _inside(host.cpuset)
        tuning.put(Tuning("dom0.cpus", "unset"))
        assert set(pids) <= _inside(host.cpuset, ".")


@needs_v1
@needs_two
def test_a_process_moved_out_again_shows_in_the_reading(host: Places) -> None:
    tuning = LinuxTuning(Host(), "t1", host)
    with _processes([Path(host.cpuset)], SLEEP) as (pid,):
        tuning.put(Tuning("dom0.cpus", "0"))
        (Path(host.cpuset) / "cgroup.procs").write_text(str(pid))
        assert tuning.read(("tuning", "dom0.cpus")) != Tuning("dom0.cpus", "0")
        tuning.put(Tuning("dom0.cpus", "0"))
        assert tuning.read(("tuning", "dom0.cpus")) == Tuning("dom0.cpus", "0")
        tuning.put(Tuning("dom0.cpus", "unset"))


@needs_v1
def test_a_put_cut_short_is_undone(host: Places) -> None:
    (Path(host.cpuset) / "provision-t1").mkdir()
    tuning = LinuxTuning(Host(), "t1", host)
    assert tuning.read(("tuning", "dom0.cpus")) == Tuning("dom0.cpus", "unset")
    tuning.put(Tuning("dom0.cpus", "unset"))
    assert not list(Path(host.cpuset).glob("provision-*"))


@needs_v1
def test_cpus_that_the_host_has_not_change_nothing(host: Places) -> None:
    tuning = LinuxTuning(Host(), "t1", host)
    with _processes([Path(host.cpuset)], SLEEP) as (pid,):
        with pytest.raises(HostError):
            tuning.put(Tuning("dom0.cpus", "8000"))
        assert pid in _inside(host.cpuset, ".")
        tuning.put(Tuning("dom0.cpus", "unset"))


@needs_v1
def test_two_testbeds_do_not_tune_one_host(host: Places) -> None:
    LinuxTuning(Host(), "t1", host).put(Tuning("dom0.cpus", "0"))
    with pytest.raises(HostError, match="provision-t1 is there already"):
        LinuxTuning(Host(), "t2", host).put(Tuning("dom0.cpus", "0"))
    LinuxTuning(Host(), "t1", host).put(Tuning("dom0.cpus", "unset"))


@needs_v1
@pytest.mark.parametrize("weight", [1, 100, 255, 257, 512, 65536])
def test_weight_is_exact_and_undone(host: Places, weight: int) -> None:
    tuning = LinuxTuning(Host(), "t1", host)
    with _processes([Path(host.cpu)], SLEEP) as (pid,):
        before = tuning.read(("tuning", "dom0.weight"))
        assert before == Tuning("dom0.weight", "256")
        tuning.put(Tuning("dom0.weight", str(weight)))
        assert tuning.read(("tuning", "dom0.weight")) == Tuning("dom0.weight", str(weight))
        shares = Path(host.cpu) / "provision-t1" / "cpu.shares"
        assert int(shares.read_text()) == weight * 4
        assert pid in _inside(host.cpu)
        tuning.put(before)
        assert pid in _inside(host.cpu, ".")


def _irq() -> Tuning:
    """An interrupt that may use several CPUs, so that it can be given one of them."""
    for folder in sorted(Path("/proc/irq").glob("[0-9]*")):
        text = (folder / "smp_affinity_list").read_text().strip()
        if "-" in text or "," in text:
            return Tuning(f"irq/{folder.name}", text)
    pytest.skip("no interrupt of this machine may use several CPUs")


def test_an_interrupt_goes_where_it_is_told_and_back() -> None:
    before = _irq()
    tuning = LinuxTuning(Host(), "t1")
    if reason := tuning.why_not(before.name):
        pytest.skip(reason)
    assert tuning.read(key(before)) == before
    assert tuning.knobs()[before.name] == before.value
    want = Tuning(before.name, before.value.replace("-", ",").split(",")[0])
    try:
        tuning.put(want)
    except (Unsupported, HostError) as e:
        pytest.skip(f"the kernel keeps this interrupt to itself: {e}")
    try:
        assert tuning.read(key(want)) == want
    finally:
        tuning.put(before)
    assert tuning.read(key(before)) == before


def test_what_is_not_there_or_not_said_rightly() -> None:
    tuning = LinuxTuning(Host(), "t1")
    assert tuning.read(("tuning", "irq/999999")) is None
    assert tuning.read(("tuning", "dom0.colour")) is None
    with pytest.raises(PreflightError, match=r"no knob 'dom0\.colour'"):
        tuning.put(Tuning("dom0.colour", "red"))
    with pytest.raises(Unsupported, match="written '0-1'"):
        tuning.put(Tuning("irq/0", "0,1"))
    with pytest.raises(DriverError, match="cannot be dropped"):
        tuning.drop(("tuning", "irq/0"))
