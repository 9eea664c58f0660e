"""Knobs under systemd, by a systemctl that records and obeys, and what a mover leaves alone.

What this cannot judge: whether systemd and a kernel with cgroup v2 do as their manuals say
(systemctl(1) set-property, systemd.resource-control(5)).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.linux import shield
from drivers.linux import slices as linux_slices
from drivers.linux.tuning import LinuxTuning, Places
from provision.errors import HostError, PreflightError, Unsupported
from provision.host import Host
from provision.resources import Tuning

# `show` prints what was set; `set-property` records it, keeps it and lets the "kernel" have it
SYSTEMCTL = r"""#!/bin/sh
cd "$(dirname "$0")/../sys" || exit 9
case $1 in
show)
  for p in AllowedCPUs CPUWeight; do
    v="$(cat "told/$2.$p" 2>/dev/null)"
    [ $p = CPUWeight ] && v="${v:-[not set]}"
    echo "$p=$(echo "$v" | tr , ' ')"
  done ;;
set-property)
  echo "$@" >> log
  unit=$3 name=${4%%=*} value=${4#*=}
  [ "$2" = --runtime ] || exit 8
  echo "$value" > "told/$unit.$name"
  mkdir -p "run/systemd/system.control/$unit.d"
  : > "run/systemd/system.control/$unit.d/50-$name.conf"
  [ ! -d "$unit" ] || [ -e deaf ] || case $name in
    AllowedCPUs) echo "$value" > "$unit/cpuset.cpus" ;;
    CPUWeight) echo "${value:-100}" > "$unit/cpu.weight" ;;
  esac ;;
