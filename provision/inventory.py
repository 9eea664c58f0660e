"""Ansible's inventory of a testbed, from the journal alone: in a file's form and in a script's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from provision import windows
from provision.access import Access, address
from provision.errors import UserError
from provision.host import ssh_options
from provision.journal import Journal
from provision.resources import Guest, Vnic
from provision.session import access_of
from provision.spec import Spec
from provision.state import State, sockets
from provision.testbed import Link, namespace_of, of_guests
from provision.windows import guest as windows_guest

LINUX: Mapping[str, Any] = {
    "ansible_python_interpreter": "/usr/bin/python3",
    "provision_os": "linux",
}
GENERATOR, HYPERVISOR = "load-generator", "hypervisor"
LINKS = "links"  # the journal's subject under which ``up`` leaves them
_HOST = r"\[.+\]|[^:\[]+|[^:\[]*:[^\[]*:[^\[]*"  # an IPv6 address needs no brackets without a port
_TARGET = re.compile(rf"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>{_HOST})(?::(?P<port>\d+))?")


def links_of(journal: Journal) -> list[Link]:
    """The links as they were built; raises UserError where ``up`` has not come so far."""
    found = journal.facts().get(LINKS)
    if not found:
        raise UserError(
            f"testbed {journal.testbed!r} is not up", hint=f"provision up -n {journal.testbed}"
        )
    return [Link(**link) for link in found[LINKS]]


def build(state: State, spec: Spec) -> dict[str, Any]:
    """As ``of``, of a testbed that nobody has in hand."""
    with closing(Journal(state.root, spec.name)) as journal:
        return of(journal, state, spec)


def of(journal: Journal, state: State, spec: Spec) -> dict[str, Any]:
    """The inventory as a file has it: groups ``guests`` and ``loadgenerators`` with variables.

    A Windows host is in ``hypervisors``, for plays of one's own.
    """
    links = links_of(journal)
    facts = journal.facts()
    guests = {r.name: r for r in journal.wants().values() if isinstance(r, Guest)}
    access = access_of(state, spec)
    given = spec.guests.netserver
    netserver = given.model_dump() if given is not None else None
    hosts = {
        name: _guest(access, guests[name], own, facts.get(name, {}), netserver)
        for name, own in of_guests(links).items()
        if name in guests
    }
    return {
        "all": {
            "vars": {"provision_testbed": spec.name, "provision_hypervisor": spec.hypervisor.type},
            "children": {
                **_windows(guests, hosts),
                "guests": {"hosts": hosts},
                "loadgenerators": {"hosts": {GENERATOR: _generator(state, spec, links)}},
                **_hypervisors(spec),
            },
        }
    }


def _windows(guests: Mapping[str, Guest], hosts: Iterable[str]) -> dict[str, Any]:
    """The group of the guests that are; their variables are with all guests'."""
    found = [name for name in hosts if guests[name].os == "windows"]
    return {"windows": {"hosts": {name: {} for name in found}}} if found else {}


def _hypervisors(spec: Spec) -> dict[str, Any]:
    if spec.hypervisor.type != "hyperv":
        return {}
    return {"hypervisors": {"hosts": {HYPERVISOR: windows.variables(spec.hypervisor)}}}


def _guest(
    access: Access,
    guest: Guest,
    links: Sequence[Link],
    seen: Mapping[str, Any],
    netserver: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What tells of one link tells of the guest's first; ``provision_links`` has them all."""
    link, nic = links[0], guest.nics[0]
    is_windows = guest.os == "windows"
    system = windows_guest.variables(netserver) if is_windows else LINUX
    return {
        "ansible_host": address(guest),
        "ansible_user": access.user,
        "ansible_become": access.user != "root" and not is_windows,
        "ansible_ssh_private_key_file": str(access.key),
        "ansible_ssh_common_args": shlex.join(access.options()),
        **system,
        "netperf_address": link.guest_address.split("/")[0],
        "netperf_control_port": link.control_port,
        "netperf_endpoints": [
            {
                "address": one.guest_address.split("/")[0],
                "port": one.control_port,
                "client": one.client_address.split("/")[0],
            }
            for one in links
        ],
        "provision_links": [_link(one, own) for one, own in zip(links, guest.nics, strict=True)],
        "provision_link": link.number,
        "provision_uplink": link.uplink,
        "provision_switch": link.switch,
        "provision_client_address": link.client_address.split("/")[0],
        "provision_nic_model": nic.model,
        "provision_nic_mac": nic.mac,
        "provision_vcpus": guest.vcpus,
        "provision_memory_mib": guest.memory_mib,
        "provision_accel": guest.accel,
        "provision_started": seen.get("started", ""),
        "provision_kernel": seen.get("kernel", ""),
        # the guest is a host that is not ours: what we bring goes there, and nothing is installed
        **({"provision_folder": seen["folder"], "netperf_keep": True} if "folder" in seen else {}),
    }


def _link(link: Link, nic: Vnic) -> dict[str, Any]:
    return {
        "number": link.number,
        "nic": link.nic,
        "uplink": link.uplink,
        "switch": link.switch,
        "port": link.port,
        "address": link.guest_address.split("/")[0],
        "client_address": link.client_address.split("/")[0],
        "control_port": link.control_port,
        "nic_model": nic.model,
        "nic_mac": nic.mac,
    }


def _generator(state: State, spec: Spec, links: list[Link]) -> dict[str, Any]:
    ports = {"provision_ports": [link.port for link in links]}
    folder = state.folder(spec.name) / "generator"
    if spec.load_generator is None:
        return ports | {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(python_inside(state, spec.name)),
            "provision_folder": str(folder),
        }
    found = _TARGET.fullmatch(spec.load_generator.ssh)
    host = {
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_common_args": shlex.join(ssh_options(control=sockets())),
    }
    if found:
        host["ansible_host"] = found["host"].strip("[]")
    if found and found["user"]:
        host["ansible_user"] = found["user"]
    if found and found["port"]:
        host["ansible_port"] = found["port"]
    return ports | host


def python_inside(state: State, testbed: str) -> Path:
    """The Python that runs in the emulated load generator's namespace."""
    return state.folder(testbed) / "python"


def write_python(state: State, testbed: str) -> None:
    """Write that Python: Ansible's local connection knows nothing of namespaces."""
    path = python_inside(state, testbed)
    path.parent.mkdir(parents=True, exist_ok=True)
    words = f"ip netns exec {namespace_of(testbed)} /usr/bin/env python3"
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)


def script(inventory: Mapping[str, Any]) -> dict[str, Any]:
    """The inventory as inventory scripts print it for ``--list``."""
    common, groups = inventory["all"]["vars"], inventory["all"]["children"]
    hosts = {name: v for group in groups.values() for name, v in group["hosts"].items()}
    return {
        "_meta": {"hostvars": {name: common | v for name, v in hosts.items()}},
        "all": {"children": list(groups)},
        **{name: {"hosts": list(group["hosts"])} for name, group in groups.items()},
    }


def host_variables(inventory: Mapping[str, Any], host: str) -> dict[str, Any]:
    """What inventory scripts print for ``--host``; raises UserError with the hosts there are."""
    found = script(inventory)["_meta"]["hostvars"]
    if host not in found:
        raise UserError(f"no host {host!r}; there are: {', '.join(found)}")
    return dict(found[host])
