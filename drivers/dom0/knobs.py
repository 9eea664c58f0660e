"""dom0's knobs that are set while it runs: weight, cap, pins, and where interrupts are served.

All are lost when the host restarts. What is read is what ``xl`` and the kernel say, never what a
toolstack has been told. xl(1): sched-credit, vcpu-pin; the kernel's Documentation/core-api/irq.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from drivers.dom0 import xl
from drivers.dom0.look import State, state
from provision.errors import DriverError, HostError, PreflightError, Unsupported
from provision.host import Host
from provision.resources import IRQBALANCE, Tuning
from provision.units import cpu_list, cpus

WEIGHT, CAP, PIN, IRQ = "dom0.weight", "dom0.cap", "dom0.pin", "irq/"
RUNNING, STOPPED = "running", "stopped"
# a NIC's interrupts and where each may be served; a virtio NIC's are those of the folder above
_IRQS = r"""
root=$1; shift
for nic; do
  d=$root/sys/class/net/$nic/device
  for n in $(ls "$d/msi_irqs" 2>/dev/null || ls "$d/../msi_irqs" 2>/dev/null || cat "$d/irq"); do
    f=$root/proc/irq/$n/smp_affinity_list
    [ ! -e "$f" ] || echo "$nic $n $(cat "$f")"
  done 2>/dev/null
done
:
"""
_BALANCER = """
command -v irqbalance >/dev/null || exit 0
if pidof irqbalance >/dev/null; then echo running; else echo stopped; fi
"""


@dataclass(frozen=True, slots=True)
class Knobs:
    """Those of one dom0. Names are of tunings; interrupts' are their NIC's: ``irq/eth1``.

    ``root`` is what /proc and /sys are below; only tests have them elsewhere.
    """

    host: Host
    root: str = ""

    def knobs(self, now: State | None = None) -> Mapping[str, str]:
        """dom0's own knobs, and their values ``now``; None = it is asked."""
        now = now or state(self.host)
        found = {PIN: now.pins}
        if now.share is not None:
            found |= {WEIGHT: str(now.share.weight), CAP: str(now.share.cap_percent)}
        if balancer := self.balancer():
            found[IRQBALANCE[1]] = balancer
        return found

    def balancer(self) -> str:
        """Whether irqbalance runs; "" where there is none."""
        return self.host.run("sh", "-c", _BALANCER).strip()

    def irqs(self, nic: str) -> Mapping[int, str]:
        """The CPUs (vCPUs of dom0) that may serve each of a NIC's interrupts."""
        return self.of_nics([nic])[nic]

    def of_nics(self, nics: Iterable[str]) -> dict[str, dict[int, str]]:
        """As ``irqs``, of many at once."""
        found: dict[str, dict[int, str]] = {nic: {} for nic in nics}
        for line in self.host.run("sh", "-c", _IRQS, "irqs", self.root, *found).splitlines():
            nic, irq, value = line.split()
            if irq.isdigit() and irq != "0":
                found[nic][int(irq)] = cpu_list(cpus(value))
        return found

    def served(self, nics: Iterable[str]) -> dict[str, str]:
        """Where the interrupts of those NICs that have some are served, by their knob's name."""
        return {f"{IRQ}{nic}": _joined(irqs) for nic, irqs in self.of_nics(nics).items() if irqs}

    def read(self, name: str, now: State | None = None) -> Tuning | None:
        """None where there is no such knob; ``now`` is dom0 as it is, None = it is asked."""
        if name.startswith(IRQ):
            value = _joined(self.irqs(name.removeprefix(IRQ)))
        elif name == IRQBALANCE[1]:
            value = self.balancer()
        else:
            value = _of(now or state(self.host), name)
        return Tuning(name, value) if value else None

    def put(self, want: Tuning) -> None:
        """Raises Unsupported or PreflightError before anything changes, HostError."""
        name, value = want.name, want.value
        if name.startswith(IRQ):
            self._put_irqs(name.removeprefix(IRQ), want)
        elif name == IRQBALANCE[1]:
            verb = {RUNNING: "start", STOPPED: "stop"}.get(value)
            if verb is None:
                raise Unsupported(f"{name}: {value!r}: it is {RUNNING} or {STOPPED}")
            self.host.run("systemctl", verb, "irqbalance")
        elif name == PIN:
            self._pin(want)
        elif name in (WEIGHT, CAP):
            now = state(self.host)
            if reason := refused(name, value, now):
                raise Unsupported(f"{name}: {reason}")
            word = "-w" if name == WEIGHT else "-c"
            command = xl.SCHED[now.info.scheduler]
            self.host.run("xl", command, "-d", str(xl.DOM0), word, value)
        else:
            raise DriverError(f"dom0 has no knob {name!r}")

    def _pin(self, want: Tuning) -> None:
        now = state(self.host)
        each = want.value.split(";")
        if len(each) == 1:
            each *= len(now.vcpus)
        if len(each) != len(now.vcpus):
            raise DriverError(f"{PIN}: {len(each)} CPU lists for dom0's {len(now.vcpus)} vCPUs")
        for pin in each:
            if not pin or _canonical(pin) != pin:
                raise Unsupported(f"{PIN}: {pin!r} is no CPU list as xl writes it")
            if pin != xl.ALL and (last := cpus(pin)[-1]) >= now.info.cpus:
                raise Unsupported(f"{PIN}: {self.host.name} has no CPU {last}")
        for vcpu, pin in zip(now.vcpus, each, strict=True):
            if vcpu.hard != pin:
                self.host.run("xl", "vcpu-pin", str(xl.DOM0), str(vcpu.number), pin)

    def _put_irqs(self, nic: str, want: Tuning) -> None:
        now = self.irqs(nic)
        if not now:
            raise PreflightError(f"{self.host.name}: {nic} has no interrupts of its own to move")
        lists = _each(want, now)
        if self.balancer() == RUNNING:  # a restart of the host has brought it back
            self.host.run("systemctl", "stop", "irqbalance")
            now = self.irqs(nic)
        for irq, value in lists.items():
            if now.get(irq) != value:
                self._move(irq, value)

    def _move(self, irq: int, value: str) -> None:
        try:
            self.host.write(f"{self.root}/proc/irq/{irq}/smp_affinity_list", value)
        except HostError as e:
            if "Input/output error" not in str(e):
                raise
            raise Unsupported(
                f"interrupt {irq} of {self.host.name}: the kernel itself places it"
            ) from e


