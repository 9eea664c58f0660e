"""XenAPI's failures, by code and in words; its data model lists the codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from XenAPI import Failure as _Failure

from provision.errors import DriverError

Failure: Any = _Failure
NULL = "OpaqueRef:NULL"
Record = Mapping[str, Any]
Call = Callable[..., Any]
GONE = frozenset({"HANDLE_INVALID", "UUID_INVALID"})
BUSY = frozenset({"OTHER_OPERATION_IN_PROGRESS"})
FULL = frozenset({"SR_FULL", "SR_BACKEND_FAILURE_44", "OUT_OF_SPACE"})
#: what would help, by code
HINTS: Mapping[str, str] = {
    "RBAC_PERMISSION_DENIED": "give the login the role pool-operator: docs/xenserver.md",
    "SESSION_AUTHORIZATION_FAILED": "give the login a role: docs/xenserver.md",
    "HOST_NOT_ENOUGH_FREE_MEMORY": "smaller guests, or fewer of them",
    "HOST_NOT_ENOUGH_PCPUS": "guests.vcpus: no more than the host has",
    "LICENCE_RESTRICTION": "the host's licence does not have it",
    "VM_HVM_REQUIRED": "the host's CPU or firmware lacks virtualization: use a PV template",
    "HOST_DISABLED": "xe host-enable",
} | dict.fromkeys(FULL, "free some, or choose another: hypervisor.storage")


class Lost(Exception):
    """A call that changes something was sent, and no reply came: it may or may not be done."""

    def __init__(self, method: str, cause: BaseException) -> None:
        super().__init__(f"the reply to {method} was lost ({type(cause).__name__})")
        self.__cause__ = cause


def code(failure: Any) -> str:
    """The failure's code; "" where it has none."""
    return str(failure.details[0]) if failure.details else ""


def words(failure: Any) -> str:
    """A failure on one line: its code, and what it is about."""
    about = [" ".join(str(a).split()) for a in failure.details[1:] if a not in ("", NULL)]
    return f"{code(failure)}: {', '.join(about)}"[:500] if about else code(failure) or "no reason"


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise the server's failures, and lost replies, as ours, with what was being done."""
    try:
        yield
    except Failure as e:
        raise DriverError(f"{what}: {words(e)}", hint=HINTS.get(code(e), "")) from e
    except Lost as e:
        raise DriverError(
            f"{what}: {e}; it may be done or not", hint="the same command again finds out"
        ) from e


@contextmanager
def but(*codes: str) -> Iterator[None]:
    """Let failures with these codes pass: what was wanted is so already."""
    try:
        yield
    except Failure as e:
        if code(e) not in codes:
            raise


@contextmanager
def gone_is_fine() -> Iterator[None]:
    """Let pass that something is not there any more."""
    with but(*GONE):
        yield


def null(ref: object) -> bool:
    """Whether a reference leads nowhere."""
    return ref in ("", NULL, None)
