"""Switches and uplinks on a Linux host: Linux bridges and Open vSwitch.

A switch bears the testbed's mark in its alias, or in ``external_ids`` of Open vSwitch. Marked by
another, or by nobody, it is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from drivers.linux import ovs as linux_ovs
from drivers.linux import sriov
from drivers.linux.links import View, mark, staged, view
from drivers.linux.script import Script
from drivers.linux.uplinks import Counters, count, nic, refuse_used, uplinks
from provision.driver import Change, UplinkFacts
from provision.errors import DriverError, Foreign, Unsupported
from provision.host import Host
from provision.resources import Key, Resource, Switch, Uplink, label

FLAVOURS = ("bridge", "ovs")
#: another NIC is plugged in while guests run
CHANGE: Mapping[tuple[str, str], Change] = {("switch", "uplink"): Change.LIVE}
_FILTERS = "grep -lx 1 /proc/sys/net/bridge/bridge-nf-call-*tables 2>/dev/null || :"


class LinuxNet:
    """Kinds ``switch`` and ``uplink`` of a driver; the same promises as its own.

    ``say`` takes a phase of a put, such as daemons that had to be started.
    """

    kinds = frozenset({Switch.kind, Uplink.kind})

    def __init__(
        self, host: Host, testbed: str, say: Callable[[Key, str], None] = lambda _key, _phase: None
    ) -> None:
        self.host = host
        self.testbed = testbed
        self.say = say

    def read(self, key: Key) -> Switch | Uplink | None:
        """As ``Driver.read``. What put would set right shows in ``flavour`` or ``uplink``.

        A bridge that is down reads as flavour ``bridge (down)``, one with two uplinks as
        ``eth1+eth2``: unlike any wish.
        """
        kind, name = key
        if kind == Uplink.kind:
            return self._uplink(name, view(self.host, name, lro=True))
        return self._switch(name, view(self.host, name, ovs=True))

    def put(self, want: Resource) -> None:
        """As ``Driver.put``. Raises PreflightError where something else uses the NIC."""
        if isinstance(want, Uplink):
            self._put_uplink(want)
        elif isinstance(want, Switch):
            if want.flavour not in FLAVOURS:
                raise Unsupported(
                    f"{label((want.kind, want.name))}: a Linux host has no switch of type "
                    f"{want.flavour!r}",
                    hint=f"use one of: {', '.join(FLAVOURS)}",
                )
            self._put_switch(want)
        else:
            raise DriverError(f"{want.kind} is nothing of a host's network")

    def drop(self, key: Key) -> None:
        """As ``Driver.drop``. An uplink is a state: DriverError."""
        kind, name = key
        if kind == Uplink.kind:
            raise DriverError(f"{label(key)} cannot be dropped, only put back as it was")
        seen = view(self.host, ovs=True)
        stage = staged(self.testbed, name)
        if stage in seen.links:
            self.host.run("ip", "link", "del", stage)
        if self._refuse_foreign(name, seen):
            self._remove(name, seen)

    def owned(self) -> Iterable[Key]:
        """The testbed's switches."""
        seen = view(self.host, ovs=True)
        ours = [b.name for b in seen.bridges.values() if b.testbed == self.testbed]
        for link in seen.links.values():
            if link.kind == "bridge" and link.alias == mark(self.testbed):
                ours.append(link.name)
        return [(Switch.kind, name) for name in ours]

    def uplinks(self) -> tuple[UplinkFacts, ...]:
        """All NICs, and what uses them already."""
        return uplinks(self.host, self.testbed)

    def addresses(self) -> Mapping[str, tuple[str, ...]]:
        """The host's IPv4 addresses by link, those of the testbed's own links left out."""
        ours = mark(self.testbed)
        links = (link for link in view(self.host).links.values() if link.alias != ours)
        return {link.name: tuple(a.text for a in link.ipv4) for link in links if link.ipv4}

    def notes(self) -> Mapping[str, str]:
        """What of the host's set-up disturbs a benchmark, by its setting, with the cure."""
        on = [path.rpartition("/")[2] for path in self.host.run("sh", "-c", _FILTERS).split()]
        why = "bridged frames pass through the host's firewall: sysctl -w net.bridge."
        return {setting: f"{why}{setting}=0" for setting in on}

    def counters(self, names: Iterable[str]) -> Mapping[str, Counters]:
        """(rx_bytes, tx_bytes, rx_packets, tx_packets) of each, all at one moment."""
        return count(self.host, names).nics

    def evidence(self, key: Key) -> Mapping[str, str]:
        """Which code forwards the frames of a switch."""
        seen = view(self.host, ovs=True)
        if key[1] in seen.bridges:
            return {"datapath": f"Open vSwitch, {seen.bridges[key[1]].datapath}"}
        return {"datapath": "Linux bridge"} if key[1] in seen.links else {}

    def _uplink(self, name: str, seen: View) -> Uplink | None:
        link = seen.links.get(name)
        return Uplink(name, link.mtu, link.up, seen.ipv6, seen.lro, seen.vfs) if link else None

    def _put_uplink(self, want: Uplink) -> None:
        seen = view(self.host, want.name, use=True, ovs=True, lro=True)
        link = nic(self.host, want.name, seen)
        if self._uplink(want.name, seen) == want:
            return
        refuse_used(self.host, link, seen, self.testbed)
        if want.vfs != seen.vfs:
            sriov.refuse(self.host, want.name, seen.vfs, want.vfs)
        script = Script()
        script.write(f"/proc/sys/net/ipv6/conf/{want.name}/disable_ipv6", int(not want.ipv6))
        if want.lro != seen.lro:
            script.run_words("ethtool", "-K", want.name, "lro", "on" if want.lro else "off")
        if want.mtu != link.mtu:
            script.ip("link", "set", want.name, "mtu", str(want.mtu))
        script.ip("link", "set", want.name, "up" if want.up else "down")
        if want.vfs != seen.vfs:
            script.write(sriov.path(self.host, want.name), want.vfs)
        script.run(self.host)

    def _switch(self, name: str, seen: View) -> Switch | None:
        link, ovs = seen.links.get(name), seen.bridges.get(name)
        if not self._is_ours(name, seen):
            return None
        leads_out = [m.name for m in seen.members(name) if linux_ovs.is_uplink(m)]
        found = Switch(
            name=name,
            flavour="ovs" if ovs else "bridge",
            uplink="+".join(leads_out) or None,
            mtu=link.mtu if link else 0,
            address="+".join(a.text for a in link.ipv4) or None if link else None,
        )
        wrong = ", ".join(_wrong(name, seen))
        return replace(found, flavour=f"{found.flavour} ({wrong})") if wrong else found

    def _put_switch(self, want: Switch) -> None:
        if want.flavour == "ovs" and (started := linux_ovs.ensure(self.host)):
            self.say((want.kind, want.name), f"started {started}")
        seen = view(self.host, want.name, use=True, ovs=True)
        ours = self._refuse_foreign(want.name, seen)
        if want.uplink is not None:
            refuse_used(self.host, nic(self.host, want.uplink, seen), seen, self.testbed)
        script = Script()
        if ours and (want.name in seen.bridges) != (want.flavour == "ovs"):
            self._remove(want.name, seen)
            seen, script = view(self.host, want.name, ovs=True), Script()
        if want.flavour == "ovs":
            _release(script, want, seen)
            linux_ovs.make(script, want, seen, self.testbed, linux_ovs.datapath(self.host))
        else:
            self._make_bridge(script, want, seen)
        _settle(script, want, seen)
        script.run(self.host)

    def _make_bridge(self, script: Script, want: Switch, seen: View) -> None:
        """A bridge gets its name last: under it, it bears our mark from the first moment."""
        name, stage = want.name, staged(self.testbed, want.name)
        if name not in seen.links:
            if stage in seen.links:
                script.ip("link", "del", stage)
            script.ip("link", "add", stage, "type", "bridge")
            script.ip("link", "set", stage, "alias", mark(self.testbed))
            script.ip("link", "set", stage, "name", name)
        script.ip("link", "set", name, "type", "bridge", "stp_state", "0")
        # forward_delay: without STP too, a port would be deaf for that long
        script.ip("link", "set", name, "type", "bridge", "forward_delay", "0",
                  "mcast_snooping", "0")  # fmt: skip
        for bridge in seen.bridges.values():
            if want.uplink in bridge.ports:
                script.run_words("ovs-vsctl", "--timeout=30", "del-port", want.uplink or "")
        _release(script, want, seen)
        if want.uplink is not None:
            script.ip("link", "set", want.uplink, "master", name)
        script.ip("link", "set", name, "mtu", str(want.mtu))

    def _remove(self, name: str, seen: View) -> None:
        if name in seen.bridges:
            linux_ovs.remove(self.host, name)
            return
        script = Script()
        for link in seen.members(name):
            if linux_ovs.is_uplink(link):
                script.ip("link", "set", link.name, "nomaster")
        script.ip("link", "del", name)
        script.run(self.host)

    def _is_ours(self, name: str, seen: View) -> bool:
        if name in seen.bridges:
            return seen.bridges[name].testbed == self.testbed
        link = seen.links.get(name)
        return link is not None and link.kind == "bridge" and link.alias == mark(self.testbed)

    def _refuse_foreign(self, name: str, seen: View) -> bool:
        """Whether it exists and is ours; raises DriverError where it is another's."""
        if self._is_ours(name, seen):
            return True
        if name in seen.links or name in seen.bridges:
            raise Foreign(
                f"{name} exists on {self.host.name} without our mark",
                hint=f"ip -d link show {name}",
            )
        return False


