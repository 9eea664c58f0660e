"""The guest agent (https://www.qemu.org/docs/master/interop/qemu-ga-ref.html), through libvirt."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from base64 import b64decode, b64encode
from collections.abc import Callable
from threading import Event
from typing import Any

import libvirt
import libvirt_qemu

from provision.errors import DriverError

CHANNEL = "org.qemu.guest_agent.0"
COMMAND_S = 20
INSIST_S = 60
POLL_S = 0.02
LOOK_AGAIN_S = 0.5  # events get lost now and then where several domains wait for theirs
_LIFECYCLE = libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE


def connected(found: Any) -> bool:
    """Whether the agent has opened its end of the channel."""
    for target in ET.fromstring(found.XMLDesc()).iterfind("devices/channel/target"):
        if target.get("name") == CHANNEL:
            return target.get("state") == "connected"
    return False


def wait(conn: Any, found: Any, timeout_s: float) -> bool:
    """Whether the agent opens its end in time. Raises libvirtError."""
    changed = Event()

    def on_change(*_about: Any) -> None:
        changed.set()

    deadline = time.monotonic() + timeout_s
    number = conn.domainEventRegisterAny(found, _LIFECYCLE, on_change, None)
    try:
        while not connected(found):
            if (left_s := deadline - time.monotonic()) <= 0:
                return False
            changed.wait(min(left_s, LOOK_AGAIN_S))
            changed.clear()
        return True
    finally:
        conn.domainEventDeregisterAny(number)


def insist(conn: Any, found: Any, act: Callable[[], None]) -> None:
    """Do with the agent what may be done twice, in a guest whose memory was just loaded.

    The channel may close and open once more then: virtio-serial tells its state anew. Raises
    DriverError where the agent stays silent, and what ``act`` raises.
    """
    deadline = time.monotonic() + INSIST_S
    last = "it does not open its channel"
    while wait(conn, found, max(deadline - time.monotonic(), 0)):
        try:
            act()
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
                raise
            last = e.get_error_message()
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)  # libvirt may take it for connected until it hears otherwise
        else:
            return
    raise DriverError(f"{found.name()}: no word of its agent within {INSIST_S} s: {last}")


def run(found: Any, path: str, *words: str, stdin: str = "", timeout_s: float = 60) -> None:
    """Run a program in the guest to its end.

    Raises DriverError with its last words where it fails, libvirtError where the agent does.
    """
    given = {"input-data": b64encode(stdin.encode()).decode()} if stdin else {}
    started = _ask(
        found, "guest-exec", {"path": path, "arg": list(words), "capture-output": True, **given}
    )
    deadline = time.monotonic() + timeout_s
    while True:  # the agent tells of no end by itself: it has to be asked
        status = _ask(found, "guest-exec-status", started)
        if status["exited"]:
            break
        if time.monotonic() > deadline:
            raise DriverError(f"{found.name()}: {path} has no end after {timeout_s:g} s")
        time.sleep(POLL_S)
    if status.get("exitcode") != 0:
        said = b64decode(status.get("err-data", "") or status.get("out-data", ""))
        last = " / ".join(said.decode(errors="replace").split("\n")[-4:]).strip(" /")
        code = status.get("exitcode", f"signal {status.get('signal')}")
        raise DriverError(f"{found.name()}: {path} inside: exit {code}: {last or '(no words)'}")


def correct_clock(found: Any) -> None:
    """The guest's clock to now, as near as starting one program takes.

    What was told before, on the way to a script, is seconds old by the time a busy guest reads it.
    """
    run(found, "/bin/date", "-s", f"@{time.time():.6f}")


def set_clock(found: Any) -> None:
    """The guest's clock to now. Raises libvirtError."""
    _ask(found, "guest-set-time", {"time": time.time_ns()})


def _ask(found: Any, command: str, arguments: dict[str, Any]) -> Any:
    asked = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuAgentCommand(found, asked, COMMAND_S, 0))["return"]
