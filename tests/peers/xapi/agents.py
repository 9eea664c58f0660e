"""What a guest is handed over, and what its agent then reports.

The identity is ``provision.seed.document``, at the start of an attached disk (the system area of
the seed ISO) or as the value of a key below ``vm-data/`` in the VM's ``xenstore_data``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provision.seed import MAGIC, Identity
from tests.peers.nsguest import identity_of
from tests.peers.xapi.core import NoMachines, World
from tests.peers.xapi.store import Store, now


@dataclass(frozen=True, slots=True)
class Card:
    """A NIC as the guest sees it: ``model`` is netfront, rtl8139 or e1000."""

    device: str
    mac: str
    bridge: str
    model: str
    mtu: int


def cards(store: Store, vm: str) -> list[Card]:
    """The guest's NICs: netfront, unless it is told not to have the platform device.

    The emulated model is the VM's own (``platform:nic_type``), which a licence with the platform
    filter drops; UEFI guests have e1000 otherwise, BIOS guests rtl8139, PV guests none at all.
    """
    record = store.get("VM", vm)
    hvm = record["domain_type"] == "hvm"
    bare = hvm and record["xenstore_data"].get("vm-data/disable_pf") == "1"
    kind = record["platform"].get("nic_type") if not filtered(store) else None
    uefi = record["HVM_boot_params"].get("firmware") == "uefi"
    kind = kind or ("e1000" if uefi else "rtl8139")
    return [
        Card(vif["device"], vif["MAC"].lower(),
             store.get("network", vif["network"])["bridge"], kind if bare else "netfront",
             int(vif["MTU"]))
        for _, vif in store.each("VIF", VM=vm, currently_attached=True)
    ]  # fmt: skip


def filtered(store: Store) -> bool:
    """Whether the licence filters platform keys (the feature is on where it is not restricted)."""
    hosts = store.tables["host"].values()
    return all(h["license_params"].get("restrict_platform_filter") == "false" for h in hosts)


def identity(world: World, vm: str) -> Identity | None:
    """Who the guest becomes; None where nothing says so. Raises ValueError where it is garbled."""
    store = world.store
    found = []
    for _, vbd in store.each("VBD", VM=vm, currently_attached=True):
        data = world.disks.get(vbd["VDI"], b"")
        if data.startswith(MAGIC.encode()):
            found.append(data)
    for key, value in store.get("VM", vm)["xenstore_data"].items():
        if key.startswith("vm-data/") and value.startswith(MAGIC):
            found.append(value.encode())
    if len(found) > 1:
        raise ValueError("more than one identity was handed over")
    return identity_of(found[0]) if found else None


def report(world: World, vm: str, addresses: Mapping[str, str]) -> None:
    """A guest's agent says that it runs, and its addresses by MAC; nothing where it has stopped."""
    store = world.store
    if not store.has("VM", vm) or store.get("VM", vm)["power_state"] != "Running":
        return
    networks = {}
    for card in cards(store, vm):
        if card.mac in addresses:
            networks[f"{card.device}/ip"] = addresses[card.mac]
            networks[f"{card.device}/ipv4/0"] = addresses[card.mac]
    values = {
        "networks": networks, "PV_drivers_detected": True, "PV_drivers_up_to_date": True,
        "live": True, "last_updated": now(), "can_use_hotplug_vif": "yes",
        "can_use_hotplug_vbd": "yes", "os_version": {"name": "Debian GNU/Linux 12", "uname": "6.1"},
        "PV_drivers_version": {"major": "7", "minor": "30", "micro": "0", "build": "1"},
    }  # fmt: skip
    known = store.get("VM", vm)["guest_metrics"]
    if store.has("VM_guest_metrics", known):
        store.put("VM_guest_metrics", known, **values)
    else:
        store.put("VM", vm, guest_metrics=store.new("VM_guest_metrics", **values))


class Imagined(NoMachines):
    """Guests without an inside: after a while each agent reports what the identity says.

    No agent speaks without a bootable disk, without an identity, or without the platform device.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def started(self, vm: str) -> None:
        record = self._world.store.get("VM", vm)
        if any(card.model != "netfront" for card in cards(self._world.store, vm)):
            return
        if not any(v["type"] == "Disk" and v["bootable"] for _, v in
                   self._world.store.each("VBD", VM=vm)):  # fmt: skip
            return
        try:
            who = identity(self._world, vm)
        except (ValueError, KeyError, AssertionError) as e:
            self._world.complain(f"{record['name_label']}: the identity handed over: {e}")
            return
        addresses = {nic.mac: nic.address.split("/")[0] for nic in who.nics} if who else {}
        domid = record["domid"]

        def speak() -> None:
            store = self._world.store
            if store.has("VM", vm) and store.get("VM", vm)["domid"] == domid:
                report(self._world, vm, addresses)

        self._world.later(self._world.agent_s, speak)
