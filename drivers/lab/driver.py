"""The load generator as a driver: its ports and, where it is emulated, all of it.

Kinds ``namespace`` (mark: the alias of its ``lo``), ``cable`` (mark: the alias of both ends) and
``port``. A real load generator has ports only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from drivers.lab.cables import Cables
from drivers.lab.ports import Ports
from drivers.linux.links import view
from drivers.linux.namespaces import Namespaces
from drivers.linux.uplinks import count, uplinks
from provision.driver import Change, Check, Facts, UplinkFacts, Usage
from provision.errors import DriverError, HostError, Unreachable, Unsupported
from provision.host import Host
from provision.resources import STATES, Cable, Key, Namespace, Port, Resource, key, label

_FACTS = "uname -r; getconf _NPROCESSORS_ONLN; grep MemTotal: /proc/meminfo"


class Lab:
    """See the module. ``namespace`` is the emulated load generator's, on ``host``; else None.

    Raises Unreachable where the host does not answer.
    """

    def __init__(self, host: Host, testbed: str, namespace: str | None) -> None:
        self.host = host
        self.testbed = testbed
        self.machine = host.inside(namespace) if namespace else host
        self._ports = Ports(self.machine, testbed, real=namespace is None)
        self._cables = Cables(host, testbed, namespace) if namespace else None
        self._namespaces = Namespaces(host, testbed)
        self.facts = _facts(host, emulated=namespace is not None)

    def ports(self) -> tuple[UplinkFacts, ...]:
        """The load generator's NICs, and what uses them already."""
        return uplinks(self.machine, self.testbed)

    def read(self, key: Key) -> Resource | None:
        kind, name = key
        if kind == Port.kind:
            return self._port(name)
        if kind == Cable.kind:
            return self._emulated(key).read(name)
        self._emulated(key)
        return Namespace(name) if self._namespaces.is_ours(name) else None

    def put(self, want: Resource) -> None:
        """As ``Driver.put``. Raises PreflightError where something else uses a port."""
        match want:
            case Port():
                self._ports.put(want)
            case Cable():
                self._emulated(key(want)).put(want)
            case Namespace():
                self._emulated(key(want))
                self._namespaces.make(want.name)
            case _:
                raise DriverError(f"a load generator has no {want.kind}")

    def drop(self, key: Key) -> None:
        """As ``Driver.drop``. Whatever runs in a namespace of ours is ended first."""
        kind, name = key
        if kind in STATES:
            raise DriverError(f"{label(key)} cannot be dropped, only put back as it was")
        if kind == Cable.kind:
            self._emulated(key).drop(name)
        else:
            self._emulated(key)
            self._namespaces.remove(name)

    def owned(self) -> Iterable[Key]:
        """Cables and namespaces; a real load generator has only states, which the journal knows."""
        if self._cables is None:
            return []
        links = view(self.host).links.values()
        found = [(Cable.kind, link.name) for link in links if self._cables.is_ours(link)]
        if self._namespaces.is_ours(self._cables.namespace):
            found.append((Namespace.kind, self._cables.namespace))
        return found

    def usage(self) -> Usage:
        counts = count(self.machine)
        return Usage(counts.at_s, counts.busy_s, {}, counts.nics)

    def evidence(self, key: Key) -> Mapping[str, str]:
        return {}

    def examine(self) -> Iterable[Check]:
        return ()

    def console(self, key: Key) -> str:
        return ""

    def checkpoint(self, key: Key) -> None:
        raise Unsupported(f"{label(key)}: a load generator has no checkpoints")

    def revert(self, key: Key) -> None:
        raise Unsupported(f"{label(key)}: a load generator has no checkpoints")

    def close(self) -> None:
        """Nothing is held open."""

    def _port(self, name: str) -> Port | None:
        try:
            return self._ports.read(name)
        except (HostError, Unreachable):  # ip and ssh both end with 255 when they get nowhere
            cables = self._cables
            if cables is not None and not self._namespaces.aliases(cables.namespace):
                return None  # the machine itself is not there yet
            raise

    def _emulated(self, key: Key) -> Cables:
        if self._cables is None:
            raise DriverError(f"{label(key)}: {self.host.name} is a real machine, with real cables")
        return self._cables


def _facts(host: Host, *, emulated: bool) -> Facts:
    release, cpus, memory = host.run("sh", "-ec", _FACTS).splitlines()
    kinds = {Port.kind, Namespace.kind, Cable.kind} if emulated else {Port.kind}
    return Facts(
        hypervisor="lab", version=release, host=host.name, cpus=int(cpus), accel="none",
        memory_mib=int(memory.split()[1]) // 1024, nic_models={}, words={},
        switch_flavours=(), kinds=frozenset(kinds),
        change={(Cable.kind, "rate_mbit"): Change.LIVE},
    )  # fmt: skip
