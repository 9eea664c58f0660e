"""Guests that are the host itself: an address on the uplink, control groups, and an sshd of ours.

A guest is reached over a veth pair into a namespace that holds nothing but its sshd's listening
socket: a port 22 that the host's own sshd does not have. What is run over it runs on the host, in
the guest's control groups. Its folder holds what was asked, written before anything is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from shlex import quote

from drivers.libvirt.marks import tap
from drivers.libvirt.wires import NOWHERE
from drivers.linux import veths
from drivers.linux.cells import LIVE, Cell, as_is, check
from drivers.linux.hosted import Housed
from drivers.linux.links import Link, View, mark, view
from drivers.linux.script import Script
from drivers.linux.shaping import mbit, shape
from drivers.linux.uplinks import NAME_MAX, address_label, is_ours, nic, refuse_used
from drivers.linux.veths import Veth
from drivers.native.facts import NAMESPACE, UPLINK
from provision.errors import DriverError, Foreign, PreflightError, Unsupported
from provision.host import Host
from provision.resources import Guest, Vnic, changed, dump

MANAGEMENT = "mgmt"
SSHD = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PermitRootLogin prohibit-password
AllowUsers root
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
PrintLastLog no
MaxSessions 64
MaxStartups 64
Subsystem sftp internal-sftp
"""
# root without a password is locked for sshd without PAM: the guest's own sshd sees another entry
_SHADOW = "umask 077; sed 's/^root:![^:]*:/root:*:/' /etc/shadow > \"$1\""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The host as the guests are on it: ``inside`` has the links of each guest's namespace."""

    cells: Mapping[str, Cell]
    net: View
    inside: Mapping[str, Mapping[str, Link]]


