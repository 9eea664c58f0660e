"""VBoxManage on the host: its errors in words, and its locks waited for.

Every change of a VM needs its lock, which VirtualBox holds for some time after a VM went off, and
whenever anybody looks at one; it gives no event when it lets go.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from provision.errors import DriverError, HostError
from provision.host import Host

LONG_S = 600
PAUSE_S = 0.1
_CODE = re.compile(r"Details: code (\w+)")
_LOCKED = ("is already locked", "while it is locked", "being locked or unlocked")
ABSENT = "VBOX_E_OBJECT_NOT_FOUND"
STATE = ("VBOX_E_INVALID_VM_STATE", "VBOX_E_INVALID_OBJECT_STATE")


@dataclass(frozen=True, slots=True)
class Manage:
    """``locked_s`` is how long a lock of another's is waited for."""

    host: Host
    locked_s: float = 30

    def run(self, *words: str, lenient: str = "") -> str:
        """What VBoxManage prints; where it fails with the code ``lenient``, "".

        Raises HostError with its words, when a lock is held for too long too.
        """
        until = time.monotonic() + self.locked_s
        while True:
            try:
                return self.host.run("VBoxManage", *words, timeout_s=LONG_S)
            except HostError as e:
                if lenient and code(e) == lenient:
                    return ""
                if not locked(e) or time.monotonic() > until:
                    raise
            time.sleep(PAUSE_S)

    def sh(self, text: str, *words: str, input: str | None = None) -> str:
        """A script that asks several things at once; its failure is the first of theirs."""
        return self.host.run("sh", "-c", text, "ask", *words, input=input, timeout_s=LONG_S)


def code(error: Exception) -> str:
    """VirtualBox's own name of an error, such as VBOX_E_OBJECT_NOT_FOUND; "" where it has none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def locked(error: Exception) -> bool:
    """Whether somebody else holds the VM's lock at the moment."""
    return any(words in str(error) for words in _LOCKED)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise VBoxManage's errors as ours, with what was being done."""
    try:
        yield
    except HostError as e:
        raise DriverError(f"{what}: {_first(str(e))}", hint=e.hint) from e


def _first(message: str) -> str:
    """VBoxManage's words without the place in its source."""
    parts = [p for p in message.split(" / ") if not p.startswith("VBoxManage: error: Context:")]
    return " / ".join(p.replace("VBoxManage: error: ", "") for p in parts)
