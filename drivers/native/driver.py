"""The baseline: no hypervisor. Guests are this host with the uplinks for NICs.

``guests.virt: host`` (the default) leaves the NICs where they are, each with its guest's address;
``namespace`` gives each guest a network namespace with its NICs in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from drivers.linux.cells import lacks
from drivers.linux.machine import look
from drivers.linux.net import LinuxNet
from drivers.linux.tuning import LinuxTuning
from drivers.linux.uplinks import count
from drivers.native.facts import CAPABILITIES, CHANGE, HOST, NAMESPACE, tunings
from drivers.native.guests import Guests
from provision.driver import LOOKS_AT_ONCE, Check, Facts, Target, UplinkFacts, Usage
from provision.errors import DriverError, Unsupported, UserError
from provision.host import Host, ssh
from provision.resources import Guest, Key, Resource, Switch, Tuning, Uplink, label
from provision.state import sockets


class Native:
    """The driver. ``host`` overrides where commands go; by default it follows from the URI."""

    takes_image = False
    capabilities = CAPABILITIES

    def __init__(self, target: Target, host: Host | None = None) -> None:
        self.host = host or _host(target.uri)
        self._machine = look(self.host)
        self.net = LinuxNet(self.host, target.testbed, target.say)
        self.tuning = LinuxTuning(self.host, target.testbed)
        self.guests = Guests(self.host, target, self._machine)
        self.facts = self._facts()

    def read(self, key: Key) -> Resource | None:
        kind, name = key
        if kind == Guest.kind:
            return self.guests.look([name])[name]
        return self._room(key, self.guests.homes()).read(key)

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once."""
        keys = list(keys)
        guests = self.guests.look(name for kind, name in keys if kind == Guest.kind)
        homes = self.guests.homes()
        others = [key for key in keys if key[0] != Guest.kind]
        with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="read") as pool:
            seen = pool.map(lambda key: self._room(key, homes).read(key), others)
            found: dict[Key, Resource | None] = dict(zip(others, seen, strict=True))
        return found | {(Guest.kind, name): guest for name, guest in guests.items()}

    def put(self, want: Resource) -> None:
        match want:
            case Guest():
                self.guests.put(want)
            case Uplink() | Tuning():
                self._room((want.kind, want.name), self.guests.homes()).put(want)
            case Switch():
                raise Unsupported(
                    f"switch {want.name}: a native host has none, not even a {want.flavour!r}"
                )
            case _:
                raise DriverError(f"a native host has no {want.kind}")

    def drop(self, key: Key) -> None:
        if key[0] != Guest.kind:
            raise DriverError(f"{label(key)} cannot be dropped, only put back as it was")
        self.guests.drop(key[1])

    def checkpoint(self, key: Key) -> None:
        raise Unsupported(f"{label(key)}: {CAPABILITIES.checkpoint}")

    def revert(self, key: Key) -> None:
        raise DriverError(f"{label(key)}: {CAPABILITIES.checkpoint}")

    def owned(self) -> Iterable[Key]:
        return [(Guest.kind, name) for name in self.guests.names()]

    def usage(self) -> Usage:
        counts = count(self.host)
        return Usage(
            counts.at_s, counts.busy_s, self.guests.busy_s(), counts.nics, irqs=counts.irqs
        )

    def evidence(self, key: Key) -> Mapping[str, str]:
        return self.guests.evidence(key[1]) if key[0] == Guest.kind else {}

    def examine(self) -> Iterator[Check]:
        machine, why = self._machine, lacks(self.host)
        root = "root" if machine.root else "not root"
        yield Check("privileges there", machine.root, root, "sudo provision …, or ssh://root@host")
        yield Check("sshd", bool(machine.sshd), machine.sshd or "missing",
                    "apt-get install openssh-server")  # fmt: skip
        yield Check("python3", machine.python, "3.9 or later" if machine.python else "missing",
                    "apt-get install python3")  # fmt: skip
        version = "v2" if machine.v2 else "v1"
        yield Check("control groups", not why, why or version, "mount the controllers")

    def console(self, key: Key) -> str:
        return self.guests.console(key[1])

    def close(self) -> None:
        """Nothing is held open."""

    def _room(self, key: Key, homes: Mapping[str, Host]) -> LinuxNet | LinuxTuning:
        """Who keeps a NIC or a knob, at the place where the NIC is now."""
        kind, name = key
        if kind == Uplink.kind:
            at = homes.get(name)
            return LinuxNet(at, self.net.testbed, self.net.say) if at else self.net
        if kind == Tuning.kind:
            at = next((homes[part] for part in name.split("/") if part in homes), None)
            return LinuxTuning(at, self.net.testbed) if at else self.tuning
        raise DriverError(f"a native host has no {kind}")

    def _uplinks(self) -> tuple[UplinkFacts, ...]:
        """The host's NICs, those that guests have in namespaces included."""
        homes = self.guests.homes()
        places = {home.name: home for home in homes.values()}.values()
        inside = [
            uplink
            for home in places
            for uplink in LinuxNet(home, self.net.testbed).uplinks()
            if uplink.name in homes
        ]
        return (*self.net.uplinks(), *inside)

    def _facts(self) -> Facts:
        machine = self._machine
        why = lacks(self.host)
        lost = dict.fromkeys(("guests.cpu.weight", "guests.cpu.cap_percent"), why) if why else {}
        return Facts(
            hypervisor="native",
            version=f"Linux {machine.release}",
            host=machine.name,
            cpus=machine.cpus,
            memory_mib=machine.memory_mib,
            accel=HOST,
            nic_models=CAPABILITIES.nic_models,
            words=CAPABILITIES.words,
            switch_flavours=(),
            kinds=frozenset({Guest.kind, Tuning.kind, Uplink.kind}),
            uplinks=self._uplinks(),
            addresses=self.net.addresses(),
            windows=CAPABILITIES.windows,
            cannot={**CAPABILITIES.refused, **self.tuning.knobless(), **lost},
            change=CHANGE,
            knobs=self.tuning.knobs(),
            tunings=tunings,
            notes={"system": machine.system},
            virts={HOST: "", NAMESPACE: ""},
            most_nics=CAPABILITIES.most_nics,
            mac_prefix="",
            checkpoint=CAPABILITIES.checkpoint,
            limits="groups",
        )


def _host(uri: str) -> Host:
    """The machine itself, or that of an ``ssh://`` URI; raises UserError for any other."""
    if not uri:
        return Host()
    parts = urlsplit(uri)
    if parts.scheme != "ssh" or not parts.netloc:
        raise UserError(
            f"hypervisor.uri {uri!r}: a native host is this machine, or reached by SSH",
            hint="hypervisor.uri: ssh://root@host",
        )
    return ssh(f"ssh://{parts.netloc}", control=sockets())
