"""Moves a host's own processes into a control group, and back, as ``cset shield`` does.

It runs on the host, as ``python3 - VERB ROOT GROUP [FILE VALUE] < this``, and needs nothing but
Python 3.9. The group is made in ROOT, the root of cgroup v1's ``cpuset`` or ``cpu`` or of v2.
What is in ROOT itself moves, but not kernel threads, real-time tasks or what somebody pinned; the
groups of others (libvirt's, Docker's) stay as they are. All that is in the group came from ROOT,
so going back needs no memory.
"""

import fcntl
import json
import os
import sys
from pathlib import Path

KERNEL_THREAD = 0x00200000  # PF_KTHREAD, include/linux/sched.h
OTHER_POLICIES = ("0", "3", "5")  # SCHED_OTHER, _BATCH, _IDLE: not real-time
NORMAL = {"cpuset.cpus": "", "cpu.weight": "100", "cpu.shares": "1024"}
PASSES = 20  # what is moved may fork meanwhile, into the group once itself is there


def cpus(text: str) -> set[int]:
    """The CPUs of a list such as ``0-3,8``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found


def movable(root: Path, proc: Path = Path("/proc")) -> list[int]:
    """The processes in ROOT itself that belong in the group."""
    every = cpus(_first(root, "cpuset.effective_cpus", "cpuset.cpus.effective"))
    found = []
    for word in (root / "cgroup.procs").read_text().split():
        try:
            if word != "0" and _is_ordinary(proc / word, every):
                found.append(int(word))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _is_ordinary(process: Path, every: set[int]) -> bool:
    fields = (process / "stat").read_text().rpartition(") ")[2].split()  # from field 3 on, proc(5)
    if fields[0] in "ZX" or int(fields[6]) & KERNEL_THREAD or fields[38] not in OTHER_POLICIES:
        return False
    for task in (process / "task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("Cpus_allowed_list:") and not every <= cpus(line.partition(":")[2]):
                return False
    return True


def put(root: Path, group: Path, file: str, value: str) -> None:
    """See that the group has this setting and everything movable is in it; or that it is gone."""
    if others := [g.name for g in root.glob("provision-*") if g != group]:
        raise OSError(f"{', '.join(others)} is there already: another testbed tunes this host")
    if value == NORMAL[file]:
        if group.exists() and _has_others(group, file):
            (group / file).write_text(f"{value}\n")
        else:
            leave(root, group)
        return
    group.mkdir(exist_ok=True)
    control = root / "cgroup.subtree_control"
    if control.exists():
        control.write_text(f"+{file.partition('.')[0]}\n")
    elif file == "cpuset.cpus":
        (group / "cpuset.mems").write_text((root / "cpuset.mems").read_text())
    (group / file).write_text(f"{value}\n")
    enter(root, group)


def enter(root: Path, group: Path) -> None:
    """Move until nothing movable is left; where something will not move, all goes back."""
    for _ in range(PASSES):
        pids = movable(root)
        if not pids:
            return
        try:
            _move(pids, group)
        except OSError:
            leave(root, group)
            raise
    leave(root, group)
    raise OSError(f"processes {pids} do not stay in {group}")


def leave(root: Path, group: Path) -> None:
    """Move all back and remove the group; no error where there is none."""
    for _ in range(PASSES):
        if not group.exists():
            return
        pids = [int(word) for word in (group / "cgroup.procs").read_text().split() if word != "0"]
        if not pids:
            group.rmdir()
            return
        _move(pids, root)
    raise OSError(f"processes {pids} do not leave {group}")


def _move(pids: list[int], to: Path) -> None:
    for pid in pids:
        try:
            (to / "cgroup.procs").write_text(f"{pid}\n")
        except ProcessLookupError:
            continue
        except OSError as e:
            raise OSError(f"process {pid} does not move into {to}: {e.strerror}") from e


def _has_others(group: Path, file: str) -> bool:
    """Whether another setting of the group is in use too, as in v2, where one group has all."""
    return any(
        (group / other).exists() and (group / other).read_text().strip() != normal
        for other, normal in NORMAL.items()
        if other != file and other.partition(".")[0] != file.partition(".")[0]
    )


def _first(root: Path, *files: str) -> str:
    return next(((root / f).read_text() for f in files if (root / f).exists()), "")


def main(words: list[str]) -> int:
    """Print what is outside the group, as JSON, for the verb ``read``."""
    verb, root, group = words[0], Path(words[1]), Path(words[1]) / words[2]
    lock = os.open(root, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        if verb == "put":
            put(root, group, words[3], words[4])
        outside: dict[str, list[int]] = {"outside": movable(root)}
        print(json.dumps(outside))
    except OSError as e:
        print(e, file=sys.stderr)
        return 1
    finally:
        os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
