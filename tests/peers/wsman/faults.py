"""The faults of WS-Man that an endpoint answers, with the codes of Windows' wsmerror.h."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault(Exception):
    """``code`` is Windows' own, ``subcode`` WS-Man's word, ``status`` is HTTP's."""

    code: int
    subcode: str
    reason: str
    status: int = 500
    sender: bool = False


def timed_out() -> Fault:
    """ERROR_WSMAN_OPERATION_TIMEDOUT."""
    return Fault(
        2150858793, "w:TimedOut",
        "The WS-Management service cannot complete the operation within the time specified in"
        " OperationTimeout.",
    )  # fmt: skip


def no_shell() -> Fault:
    """ERROR_WSMAN_UNEXPECTED_SELECTORS: the shell, or a command in it, is not there."""
    return Fault(
        2150858843, "w:InvalidSelectors",
        "The request for the Windows Remote Shell with ShellId failed because the shell was not"
        " found on the server. Possible causes are: the specified ShellId is incorrect or the"
        " shell no longer exists on the server.",
    )  # fmt: skip


def too_many_shells(most: int) -> Fault:
    """ERROR_WSMAN_QUOTA_MAX_SHELLS."""
    return Fault(
        2150859173, "w:QuotaLimit",
        "The WS-Management service cannot process the request. This user is allowed a maximum"
        f" number of {most} concurrent shells, which has been exceeded. Close existing shells or"
        " raise the quota for this user.",
    )  # fmt: skip


def too_many_operations(most: int) -> Fault:
    """ERROR_WSMAN_QUOTA_MAX_OPERATIONS."""
    return Fault(
        2150859174, "w:QuotaLimit",
        "The WS-Management service cannot process the request. This user is allowed a maximum"
        f" number of {most} concurrent operations, which has been exceeded.",
    )  # fmt: skip


def too_many_processes(most: int) -> Fault:
    """MaxProcessesPerShell; its code is not in a source that we have."""
    return Fault(
        2150859175, "w:QuotaLimit",
        f"The maximum number of {most} processes in this shell has been exceeded.",
    )  # fmt: skip


def no_resource(uri: str) -> Fault:
    """ERROR_WSMAN_INVALID_RESOURCE_URI."""
    return Fault(
        2150858752, "w:InvalidResourceURI",
        f"The WS-Management service cannot process the request. The resource URI ({uri}) was not"
        " found in the WS-Management catalog.",
    )  # fmt: skip


def no_action(uri: str) -> Fault:
    """ERROR_WSMAN_INVALID_ACTIONURI."""
    return Fault(
        2150858753, "a:ActionNotSupported",
        f"The WS-Management service cannot process the request. The action URI ({uri}) is invalid.",
        sender=True,
    )  # fmt: skip


def bad_schema(what: str) -> Fault:
    """ERROR_WSMAN_SCHEMA_VALIDATION_ERROR."""
    return Fault(
        2150858817, "w:SchemaValidationError",
        f"The WS-Management service cannot process a request that is not well formed: {what}",
        sender=True,
    )  # fmt: skip


def line_too_long() -> Fault:
    """What CreateProcess says of more than 32767 characters: ERROR_FILENAME_EXCED_RANGE."""
    return Fault(2147942606, "w:InternalError", "The filename or extension is too long. ")


def no_program() -> Fault:
    """What CreateProcess says: ERROR_FILE_NOT_FOUND."""
    return Fault(2147942402, "w:InternalError", "The system cannot find the file specified. ")


def no_reader() -> Fault:
    """Input for a process that has ended, or whose input has: ERROR_NO_DATA."""
    return Fault(2147942632, "w:InternalError", "The pipe is being closed. ")
