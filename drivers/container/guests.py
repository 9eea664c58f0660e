"""Guests that are containers: read, put, drop, checkpoint and revert.

A guest has its folder: what was asked, the layer that it writes (``upper``), the layer as it was
when it was clean (``clean``), and the runtime's bundle. Its NICs are veth pairs into a namespace.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from drivers.container import oci, tree
from drivers.container.facts import CONTAINER, VETH
from drivers.container.runtime import RUNNING, Runtime, State
from drivers.libvirt.marks import tap, vnics
from drivers.libvirt.wires import NOWHERE, rewire, wired
from drivers.linux import veths
from drivers.linux.cells import LIVE, Cell, as_is, check
from drivers.linux.hosted import Housed
from drivers.linux.links import Link, View, mark, sections, view
from drivers.linux.namespaces import EACH
from drivers.linux.script import Script
from drivers.linux.shaping import mbit, shape
from drivers.linux.veths import Veth
from provision.errors import DriverError, Foreign, PreflightError, Unsupported
from provision.resources import Guest, Vnic, changed, dump, key
from provision.seed import Identity

_QDISCS = f"""{EACH}
echo @@; tc -json qdisc show
arguments="-json qdisc show"
each tc "$@"
"""
_UNMOUNT = """
cd "$1" 2>/dev/null || exit 0
while grep -qs " $PWD/rootfs overlay " /proc/mounts; do umount rootfs || exit; done
"""
_MOUNT = """
cd "$1" && mkdir -p -m 755 upper work rootfs
grep -qs " $PWD/rootfs overlay " /proc/mounts ||
  mount -t overlay overlay -o "lowerdir=$2,upperdir=$PWD/upper,workdir=$PWD/work" rootfs
