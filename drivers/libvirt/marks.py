"""What a domain of ours is called, and how it bears our mark; pure."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from hashlib import blake2s
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from provision.resources import Guest, Vnic, dump

URN = "urn:provision:1"
PREFIX = "provision"


def domain_name(testbed: str, guest: str) -> str:
    return f"{testbed}-{guest}"


def domain_uuid(testbed: str, guest: str) -> UUID:
    """The same for the same guest every time."""
    return uuid5(NAMESPACE_URL, f"{URN}/{testbed}/{guest}")


def tap(testbed: str, guest: str, number: int) -> str:
    """The name of a vNIC's device on the host, 15 characters at most; 0 is management."""
    return f"pv{blake2s(f'{testbed}/{guest}'.encode(), digest_size=4).hexdigest()}n{number}"


def mark(
    guest: Guest, testbed: str, started: str, base: str, functions: Mapping[str, str]
) -> ET.Element:
    """Our metadata, without its namespace: whose it is, and what libvirt has no place for.

    ``base`` is the image's disk; ``functions`` are the PCI addresses of what NICs gave.
    """
    found = ET.Element("guest", testbed=testbed, name=guest.name, started=started, base=base)
    found.text = json.dumps(dump(guest), sort_keys=True)
    if functions:
        found.set("functions", json.dumps(dict(functions), sort_keys=True))
    return found


def functions(found: ET.Element) -> dict[str, str]:
    """Those of a mark."""
    told: dict[str, str] = json.loads(found.get("functions") or "{}")
    return told


def metadata(found: ET.Element) -> ET.Element:
    """A mark as it stands in a domain's XML."""
    found.tag = f"{PREFIX}:{found.tag}"
    found.set(f"xmlns:{PREFIX}", URN)
    whole = ET.Element("metadata")
    whole.append(found)
    return whole


def marked(root: ET.Element) -> tuple[ET.Element, dict[str, Any]] | None:
    """The mark of a domain's XML, and the Guest that was put, as plain data.

    None where it has no mark of ours, or a mark that is not its own.
    """
    found = root.find(f"metadata/{{{URN}}}guest")
    if found is None:
        return None
    asked = _asked(found.text)
    name = domain_name(found.get("testbed", ""), found.get("name", ""))
    return None if asked is None or root.findtext("name") != name else (found, asked)


def address(mac: str, number: int, asked: Mapping[str, Any]) -> str:
    """The address of a vNIC, 0 is management's: inside the guest, so the one that was asked for."""
    vnics = [asked["management"], *asked["nics"]]
    meant = vnics[number] if 0 <= number < len(vnics) else {}
    return str(meant["address"]) if meant and meant["mac"] == mac else ""


def vnics(guest: Guest) -> tuple[Vnic, ...]:
    """Management's first."""
    return (guest.management, *guest.nics)


def _asked(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) and "management" in found else None
