"""Guests that are OpenVZ's containers: read, put and drop.

What was asked of a guest is a file on the host, since libvirt's driver keeps no metadata; it is
written before the container is made, so that one half made is known for ours. What that driver
cannot do right is done by OpenVZ's own tools: libvirt 9.0 hands ``vzctl`` a pointer for the name
of a template, so the template is unpacked here; its calls for memory limits refuse the flag that
libvirt itself adds to them; and to undefine a container it runs ``vzctl start destroy``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import libvirt

from drivers.libvirt.connect import Connection, told
from drivers.libvirt.domains import GONE
from drivers.libvirt.marks import domain_uuid, tap, vnics
from drivers.libvirt.wires import rewire, wired
from drivers.linux.kept import Kept
from drivers.linux.links import View, view
from drivers.linux.script import Script
from drivers.openvz.facts import LIVE, OPENVZ, VETH
from drivers.openvz.xml import as_told, domain, number, parse
from provision.driver import Target
from provision.errors import DriverError, Foreign, Unsupported
from provision.resources import Guest, changed, dump, key
from provision.seed import Identity

# it fails where there are no containers
_LIST = "PATH=$PATH:/usr/sbin:/sbin; vzlist -a -H -o veid,status,privvmpages.l"
_VZCTL = 'PATH=$PATH:/usr/sbin:/sbin; exec vzctl --quiet "$@"'
#: vz.conf is shell, and its VE_PRIVATE has $VEID in it
_PRIVATE = """
VEID=$1; . /etc/vz/vz.conf; echo "${VE_PRIVATE:-/vz/private/$VEID}"
"""
_UNPACK = """
at=$1 name=$2; . /etc/vz/vz.conf
for file in "${TEMPLATE:-/vz/template}/cache/$name".tar*; do
  [ -e "$file" ] || { echo "no $file" >&2; exit 1; }
  rm -rf --one-file-system "$at"; mkdir -p "$at"; tar -C "$at" --numeric-owner -xpf "$file"
  exit
