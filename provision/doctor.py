"""What this machine and the hypervisor's host have and lack, each lack with its mend."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from provision.driver import Check
from provision.errors import ProvisionError
from provision.registry import find, known
from provision.state import State

if TYPE_CHECKING:
    from provision.driver import Facts
    from provision.spec import Spec

ROOM_GIB = 5
TOOLS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ssh": "openssh-client",
    "ping": "iputils-ping",
}


def controller(state: State, spec: Spec) -> Iterator[Check]:
    """The controller itself: privileges, the tools that the spec needs, room on the disk."""
    root = os.geteuid() == 0
    remote = "sudo provision …, or a remote hypervisor over qemu+ssh://"
    yield _finding("privileges", root, "root" if root else "not root", remote)
    for tool, package in {**TOOLS, **_image_tools(spec)}.items():
        path = shutil.which(tool)
        yield _finding(tool, path is not None, path or "missing", f"apt-get install {package}")
    yield Check("drivers", ok=True, detail=", ".join(known()))
    yield from _state(state)


def _state(state: State) -> Iterator[Check]:
    """Whether its own folder can be written, and has room."""
    unfit = state.unfit()
    mend = "set PROVISION_STATE_DIR to a folder of yours"
    yield _finding("state", not unfit, unfit or str(state.root), mend)
    if unfit:
        return
    folder = next(p for p in (state.root, *state.root.parents) if p.exists())
    free_gib = shutil.disk_usage(folder).free / 2**30
    free = f"{free_gib:.0f} GiB free in {folder}"
    yield _finding("disk", free_gib >= ROOM_GIB, free, "free some, or set PROVISION_STATE_DIR")


def _image_tools(spec: Spec) -> dict[str, str]:
    """What makes the guests' image here, by Debian's package: nothing where there is none."""
    from provision.image_build import DISK_TOOLS, FILES_TOOLS

    if "/" in spec.guests.image:
        return {"qemu-img": "qemu-utils"}
    try:
        driver = find(spec.hypervisor.type)
    except ProvisionError:
        return {}  # said where the hypervisor is looked at
    if not driver.takes_image:
        return {}
    return FILES_TOOLS if driver.capabilities.files else DISK_TOOLS


def _finding(what: str, ok: bool, detail: str, fix: str) -> Check:
    return Check(what, ok, detail, "" if ok else fix)


def hypervisor(state: State, spec: Spec) -> Iterator[Check]:
    """The hypervisor: whether it answers, and what it is."""
    from provision.session import opened

    if state.unfit():
        told = "not looked at: that takes a state folder"
        yield Check(spec.hypervisor.type, ok=False, detail=told)
        return
    try:
        with opened(state, spec) as session:
            found = [*checks(session.driver.facts), *session.driver.examine()]
    except ProvisionError as e:
        yield Check(spec.hypervisor.type, ok=False, detail=str(e), fix=e.hint)
        return
    yield from found


def checks(facts: Facts) -> Iterator[Check]:
    """What the hypervisor and its host are, and what of a spec they refuse."""
    from provision.spec.words import path as written

    yield Check(facts.hypervisor, ok=True, detail=f"{facts.version} on {facts.host}")
    yield Check("capacity", ok=True, detail=f"{facts.cpus} CPUs, {facts.memory_mib} MiB")
    yield Check("acceleration", ok=True, detail=facts.accel)
    for name, detail in facts.notes.items():
        yield Check(name, ok=True, detail=detail)
    words = [f"{word}={exact}" for word, exact in facts.words.items()]
    yield Check("vNIC models", ok=True, detail=", ".join([*facts.nic_models, *words]))
    yield Check("switches", ok=True, detail=", ".join(facts.switch_flavours) or "none")
    for uplink in facts.uplinks:
        state = f"not free: {uplink.used_by}" if uplink.used_by else "free"
        where = f"{uplink.mac} {uplink.pci or ''}".strip()
        yield Check(f"NIC {uplink.name}", not uplink.used_by, f"{where}, {state}", needed=False)
    knobs = {k: v for k, v in facts.knobs.items() if not k.startswith("irq/")}
    for knob, value in knobs.items():
        yield Check(f"knob {knob}", ok=True, detail=value, needed=False)
    if irqs := [k for k in facts.knobs if k not in knobs]:
        yield Check("knob irq/N", ok=True, detail=f"{len(irqs)} interrupts", needed=False)
    for path, reason in facts.cannot.items():
        yield Check(written(path), ok=False, detail=f"refused: {reason}", needed=False)
