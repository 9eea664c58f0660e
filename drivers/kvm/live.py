"""Changes to a guest that runs: in the kernel at once, in libvirt's definition for later."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import libvirt

from drivers.kvm.xml import PERIOD_US, Body, domain, mark, quota_us, shares
from drivers.libvirt.marks import PREFIX, URN
from provision.resources import Guest
from provision.units import cpus

NOW = libvirt.VIR_DOMAIN_AFFECT_LIVE


def change(conn: Any, found: Any, have: Guest, want: Guest, body: Body) -> None:
    """Weight, cap and pins from ``have`` to ``want``. Raises libvirtError."""
    every = tuple(range(conn.getInfo()[2]))
    conn.defineXML(domain(want, body))
    if scheduler := _scheduler(have, want, body):
        found.setSchedulerParametersFlags(scheduler, NOW)
    if have.pins != want.pins:
        for vcpu in range(want.vcpus):
            text = want.pins[vcpu] if want.pins else ""
            found.pinVcpuFlags(vcpu, _map(text, every), NOW)
    if have.emulator_pin != want.emulator_pin:
        found.pinEmulator(_map(want.emulator_pin or "", every), NOW)
    text = ET.tostring(mark(want, body), encoding="unicode")
    found.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, PREFIX, URN, NOW)


def _scheduler(have: Guest, want: Guest, body: Body) -> dict[str, int]:
    found: dict[str, int] = {}
    if have.weight != want.weight and (figure := shares(want, body.cgroup)) is not None:
        found["cpu_shares"] = figure
    if have.cap_percent != want.cap_percent:
        found |= {"global_period": PERIOD_US, "global_quota": quota_us(want)}
    return found


def _map(text: str, every: tuple[int, ...]) -> tuple[bool, ...]:
    """One flag a CPU; all of them for ""."""
    wanted = set(cpus(text)) or set(every)
    return tuple(n in wanted for n in every)
