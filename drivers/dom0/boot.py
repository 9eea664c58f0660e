"""dom0's knobs that take a restart of the host: the hypervisor's boot options, as one tuning.

Its value is ``NAME=VALUE`` words of those options that are ours to set, as they are in force; one
that is not given at all is not there. ``NAME.next=VALUE`` is one that the next boot would change.
Xen's docs/misc/xen-command-line: dom0_max_vcpus, dom0_vcpus_pin, dom0_mem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from drivers.dom0 import xl
from drivers.dom0.look import State, state
from provision.driver import Dom0
from provision.errors import Mismatch, PreflightError, Unsupported
from provision.host import Host
from provision.resources import BOOT, Tuning
from provision.units import cpus

VCPUS, PINNED, MEMORY, BACKEND = "dom0_max_vcpus", "dom0_vcpus_pin", "dom0_mem", "network_backend"
XEN = frozenset({VCPUS, PINNED, MEMORY})  # on the hypervisor's own command line
NEXT = ".next"
Words = Mapping[str, str]


class BootOptions(Protocol):
    """Where a host keeps what it boots with. Words of options that are not given are not there."""

    def configured(self) -> Words:
        """What the next boot will have."""

    def base(self) -> Words:
        """What it would have without us: as it was before the first ``configure``."""

    def configure(self, want: Words) -> None:
        """Make these, and no others of ours, what the next boot has.

        Raises PreflightError, before anything changes, where another testbed has set some. Once
        they are as in ``base`` again, nothing is left of us.
        """

    def in_force(self, now: State | None = None) -> Words:
        """What the host runs with ``now`` (None = it is asked); ``of_xen`` for the hypervisor's."""


def of_xen(now: State) -> dict[str, str]:
    """Our options among those that the running hypervisor was booted with."""
    return canonical(now.info.boot)


def canonical(options: Words) -> dict[str, str]:
    """Those that are ours; a flag that is off is as one not given."""
    found = {name: value for name, value in options.items() if name in XEN - {PINNED}}
    return found | ({PINNED: xl.TRUE} if xl.flag(options.get(PINNED)) else {})


@dataclass(frozen=True, slots=True)
class Boot:
    """The tuning ``host.boot`` of one host."""

    host: Host
    options: BootOptions

    def read(self, now: State | None = None) -> Tuning:
        """As it is in force, and what the next boot would change."""
        return Tuning(BOOT[1], text(self.options.in_force(now), self.options.configured()))

    def put(self, want: Tuning, restart: Callable[[], None]) -> None:
        """Set the options, have the host restart where that takes one, and look at what came of it.

        Raises Unsupported, PreflightError before anything changes; Mismatch where the host came
        back with something else.
        """
        words = parse(want.value)
        pending = text(self.options.in_force(), self.options.configured())
        if NEXT in pending and self.options.configured() == self.options.base():
            raise PreflightError(
                f"{self.host.name}: its boot options were changed by somebody and never booted: "
                f"{pending}",
                hint="restart the host, or set them back, and try again",
            )
        self.options.configure(words)
        if self.options.in_force() != words:
            restart()
        if (now := self.options.in_force()) != words:
            raise Mismatch(
                f"{self.host.name}: asked to boot with {text(words)}; it runs with {text(now)}"
            )
        if reason := lacking(words, state(self.host)):
            raise Mismatch(f"{self.host.name}: booted with {text(words)}, but {reason}")


def text(words: Words, following: Words | None = None) -> str:
    """A tuning's value: the words, and those in which ``following`` differs."""
    after = words if following is None else following
    changed = (n for n in {*words, *after} if words.get(n) != after.get(n))
    every = dict(words) | {f"{name}{NEXT}": after.get(name, "") for name in changed}
    return " ".join(f"{name}={value}" for name, value in sorted(every.items()))


def parse(value: str) -> dict[str, str]:
    """Back from a tuning's value. Raises Unsupported for what is no option of ours."""
    pairs = [word.partition("=")[::2] for word in value.split()]
    found = {name: word for name, word in pairs if not name.endswith(NEXT)}
    if strange := sorted(found.keys() - XEN - {BACKEND}):
        raise Unsupported(f"{BOOT[1]}: no boot option of ours: {', '.join(strange)}")
    return found


def wanted(dom0: Dom0, base: Words, now: State) -> dict[str, str] | None:
    """The options that a spec's wishes come to, on top of the host's own; None = it has none.

    ``dom0_vcpus_pin`` puts vCPU n on CPU n; other pins are set while dom0 runs.
    """
    pin = cpus(dom0.pin) if dom0.pin is not None else None
    count = dom0.vcpus if dom0.vcpus is not None else len(pin) if pin is not None else None
    if count is None and dom0.memory_mib is None and dom0.network_backend is None:
        return None
    found = dict(base)
    has = len(now.vcpus) if of_xen(now) == canonical(base) else None
    if count is not None and count != has:
        found[VCPUS] = str(count)
    if pin is not None:
        found.pop(PINNED, None)
        if pin == tuple(range(len(pin))):
            found[PINNED] = xl.TRUE
    if dom0.memory_mib is not None:
        found[MEMORY] = f"{dom0.memory_mib}M,max:{dom0.memory_mib}M"
    if dom0.network_backend is not None:
        found[BACKEND] = dom0.network_backend
    return found


def lacking(words: Words, now: State) -> str:
    """What of the options dom0 itself does not show; "" = it is as they say."""
    count = words.get(VCPUS, "")
    if count.isdecimal() and int(count) != len(now.vcpus):
        return f"dom0 has {len(now.vcpus)} vCPUs"
    if PINNED in words and any(v.hard != str(v.number) for v in now.vcpus):
        return f"dom0's vCPUs may run on {now.pins}"
    return ""