@dataclass(frozen=True, slots=True)
class Guests(Housed):
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names."""

    store = "native"

    def look(self, names: Iterable[str]) -> dict[str, Guest | None]:
        """As they are, of whom the host is asked once."""
        names = list(names)
        known = self.kept.look()
        if not names or not known:
            return dict.fromkeys(names)
        seen = self._seen(known)
        return {
            name: self._as_is(*known[name], seen) if self._ours(name, known, seen) else None
            for name in names
        }

    def put(self, want: Guest) -> None:
        """As ``Driver.put``: limits change live, all else by an sshd that is started anew.

        So do NICs that stay in the host's own network: what is bound to their addresses goes on.
        """
        self._refuse(want)
        known = self.kept.look()
        seen = self._seen([*known, want.name])
        self._refuse_foreign(want.name, seen)
        absent = [v.switch for v in want.nics if v.switch not in seen.net.links and not
                  self._moved(want.name, v.switch, seen)]  # fmt: skip
        if absent:
            raise DriverError(
                f"guest {want.name} needs the NIC {', '.join(absent)}, which "
                f"{self.machine.name} has not"
            )
        have = self._as_is(*known[want.name], seen) if want.name in known else None
        if have == want:
            return
        easy = {*LIVE} if want.accel == NAMESPACE else {*LIVE, "nics"}
        live = have is not None and have.running and set(changed(have, want)) <= easy
        if live:
            self._take_addresses(want, known[want.name][0], seen)
        elif have is not None:
            self._clear(want.name, seen)  # by what was asked before
            seen = self._seen([want.name])
        files = {} if live else self._files(want)
        self.kept.write(want.name, files | {"guest.json": json.dumps(dump(want), sort_keys=True)})
        if live:
            self.cells.put(want)
            self._give_addresses(want, seen)
        else:
            self._make(want, seen)

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: what runs is ended, and its NIC is without our address."""
        seen = self._seen([name])
        self._refuse_foreign(name, seen)
        self._clear(name, seen)
        self.kept.remove(name)

    def homes(self) -> dict[str, Host]:
        """Where the NICs are that guests have in namespaces of their own, by the NIC's name."""
        apart = [g for g, _ in self.kept.look().values() if g.accel == NAMESPACE]
        spaces = self.namespaces.inside(map(self._inside, apart)) if apart else {}
        return {
            name: self.host.inside(space)
            for space, there in spaces.items()
            for name in there
            if name not in ("lo", MANAGEMENT)
        }

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest is had, and the folder that its programs may use."""
        guest = self.look([name])[name]
        if guest is None:
            return {}
        return {
            "accel": guest.accel,
            "started": "native",
            "system": self.machine.system,
            "folder": str(self.kept.folder(name)),
        }

    def _seen(self, names: Iterable[str]) -> _Seen:
        spaces = [self.namespace(name) for name in names]
        inside = self.namespaces.inside(spaces)
        return _Seen(self.cells.look(), view(self.host, use=True, ovs=True), inside)

    def _taps(self, name: str) -> list[str]:
        return [tap(self.target.testbed, name, 0)]

    def _ours(self, name: str, known: Mapping[str, object], seen: _Seen) -> bool:
        """Whether there is such a guest, and nothing without our mark in its place."""
        try:
            self._refuse_foreign(name, seen)
        except Foreign:
            return False
        return name in known

    def _refuse_foreign(self, name: str, seen: _Seen) -> None:
        veths.refuse(self.target.testbed, self._taps(name), dict(seen.net.links), self.machine.name)
        inside = seen.inside.get(self.namespace(name))
        if inside is not None and inside["lo"].alias != mark(self.target.testbed):
            self.namespaces.is_there(self.namespace(name))

    def _refuse(self, want: Guest) -> None:
        for vnic in want.nics:
            if vnic.model != UPLINK:
                raise Unsupported(
                    f"guest {want.name}: a native host has no vNIC model {vnic.model!r}",
                    hint=f"use {UPLINK}: the guest's NIC is the uplink itself",
                )
        check(want, v2=self.machine.v2)
        for what, there in (("sshd", self.machine.sshd), ("python3", self.machine.python)):
            if not there:
                package = "openssh-server" if what == "sshd" else "python3"
                raise PreflightError(
                    f"{self.machine.name}: {what} is missing, by which a native guest is reached",
                    hint=f"apt-get install {package}",
                )

    def _moved(self, name: str, uplink: str, seen: _Seen) -> bool:
        return uplink in seen.inside.get(self.namespace(name), {})

    def _as_is(self, asked: Guest, pid: int, seen: _Seen) -> Guest:
        cell = seen.cells.get(asked.name)
        if cell is None or pid not in cell.pids:
            return replace(asked, running=False)
        guest = as_is(asked, cell.limits, self.machine.cpus)
        inside = seen.inside.get(self.namespace(asked.name), {})
        there = _has(asked.management.address, inside.get(MANAGEMENT))
        linked = seen.net.links.get(self._taps(asked.name)[0])
        if not there or linked is None or not linked.up:
            guest = replace(guest, management=replace(asked.management, switch=NOWHERE))
        at = inside if asked.accel == NAMESPACE else seen.net.links
        nics = tuple(self._nic(vnic, at.get(vnic.switch)) for vnic in asked.nics)
        return replace(guest, nics=nics, running=True)

    def _nic(self, vnic: Vnic, link: Link | None) -> Vnic:
        if link is None or not link.up or not _has(vnic.address, link):
            return replace(vnic, switch=NOWHERE)
        return replace(vnic, mtu=link.mtu)

    def _make(self, want: Guest, seen: _Seen) -> None:
        self.cells.put(want)
        self.namespaces.make(self.namespace(want.name))
        script = Script()
        veth = Veth(self._taps(want.name)[0], MANAGEMENT, want.management)
        veths.make(script, self.target.testbed, self.namespace(want.name), veth)
        guest, own = want.management.address.split("/")[0], _first(want.management.address)
        script.ip("link", "set", veth.tap, "up")
        script.ip("addr", "add", f"{own}/32", "dev", veth.tap)
        script.ip("route", "add", f"{guest}/32", "dev", veth.tap, "src", own)
        for vnic in want.nics:
            self._address(script, vnic, seen, inside=self._inside(want))
        script.run(self.host)
        if want.running:
            self._start(want)

    def _take_addresses(self, want: Guest, asked: Guest, seen: _Seen) -> None:
        """Those that were asked for and are no longer."""
        script = Script()
        self._remove_addresses(script, {*asked.nics} - {*want.nics}, seen)
        script.run(self.host)

    def _give_addresses(self, want: Guest, seen: _Seen) -> None:
        """Those that are not there yet, on NICs in the host's own network."""
        script = Script()
        for vnic in want.nics if want.accel != NAMESPACE else ():
            if not _has(vnic.address, seen.net.links.get(vnic.switch)):
                self._address(script, vnic, seen, inside="")
        script.run(self.host)

    def _remove_addresses(self, script: Script, nics: Iterable[Vnic], seen: _Seen) -> None:
        for vnic in nics:
            link = seen.net.links.get(vnic.switch)
            for address in link.ipv4 if link else ():
                if address.text == vnic.address and is_ours(
                    address, self.target.testbed, vnic.switch
                ):
                    script.ip("addr", "del", address.text, "dev", vnic.switch)

    def _inside(self, guest: Guest) -> str:
        """The namespace that the guest's NICs are in; "" = the host's own."""
        return self.namespace(guest.name) if guest.accel == NAMESPACE else ""

    def _address(self, script: Script, vnic: Vnic, seen: _Seen, inside: str) -> None:
        """Raises PreflightError where something else uses the NIC, or the host the subnet."""
        link, testbed = nic(self.host, vnic.switch, seen.net), self.target.testbed
        refuse_used(self.host, link, seen.net, testbed)
        for other in seen.net.links.values() if not inside else ():
            if other.name != link.name and any(a.text == vnic.address for a in other.ipv4):
                raise PreflightError(
                    f"{self.machine.name} has {vnic.address} already, on {other.name}",
                    hint="network.subnet chooses the links' subnets",
                )
        if len(link.name) >= NAME_MAX:
            raise PreflightError(
                f"NIC {link.name} of {self.machine.name}: the name leaves no room for our mark",
                hint=f"ip link set {link.name} name SHORTER",
            )
        if inside:
            self._move(script, link.name, "", inside)
            script.ip("link", "set", link.name, "mtu", str(vnic.mtu), "up", inside=inside)
        script.ip("addr", "add", vnic.address, "dev", link.name,
                  "label", address_label(testbed, link.name), inside=inside)  # fmt: skip

    def _move(self, script: Script, name: str, frm: str, to: str) -> None:
        """From one namespace to another, "" = the host's own, with the speed of its cable."""
        where = ("-n", frm) if frm else ()
        rate = mbit(self.host.run("tc", *where, "-json", "qdisc", "show"), name)
        script.sh(f"ip {' '.join(where)} link set {quote(name)} netns {to or '$$'}")
        if rate:
            shape(script, ((name, to),), rate)

    def _files(self, want: Guest) -> dict[str, str]:
        """What its sshd needs."""
        if self.target.identity is None:
            raise DriverError(f"guest {want.name}: nobody says who it is")
        who = self.target.identity(want)
        return {
            "host_key": who.host_key,
            "authorized_keys": f"{who.authorized_key}\n",
            "sshd_config": SSHD.format(folder=self.kept.folder(want.name)),
        }

    def _start(self, want: Guest) -> None:
        folder = self.kept.folder(want.name)
        if self.machine.locked:
            self.host.run("sh", "-c", _SHADOW, "shadow", str(folder / "shadow"))
        self.cells.serve(
            want.name,
            namespace=self.namespace(want.name),
            inside=want.accel == NAMESPACE,
            address=want.management.address.split("/")[0],
            hostname=want.name,
            folder=str(folder),
            sshd=self.machine.sshd,
        )

    def _clear(self, name: str, seen: _Seen) -> None:
        self.cells.end(name)
        script, testbed = Script(), self.target.testbed
        known, space = self.kept.look().get(name), self.namespace(name)
        for inside in seen.inside.get(space, {}):
            if inside not in ("lo", MANAGEMENT):
                self._move(script, inside, space, "")
        self._remove_addresses(script, known[0].nics if known else (), seen)
        veths.remove(script, testbed, self._taps(name), dict(seen.net.links), self.machine.name)
        script.run(self.host)
        self.namespaces.remove(self.namespace(name))


def _has(address: str, link: Link | None) -> bool:
    return link is not None and any(a.text == address for a in link.ipv4)


def _first(address: str) -> str:
    """The host's own address in the management subnet of a guest's."""
    from ipaddress import IPv4Interface

    return str(IPv4Interface(address).network[1])
