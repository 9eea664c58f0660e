"""What Xen itself has in force of a guest, as ``xl`` in dom0 shows it: XAPI only repeats wishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.dom0 import look, xl
from drivers.xenserver.api import Record
from provision.errors import HostError, Mismatch, Unreachable
from provision.host import Host
from provision.resources import Guest
from provision.units import cpus


@dataclass(frozen=True, slots=True)
class InForce:
    """``host`` None = dom0 is out of reach, and nothing is known."""

    host: Host | None

    def check(self, has: Record, want: Guest) -> None:
        """Raises Mismatch where a guest that runs is scheduled otherwise than asked."""
        if self.host is None:
            return
        now = look.state(self.host)
        if faults := [*_faults(int(has["domid"]), want, now)]:
            raise Mismatch(f"guest {want.name} was started, and Xen shows {'; '.join(faults)}")

    def evidence(self, has: Record) -> Mapping[str, str]:
        """Its weight, cap and affinities; says why, where they cannot be had."""
        if self.host is None:
            return {"scheduled": "not read back: no SSH to dom0"}
        try:
            now = look.state(self.host)
        except (HostError, Unreachable) as e:
            return {"scheduled": f"not read back: {e}"}
        domid = int(has["domid"])
        share = next((s for s in now.all_shares if s.domid == domid), None)
        pins = ";".join(v.hard for v in now.all_vcpus if v.domid == domid)
        if share is None:
            return {"scheduled": f"by {now.info.scheduler}; hard affinity {pins or 'none'}"}
        return {
            "scheduled": f"by {now.info.scheduler}; weight {share.weight}, cap "
            f"{share.cap_percent}, hard affinity {pins}"
        }


def _faults(domid: int, want: Guest, now: look.State) -> list[str]:
    found = []
    share = next((s for s in now.all_shares if s.domid == domid), None)
    if share is not None and share.weight != want.weight:
        found.append(f"weight {share.weight} in place of {want.weight}")
    if share is not None and share.cap_percent != (want.cap_percent or 0):
        found.append(f"cap {share.cap_percent} in place of {want.cap_percent or 0}")
    vcpus = [v for v in now.all_vcpus if v.domid == domid]
    if len(vcpus) != want.vcpus:
        found.append(f"{len(vcpus)} vCPUs in place of {want.vcpus}")
    for vcpu, pin in zip(vcpus, want.pins, strict=False):
        if _set(vcpu.hard, now.info.cpus) != _set(pin, now.info.cpus):
            found.append(f"vCPU {vcpu.number} on {vcpu.hard} in place of {pin}")
    return found


def _set(text: str, count: int) -> frozenset[int]:
    return frozenset(range(count)) if text == xl.ALL else frozenset(cpus(text))
