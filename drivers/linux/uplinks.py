"""The NICs of a Linux host that could serve a testbed, or why not, and their counters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2s

from drivers.linux import sriov
from drivers.linux.interrupts import by_cpu
from drivers.linux.links import MARK, Address, Link, View, mark, sections, view
from drivers.linux.vdsm import owner
from provision.driver import UplinkFacts
from provision.errors import DriverError, PreflightError
from provision.host import Host

NAME_MAX = 15  # IFNAMSIZ - 1; an address's label has the same limit
TICKS = 100  # a second, in /proc/stat: USER_HZ, the same on every architecture we meet

# a NIC's own folder is its PCI function's, but for virtio, where it is one below
_HARDWARE = r"""
for d in /sys/class/net/*/device; do
  [ -e "$d" ] || continue
  n=${d%/device}; p=$(cd -P "$d" && pwd)
  case ${p##*/} in *:??:??.?) ;; *) p=${p%/*} ;; esac
  echo "${n##*/}" "${p##*/}" $(ls "$p/msi_irqs" 2>/dev/null || cat "$p/irq" 2>/dev/null)
done
"""
_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_COUNT = "echo @@at; date +%s.%N; echo @@cpu; grep '^cpu[0-9]' /proc/stat; echo @@links; "
_COUNT += "ip -s -json link show; echo @@irqs; cat /proc/interrupts"

Counters = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """A host at one moment: ``busy_s`` and ``irqs`` have one figure a CPU, ``nics`` four each."""

    at_s: float
    busy_s: tuple[float, ...]
    nics: Mapping[str, Counters]
    irqs: tuple[int, ...] = ()


def address_label(testbed: str, nic: str) -> str:
    """The label of addresses that we give to a NIC, by which they are ours.

    It begins with the NIC's name (ip-address(8)); a NIC with a name of full length can have none.
    """
    return f"{nic}:{blake2s(testbed.encode(), digest_size=4).hexdigest()}"[:NAME_MAX]


def is_ours(address: Address, testbed: str, nic: str) -> bool:
    """Whether we gave the NIC this address."""
    return address.label == address_label(testbed, nic) != nic


def used_by(link: Link, seen: View, testbed: str) -> str:
    """What uses the NIC, in words; "" where nothing does or only the testbed itself."""
    return ", ".join(_users(link, seen, testbed))


def refuse_used(host: Host, link: Link, seen: View, testbed: str) -> None:
    """Raise PreflightError where anything but the testbed uses the NIC."""
    if words := used_by(link, seen, testbed):
        raise PreflightError(
            f"{link.name} of {host.name} is in use: it {words}", hint="name a NIC nobody uses"
        )


def nic(host: Host, name: str, seen: View) -> Link:
    """The NIC of that name; raises DriverError with the names there are."""
    if name not in seen.links:
        there = ", ".join(link.name for link in seen.links.values() if _candidate(link))
        raise DriverError(f"{host.name} has no NIC {name!r}; there are: {there or 'none'}")
    return seen.links[name]


def uplinks(host: Host, testbed: str) -> tuple[UplinkFacts, ...]:
    """All NICs, real or veth, in the order the kernel has them."""
    seen = view(host, use=True, ovs=True)
    hardware = {
        words[0]: (words[1], tuple(sorted(int(w) for w in words[2:] if w.isdigit() and w != "0")))
        for line in host.run("sh", "-c", _HARDWARE).splitlines()
        if len(words := line.split()) > 1
    }
    made = sriov.look(host)
    found = []
    for link in filter(_candidate, seen.links.values()):
        folder, irqs = hardware.get(link.name, ("", ())) if not link.kind else ("", ())
        found.append(
            UplinkFacts(
                name=link.name, mac=link.mac, up=link.up, mtu=link.mtu, irqs=irqs,
                vfs=made.made(link.name),
                pci=folder if _PCI.fullmatch(folder) else None,
                addresses=tuple(a.text for a in link.addresses if not a.link_local),
                used_by=used_by(link, seen, testbed),
            )
        )  # fmt: skip
    return tuple(found)


def count(host: Host, names: Iterable[str] | None = None) -> Counts:
    """The counters of some NICs, or of all, and the CPUs, in one command.

    Raises DriverError where a NIC is missing.
    """
    from json import loads

    found = sections(host.run("sh", "-c", _COUNT))
    every = {
        row["ifname"]: (
            *(row["stats64"][way]["bytes"] for way in ("rx", "tx")),
            *(row["stats64"][way]["packets"] for way in ("rx", "tx")),
        )
        for row in loads(found["links"])
        if row and row.get("link_type") == "ether"
    }
    names = every if names is None else list(names)
    if missing := [n for n in names if n not in every]:
        raise DriverError(f"{host.name} has no NIC {', '.join(missing)}")
    busy = tuple(_busy_s(line.split()[1:]) for line in found["cpu"].splitlines())
    nics = {n: every[n] for n in names}
    return Counts(float(found["at"]), busy, nics, by_cpu(found.get("irqs", "")))


def _busy_s(ticks: list[str]) -> float:
    """All but idle and iowait of user … steal (proc(5)); guest time is in user already."""
    spent = [int(t) for t in ticks[:8]]
    return (sum(spent) - spent[3] - spent[4]) / TICKS


def _candidate(link: Link) -> bool:
    return link.ethernet and link.kind in ("", "veth") and not link.backs_vnic


def _users(link: Link, seen: View, testbed: str) -> Iterator[str]:
    riders = [other for other in seen.links.values() if other.below == link.name]
    master = seen.links.get(link.master)
    carriers = [link, *riders, *([master] if master else [])]
    if seen.ssh and any(
        a.text.partition("/")[0] == seen.ssh for carrier in carriers for a in carrier.addresses
    ):
        yield "carries the SSH connection we came in by"
    if link.name in seen.default_routes:
        yield "carries the default route"
    for address in link.addresses:
        if not address.link_local and not is_ours(address, testbed, link.name):
            yield f"has address {address.text}"
    if master and master.kind == "bridge" and master.alias != mark(testbed):
        yield f"is a port of bridge {master.name}"
    elif master and link.master_kind not in ("bridge", "openvswitch"):
        yield f"is a member of {master.name}"
    for bridge in seen.bridges.values():
        if link.name in bridge.ports and bridge.testbed != testbed:
            yield f"is a port of Open vSwitch bridge {bridge.name}"
    for rider in riders:
        yield f"carries the {rider.kind} {rider.name}"
    if words := owner(link.name, seen.vdsm):
        yield words
    if link.alias.startswith(MARK) and link.alias != mark(testbed):
        yield f"belongs to testbed {link.alias.removeprefix(MARK)}"
