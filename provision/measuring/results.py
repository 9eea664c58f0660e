"""A run's folder and its samples: written once, never changed, readable without any host."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, cast

from provision import __version__
from provision.errors import UserError
from provision.measuring.verdict import Finding
from provision.state import put, writing

FORMAT = 1
RESULTS = "results.jsonl"
#: the document that names the runs which were taken in turn with this one
BESIDE = "beside"
SHOWN = 4  # files that are gone, by name


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured, and how: samples that differ in any of it are never averaged together.

    ``nic`` is the exact model, ``nics_each`` how many of it a guest has, ``netperf`` its version
    and hashes on the guests, ``haproxy`` its version there ("" = not in use), ``own`` the user's
    own workloads, ``image`` the digest of the guests' golden image; ``wire_mbit`` is the links'
    speed, None = not known; the ratios are all guests' vCPUs per CPU left to them, and their
    memory per the host's.
    """

    hypervisor: str
    version: str
    host: str
    accel: str
    nic: str
    guests: int
    vcpus: int
    image: str
    netperf: str
    duration_s: float
    ramp_s: float
    message_bytes: int
    socket_buffer_bytes: int
    wire_mbit: int | None = None
    cpu_ratio: float | None = None
    memory_ratio: float | None = None
    nics_each: int = 1
    datagram_bytes: int = 1472
    request_bytes: int = 1
    response_bytes: int = 1
    clients: int = 16
    arrivals_per_s: int = 100
    haproxy: str = ""
    own: str = ""


