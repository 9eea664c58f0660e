"""pyVmomi's types and faults, and its faults in words.

pyVmomi's stubs know neither optional arguments nor methods by their names on the wire: its types
are taken as they come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyVmomi import vim as _vim
from pyVmomi import vmodl as _vmodl

from provision.errors import DriverError

vim: Any = _vim
vmodl: Any = _vmodl

Fault: Any = vmodl.MethodFault
Gone: Any = vmodl.fault.ManagedObjectNotFound
NotAuthenticated: Any = vim.fault.NotAuthenticated  # a NoPermission too: to be caught before it
NoPermission: Any = vim.fault.NoPermission
Exists: Any = (vim.fault.AlreadyExists, vim.fault.DuplicateName)
#: details that a fault has besides its message, where they say more
_DETAILS = ("invalidProperty", "property", "name", "privilegeId", "file", "reason", "deviceIndex")


class Lost(Exception):
    """A call that changes something was sent, and no reply came: it may or may not be done."""

    def __init__(self, method: str, cause: BaseException) -> None:
        super().__init__(f"the reply to {method} was lost ({type(cause).__name__})")
        self.__cause__ = cause


def words(fault: Any) -> str:
    """What a fault says, on one line: str(fault) would be all of its fields over many."""
    kind = type(fault).__name__.rpartition(".")[2]
    found = [" ".join(str(getattr(fault, "msg", "") or "").split())]
    found += [
        f"{name} {value}" for name in _DETAILS if (value := getattr(fault, name, None)) is not None
    ]
    for message in getattr(fault, "faultMessage", None) or ():
        found.append(" ".join(str(message.message or "").split()))
    said = dict.fromkeys(part for part in found if part and part != kind)
    return f"{kind}: {'; '.join(said)}"[:500] if said else kind


def hint(fault: Any) -> str:
    """What would help, "" where the fault does not say."""
    if isinstance(fault, NoPermission) and getattr(fault, "privilegeId", None):
        return f"give the login {fault.privilegeId}; provision doctor --hv vsphere names all"
    if isinstance(fault, vim.fault.InsufficientResourcesFault):
        return "smaller guests, fewer of them, or less that is reserved"
    return ""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise the server's faults, and lost replies, as ours, with what was being done."""
    try:
        yield
    except Fault as e:
        raise DriverError(f"{what}: {words(e)}", hint=hint(e)) from e
    except Lost as e:
        raise DriverError(
            f"{what}: {e}; it may be done or not", hint="the same command again finds out"
        ) from e
