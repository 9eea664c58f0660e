"""The simulator's program, built from Debian's Go source and the rooms beside this file."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from provision.errors import PreflightError

ROOMS = Path(__file__).parent / "govcsim"
GOPATH = Path("/usr/share/gocode")
SIMULATOR = GOPATH / "src/github.com/vmware/govmomi/simulator"
PACKAGES = "golang-go golang-github-vmware-govmomi-dev"
#: the one line that is changed: whether a call is refused, and which object's method it goes to
FORMER = "m := reflect.ValueOf(handler).MethodByName(name)"
CHANGED = """\
if f := Refuse(handler, method.Name); f != nil {
		return &serverFaultBody{Reason: f}
	}
	m := reflect.ValueOf(Extend(handler)).MethodByName(name)"""
BUILD_S = 300


def program() -> Path:
    """The program, built if its source is new here; two that build at once do it in turn.

    Raises PreflightError where Go or govmomi's source is missing or another than this one fits.
    """
    text = _patched()
    rooms = [*sorted(ROOMS.glob("*.go")), ROOMS / "simulator" / "extend.go"]
    digest = hashlib.sha256(text.encode() + b"".join(room.read_bytes() for room in rooms))
    folder = _cache() / f"vcsim-{digest.hexdigest()[:16]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder / "vcsim"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            _build(folder, text, rooms)
    return found


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "provision-tests"


def _patched() -> str:
    hint = f"apt-get install --no-install-recommends {PACKAGES}"
    if shutil.which("go") is None:
        raise PreflightError("the vSphere simulator is built with Go: not installed", hint=hint)
    source = SIMULATOR / "simulator.go"
    try:
        text = source.read_text()
    except OSError as e:
        raise PreflightError(f"{source}: {e.strerror}", hint=hint) from e
    if text.count(FORMER) != 1:
        raise PreflightError(
            f"{source}: another govmomi than 0.24: its line {FORMER!r} is not there once", hint=hint
        )
    return text.replace(FORMER, CHANGED)


def _build(folder: Path, text: str, rooms: list[Path]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        changed = Path(scratch) / "simulator.go"
        changed.write_text(text)
        overlay = Path(scratch) / "overlay.json"
        overlay.write_text(json.dumps({"Replace": {
            str(SIMULATOR / "simulator.go"): str(changed),
            str(SIMULATOR / "extend.go"): str(rooms[-1]),
        }}))  # fmt: skip
        target = Path(scratch) / "vcsim"
        done = subprocess.run(
            ["go", "build", "-overlay", overlay, "-o", target, *rooms[:-1]],
            env=os.environ | {"GO111MODULE": "off", "GOPATH": str(GOPATH), "GOFLAGS": ""},
            capture_output=True, text=True, timeout=BUILD_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise PreflightError(f"go build: exit {done.returncode}: {done.stderr}")
        target.rename(folder / "vcsim")
