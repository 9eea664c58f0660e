"""A run's folder and its samples: written once, never changed, readable without any host."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from provision import __version__
from provision.errors import UserError, WorkloadError
from provision.measuring.verdict import Finding

FORMAT = 1
RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured, and how: samples that differ in any of it are never averaged together.

    ``nic`` is the exact model, ``netperf`` its version and hashes on the guests, ``image`` the
    digest of the guests' golden image; ``wire_mbit`` is the links' speed, None = not known;
    the ratios are all guests' vCPUs per CPU left to them, and their memory per the host's.
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

    @classmethod
    def create(cls, root: Path, testbed: str, facts: Mapping[str, Mapping[str, Any]]) -> Run:
        """A new folder ``root``/ID; ``facts`` are documents by name, such as spec and facts.

        The ID sorts by time. Raises WorkloadError where the disk does not take it.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        run = cls(root / f"{stamp}-{testbed}-{secrets.token_hex(2)}")
        try:
            run.path.mkdir(parents=True)
            for name, document in facts.items():
                (run.path / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
            head = {"format": FORMAT, "run": run.id, "testbed": testbed, "provision": __version__}
            (run.path / RESULTS).write_text(json.dumps(head) + "\n")
        except OSError as e:
            raise WorkloadError(f"{run.path}: cannot be written: {e.strerror}") from e
        return run

    def append(self, sample: Sample) -> None:
        """Keep a sample, on the disk when this returns."""
        line = json.dumps(asdict(sample)) + "\n"
        with (self.path / RESULTS).open("a") as f:
            f.write(line)
            f.flush()
            os.fsync(f.fileno())

    def head(self) -> dict[str, Any]:
        """The first line; raises UserError where this is no run's folder, or a newer one's."""
        try:
            with (self.path / RESULTS).open() as f:
                head = json.loads(f.readline())
        except (OSError, ValueError) as e:
            raise UserError(f"{self.path}: no run is kept here: {e}") from e
        found = head.get("format") if isinstance(head, dict) else None
        if found != FORMAT:
            raise UserError(
                f"{self.path / RESULTS}: format {found!r}; this version reads {FORMAT}",
                hint="upgrade provision",
            )
        return dict(head)

    def samples(self) -> list[Sample]:
        """All samples, valid or not. A last line cut off by a crash is left out."""
        self.head()
        lines = (self.path / RESULTS).read_text().splitlines(keepends=True)[1:]
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        try:
            return [_adapter().validate_json(line) for line in lines]
        except ValueError as e:
            raise UserError(f"{self.path / RESULTS}: {e}") from e

    def document(self, name: str) -> dict[str, Any]:
        """A document given to ``create``; {} where there is none."""
        try:
            return dict(json.loads((self.path / f"{name}.json").read_text()))
        except (OSError, ValueError):
            return {}


def runs(root: Path) -> list[Run]:
    """All runs kept in a folder, oldest first."""
    return [Run(found.parent) for found in sorted(root.glob(f"*/{RESULTS}"))]


def differences(samples: Iterable[Sample]) -> list[str]:
    """The fields of Subject in which samples differ, each with its values in words."""
    subjects = list(dict.fromkeys(s.subject for s in samples))
    found = []
    for f in fields(Subject):
        values = list(dict.fromkeys(str(getattr(s, f.name)) for s in subjects))
        if len(values) > 1:
            found.append(f"{f.name}: {' / '.join(values)}")
    return found
