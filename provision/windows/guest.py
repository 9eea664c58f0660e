"""Windows guests: what their seed disk holds, how Ansible reaches them, and what they see.

Who a guest is comes from a NoCloud seed that cloudbase-init reads (its own documentation, "NoCloud
configuration drive"); we go in by Windows' own OpenSSH server, by keys that are the testbed's own,
so that there is no password anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources as files
from typing import TYPE_CHECKING, Any

from provision.host import Host
from provision.windows.powershell import answer, command

if TYPE_CHECKING:
    from provision.seed import Identity

FOLDER = r"C:\ProgramData\provision"
_PCI = re.compile(r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", re.IGNORECASE)


def seed(identity: Identity) -> Mapping[str, str]:
    """The files of its NoCloud seed, by name.

    cloudbase-init does its work once for each instance-id, so that is another where anything is.
    """
    nics = []
    for nic in identity.nics:
        address, _, prefix = nic.address.partition("/")
        mac = nic.mac.replace(":", "-").upper()
        named = {"mac": mac, "name": nic.name, "address": address}
        nics.append(named | {"prefix": int(prefix), "mtu": nic.mtu})
    told = {
        "nics": nics,
        "authorized_key": f"{identity.authorized_key}\n",
        "host_key": identity.host_key,
    }
    data = json.dumps(told, indent=1) + "\n"
    who = hashlib.sha256(f"{identity.machine_id} {identity.hostname} {data}".encode()).hexdigest()
    meta = {"instance-id": who[:32], "local-hostname": identity.hostname}
    return {
        "user-data": script("identity.ps1"),
        "meta-data": json.dumps(meta, indent=1) + "\n",
        "provision.json": data,
    }


def variables(netserver: Mapping[str, Any] | None) -> dict[str, Any]:
    """What Ansible needs beside address and keys; ``ansible-doc -t connection ssh``.

    cmd is the shell that OpenSSH on Windows has where nobody chose another.
    """
    return {
        "ansible_connection": "ssh",
        "ansible_shell_type": "cmd",
        "provision_os": "windows",
        "provision_folder": FOLDER,
        "netperf_netserver": dict(netserver or {}),
    }


def inspect(host: Host) -> dict[str, Any]:
    """As ``verify.inspect``, of a Windows guest. Raises WorldError."""
    said = host.run(*command(script("inspect.ps1")), input="{}", timeout_s=120)
    found = answer(host.name, said)
    return {
        "hostname": str(found["hostname"]).lower(),  # Windows knows no case there
        "kernel": found["kernel"],
        "cpus": found["cpus"],
        "memory_kib": int(found["memory_bytes"]) // 1024,
        "boot_id": found["booted"],
        "nics": [_nic(one) for one in _list(found["nics"])],
    }


def _nic(told: Mapping[str, Any]) -> dict[str, Any]:
    pci = _PCI.match(str(told["device"] or ""))
    return {
        "name": told["name"],
        "mac": str(told["mac"]).replace("-", ":").lower(),
        "mtu": told["mtu"],
        "state": str(told["state"]).lower(),
        "driver": str(told["driver"] or "").lower().removesuffix(".sys"),
        "speed_mbit": int(told["speed_bit"] or 0) // 10**6,
        "addresses": _list(told["addresses"]),
        "offloads": sorted(map(str, _list(told["offloads"]))),
    } | ({"pci_id": f"{pci[1]}:{pci[2]}".lower()} if pci else {})


def _list(found: Any) -> Sequence[Any]:
    """Without the wrapping that Windows PowerShell gives to some arrays."""
    if isinstance(found, dict) and found.keys() == {"value", "Count"}:
        found = found["value"]
    return found if isinstance(found, list) else [found]


def script(name: str) -> str:
    """A script as it is shipped."""
    return files.files("provision.windows").joinpath(name).read_text("ascii")