def _wrong(name: str, seen: View) -> Iterator[str]:
    """What put would set right and no field of a Switch has."""
    link, ovs = seen.links.get(name), seen.bridges.get(name)
    settings = link.settings if link else {}
    if link is None or not link.up:
        yield "down"
    if ovs.stp if ovs else settings.get("stp_state"):
        yield "STP on"
    if ovs and not ovs.standalone:
        yield "not standalone"
    if not ovs and settings.get("forward_delay"):
        yield "forward delay"
    if ovs.snooping if ovs else settings.get("mcast_snooping"):
        yield "multicast snooping"
    if seen.ipv6:
        yield "IPv6 on"


def _release(script: Script, want: Switch, seen: View) -> None:
    """Take from Linux bridges what is in the way; all of them are ours, that is checked."""
    for link in seen.links.values():
        if link.kind == "bridge":
            for stray in linux_ovs.strays(link.name, want, seen):
                script.ip("link", "set", stray, "nomaster")


def _settle(script: Script, want: Switch, seen: View) -> None:
    """IPv6 off before it is up, so that it never says a word, then its address and no other."""
    name = want.name
    script.write(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", 1)
    # the host may have a guest's address elsewhere, and must not answer for it here
    script.write(f"/proc/sys/net/ipv4/conf/{name}/arp_ignore", 8 if want.address is None else 1)
    link = seen.links.get(name)
    have = [a.text for a in link.ipv4] if link else []
    for text in have:
        if text != want.address:
            script.ip("addr", "del", text, "dev", name)
    if want.address is not None and want.address not in have:
        script.ip("addr", "add", want.address, "dev", name)
    script.ip("link", "set", name, "up")
