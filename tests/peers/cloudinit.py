"""A small cloud-init: who a guest is by its guestinfo, as cloud-init's datasource VMware reads it.

Written from cloud-init's documentation ("VMware", "Network config version 2", "Users and groups"),
not from what writes the documents here: where the two disagree, a guest gets no identity.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from provision.seed import Identity, Nic

LIMIT_BYTES = 65536  # of one variable, by the hypervisor's RPC
PREFIX = "guestinfo."


def identity(extra: Mapping[str, str]) -> Identity:
    """Who the guest becomes; ``extra`` is its VM's extraConfig.

    Raises ValueError with what cloud-init, or this little of it, would stumble over.
    """
    meta = _mapping("metadata", _variable(extra, "metadata"))
    text = _variable(extra, "userdata")
    if text.split("\n", 1)[0].strip() != "#cloud-config":
        raise ValueError("userdata: its first line is not #cloud-config: it is ignored")
    user = _mapping("userdata", text)
    instance = str(meta.get("instance-id", ""))
    if not instance:
        raise ValueError("metadata: no instance-id")
    plain = re.fullmatch(r"[0-9a-f]{32}", instance)
    name = user.get("hostname") or meta.get("local-hostname")
    return Identity(
        hostname=str(name),
        machine_id=instance if plain else hashlib.sha256(instance.encode()).hexdigest()[:32],
        authorized_key=_root_key(user),
        host_key=str(user["ssh_keys"]["ed25519_private"]),
        nics=tuple(_nic(name, nic) for name, nic in _ethernets(meta).items()),
    )


def _variable(extra: Mapping[str, str], name: str) -> str:
    try:
        value = extra[PREFIX + name]
    except KeyError:
        raise ValueError(f"no {PREFIX}{name}") from None
    if len(value) > LIMIT_BYTES:
        raise ValueError(f"{PREFIX}{name}: {len(value)} bytes, more than {LIMIT_BYTES}")
    return _decoded(value, extra.get(f"{PREFIX}{name}.encoding", ""))


def _decoded(value: str, encoding: str) -> str:
    if encoding in ("gzip+base64", "gz+b64"):
        return gzip.decompress(base64.b64decode(value, validate=True)).decode()
    if encoding in ("base64", "b64"):
        return base64.b64decode(value, validate=True).decode()
    return value  # another encoding is none at all, says the datasource


def _mapping(name: str, text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as e:
            raise ValueError(f"{name}: neither JSON nor YAML: {e}") from e
    if not isinstance(found, dict):
        raise ValueError(f"{name}: not a mapping")  # noqa: TRY004  a fault of the document
    return found


def _root_key(user: Mapping[str, Any]) -> str:
    if user.get("disable_root", True):
        raise ValueError("userdata: root may not log in: disable_root is not false")
    people = [one for one in user.get("users", ()) if isinstance(one, dict)]
    keys = [
        key
        for one in people
        if one.get("name") == "root"
        for key in one.get("ssh_authorized_keys", ())
    ]
    if len(keys) != 1:
        raise ValueError(f"userdata: {len(keys)} keys of root's, one is known here")
    return str(keys[0])


def _ethernets(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    network = meta.get("network")
    if isinstance(network, str):
        network = _mapping("metadata.network", _decoded(network, meta.get("network.encoding", "")))
    if not isinstance(network, dict):
        raise ValueError("metadata: no network: the guest would ask for an address by DHCP")  # noqa: TRY004
    if "config" in network:
        raise ValueError("metadata.network: the datasource adds the level 'config' itself")
    if network.get("version") != 2:
        raise ValueError(f"metadata.network: version {network.get('version')!r}")
    return dict(network["ethernets"])


def _nic(name: str, nic: Mapping[str, Any]) -> Nic:
    known = {"match", "set-name", "addresses", "mtu", "dhcp4", "dhcp6", "accept-ra", "optional"}
    if strange := {*nic} - known:
        raise ValueError(f"metadata.network: {name}: not known here: {', '.join(sorted(strange))}")
    mac = nic.get("match", {}).get("macaddress")
    if not mac:
        raise ValueError(f"metadata.network: {name}: not found by its MAC")
    if nic.get("dhcp4") or nic.get("dhcp6") or len(nic.get("addresses", ())) != 1:
        raise ValueError(f"metadata.network: {name}: one address and no DHCP are known here")
    return Nic(
        str(mac).lower(), nic.get("set-name", name), nic["addresses"][0], nic.get("mtu", 1500)
    )