esac
"""
UNITS = linux_slices.UNITS


class Machine:
    """A host with systemd and cgroup v2, of files. user.slice is not active at first."""

    def __init__(self, folder: Path, controllers: str = "cpuset cpu io") -> None:
        self.sys = folder / "sys"
        (folder / "bin").mkdir()
        self._tool(folder / "bin" / "systemctl", SYSTEMCTL)
        self._tool(folder / "bin" / "id", "#!/bin/sh\necho 0\n")
        for name in ("told", "system.slice", "init.scope", "run/systemd/system"):
            (self.sys / name).mkdir(parents=True)
        (self.sys / "cgroup.controllers").write_text(f"{controllers}\n")
        host = Host("h", ("env", f"PATH={folder}/bin:{os.environ['PATH']}"))
        places = Places(
            f"{self.sys}/run/systemd/system", str(self.sys), f"{self.sys}/v1", f"{self.sys}/v1"
        )
        self.tuning = LinuxTuning(host, "t1", places)

    @staticmethod
    def _tool(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def read(self, name: str) -> str:
        found = self.tuning.read(("tuning", name))
        assert found is not None
        return found.value

    def told(self) -> dict[str, str]:
        return {p.name: v for p in (self.sys / "told").iterdir() if (v := p.read_text().strip())}

    def traces(self) -> list[Path]:
        return list((self.sys / "run/systemd/system.control").glob("*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("name", "normal", "want", "word"),
    [
        ("dom0.cpus", "unset", "0-1,4", "AllowedCPUs=0-1,4"),
        ("dom0.weight", "256", "512", "CPUWeight=200"),
    ],
)
def test_systemd_is_told_for_this_boot_and_forgets(
    machine: Machine, name: str, normal: str, want: str, word: str
) -> None:
    assert machine.read(name) == normal
    machine.tuning.put(Tuning(name, want))
    assert machine.read(name) == want
    log = (machine.sys / "log").read_text().splitlines()
    assert log == [f"set-property --runtime {unit} {word}" for unit in UNITS]
    machine.tuning.put(Tuning(name, normal))
    assert machine.read(name) == normal
    assert machine.told() == {}
    assert machine.traces() == []


def test_what_an_administrator_set_is_put_back_to_the_letter(machine: Machine) -> None:
    for file in ("told/system.slice.AllowedCPUs", "system.slice/cpuset.cpus"):
        (machine.sys / file).write_text("0-2\n")
    before = machine.read("dom0.cpus")
    assert before == "system.slice=0-2;user.slice=unset;init.scope=unset"
    machine.tuning.put(Tuning("dom0.cpus", "0"))
    assert machine.read("dom0.cpus") == "0"
    machine.tuning.put(Tuning("dom0.cpus", before))
    assert machine.read("dom0.cpus") == before
    assert machine.told() == {"system.slice.AllowedCPUs": "0-2"}


def test_a_kernel_that_does_not_follow_shows(machine: Machine) -> None:
    (machine.sys / "deaf").touch()
    machine.tuning.put(Tuning("dom0.cpus", "0"))
    assert machine.read("dom0.cpus") == (
        "system.slice=0 (kernel: unset);user.slice=0;init.scope=0 (kernel: unset)"
    )


def test_what_could_not_be_put_back_is_not_touched(machine: Machine) -> None:
    (machine.sys / "told/system.slice.CPUWeight").write_text("idle")
    with pytest.raises(HostError, match="'idle', which could not be put back"):
        machine.read("dom0.weight")


def test_without_the_controller_there_is_no_knob(tmp_path: Path) -> None:
    machine = Machine(tmp_path, controllers="io memory")
    for name, controller in (("dom0.cpus", "cpuset"), ("dom0.weight", "cpu")):
        assert machine.tuning.read(("tuning", name)) is None
        with pytest.raises(PreflightError, match=f"no cgroup controller '{controller}'"):
            machine.tuning.put(Tuning(name, "1"))
    assert not set(machine.tuning.knobs()) & {"dom0.cpus", "dom0.weight"}


@given(st.integers(1, linux_slices.MAX_CPU_WEIGHT))
def test_every_weight_of_the_kernel_is_one_of_ours(kernel: int) -> None:
    assert linux_slices.cpu_weight(linux_slices.from_cpu_weight(kernel)) == kernel


@given(st.integers(-5, 30_000))
def test_a_weight_is_exact_or_refused_with_the_nearest(weight: int) -> None:
    try:
        assert linux_slices.from_cpu_weight(linux_slices.cpu_weight(weight)) == weight
    except Unsupported as e:
        for word in e.hint.removeprefix("use ").split(" or "):
            linux_slices.cpu_weight(int(word))


def test_the_normal_weight_is_the_kernels() -> None:
    assert linux_slices.cpu_weight(256) == 100
    with pytest.raises(Unsupported) as e:
        linux_slices.cpu_weight(257)
    assert e.value.hint == "use 256 or 259"


class Task:
    """A process in a made-up /proc."""

    def __init__(self, proc: Path, pid: int, *, cpus: str = "0-3", **fields: int) -> None:
        stat = ["S", "1", "1", "1", "0", "-1", str(fields.get("flags", 0)), *["0"] * 31]
        stat += [str(fields.get("policy", 0)), "0"]
        stat[0] = "Z" if fields.get("zombie") else "S"
        threads = [proc / f"{pid}" / "task" / f"{pid + n}" for n in range(2)]
        for thread, mask in zip(threads, ("0-3", cpus), strict=True):
            thread.mkdir(parents=True)
            (thread / "status").write_text(f"Name:\tx\nCpus_allowed_list:\t{mask}\n")
        (proc / f"{pid}" / "stat").write_text(f"{pid} (a) b) c) {' '.join(stat)}\n")


def test_only_ordinary_processes_move(tmp_path: Path) -> None:
    root, proc = tmp_path / "root", tmp_path / "proc"
    root.mkdir()
    (root / "cpuset.effective_cpus").write_text("0-3\n")
    (root / "cgroup.procs").write_text("".join(f"{n}\n" for n in (0, 10, 20, 30, 40, 50, 60, 70)))
    Task(proc, 10)
    Task(proc, 20, flags=shield.KERNEL_THREAD)
    Task(proc, 30, cpus="1")  # one thread is pinned
    Task(proc, 40, policy=1)  # SCHED_FIFO
    Task(proc, 50, zombie=1)
    Task(proc, 60, cpus="0-127", policy=3)  # more than there are, and SCHED_BATCH
    assert shield.movable(root, proc) == [10, 60]  # 70 ended meanwhile


def test_cpu_lists() -> None:
    assert shield.cpus("0-2,5\n") == {0, 1, 2, 5}
    assert shield.cpus("") == set()
