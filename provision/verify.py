"""Whether the testbed is what was asked: what was read back against the wish, inside and out."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping
from importlib import resources as files
from threading import Event as Flag
from typing import Any

from provision.driver import Facts
from provision.errors import HostError, Interrupted, Unreachable, WorldError
from provision.host import Host
from provision.plan import words
from provision.resources import Guest, Key, Resource, Vnic, changed, key, label

#: a port that opens on another machine gives no event: it has to be asked for, and rarely by logins
PAUSE_S, LOGIN_PAUSE_S = 0.05, 0.5


def mismatches(wants: Iterable[Resource], have: Mapping[Key, Resource | None]) -> list[str]:
    """One line for every field that the hypervisor gives back other than asked."""
    found: list[str] = []
    for want in wants:
        k = key(want)
        now = have.get(k)
        if now is None:
            found.append(f"{label(k)}: does not exist")
            continue
        found += [
            f"{label(k)}.{f}: asked for {words(getattr(want, f))}, is {words(getattr(now, f))}"
            for f in changed(now, want)
        ]
    return found


def inside(guest: Guest, seen: Mapping[str, Any], facts: Facts) -> list[str]:
    """One line for everything that the guest itself sees other than asked."""
    found: list[str] = []
    left = {nic["name"]: nic for nic in seen["nics"]}
    for vnic in guest.nics if facts.bare else (guest.management, *guest.nics):
        nic = next((n for n in left.values() if _is(vnic, n)), None)
        if nic is None:
            what = f"MAC {vnic.mac} ({vnic.model})" if vnic.mac else f"address {vnic.address}"
            found.append(f"{guest.name}: no NIC with {what} inside")
        else:
            del left[nic["name"]]
            found += [f"{guest.name} {nic['name']}: {w}" for w in _nic(vnic, nic, facts)]
    if not facts.bare:  # else they are its host's
        found += [f"{guest.name}: a NIC too many: {n['name']} {n['mac']}" for n in left.values()]
    if seen["hostname"] != guest.name:
        found.append(f"{guest.name}: its hostname is {seen['hostname']!r}")
    return [*found, *(_grouped(guest, seen) if facts.limits == "groups" else _sized(guest, seen))]


def own_nics(guest: Guest, seen: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of all NICs that a guest sees, which may be its host's, those that are its own."""
    return [nic for nic in seen["nics"] if any(_is(vnic, nic) for vnic in guest.nics)]


def _is(vnic: Vnic, nic: Mapping[str, Any]) -> bool:
    return nic["mac"] == vnic.mac if vnic.mac else vnic.address in nic["addresses"]


def _sized(guest: Guest, seen: Mapping[str, Any]) -> list[str]:
    """Whether the machine has the size that was asked for."""
    found = []
    if seen["cpus"] != guest.vcpus:
        found.append(f"{guest.name}: asked for {guest.vcpus} vCPUs, it sees {seen['cpus']}")
    if not 0.8 * guest.memory_mib <= seen["memory_kib"] / 1024 <= guest.memory_mib:
        found.append(
            f"{guest.name}: asked for {guest.memory_mib} MiB, it sees "
            f"{seen['memory_kib'] // 1024} MiB"
        )
    return found


def _grouped(guest: Guest, seen: Mapping[str, Any]) -> list[str]:
    """Whether the control groups that the guest finds itself in hold it as asked."""
    found, groups = [], seen["groups"]
    most = min(100 * guest.vcpus, guest.cap_percent or 100 * guest.vcpus)
    if groups["quota_percent"] != most:
        found.append(
            f"{guest.name}: asked for {most} % of a CPU at most, its control group says "
            f"{words(groups['quota_percent'])}"
        )
    if groups["memory_mib"] != guest.memory_mib:
        found.append(
            f"{guest.name}: asked for {guest.memory_mib} MiB, its control group says "
            f"{words(groups['memory_mib'])}"
        )
    return found


def _nic(vnic: Vnic, nic: Mapping[str, Any], facts: Facts) -> Iterable[str]:
    model = facts.nic_models[vnic.model]
    if model.pci_ids and nic.get("pci_id") not in model.pci_ids:
        yield f"asked for {vnic.model} ({'|'.join(model.pci_ids)}), PCI id is {nic.get('pci_id')}"
    if model.drivers and nic["driver"] not in model.drivers:
        yield f"asked for {vnic.model}, its driver is {nic['driver']!r}"
    if vnic.address not in nic["addresses"]:
        yield f"asked for address {vnic.address}, has {', '.join(nic['addresses']) or 'none'}"
    if nic["mtu"] != vnic.mtu:
        yield f"asked for MTU {vnic.mtu}, has {nic['mtu']}"


def wait_ready(host: Host, address: str, *, timeout_s: float, stop: Flag) -> None:
    """Return once the guest takes commands over SSH.

    Raises Unreachable after ``timeout_s``, Interrupted when ``stop`` is set meanwhile, and
    HostError at once when the guest answers but refuses us.
    """
    deadline = time.monotonic() + timeout_s
    last = "no answer"
    while (left_s := deadline - time.monotonic()) > 0:
        if stop.is_set():
            raise Interrupted(f"stopped while waiting for {address}")
        try:
            if _direct(host):
                _banner(address, min(left_s, 5))
            host.run("exit", timeout_s=max(left_s, 1))  # a word that Windows' shells have too
        except (OSError, Unreachable) as e:
            last = str(e)
            if "Permission denied" in last or "verification failed" in last:
                raise HostError(f"{address} answers and refuses us: {last}") from e
            stop.wait(PAUSE_S if _direct(host) else LOGIN_PAUSE_S)
        else:
            return
    raise Unreachable(f"{address}: no SSH within {timeout_s:g} s ({last})")


def _direct(host: Host) -> bool:
    return not any(word.startswith("ProxyCommand=") for word in host.prefix)


def _banner(address: str, timeout_s: float) -> None:
    """Ask for sshd's first line: far cheaper than a login that fails. Raises OSError."""
    with socket.create_connection((address, 22), timeout=timeout_s) as found:
        found.settimeout(max(timeout_s, 1))
        if not found.recv(4).startswith(b"SSH"):
            raise OSError("port 22 closed the connection")


def inspect(host: Host) -> dict[str, Any]:
    """What the guest itself sees: kernel, CPUs, memory, clock source, and its NICs.

    Raises WorldError where the guest gives no sensible answer.
    """
    script = files.files("provision").joinpath("inspect_guest.py").read_text()
    said = host.run("python3", "-SE", "-", input=script)
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError as e:
        raise WorldError(f"{host.name}: what it says of itself is not JSON: {said[:200]!r}") from e
    return found
