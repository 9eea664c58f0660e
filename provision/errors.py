"""Everything provision raises on purpose: the user's mistakes and the world's faults.

Only ``provision.cli`` catches these and turns them into words and an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class ProvisionError(Exception):
    """What went wrong, with ``hint``: the command or change that would work."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UserError(ProvisionError):
    """The user asked for something that cannot be; nothing was touched."""

    exit_code = 2


class SpecError(UserError):
    """The spec is wrong; ``problems`` has every fault found, each with its place."""

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = tuple(problems)


class Unsupported(UserError):
    """The hypervisor cannot do this, by its nature or version; raised before anything changes."""


class WorldError(ProvisionError):
    """The spec is sound, but a host, a library or a disk did not play its part."""


class PreflightError(WorldError):
    """The host is not fit for the testbed as asked; nothing was touched."""

    exit_code = 4


class Unreachable(PreflightError):
    """A host or hypervisor does not answer, or refuses us; nothing was touched."""


class HostError(WorldError):
    """A command on a host failed; the message has the command and its own last words."""


class DriverError(WorldError):
    """The hypervisor refused; ``__cause__`` has its own words."""


class Foreign(DriverError):
    """The name is taken by a thing without our mark, which stays as it is."""


class JournalError(WorldError):
    """The journal is damaged, or cannot be written."""


class JournalFull(JournalError):
    """The journal's disk is full: what was begun cannot go on until some is freed."""

    exit_code = 6


class Leased(WorldError):
    """Another controller holds the testbed."""

    exit_code = 5


class Partial(WorldError):
    """Some steps were done and some failed; the journal has both, ``down`` or ``up`` goes on."""

    exit_code = 6


class Mismatch(WorldError):
    """What was read back, from the hypervisor or inside a guest, is not what was asked."""

    exit_code = 7


class WorkloadError(WorldError):
    """A workload failed, or a sample is invalid."""

    exit_code = 8


class Interrupted(ProvisionError):
    """The user or the system asked to stop; the journal is closed and work can go on later."""

    def __init__(self, message: str, *, hint: str = "", signal_number: int = 2) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)``, or "" where nothing is near."""
    near = get_close_matches(word[:60], list(known), 1) if isinstance(word, str) else []
    return f" (did you mean {near[0]!r}?)" if near else ""