def refused(name: str, value: str, now: State, vcpus: int | None = None) -> str:
    """Why dom0's weight or cap cannot be so, with so many vCPUs; "" = it can."""
    scheduler = now.info.scheduler
    if now.share is None or scheduler not in xl.SCHED:
        return (
            f"Xen's scheduler {scheduler} has no weights and caps; boot it with sched=credit or "
            "sched=credit2"
        )
    most = xl.MOST_WEIGHT if name == WEIGHT else 100 * (vcpus or len(now.vcpus))
    least = 1 if name == WEIGHT else 0
    if not value.isdecimal() or not least <= int(value) <= most:
        return f"{value}: Xen takes {least} to {most}"
    return ""


def _of(now: State, name: str) -> str:
    if name == PIN:
        return now.pins
    if now.share is None or name not in (WEIGHT, CAP):
        return ""
    return str(now.share.weight if name == WEIGHT else now.share.cap_percent)


def _canonical(pin: str) -> str:
    try:
        return xl.affinity(pin)
    except HostError:
        return ""


def _joined(irqs: Mapping[int, str]) -> str:
    """One list where all interrupts have the same, else ``IRQ=LIST;…``."""
    if len(set(irqs.values())) == 1:
        return next(iter(irqs.values()))
    return ";".join(f"{irq}={value}" for irq, value in sorted(irqs.items()))


def _each(want: Tuning, now: Mapping[int, str]) -> Mapping[int, str]:
    """What each interrupt there is shall have; one that has come since keeps what it has."""
    if "=" not in want.value:
        lists = dict.fromkeys(now, want.value)
    else:
        pairs = (part.partition("=") for part in want.value.split(";"))
        lists = {int(n): value for n, _, value in pairs if int(n) in now}
    for value in lists.values():
        try:
            same = cpu_list(cpus(value))
        except ValueError as e:
            raise Unsupported(f"{want.name}: {value!r}: {e}") from e
        if same != value:
            raise Unsupported(f"{want.name}: {value!r} is written {same!r}")
    return lists
