"""Where a guest's vNICs really are on its host: libvirt says only where it once put them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from drivers.linux.links import View
from drivers.linux.script import Script
from provision.host import Host
from provision.resources import Guest, Vnic

NOWHERE = "(nothing)"  # no switch can have this name


def wired(guest: Guest, taps: Sequence[str], seen: View) -> Guest:
    """The guest with the switch that each of its taps is a port of; ``taps``: management's first.

    A tap that is down, or gone, reads as a switch that nobody can ask for; hardware has none.
    """
    vnics = (guest.management, *guest.nics)
    if len(taps) != len(vnics):
        return guest
    found = [_where(v, tap, seen) if tap else v for v, tap in zip(vnics, taps, strict=True)]
    return replace(guest, management=found[0], nics=tuple(found[1:]))


def rewire(host: Host, guest: Guest, want: Guest, taps: Sequence[str], seen: View) -> bool:
    """Plug back, while the guest runs, what is not where libvirt put it; whether anything was.

    ``guest`` is as libvirt has it. What ``want`` has elsewhere, and taps that are gone, stay.
    """
    script, some = Script(), False
    for tap, switch in _loose(guest, want, taps, seen):
        some = True
        for bridge in seen.bridges.values():
            if tap in bridge.ports and bridge.name != switch:
                script.run_words("ovs-vsctl", "--timeout=30", "del-port", bridge.name, tap)
        if switch in seen.bridges:
            if seen.links[tap].master_kind == "bridge":
                script.ip("link", "set", tap, "nomaster")
            script.run_words("ovs-vsctl", "--timeout=30", "--may-exist", "add-port", switch, tap)
        else:
            script.ip("link", "set", tap, "master", switch)
        script.ip("link", "set", tap, "up")
    script.run(host)
    return some


def _loose(guest: Guest, want: Guest, taps: Sequence[str], seen: View) -> Iterator[tuple[str, str]]:
    """The taps that are not where they should be, and could be, each with its switch."""
    told = (guest.management, *guest.nics)
    for tap, has, wants in zip(taps, told, (want.management, *want.nics), strict=False):
        there = tap in seen.links and wants.switch in seen.links.keys() | seen.bridges.keys()
        if there and has.switch == wants.switch and _where(has, tap, seen) != has:
            yield tap, has.switch


def _where(vnic: Vnic, tap: str, seen: View) -> Vnic:
    link = seen.links.get(tap)
    if link is None:
        return replace(vnic, switch=NOWHERE)
    ports = [bridge.name for bridge in seen.bridges.values() if tap in bridge.ports]
    switch = ports[0] if ports else link.master or NOWHERE
    return replace(vnic, switch=switch if link.up else f"{switch} (down)")
