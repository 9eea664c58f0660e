"""Oracle VirtualBox on a Linux host, local or by SSH, through VBoxManage.

https://www.virtualbox.org/manual/ has each command. Guests are VMs ``TESTBED-GUEST``, linked clones
of a base VM, marked by the group that they are in; their NICs are bridged to the uplinks directly.
Why not libvirt's vbox driver: it has neither caps nor bandwidth nor linked clones, and speaks only
to versions that it was built for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from drivers.linux.net import LinuxNet
from drivers.linux.tuning import IRQ, LinuxTuning
from drivers.linux.uplinks import count
from drivers.virtualbox import fit, place, words
from drivers.virtualbox.guests import Guests
from drivers.virtualbox.manage import Manage, told
from drivers.virtualbox.sight import Sight
from provision.driver import Check, Dom0, Facts, Target, UplinkFacts, Usage, irq_tunings
from provision.errors import DriverError, Unsupported, UserError
from provision.host import Host, hang_up, ssh
from provision.resources import Guest, Key, Resource, Switch, Tuning, Uplink, label
from provision.state import own_sockets

HZ = 100  # USER_HZ, as in /proc/PID/stat
TAIL_BYTES = 16384
# VirtualBox gives each VM a process whose command line has the VM's UUID
_BUSY = r"""
for f in $(grep -asl VBoxHeadless /proc/[0-9]*/cmdline); do
  id=$(tr '\0' '\n' < "$f" 2>/dev/null | grep -A1 -x -e --startvm | tail -n 1)
  [ -z "$id" ] || { read -r line < "${f%/*}/stat" && echo "$id ${line##*) }"; } 2>/dev/null