#: the same fields for people
WORDS: Mapping[str, str] = {
    "hypervisor": "hypervisor",
    "version": "hypervisor's version",
    "host": "host",
    "accel": "acceleration",
    "nic": "vNIC model",
    "guests": "guests",
    "vcpus": "vCPUs of each guest",
    "image": "guests' image (digest)",
    "netperf": "netperf of the guests",
    "duration_s": "window, s",
    "ramp_s": "ramp before and after it, s",
    "message_bytes": "messages, bytes",
    "socket_buffer_bytes": "socket buffers, bytes",
    "wire_mbit": "wire speed, Mbit/s",
    "cpu_ratio": "guests' vCPUs per CPU left to them",
    "memory_ratio": "guests' memory per the host's",
    "nics_each": "vNICs of each guest",
    "datagram_bytes": "UDP datagrams, bytes",
    "request_bytes": "requests, bytes",
    "response_bytes": "responses, bytes",
    "clients": "HTTP clients of each guest",
    "arrivals_per_s": "HTTP arrivals for each guest, conn/s",
    "haproxy": "HAProxy of the guests",
    "own": "workloads of the user's own",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One take of one workload; ``repetition`` and ``attempt`` count from 1.

    ``at`` is its start (UTC); ``raw`` is the folder of the untouched output, below the run's.
    ``notes`` are recorded and not compared, such as the words the user chose.
    """

    workload: str
    direction: str
    repetition: int
    attempt: int
    at: str
    raw: str
    subject: Subject
    finding: Finding
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        return self.finding.valid


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Sample)


@dataclass(frozen=True, slots=True)
class Run:
    """One folder, the truth about one run; it is ansible-runner's private folder as well."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def testbed(self) -> str:
        """Whose it is; "" where the folder does not say."""
        try:
            return str(self.head().get("testbed", ""))
        except UserError:
            return ""

    @classmethod
    def create(cls, root: Path, testbed: str, facts: Mapping[str, Mapping[str, Any]]) -> Run:
        """A new folder ``root``/ID; ``facts`` are documents by name, such as spec and facts.

        The ID sorts by time. Raises WorkloadError where the disk does not take it.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        run = cls(root / f"{stamp}-{testbed}-{secrets.token_hex(2)}")
        with writing(run.path):
            run.path.mkdir(parents=True)
            for name, document in facts.items():
                (run.path / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
            head = {"format": FORMAT, "run": run.id, "testbed": testbed, "provision": __version__,
                    "documents": list(facts)}  # fmt: skip
            (run.path / RESULTS).write_text(json.dumps(head) + "\n")
        return run

    def keep(self, name: str, document: Mapping[str, Any]) -> None:
        """One document more, known only when the run has ended; raises as ``create``."""
        put(self.path / f"{name}.json", json.dumps(document, indent=1) + "\n")

    def append(self, sample: Sample) -> None:
        """Keep a sample, on the disk when this returns.

        Raises WorkloadError where the disk does not take it; those before it are whole then.
        """
        left = (json.dumps(asdict(sample)) + "\n").encode()
        path = self.path / RESULTS
        with writing(path), path.open("ab", buffering=0) as f:
            before = os.fstat(f.fileno()).st_size
            try:
                while left:
                    left = left[f.write(left) :]
                os.fsync(f.fileno())
            except OSError:
                os.ftruncate(f.fileno(), before)
                raise

    def head(self) -> dict[str, Any]:
        """The first line; raises UserError where this is no run's folder, or a newer one's."""
        try:
            with (self.path / RESULTS).open() as f:
                head = json.loads(f.readline())
        except (OSError, ValueError) as e:
            why = e.strerror if isinstance(e, OSError) else "it is not JSON"
            raise UserError(
                f"{self.path}: no run is kept here: {RESULTS}: {why}",
                hint="provision report --list",
            ) from e
        found = head.get("format") if isinstance(head, dict) else None
        if not isinstance(found, int):
            raise UserError(
                f"{self.path / RESULTS}: it does not begin as a run's results do",
                hint="provision report --list",
            )
        if found != FORMAT:
            raise UserError(
                f"{self.path / RESULTS}: format {found}; this version reads {FORMAT}",
                hint="upgrade provision",
            )
        return dict(head)

    def samples(self) -> list[Sample]:
        """All samples, valid or not. A last line cut off by a crash is left out."""
        self.head()
        lines = self._lines()
        whole = lines[: len(lines) - self._cut(lines)]
        return [self._sample(number, line) for number, line in enumerate(whole[1:], 2)]

    def _lines(self) -> list[str]:
        return (self.path / RESULTS).read_text(errors="replace").splitlines(keepends=True)

    def _cut(self, lines: Sequence[str]) -> bool:
        return len(lines) > 1 and not lines[-1].endswith("\n")

    def _sample(self, number: int, line: str) -> Sample:
        from pydantic import ValidationError

        try:
            return cast(Sample, _adapter().validate_json(line))
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{self.path / RESULTS}: line {number} is no sample: "
                f"{where + ': ' if where else ''}{first['msg']}"
            ) from e

    def gaps(self, samples: Sequence[Sample]) -> list[str]:
        """What is not there and once was, or should be, in words."""
        found = []
        if self._cut(self._lines()):
            found.append(f"the last line of {RESULTS} is cut off, and left out")
        asked = self.document("spec").get("run", {})
        want = _series(asked) * int(asked.get("repeat", 0))
        if (have := len({(s.workload, s.repetition) for s in samples})) < want:
            found.append(f"the run ended early: {have} of {want} repetitions were taken")
        files = [f"{name}.json" for name in self.head().get("documents", ())]
        if (self.path / "raw").exists():
            files += [f"{s.raw}/streams.json" for s in samples]
        elif samples:
            files.append("raw/")
        if gone := [f for f in files if not (self.path / f).exists()]:
            more = f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
            found.append(f"gone from the run's folder: {', '.join(gone[:SHOWN])}{more}")
        return found

    def document(self, name: str) -> dict[str, Any]:
        """A document given to ``create``; {} where there is none."""
        try:
            return dict(json.loads((self.path / f"{name}.json").read_text()))
        except (OSError, ValueError):
            return {}


def _series(asked: Mapping[str, Any]) -> int:
    """How many series of samples a spec's run section makes."""
    from provision.measuring.workloads import WORKLOADS, series

    names = asked.get("workloads", ())
    known = [name for name in names if name in WORKLOADS]
    return len(names) - len(known) + len(series(known, asked.get("object_kib", (0,))))


def beside(folders: Iterable[Path]) -> list[Path]:
    """These runs' folders, each after those of the runs that were taken in turn with it.

    A run that is no longer there is left out, and each comes once.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        for name in Run(folder).document(BESIDE).get("runs", ()):
            if (at := folder.parent / str(name)) and (at / RESULTS).exists():
                found[at] = None
        found[folder] = None
    return list(found)


def runs(root: Path) -> list[Run]:
    """All runs kept in a folder, oldest first."""
    return [Run(found.parent) for found in sorted(root.glob(f"*/{RESULTS}"))]


def differences(samples: Iterable[Sample]) -> list[str]:
    """The fields of Subject in which samples differ, each with its values in words."""
    subjects = list(dict.fromkeys(s.subject for s in samples))
    found = []
    for f in fields(Subject):
        values = list(dict.fromkeys(getattr(s, f.name) for s in subjects))
        if len(values) > 1:
            told = ["none" if v == "" else "not known" if v is None else str(v) for v in values]
            found.append(f"{WORDS[f.name]}: {' / '.join(told)}")
    return found
