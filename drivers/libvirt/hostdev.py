"""PCI devices as vNICs in libvirt's domain XML, there and back; pure.

https://libvirt.org/formatdomain.html. With ``managed`` libvirt binds the device to the stub driver
that its hypervisor gives devices by (vfio-pci, pciback), and back to its own when the guest ends.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from drivers.libvirt.marks import address
from drivers.linux.sriov import PASSTHROUGH, SRIOV
from provision.resources import Vnic

ADDRESS = ("domain", "bus", "slot", "function")


def element(vnic: Vnic, pci: str) -> ET.Element:
    """A virtual function, which libvirt gives its MAC, or a whole NIC, which has its own."""
    domain, bus, rest = pci.split(":")
    at = dict(zip(ADDRESS, (domain, bus, *rest.split(".")), strict=True))
    at = {word: f"0x{part}" for word, part in at.items()}
    if vnic.model == PASSTHROUGH:
        nic = ET.Element("hostdev", mode="subsystem", type="pci", managed="yes")
    else:
        nic = ET.Element("interface", type="hostdev", managed="yes")
        ET.SubElement(nic, "mac", address=vnic.mac)
        at["type"] = "pci"
    ET.SubElement(ET.SubElement(nic, "source"), "address", at)
    return nic


def vnic(
    found: ET.Element, number: int, asked: Mapping[str, Any], given: Mapping[str, str]
) -> Vnic | None:
    """The vNIC that a device is, ``number`` 0 is management; None where it is no PCI device.

    ``given`` has the NICs by the addresses of what they gave. A whole NIC reads with its name; a
    function with its address, since whose it is, the host says.
    """
    pci = _pci(found)
    if found.tag == "hostdev":
        mac = str(_meant(asked, number).get("mac", ""))
        return _hardware(PASSTHROUGH, given.get(pci, pci), mac, number, asked)
    if found.get("type") == "hostdev":
        mac = next((m.get("address", "") for m in found.findall("mac")), "")
        return _hardware(SRIOV, pci, mac, number, asked)
    return None


def _hardware(model: str, switch: str, mac: str, number: int, asked: Mapping[str, Any]) -> Vnic:
    """Address and MTU are inside the guest: those that were asked for, if it is that vNIC."""
    at = address(mac, number, asked)
    mtu = int(_meant(asked, number).get("mtu", 0)) if at else 0
    return Vnic(switch=switch, model=model, mac=mac, address=at, mtu=mtu)


def _meant(asked: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    nics: Sequence[Mapping[str, Any]] = asked["nics"]
    return nics[number - 1] if 0 < number <= len(nics) else {}


def _pci(found: ET.Element) -> str:
    source = found.find("source/address")
    parts = [int((source.get(w) if source is not None else None) or "0", 16) for w in ADDRESS]
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts)
