"""Who a guest is, as a document that our image reads and as a NoCloud seed for cloud-init.

The same seed disk serves both: our document stands in the system area of the ISO, 32 KiB that the
format leaves to others, so that our image has nothing to mount. NoCloud: cloud-init's own
documentation, "NoCloud" and "Networking config version 2".
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface

from provision.errors import UserError
from provision.resources import Guest, Os

MAGIC = "provision-identity 1"
SYSTEM_AREA = 32768
_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_INTERFACE = re.compile(r"[a-z][a-z0-9-]{0,14}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Nic:
    """One NIC, found by its ``mac``; ``name`` is its role, ``address`` has a prefix."""

    mac: str
    name: str
    address: str
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Identity:
    """All by which a guest differs from its brothers. ``host_key`` is private: OpenSSH's PEM text.

    ``seed`` is fresh randomness, at least 32 bytes; ``user`` is who may log in with
    ``authorized_key`` besides root; ``os`` is the system that is to read it.
    """

    hostname: str
    machine_id: str
    authorized_key: str
    host_key: str = field(repr=False)
    nics: tuple[Nic, ...] = ()
    user: str = "root"
    os: Os = "linux"
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(64), repr=False)

    def __post_init__(self) -> None:
        faults = [*_faults(self)]
        if faults:
            raise UserError(f"guest {self.hostname!r}: {'; '.join(faults)}")


def _faults(identity: Identity) -> list[str]:
    """Nothing of the document is ever quoted or escaped, so what it may contain is narrow."""
    found = []
    if not _HOSTNAME.fullmatch(identity.hostname):
        found.append("a host name has letters, digits and hyphens, 63 at most")
    if not re.fullmatch(r"[0-9a-f]{32}", identity.machine_id) or not int(identity.machine_id, 16):
        found.append("a machine id has 32 hex digits")
    if not re.fullmatch(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [ -~]*)?", identity.authorized_key):
        found.append("the authorized key is not one line of a public key")
    if not re.fullmatch(
        r"-----BEGIN OPENSSH PRIVATE KEY-----\n([A-Za-z0-9+/=]+\n)+"
        r"-----END OPENSSH PRIVATE KEY-----\n?",
        identity.host_key,
    ):
        found.append("the host key is not a private key of OpenSSH")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,31}", identity.user):
        found.append(f"{identity.user!r} is no user's name")
    if len(identity.seed) < 32:
        found.append("a seed has 32 bytes or more")
    for nic in identity.nics:
        if not (_MAC.fullmatch(nic.mac) and _INTERFACE.fullmatch(nic.name)):
            found.append(f"NIC {nic.name!r} {nic.mac!r}: not a name and a MAC in lower case")
        if not 68 <= nic.mtu <= 65535:
            found.append(f"NIC {nic.name}: MTU {nic.mtu}")
        if not _is_interface(nic.address):
            found.append(f"NIC {nic.name}: {nic.address!r} is no IPv4 address with its prefix")
    return found


def _is_interface(address: str) -> bool:
    try:
        return str(IPv4Interface(address)) == address
    except ValueError:
        return False


def identity(guest: Guest, authorized_key: str, host_key: str, user: str = "root") -> Identity:
    """Who a guest of a testbed is. The machine id is the same whenever its NICs are."""
    names = ["mgmt", *(f"link{number}" for number in range(1, len(guest.nics) + 1))]
    nics = [
        Nic(nic.mac, name, nic.address, nic.mtu)
        for name, nic in zip(names, (guest.management, *guest.nics), strict=True)
        if nic.mac  # else it is the host's own, and no guest is to find it
    ]
    text = f"provision {guest.name} {guest.management.mac}"
    machine_id = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Identity(guest.name, machine_id, authorized_key, host_key, tuple(nics), user, guest.os)


def document(identity: Identity, clock_s: float | None = None) -> str:
    """What the image's ``identify`` reads; ``clock_s`` (epoch) counts in a restored guest only."""
    now = time.time() if clock_s is None else clock_s
    lines = [
        MAGIC,
        f"hostname {identity.hostname}",
        f"machine-id {identity.machine_id}",
        f"clock {now:.6f}",
        f"authorized-key {identity.authorized_key}",
        *(f"host-key {line}" for line in identity.host_key.splitlines()),
        f"seed {identity.seed.hex()}",
        *(f"nic {n.mac} {n.name} {n.address} {n.mtu}" for n in identity.nics),
        "end",
    ]
    return "\n".join(lines) + "\n"


def nocloud(identity: Identity) -> Mapping[str, str]:
    """The files of a NoCloud seed, by name. JSON is YAML, and needs no care in quoting."""
    if identity.os == "windows":
        from provision.windows import guest

        return guest.seed(identity)
    user: dict[str, object] = {
        "name": identity.user,
        "ssh_authorized_keys": [identity.authorized_key],
    }
    if identity.user != "root":
        user |= {"sudo": "ALL=(ALL) NOPASSWD:ALL", "shell": "/bin/bash", "lock_passwd": True}
    root = {"name": "root", "ssh_authorized_keys": [identity.authorized_key]}
    config = {
        "hostname": identity.hostname,
        "preserve_hostname": False,
        "disable_root": False,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": identity.host_key},
        "users": [root] if identity.user == "root" else [user, root],
        "random_seed": {"data": identity.seed.hex(), "encoding": "raw"},
        "package_update": False,
    }
    network = {
        "version": 2,
        "ethernets": {
            nic.name: {
                "match": {"macaddress": nic.mac},
                "set-name": nic.name,
                "addresses": [nic.address],
                "mtu": nic.mtu,
                "dhcp4": False,
                "dhcp6": False,
                "accept-ra": False,
            }
            for nic in identity.nics
        },
    }
    meta = {"instance-id": identity.machine_id, "local-hostname": identity.hostname}
    return {
        "user-data": "#cloud-config\n" + json.dumps(config, indent=1) + "\n",
        "meta-data": json.dumps(meta, indent=1) + "\n",
        "network-config": json.dumps(network, indent=1) + "\n",
    }


def iso(identity: Identity) -> bytes:
    """The seed disk: ISO 9660 with the label ``cidata``; for our image our document before it."""
    import pycdlib

    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(nocloud(identity).items()):
        data = text.encode()
        disc.add_fp(
            io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}"
        )
    out = io.BytesIO()
    disc.write_fp(out)
    disc.close()
    if identity.os == "windows":
        return out.getvalue()
    image = bytearray(out.getvalue())
    area = document(identity).encode()
    if len(area) > SYSTEM_AREA:
        raise UserError(f"guest {identity.hostname!r}: too many NICs for one seed")
    image[: len(area)] = area
    return bytes(image)