done
:
"""


class Virtualbox:
    """The driver. ``host`` overrides where commands go; by default it follows from the URI."""

    takes_image = False
    capabilities = fit.CAPABILITIES

    def __init__(self, target: Target, host: Host | None = None) -> None:
        if target.start == "restore":
            raise Unsupported(
                "guests.start: VirtualBox's guests are booted from linked clones, it restores none",
                hint="guests.start: auto",
            )
        with ExitStack() as opening:
            self.host = host or opening.enter_context(_reached(target.uri))
            self.manage = Manage(self.host)
            self.place = place.look(self.manage, target.testbed, target.storage)
            self.net = LinuxNet(self.host, target.testbed, target.say)
            self.tuning = LinuxTuning(self.host, target.testbed)
            self.sight = Sight(self.manage, target.testbed)
            self.guests = Guests(target, self.manage, self.place, self.sight)
            self.facts = self._facts(target)
            self._closing = opening.pop_all()

    def read(self, key: Key) -> Resource | None:
        return self.look([key])[key]

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """As ``read``, of all at once."""
        keys = [*keys]
        guests = self.guests.look(name for kind, name in keys if kind == Guest.kind)
        found: dict[Key, Resource | None] = {}
        for key in keys:
            kind, name = key
            found[key] = guests[name] if kind == Guest.kind else self._state(key).read(key)
        return found

    def put(self, want: Resource) -> None:
        if isinstance(want, Switch):
            raise Unsupported(
                f"switch {want.name}: VirtualBox has no switch of type {want.flavour!r}: its "
                "guests are bridged to their uplinks directly"
            )
        if isinstance(want, Guest):
            self.guests.put(want)
        else:
            self._state((want.kind, want.name)).put(want)

    def drop(self, key: Key) -> None:
        kind, name = key
        if kind == Guest.kind:
            self.guests.drop(name)
        else:
            self._state(key).drop(key)

    def has_checkpoint(self, key: Key) -> bool:
        return self.guests.has_checkpoint(_guest(key))

    def checkpoint(self, key: Key) -> None:
        self.guests.checkpoint(_guest(key))

    def revert(self, key: Key) -> None:
        self.guests.revert(_guest(key))

    def owned(self) -> Iterable[Key]:
        with told("list guests"):
            return [(Guest.kind, name) for name in self.sight.names()]

    def usage(self) -> Usage:
        counts = count(self.host)
        with told("read counters"):
            by_id = _busy(self.host.run("sh", "-c", _BUSY))
            names = {words.vm_uuid(self.sight.testbed, n): n for n in self.sight.names()}
        busy = {name: by_id[uuid] for uuid, name in names.items() if uuid in by_id}
        return Usage(counts.at_s, counts.busy_s, busy, counts.nics, irqs=counts.irqs)

    def evidence(self, key: Key) -> Mapping[str, str]:
        kind, name = key
        return self.guests.evidence(name) if kind == Guest.kind else {}

    def examine(self) -> Iterator[Check]:
        at = self.place
        yield Check("VirtualBox's kernel modules", not at.device, at.device or "loaded",
                    "/sbin/vboxconfig")  # fmt: skip
        there = ", ".join(sorted(at.bases)) or "none"
        yield Check("base VMs", bool(at.bases), there, "VBoxManage snapshot VM take base")
        there = ", ".join(at.hostonly) or "none"
        fix = "VBoxManage hostonlyif create; or management.bridge: a NIC"
        yield Check("host-only networks", bool(at.hostonly), there, fix, needed=False)

    def console(self, key: Key) -> str:
        folder = words.folder(self.place.root, self.sight.testbed, _guest(key))
        path = f"{folder}/{words.CONSOLE}"
        return self.host.run("tail", "-c", str(TAIL_BYTES), path, check=False)

    def close(self) -> None:
        self._closing.close()

    def _state(self, key: Key) -> LinuxNet | LinuxTuning:
        if key[0] == Uplink.kind:
            return self.net
        if key[0] == Tuning.kind and key[1].startswith(IRQ):
            return self.tuning
        raise DriverError(f"{label(key)}: a host of VirtualBox has no {key[0]} of ours")

    def _facts(self, target: Target) -> Facts:
        at, can = self.place, fit.CAPABILITIES
        networks = frozenset({*at.bridged, *at.hostonly})
        judge = fit.Fit(at.name, networks, tuple(sorted(at.bases)), target.image is not None)
        why_not = self.tuning.why_not(IRQ)
        return Facts(
            hypervisor="virtualbox",
            version=at.version,
            host=at.name,
            cpus=at.cpus,
            memory_mib=at.memory_mib,
            accel=words.ACCEL,
            nic_models=can.nic_models,
            words=can.words,
            switch_flavours=can.switches,
            kinds=frozenset({Guest.kind, Uplink.kind, Tuning.kind}),
            uplinks=place.uplinks(self.net.uplinks(), at),
            addresses=self.net.addresses(),
            cannot=dict(can.refused) | ({"dom0.irq_affinity": why_not} if why_not else {}),
            change=fit.changes(),
            parallel={Guest.kind: 2 * at.cpus},
            knobs={k: v for k, v in self.tuning.knobs().items() if k.startswith(IRQ)},
            tunings=_tunings,
            notes=fit.NOTES,
            unfit=judge.unfit,
            management=can.management,
            most_nics=can.most_nics,
            mac_prefix=words.MAC_PREFIX,
        )


def _tunings(dom0: Dom0, uplinks: tuple[UplinkFacts, ...]) -> Iterable[Tuning]:
    return irq_tunings(dom0, uplinks)


def _busy(text: str) -> dict[str, float]:
    """CPU time by VM: utime and stime of proc(5), behind the name's bracket."""
    found = {}
    for line in text.splitlines():
        uuid, *fields = line.split()
        found[uuid] = (int(fields[11]) + int(fields[12])) / HZ
    return found


@contextmanager
def _reached(uri: str) -> Iterator[Host]:
    """Here, or the machine of ``ssh://user@host``, over a connection of this driver's own."""
    if not uri:
        yield Host()
        return
    parts = urlsplit(uri)
    if parts.scheme not in ("ssh", "vbox+ssh") or not parts.hostname or parts.path.strip("/"):
        raise UserError(f"hypervisor.uri {uri!r}: VirtualBox's host is reached by SSH",
                        hint="ssh://user@host; left out, it is this machine")  # fmt: skip
    target = f"ssh://{parts.netloc}" if parts.port else parts.netloc
    with own_sockets() as folder:
        host = ssh(target, control=Path(folder))
        try:
            yield host
        finally:
            hang_up(host)


def _guest(key: Key) -> str:
    kind, name = key
    if kind != Guest.kind:
        raise Unsupported(f"{label(key)} is no guest")
    return name
