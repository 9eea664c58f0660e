"""The host's dom0, where SSH reaches it: its knobs, its boot options, its counters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from drivers.dom0 import boot, counters, look, wishes
from drivers.dom0.knobs import Knobs
from drivers.xenserver.place import BACKENDS
from drivers.xenserver.restart import Restart
from provision.driver import Dom0 as Wishes
from provision.driver import UplinkFacts
from provision.errors import DriverError, HostError, PreflightError, Unreachable
from provision.host import Host, hang_up, ssh
from provision.resources import BOOT, Tuning
from provision.state import own_sockets

CONNECT_S = 5
HALF_WAY = "host_disabled"  # a word of the boot tuning that no host shall have


@dataclass(slots=True)
class Shell:
    """A way into dom0, over one shared connection; ``why_not`` says why there is none."""

    host: Host
    why_not: str
    _folder: TemporaryDirectory[str] | None = field(default=None, repr=False)

    def close(self) -> None:
        hang_up(self.host)
        if self._folder is not None:
            self._folder.cleanup()


def shell(target: str) -> Shell:
    """Try to reach it; it is no error where that fails."""
    folder = own_sockets()
    options = [f"ConnectTimeout={CONNECT_S}"]
    # ssh takes the first value that it is given
    made = ssh(target, control=Path(folder.name))
    host = Host(made.name, ("ssh", "-o", options[0], *made.prefix[1:]), made.far_shell)
    why_not = ""
    try:
        host.run("xl", "info", "nr_cpus", timeout_s=4 * CONNECT_S)
    except (HostError, Unreachable) as e:
        why_not = str(e)
    return Shell(host, why_not, folder)


@dataclass(frozen=True, slots=True)
class Dom0:
    """Kind ``tuning`` of the driver."""

    host: Host
    options: boot.BootOptions
    restart: Restart
    _high: list[float] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    @property
    def knobs(self) -> Knobs:
        return Knobs(self.host)

    @property
    def boot(self) -> boot.Boot:
        return boot.Boot(self.host, self.options)

    def read(self, name: str) -> Tuning | None:
        """As ``Driver.read``."""
        if name != BOOT[1]:
            return self.knobs.read(name)
        found = self.boot.read()
        if self.restart.disabled_by_us():  # cut short: to be done again
            return Tuning(found.name, f"{found.value} {HALF_WAY}=true".strip())
        return found

    def put(self, want: Tuning) -> None:
        """As ``Driver.put``."""
        if want.name != BOOT[1]:
            self.knobs.put(want)
            return
        half_way = self.restart.disabled_by_us()
        if not half_way and self.boot.read() == want:
            return
        if HALF_WAY in want.value:
            raise DriverError(f"{BOOT[1]}: {want.value!r} was no state to go back to")
        self.restart.refuse()
        self.boot.put(want, self.restart)
        if half_way:
            self.restart.enable()

    def values(self) -> Mapping[str, str]:
        """The knobs as they are."""
        return {BOOT[1]: self.boot.read().value, **self.knobs.knobs()}

    def irqs(self, nics: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The interrupts of each NIC."""
        return {nic: tuple(sorted(found)) for nic, found in self.knobs.of_nics(nics).items()}

    def tunings(self, asked: Wishes, uplinks: tuple[UplinkFacts, ...]) -> Iterator[Tuning]:
        """What a spec's wishes become. Raises SpecError."""
        backend = BACKENDS.get(asked.network_backend or "")
        base = self.options.base()
        if backend == base.get(boot.BACKEND):
            backend = None  # as it is without us
        wish = Wishes(
            asked.vcpus, asked.pin, asked.weight, asked.cap_percent, asked.memory_mib,
            asked.irq_affinity, backend,
        )  # fmt: skip
        balancer = self.knobs.balancer() if asked.irq_affinity else ""
        yield from wishes.tunings(wish, uplinks, look.state(self.host), base, balancer)

    def count(self) -> counters.Counts:
        """Counters; what CPUs were busy never shrinks, though Xen's idle times come in steps."""
        found = counters.count(self.host)
        with self._lock:
            if len(self._high) != len(found.host_busy_s):
                self._high[:] = found.host_busy_s
            self._high[:] = map(max, self._high, found.host_busy_s)
            high = tuple(self._high)
        return counters.Counts(
            found.at_s, high, found.dom0_busy_s, found.domains, found.nics, found.irqs
        )


def refuse(asked: Wishes, why_not: str, backend: str) -> Iterator[Tuning]:
    """The tunings where dom0 is out of reach: none, and an error where some are asked for."""
    words = ("vcpus", "pin", "weight", "cap_percent", "memory_mib", "irq_affinity")
    wanted = [f"dom0.{w}" for w in words if getattr(asked, w)]
    if asked.network_backend not in (None, backend):
        wanted.append(f"switch.type: {asked.network_backend}")
    if wanted:
        raise PreflightError(
            f"{', '.join(wanted)}: it takes a root shell in dom0, and there is none: {why_not}",
            hint="hypervisor.ssh: root@HOST, with a key of yours there",
        )
    return iter(())
