"""A guest as libvirt's domain XML for OpenVZ, there and back; pure.

https://libvirt.org/drvopenvz.html. libvirt reads containers anew from ``vzlist`` and their
configuration at every connection: of the XML it keeps the number, the UUID, CPUs, the
folder of its files, and NICs. There is no metadata: what is ours is known by its UUID.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace

from drivers.libvirt.marks import domain_uuid, tap, vnics
from drivers.libvirt.wires import NOWHERE
from provision.resources import Guest, Vnic

FIRST, SPAN = 1_000_000, 1_000_000_000  # below are the numbers that people give


@dataclass(frozen=True, slots=True)
class Seen:
    """A container as libvirt tells it. ``nics`` are (MAC, bridge) by their ends on the host."""

    uuid: str
    vcpus: int
    nics: Mapping[str, tuple[str, str]]


def number(testbed: str, guest: str) -> int:
    """The container's id, which is its name too: the same for the same guest every time."""
    return FIRST + domain_uuid(testbed, guest).int % SPAN


def domain(guest: Guest, testbed: str, private: str) -> str:
    """The whole container; ``private`` is the folder of its files on the host."""
    root = ET.Element("domain", type="openvz")
    _sub(root, "name", str(number(testbed, guest.name)))
    _sub(root, "uuid", str(domain_uuid(testbed, guest.name)))
    # of this libvirt makes the limit of kernel memory; the guest's own is set beside it
    _sub(root, "memory", str(guest.memory_mib * 1024), unit="KiB")
    _sub(root, "vcpu", str(guest.vcpus))
    boot = _sub(root, "os")
    _sub(boot, "type", "exe")
    _sub(boot, "init", "/sbin/init")
    devices = _sub(root, "devices")
    files = _sub(devices, "filesystem", type="mount")
    _sub(files, "source", dir=private)
    _sub(files, "target", dir="/")
    for n, vnic in enumerate(vnics(guest)):
        nic = _sub(devices, "interface", type="bridge")
        _sub(nic, "mac", address=vnic.mac)
        _sub(nic, "source", bridge=vnic.switch)
        _sub(nic, "target", dev=tap(testbed, guest.name, n))
    return ET.tostring(root, encoding="unicode")


def parse(text: str) -> Seen:
    """Whosever it is."""
    root = ET.fromstring(text)
    return Seen(
        uuid=root.findtext("uuid", ""),
        vcpus=int(root.findtext("vcpu") or 0),
        nics={
            _attr(nic, "target", "dev"): (
                _attr(nic, "mac", "address"),
                _attr(nic, "source", "bridge"),
            )
            for nic in root.findall("devices/interface")
        },
    )


def as_told(asked: Guest, testbed: str, seen: Seen) -> Guest:
    """The guest that was asked for, with all that libvirt says otherwise.

    A NIC that it does not tell of is nowhere; what it keeps nothing of is as asked.
    """
    there = [
        _told(vnic, seen.nics.get(tap(testbed, asked.name, n)))
        for n, vnic in enumerate(vnics(asked))
    ]
    return replace(asked, vcpus=seen.vcpus, management=there[0], nics=tuple(there[1:]))


def _told(vnic: Vnic, nic: tuple[str, str] | None) -> Vnic:
    if nic is None:
        return replace(vnic, switch=NOWHERE)
    return replace(vnic, mac=nic[0].lower(), switch=nic[1])


def _attr(root: ET.Element, path: str, name: str) -> str:
    found = root.find(path)
    return "" if found is None else found.get(name, "")


def _sub(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    found = ET.SubElement(parent, tag, attributes)
    found.text = text
    return found
