"""The ports of a load generator: NICs in the namespace of the lab, or of a real machine."""

from __future__ import annotations

from dataclasses import replace

from drivers.linux.links import Link, View, view
from drivers.linux.script import Script
from drivers.linux.uplinks import NAME_MAX, address_label, is_ours, nic, refuse_used
from provision.errors import PreflightError
from provision.host import Host
from provision.resources import Port


class Ports:
    """Kind ``port``. Addresses that we give bear a label, by which they are ours to take.

    ``real``: a whole machine, where Open vSwitch may hold NICs too.
    """

    def __init__(self, host: Host, testbed: str, *, real: bool) -> None:
        self.host = host
        self.testbed = testbed
        self.real = real

    def read(self, name: str) -> Port | None:
        """As it is; several addresses read as ``A+B``, unlike any wish."""
        seen = view(self.host, name)
        return _port(seen.links[name], seen) if name in seen.links else None

    def put(self, want: Port) -> None:
        """Raises PreflightError, with nothing touched, where something else uses the NIC."""
        seen = view(self.host, want.name, use=True, ovs=self.real)
        link = nic(self.host, want.name, seen)
        have = _port(link, seen)
        if have == want:
            return
        script = self._address(want, link, seen)
        where = "/proc/sys/net/ipv{}/conf/" + want.name
        if want.ipv6 != have.ipv6:
            script.write(f"{where.format(6)}/disable_ipv6", int(not want.ipv6))
        if want.arp_ignore != have.arp_ignore:
            script.write(f"{where.format(4)}/arp_ignore", want.arp_ignore)
        if want.arp_announce != have.arp_announce:
            script.write(f"{where.format(4)}/arp_announce", want.arp_announce)
        if want.mtu != have.mtu:
            script.ip("link", "set", want.name, "mtu", str(want.mtu))
        script.ip("link", "set", want.name, "up" if want.up else "down")
        script.run(self.host)

    def _address(self, want: Port, link: Link, seen: View) -> Script:
        """The steps to this one address; what is there already by another's hand may stay."""
        others = tuple(a for a in link.addresses if a.text != want.address)
        refuse_used(self.host, replace(link, addresses=others), seen, self.testbed)
        script = Script()
        for address in others:
            if is_ours(address, self.testbed, want.name):
                script.ip("addr", "del", address.text, "dev", want.name)
        if want.address is not None and len(others) == len(link.addresses):
            if len(want.name) >= NAME_MAX:
                raise PreflightError(
                    f"port {want.name} of {self.host.name}: the name leaves no room for our mark",
                    hint=f"ip link set {want.name} name SHORTER",
                )
            label = address_label(self.testbed, want.name)
            script.ip("addr", "add", want.address, "dev", want.name, "label", label)
        return script


def _port(link: Link, seen: View) -> Port:
    address = "+".join(a.text for a in link.ipv4) or None
    return Port(link.name, address, link.mtu, link.up, seen.ipv6, *seen.arp)