"""
_KEEP = """
cd "$1" && rm -rf clean.part && cp -a upper clean.part && rm -rf clean && mv clean.part clean
"""
_BACK = """
cd "$1" && rm -rf upper.part && cp -a clean upper.part && rm -rf upper work && mv upper.part upper
"""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The host as the guests are on it."""

    there: dict[str, State]
    cells: Mapping[str, Cell]
    net: View
    inside: Mapping[str, Mapping[str, Link]]
    qdiscs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Guests(Housed):
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names."""

    store = "containers"

    @property
    def runtime(self) -> Runtime:
        return Runtime(self.host, self.target.testbed)

    def look(self, names: Iterable[str]) -> dict[str, Guest | None]:
        """As they are, of whom the host is asked once."""
        names, known = list(names), self.kept.look()
        if not names or not known:
            return dict.fromkeys(names)
        seen = self._seen(known)
        return {name: self._one(name, known, seen) for name in names}

    def put(self, want: Guest) -> None:
        """As ``Driver.put``: limits change live, NICs by a restart on the same layer."""
        self._refuse(want)
        known = self.kept.look()
        seen = self._seen([*known, want.name])
        self._refuse_foreign(want, seen)
        absent = {v.switch for v in vnics(want)} - seen.net.links.keys() - seen.net.bridges.keys()
        if absent:
            raise DriverError(
                f"guest {want.name} needs switch {', '.join(sorted(absent))}, which "
                f"{self.machine.name} has not"
            )
        asked = known[want.name][0] if want.name in known else None
        have = self._as_is(asked, seen) if asked else None
        if have == want:
            return
        if asked and have and have.running and rewire(
            self.host, asked, want, self._taps(asked), seen.net
        ):  # fmt: skip
            seen = self._seen([want.name])
            have = self._as_is(asked, seen)
        differ = set(changed(have, want)) if have else set()
        if asked and have and have.running and differ <= {*LIVE}:
            self.kept.write(want.name, {"guest.json": _json(want)})
            self.cells.put(want)
            return
        if asked and asked.image != want.image:
            self.drop(want.name)
        elif asked:
            self._stop(asked)
        self._make(want)

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the container, its NICs, layers and console."""
        known = self.kept.look().get(name)
        seen = self._seen([name])
        asked = known[0] if known else None
        self.runtime.refuse(name, seen.there)
        if asked:
            self._refuse_foreign(asked, seen)
            self._stop(asked)
        elif self.runtime.name(name) in seen.there:
            self.runtime.remove(name)
        self.kept.remove(name)

    def has_checkpoint(self, name: str) -> bool:
        """As ``Keeper.has_checkpoint``."""
        at = str(self.kept.folder(name) / "clean")
        return bool(self.host.run("sh", "-c", '[ ! -d "$1" ] || echo yes', "kept", at))

    def checkpoint(self, name: str) -> None:
        """As ``Driver.checkpoint``: the layer that the guest writes, while it stands still."""
        asked = self._there(name)
        running = self._seen([name]).there[self.runtime.name(name)].status == RUNNING
        if running:
            self.runtime.pause(asked.name)
        try:
            self.host.run("sh", "-ec", _KEEP, "keep", str(self.kept.folder(name)))
        finally:
            if running:
                self.runtime.resume(asked.name)

    def revert(self, name: str) -> None:
        """As ``Driver.revert``: started from the layer that was remembered."""
        asked = self._there(name)
        if not self.has_checkpoint(name):
            raise DriverError(
                f"guest {name} has no checkpoint", hint="provision reset --level recreate"
            )
        self._stop(asked)
        self.host.run("sh", "-ec", _BACK, "back", str(self.kept.folder(name)))
        self._make(replace(asked, running=True))

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest is run."""
        if self.look([name])[name] is None:
            return {}
        return {
            "accel": CONTAINER,
            "started": "started",
            "runtime": f"runc {self.machine.runc_version}",
        }

    def _there(self, name: str) -> Guest:
        known = self.kept.look().get(name)
        if known is None:
            raise DriverError(f"guest {name} does not exist, and has no checkpoint")
        return known[0]

    def _taps(self, guest: Guest) -> list[str]:
        return [tap(self.target.testbed, guest.name, n) for n in range(len(vnics(guest)))]

    def _seen(self, names: Iterable[str]) -> _Seen:
        spaces = [self.namespace(name) for name in names]
        return _Seen(
            self.runtime.look(),
            self.cells.look(),
            view(self.host, ovs=True),
            self.namespaces.inside(spaces),
            sections(self.host.run("sh", "-c", _QDISCS, "qdiscs", *spaces)),
        )

    def _refuse(self, want: Guest) -> None:
        for vnic in vnics(want):
            if vnic.model != VETH:
                raise Unsupported(
                    f"guest {want.name}: a container has no vNIC model {vnic.model!r}",
                    hint=f"use {VETH}",
                )
        check(want, v2=self.machine.v2)
        if not self.machine.runc:
            raise PreflightError(
                f"{self.machine.name}: runc is missing, which runs containers",
                hint="apt-get install runc",
            )
        if not self.machine.overlay:
            raise PreflightError(
                f"{self.machine.name}: the kernel has no overlayfs, which guests' disks are",
                hint="modprobe overlay",
            )

    def _refuse_foreign(self, guest: Guest, seen: _Seen) -> None:
        self.runtime.refuse(guest.name, seen.there)
        there = dict(seen.net.links)
        veths.refuse(self.target.testbed, self._taps(guest), there, self.machine.name)
        inside = seen.inside.get(self.namespace(guest.name))
        if inside is not None and inside["lo"].alias != mark(self.target.testbed):
            self.namespaces.is_there(self.namespace(guest.name))

    def _one(self, name: str, known: Mapping[str, tuple[Guest, int]], seen: _Seen) -> Guest | None:
        if name not in known:
            return None
        asked = known[name][0]
        try:
            self._refuse_foreign(asked, seen)
        except Foreign:
            return None
        return self._as_is(asked, seen)

    def _as_is(self, asked: Guest, seen: _Seen) -> Guest:
        state = seen.there.get(self.runtime.name(asked.name))
        cell = seen.cells.get(asked.name)
        if state is None or state.status != RUNNING or cell is None:
            return replace(asked, running=False)
        guest = as_is(replace(asked, running=True), cell.limits, self.machine.cpus)
        guest = wired(guest, self._taps(asked), seen.net)
        space = self.namespace(asked.name)
        names = {nic.mac: nic for nic in seen.inside.get(space, {}).values()}
        found = [
            self._nic(vnic, names.get(vnic.mac), at, space, seen)
            for vnic, at in zip(vnics(guest), self._taps(asked), strict=True)
        ]
        return replace(guest, management=found[0], nics=tuple(found[1:]))

    def _nic(self, vnic: Vnic, link: Link | None, at: str, space: str, seen: _Seen) -> Vnic:
        if link is None or not link.up:
            return replace(vnic, switch=NOWHERE)
        address = "+".join(a.text for a in link.ipv4)
        rates = {
            mbit(seen.qdiscs.get("", ""), at),
            mbit(seen.qdiscs.get(space, ""), link.name),
        }
        rate = rates.pop() if len(rates) == 1 else 0
        return replace(vnic, address=address, mtu=link.mtu, rate_mbit=rate)

    def _make(self, want: Guest) -> None:
        """Where nothing runs: namespace, NICs, layers, groups, container."""
        if self.target.identity is None:
            raise DriverError(f"guest {want.name}: nobody says who it is")
        say: Callable[[str], None] = lambda phase: self.target.say(key(want), phase)  # noqa: E731
        lower = tree.ensure(self.target.image, want.image, say)
        folder, space = self.kept.folder(want.name), self.namespace(want.name)
        group, had = self.cells.name(want.name), self.machine.capabilities
        text = oci.config(self.target.testbed, want.name, space, group, had=had)
        self.kept.write(want.name, {"config.json": text, "guest.json": _json(want)})
        self._become(folder / "upper", self.target.identity(want))
        self.cells.put(want)
        self.namespaces.make(space)
        self._plug(want, space)
        self.host.run("sh", "-ec", _MOUNT, "mount", str(folder), str(lower))
        if want.running:
            say("starting")
            self.runtime.start(want.name, folder)

    def _plug(self, want: Guest, space: str) -> None:
        seen, script = view(self.host, ovs=True), Script()
        names = ["mgmt", *(f"link{n}" for n in range(1, len(want.nics) + 1))]
        for at, name, vnic in zip(self._taps(want), names, vnics(want), strict=True):
            veths.make(script, self.target.testbed, space, Veth(at, name, vnic))
            if vnic.switch in seen.bridges:
                script.run_words("ovs-vsctl", "--timeout=30", "--may-exist", "add-port",
                                 vnic.switch, at)  # fmt: skip
            else:
                script.ip("link", "set", at, "master", vnic.switch)
            script.ip("link", "set", at, "up")
            if vnic.rate_mbit is not None:
                shape(script, ((at, ""), (name, space)), vnic.rate_mbit)
        script.run(self.host)

    def _stop(self, guest: Guest) -> None:
        """All but what is kept in the folder."""
        self.runtime.remove(guest.name)
        self.cells.end(guest.name)
        folder = str(self.kept.folder(guest.name))
        self.host.run("sh", "-ec", _UNMOUNT, "unmount", folder)
        seen, script = view(self.host, ovs=True), Script()
        for bridge in seen.bridges.values():
            for at in set(self._taps(guest)) & bridge.ports.keys():
                script.run_words("ovs-vsctl", "--timeout=30", "--if-exists", "del-port", at)
        there = dict(seen.links)
        veths.remove(script, self.target.testbed, self._taps(guest), there, self.machine.name)
        script.run(self.host)
        self.namespaces.remove(self.namespace(guest.name))

    def _become(self, upper: Path, who: Identity) -> None:
        """What makes the guest somebody, in the layer that it writes; secrets are in no argv."""
        files = {
            "etc/hostname": (f"{who.hostname}\n", "644"),
            "etc/hosts": (f"127.0.0.1 localhost\n127.0.1.1 {who.hostname}\n", "644"),
            "etc/machine-id": (f"{who.machine_id}\n", "444"),
            "etc/ssh/ssh_host_ed25519_key": (who.host_key, "600"),
            "root/.ssh/authorized_keys": (f"{who.authorized_key}\n", "600"),
        }
        lines = [
            "umask 022",
            f"mkdir -p {quote(str(upper))} && cd {quote(str(upper))}",
            "mkdir -p etc/ssh root/.ssh && chmod 700 root root/.ssh",
        ]
        for name, (text, mode) in files.items():
            lines.append(f"rm -f {name}; (umask 077; printf %s {quote(text)} > {name})")
            lines.append(f"chmod {mode} {name}")
        self.host.run("sh", "-es", input="\n".join(lines))


def _json(guest: Guest) -> str:
    return json.dumps(dump(guest), sort_keys=True)
