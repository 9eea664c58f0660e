"""dom0 as it is now, asked for in one command."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.dom0 import xl
from drivers.linux.links import sections
from provision.errors import HostError
from provision.host import Host

_LOOK = """
info=$(xl info) || exit
echo @@info; printf '%s\\n' "$info"
echo @@vcpus; xl vcpu-list || exit
echo @@domains; xl list || exit
echo @@shares
case $(printf '%s\\n' "$info" | sed -n 's/^xen_scheduler *: *//p') in
  credit) xl sched-credit ;;
  credit2) xl sched-credit2 ;;
esac
"""


@dataclass(frozen=True, slots=True)
class State:
    """``vcpus`` and ``share`` are dom0's; ``share`` None = its scheduler knows no weights.

    ``all_vcpus`` and ``all_shares`` are every domain's.
    """

    info: xl.Info
    vcpus: tuple[xl.Vcpu, ...]
    share: xl.Share | None
    memory_mib: int
    all_vcpus: tuple[xl.Vcpu, ...]
    domains: tuple[xl.Domain, ...]
    all_shares: tuple[xl.Share, ...] = ()

    @property
    def pins(self) -> str:
        """dom0's hard affinities: one list for each vCPU, joined by ``;``, or one for all."""
        each = [v.hard for v in self.vcpus]
        return each[0] if len(set(each)) == 1 else ";".join(each)


def state(host: Host) -> State:
    """Raises HostError where there is no Xen, or no root; Unreachable where SSH fails."""
    try:
        found = sections(host.run("sh", "-c", _LOOK))
    except HostError as e:
        raise HostError(f"{e}; is it Xen's dom0, and are we root there?", hint=e.hint) from e
    every = xl.vcpus(found["vcpus"])
    domains = xl.domains(found["domains"])
    shares = xl.shares(found["shares"])
    mine = tuple(v for v in every if v.domid == xl.DOM0)
    if not mine:
        raise HostError(f"{host.name}: xl vcpu-list shows no dom0")
    return State(
        info=xl.info(found["info"]),
        vcpus=mine,
        share=next((s for s in shares if s.domid == xl.DOM0), None),
        memory_mib=next((d.memory_mib for d in domains if d.domid == xl.DOM0), 0),
        all_vcpus=every,
        domains=domains,
        all_shares=shares,
    )
