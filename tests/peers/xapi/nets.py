"""Networks, physical interfaces, VLANs, and the VIFs of VMs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from tests.peers.xapi import generic, rules
from tests.peers.xapi.core import Handler, World
from tests.peers.xapi.store import Record, null
from tests.peers.xapi.values import Failure

RESERVED = ("xen", "xapi", "vif", "tap", "eth")
LONGEST = 15
_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


class Nets:
    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.store
        self._internal = 0

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "network.create": self.create, "network.destroy": self.destroy,
            "PIF.plug": self.plug_pif, "PIF.unplug": self.unplug_pif,
            "PIF.set_disallow_unplug": lambda ref, value: self.store.put(
                "PIF", ref, disallow_unplug=value
            ),
            "VLAN.create": self.create_vlan, "VLAN.destroy": self.destroy_vlan,
            "VIF.create": self.create_vif, "VIF.destroy": self.destroy_vif,
            "VIF.plug": self.plug_vif, "VIF.unplug": self.unplug_vif, "VIF.move": self.move_vif,
            "VIF.set_locking_mode": lambda ref, value: self.store.put(
                "VIF", ref, locking_mode=value
            ),
        }  # fmt: skip

    def create(self, record: Record) -> str:
        given = generic.constructor(self.store, "network", record)
        bridge = given.get("bridge", "")
        taken = {one["bridge"] for one in self.store.tables["network"].values()}
        if bridge:
            if len(bridge) > LONGEST or bridge.startswith(RESERVED):
                raise Failure("INVALID_VALUE", "bridge", bridge)
            if bridge in taken:
                raise Failure("BRIDGE_NAME_EXISTS", bridge)
        while not bridge or bridge in taken:
            bridge, self._internal = f"xapi{self._internal}", self._internal + 1
        if "MTU" not in given or int(given["MTU"]) <= 0:
            given["MTU"] = "1500"
        return self.store.new("network", **{**given, "bridge": bridge})

    def destroy(self, ref: str) -> None:
        found = self.store.record("network", ref)
        vifs = [one for one in found["VIFs"] if self.store.get("VIF", one)["currently_attached"]]
        if vifs:
            raise Failure("NETWORK_CONTAINS_VIF", *vifs)
        if found["PIFs"]:
            raise Failure("NETWORK_CONTAINS_PIF", *found["PIFs"])
        if found["other_config"].get("is_host_internal_management_network") == "true":
            raise Failure("OPERATION_NOT_ALLOWED", "a system network")
        for vif in found["VIFs"]:
            self.store.drop("VIF", vif)
        self.store.drop("network", ref)

    def plug_pif(self, ref: str) -> None:
        pif = self.store.get("PIF", ref)
        if not null(pif["bond_slave_of"]):
            raise Failure("CANNOT_PLUG_BOND_SLAVE", ref)
        if not pif["currently_attached"]:
            self.store.put("PIF", ref, currently_attached=True)

    def unplug_pif(self, ref: str) -> None:
        pif = self.store.get("PIF", ref)
        if pif["management"]:
            raise Failure("PIF_IS_MANAGEMENT_INTERFACE", ref)
        if pif["disallow_unplug"]:
            raise Failure("PIF_DOES_NOT_ALLOW_UNPLUG", ref)
        for vif, one in self.store.each("VIF", network=pif["network"], currently_attached=True):
            if self.store.get("VM", one["VM"])["resident_on"] == pif["host"]:
                raise Failure("VIF_IN_USE", pif["network"], vif)
        self.store.put("PIF", ref, currently_attached=False)

    def create_vlan(self, pif: str, tag: str, network: str) -> str:
        on = self.store.get("PIF", pif)
        if not 0 <= int(tag) <= 4094:
            raise Failure("VLAN_TAG_INVALID", tag)
        if not on["physical"] and null(on["bond_slave_of"]):
            raise Failure("OPERATION_NOT_ALLOWED", "VLANs stand on physical PIFs")
        for _, vlan in self.store.each("VLAN", tagged_PIF=pif, tag=tag):
            raise Failure("PIF_VLAN_EXISTS", vlan["untagged_PIF"])
        ref = self.store.new("VLAN", tagged_PIF=pif, tag=tag)
        untagged = self.store.new(
            "PIF", device=on["device"], network=network, host=on["host"], MAC=on["MAC"],
            MTU=on["MTU"], VLAN=tag, metrics=on["metrics"], VLAN_master_of=ref,
        )  # fmt: skip
        self.store.put("VLAN", ref, untagged_PIF=untagged)
        return ref

    def destroy_vlan(self, ref: str) -> None:
        untagged = self.store.get("VLAN", ref)["untagged_PIF"]
        self.unplug_pif(untagged)
        self.store.drop("PIF", untagged)
        self.store.drop("VLAN", ref)

    def create_vif(self, record: Record) -> str:
        given = generic.constructor(self.store, "VIF", record)
        vm = self.store.get("VM", given["VM"])
        self.store.get("network", given["network"])
        device = given["device"]
        if not device.isdigit():
            raise Failure("INVALID_DEVICE", device)
        mac, made = given["MAC"], False
        if mac == "" and (seed := vm["other_config"].get("mac_seed")):
            mac, made = mac_of(int(device), seed), True
        if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
            raise Failure("MAC_INVALID", mac)
        if any(one["device"] == device for _, one in self.store.each("VIF", VM=given["VM"])):
            raise Failure("DEVICE_ALREADY_EXISTS", device)
        if given.get("currently_attached"):
            raise Failure("OPERATION_NOT_ALLOWED", "a VIF is attached by its VM's start or by plug")
        if given.get("locking_mode") == "locked" and self.licence("VIF_locking"):
            raise Failure("LICENCE_RESTRICTION", "VIF_locking")
        return self.store.new("VIF", **{**given, "MAC": mac}, MAC_autogenerated=made)

    def licence(self, feature: str) -> bool:
        """Whether the pool's licence restricts that."""
        hosts = self.store.tables["host"].values()
        return any(h["license_params"].get(f"restrict_{feature.lower()}") == "true" for h in hosts)

    def destroy_vif(self, ref: str) -> None:
        vif = self.store.get("VIF", ref)
        if vif["currently_attached"] and self._state(vif) == "Running":
            raise Failure("OPERATION_NOT_ALLOWED", "VIF currently attached to a running VM")
        self.store.drop("VIF", ref)

    def _state(self, vif: Record) -> str:
        return str(self.store.get("VM", vif["VM"])["power_state"])

    def _hotplug(self, ref: str) -> Record:
        vif = self.store.get("VIF", ref)
        if (state := self._state(vif)) != "Running":
            raise Failure("VM_BAD_POWER_STATE", vif["VM"], "running", state.lower())
        return vif

    def _drivers(self, vif: Record) -> None:
        vm = self.store.get("VM", vif["VM"])
        if vm["domain_type"] == "hvm" and not rules.has_drivers(self.store, vif["VM"]):
            raise Failure("VM_MISSING_PV_DRIVERS", vif["VM"])

    def plug_vif(self, ref: str) -> None:
        vif = self._hotplug(ref)
        if vif["currently_attached"]:
            raise Failure("DEVICE_ALREADY_ATTACHED", ref)
        self._drivers(vif)
        self.attach(ref, vif, self.store.get("VM", vif["VM"])["resident_on"])
        self.world.machines.changed(vif["VM"])

    def unplug_vif(self, ref: str) -> None:
        vif = self._hotplug(ref)
        if not vif["currently_attached"]:
            raise Failure("DEVICE_ALREADY_DETACHED", ref)
        self._drivers(vif)
        self.store.put("VIF", ref, currently_attached=False)
        self.world.machines.changed(vif["VM"])

    def move_vif(self, ref: str, network: str) -> None:
        vif = self.store.get("VIF", ref)
        self.store.get("network", network)
        self.store.put("VIF", ref, network=network)
        if vif["currently_attached"]:
            host = self.store.get("VM", vif["VM"])["resident_on"]
            self.attach(ref, self.store.get("VIF", ref), host)
            self.world.machines.changed(vif["VM"])

    def attach(self, ref: str, vif: Record, host: str) -> None:
        """Bring its network up on the host, and the VIF onto it; two alike are complained of."""
        for pif, one in self.store.each("PIF", network=vif["network"], host=host):
            if not null(one["bond_slave_of"]):
                raise Failure("CANNOT_PLUG_BOND_SLAVE", pif)
            if not one["currently_attached"]:
                self.store.put("PIF", pif, currently_attached=True)
        for other, one in self.store.each("VIF", network=vif["network"], currently_attached=True):
            if other != ref and one["MAC"].lower() == vif["MAC"].lower():
                self.world.complain(f"two running VIFs of one network have the MAC {vif['MAC']}")
        self.store.put("VIF", ref, currently_attached=True)


def mac_of(device: int, seed: str) -> str:
    """The address that is made of a VM's mac_seed, locally administered."""
    digest = hashlib.md5(f"{seed}{device}".encode(), usedforsecurity=False).digest()
    octets = [digest[0] & 0xFC | 2, *digest[1:6]]
    return ":".join(f"{octet:02x}" for octet in octets)
