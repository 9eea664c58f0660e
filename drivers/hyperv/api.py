"""The host's errors, and lost answers, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drivers.hyperv.ops import Refused
from provision.errors import DriverError

EXISTS, MISSING, BUSY, NOT_ALLOWED = (
    "ProvisionExists", "ProvisionMissing", "ProvisionBusy", "ProvisionNotAllowed",
)  # fmt: skip
#: words of an error's id or category, and what would help
_HINTS = {
    "PermissionDenied": "the user has to be one of Hyper-V Administrators: docs/hyperv.md",
    "AccessDenied": "the user has to be one of Hyper-V Administrators: docs/hyperv.md",
    "OutOfMemory": "smaller guests, or fewer of them",
    "OutOfSpace": "make room on the disk that hypervisor.storage names",
    BUSY: "the same command again, once that has ended",
}


class Lost(Exception):
    """A request that may change something was sent, and no answer came: it is done or not."""

    def __init__(self, cause: BaseException | str) -> None:
        super().__init__(f"the answer was lost ({cause or type(cause).__name__})")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise the host's refusals, and lost answers, as ours, with what was being done."""
    try:
        yield
    except Refused as e:
        raise DriverError(f"{what}: {e}", hint=hint(e)) from e
    except Lost as e:
        raise DriverError(
            f"{what}: {e}; it may be done or not", hint="the same command again finds out"
        ) from e


def hint(e: Refused) -> str:
    """What would help, "" where the error does not say."""
    if e.id.startswith("CommandNotFound"):
        return "the host lacks that module: Install-WindowsFeature Hyper-V-PowerShell"
    said = f"{e.category} {e.id}"
    return next((words for word, words in _HINTS.items() if word in said), "")