done
"""
_BECOME = """
set -e
umask 077
name={hostname}
hostname "$name"; echo "$name" > /etc/hostname
mkdir -p /root/.ssh /etc/ssh
printf '%s\\n' {authorized_key} > /root/.ssh/authorized_keys
rm -f /etc/ssh/ssh_host_*; printf '%s' {host_key} > /etc/ssh/ssh_host_ed25519_key
nic() {{ ip -o link show | grep -i "$1" | cut -d: -f2 | cut -d@ -f1 | tr -d ' '; }}
{nics}
service ssh restart || service sshd restart
"""
_NIC = """at=$(nic {mac}); [ -n "$at" ] || {{ echo "no NIC {mac}" >&2; exit 1; }}
ip link set "$at" mtu {mtu} up; ip -4 addr flush dev "$at"; ip addr add {address} dev "$at"
"""
PAGES_PER_MIB = 256
UNPACK_S = 600


@dataclass(frozen=True, slots=True)
class Status:
    """A container as ``vzlist`` tells it; no limit at all is a very large one."""

    running: bool
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Guests:
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names."""

    link: Connection
    target: Target

    @property
    def kept(self) -> Kept:
        return Kept(self.link.host, self.target.folder / OPENVZ)

    def look(self, names: Iterable[str]) -> dict[str, Guest | None]:
        """As they are, of whom the host is asked once."""
        names, known = list(names), self.kept.look()
        if not names or not known:
            return dict.fromkeys(names)
        there, net = self._statuses(), view(self.link.host, ovs=True)
        found: dict[str, Guest | None] = {}
        for name in names:
            domain_, ours = self._find(name, there)
            asked = known[name][0] if name in known else None
            fine = domain_ is not None and ours and asked is not None
            found[name] = self._as_is(domain_, asked, there, net) if fine and asked else None
        return found

    def console(self, name: str) -> str:
        """What is left of its console's output."""
        return self.kept.console(name)

    def names(self) -> list[str]:
        """The guests that there are, and those half made."""
        there = self._statuses()
        return [name for name in self.kept.look() if self._number(name) in there]

    def put(self, want: Guest) -> None:
        """As ``Driver.put``: CPUs and memory change live, all else by a new container."""
        self._refuse(want)
        known, there = self.kept.look(), self._statuses()
        net = view(self.link.host, ovs=True)
        found, ours = self._own(want.name, there, made=want.name in known)
        if absent := {v.switch for v in vnics(want)} - net.links.keys():
            raise DriverError(
                f"guest {want.name} needs switch {', '.join(sorted(absent))}, which "
                f"{self.link.host.name} has not"
            )
        asked = known[want.name][0] if want.name in known else None
        with told(f"put guest {want.name}"):
            have = self._as_is(found, asked, there, net) if ours and asked else None
            if have == want:
                return
            if asked and have and have.running and rewire(
                self.link.host, asked, want, self._taps(asked), net
            ):  # fmt: skip
                have = self._as_is(found, asked, there, view(self.link.host, ovs=True))
            differ = {*changed(have, want)} if have else {"name"}
            if not differ:
                return
            mends = have is not None and differ <= {"running", *LIVE}
            if not mends:
                self._clear(want.name, found, there)
                if found and not ours:  # libvirt made up a UUID for it, and remembers that one
                    self.link.reopen()
            self.kept.write(want.name, {"guest.json": _json(want)})
            if not mends:
                found = self._make(want)
            elif differ & {*LIVE}:
                self._hold(found, want)
            runs = mends and have is not None and have.running
            if want.running and not runs:
                self._start(found, want)
            elif runs and not want.running and found:
                found.destroy()

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the container with its files, and what was asked."""
        there = self._statuses()
        made = name in self.kept.look()
        found, _ = self._own(name, there, made=made)
        with told(f"drop guest {name}"):
            self._clear(name, found, there)
        if made:  # its files may be there before it is
            self.link.host.run("rm", "-rf", "--one-file-system", self._private(name))
        self.kept.remove(name)

    def busy_s(self) -> dict[str, float]:
        """CPU time of each guest that runs."""
        there, busy = self._statuses(), {}
        for name in self.kept.look():
            found, ours = self._find(name, there)
            if found is not None and ours and there[self._number(name)].running:
                with told(f"CPU time of guest {name}"):
                    busy[name] = found.info()[4] / 1e9
        return busy

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest is run."""
        if self.look([name])[name] is None:
            return {}
        return {"accel": OPENVZ, "started": "started", "container": str(self._number(name))}

    def _number(self, name: str) -> int:
        return number(self.target.testbed, name)

    def _taps(self, guest: Guest) -> list[str]:
        return [tap(self.target.testbed, guest.name, n) for n in range(len(vnics(guest)))]

    def _statuses(self) -> dict[int, Status]:
        """Each container of the host; libvirt knows of those that it made or met."""
        return statuses(self.link.host.run("sh", "-c", _LIST, check=False))

    def _find(self, name: str, there: Mapping[int, Status]) -> tuple[Any | None, bool]:
        """The container of that number, and whether it bears the guest's UUID."""
        at = self._number(name)
        if at not in there:
            return None, False
        with told(f"look up guest {name}"):
            try:
                found = self.link.conn.lookupByName(str(at))
            except libvirt.libvirtError as e:
                if e.get_error_code() in GONE:
                    return None, False
                raise
            return found, found.UUIDString() == str(domain_uuid(self.target.testbed, name))

    def _own(
        self, name: str, there: Mapping[int, Status], *, made: bool
    ) -> tuple[Any | None, bool]:
        """As ``_find``, but raises Foreign where the container is another's.

        ``made``: its number was free when we began to make it. libvirt sets the UUID after that.
        """
        found, ours = self._find(name, there)
        at = self._number(name)
        if at in there and not (found is not None and (ours or made)):
            raise Foreign(
                f"container {at} exists on {self.link.host.name} without our mark",
                hint=f"look at it: vzlist -a {at}",
            )
        return found, ours

    def _refuse(self, want: Guest) -> None:
        for vnic in vnics(want):
            if vnic.model != VETH:
                raise Unsupported(
                    f"guest {want.name}: a container has no vNIC model {vnic.model!r}",
                    hint=f"use {VETH}",
                )

    def _as_is(self, found: Any, asked: Guest, there: Mapping[int, Status], net: View) -> Guest:
        with told(f"read guest {asked.name}"):
            guest = as_told(asked, self.target.testbed, parse(found.XMLDesc()))
        status = there[self._number(asked.name)]
        if not status.running:
            return replace(guest, running=False)
        guest = replace(guest, memory_mib=status.memory_mib, running=True)
        guest = wired(guest, self._taps(asked), net)
        mtus = [
            replace(vnic, mtu=net.links[at].mtu) if at in net.links else vnic
            for vnic, at in zip(vnics(guest), self._taps(asked), strict=True)
        ]
        return replace(guest, management=mtus[0], nics=tuple(mtus[1:]))

    def _hold(self, found: Any, want: Guest) -> None:
        """To its CPUs and memory, now and later."""
        found.setVcpusFlags(want.vcpus, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self._hold_memory(want)

    def _hold_memory(self, want: Guest) -> None:
        pages = want.memory_mib * PAGES_PER_MIB
        self._vzctl("set", want.name, "--privvmpages", f"{pages}:{pages}", "--save")

    def _private(self, name: str) -> str:
        """Where the container's files are."""
        at = str(self._number(name))
        return self.link.host.run("sh", "-ec", _PRIVATE, "private", at).strip()

    def _vzctl(self, verb: str, name: str, *words: str, text: str = "") -> None:
        at = str(self._number(name))
        self.link.host.run("sh", "-c", _VZCTL, "vzctl", verb, at, *words, input=text)

    def _make(self, want: Guest) -> Any:
        """The container, with its limits, from its template's files."""
        private = self._private(want.name)
        self.target.say(key(want), "unpacking")
        words = ("unpack", private, want.image)
        self.link.host.run("sh", "-ec", _UNPACK, *words, timeout_s=UNPACK_S)
        found = self.link.conn.defineXML(domain(want, self.target.testbed, private))
        self._hold_memory(want)
        return found

    def _start(self, found: Any, want: Guest) -> None:
        """Started, its ends on their bridges, and made somebody."""
        if self.target.identity is None:
            raise DriverError(f"guest {want.name}: nobody says who it is")
        self.target.say(key(want), "starting")
        found.create()
        script = Script()
        for at, vnic in zip(self._taps(want), vnics(want), strict=True):
            script.ip("link", "set", at, "mtu", str(vnic.mtu))
            script.ip("link", "set", at, "master", vnic.switch)  # old vzctl leaves it out
            script.ip("link", "set", at, "up")
        script.run(self.link.host)
        self._vzctl("exec2", want.name, "-", text=become(self.target.identity(want)))

    def _clear(self, name: str, found: Any, there: Mapping[int, Status]) -> None:
        at = self._number(name)
        if found is None or at not in there:
            return
        if there[at].running:
            found.destroy()
        self._vzctl("destroy", name)


def statuses(text: str) -> dict[int, Status]:
    """What ``vzlist`` printed, by number. It says "-" of what it does not know."""
    words = [line.split() for line in text.splitlines()]
    return {
        int(w[0]): Status(w[1] == "running", int(w[2].replace("-", "0")) // PAGES_PER_MIB)
        for w in words
        if len(w) == 3 and w[0].isdigit()
    }


def become(who: Identity) -> str:
    """What makes a container somebody, for its own shell; secrets are in no argv."""

    def lines() -> Iterator[str]:
        for nic in who.nics:
            yield _NIC.format(mac=nic.mac, mtu=nic.mtu, address=nic.address)

    return _BECOME.format(
        hostname=shlex.quote(who.hostname),
        authorized_key=shlex.quote(who.authorized_key),
        host_key=shlex.quote(who.host_key),
        nics="".join(lines()),
    )


def _json(guest: Guest) -> str:
    return json.dumps(dump(guest), sort_keys=True)
