"""The pool as it is before anybody has touched it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from tests.peers.xapi.core import World
from tests.peers.xapi.hosts import MIB, Hosts
from tests.peers.xapi.values import NULL
from tests.peers.xapi.xen import Xen

GIB = 1 << 30
DISKS = (
    '<provision><disk device="0" size="10737418240" sr="" bootable="true" type="system"/>'
    "</provision>"
)
#: what a licence without restrictions says, and a free one
LICENCES = {
    "premium": {"sku_type": "enterprise-per-socket", "restrict_platform_filter": "true",
                "restrict_vif_locking": "false"},
    "free": {"sku_type": "free", "restrict_platform_filter": "false",
             "restrict_vif_locking": "true"},
}  # fmt: skip


class Builder:
    """Puts things straight into the database. ``networks`` are those of ethN, for all hosts."""

    def __init__(self, world: World, hosts: Hosts) -> None:
        self.world, self.store, self.hosts = world, world.store, hosts
        self.networks: list[str] = []

    def pool(
        self, addresses: Sequence[str], *, sr_gib: int = 64, sr_kind: str = "ext", **host: Any
    ) -> list[str]:
        """Hosts with these addresses, the first the master; gives their references."""
        found = [
            self.host(f"xs{number}", address, number, **host)
            for number, address in enumerate(addresses, start=1)
        ]
        sr = self.sr("Local storage", sr_gib * GIB, sr_kind, found)
        self.sr("ISOs", 8 * GIB, "iso", found, content="iso")
        self.store.new(
            "pool", name_label="pool", master=found[0], default_SR=sr, suspend_image_SR=sr,
            crash_dump_SR=sr,
        )  # fmt: skip
        return found

    def host(
        self, name: str, address: str, number: int, *, cpus: int = 8, memory_mib: int = 32768,
        pnics: int = 5, hvm: bool = True, licence: str = "premium",
    ) -> str:  # fmt: skip
        caps = ["xen-3.0-x86_64", "hvm-3.0-x86_64"] if hvm else ["xen-3.0-x86_64"]
        xen = Xen(name, cpus, memory_mib, str(uuid.uuid4()))
        ref = self.store.new(
            "host", name_label=name, hostname=name, address=address, enabled=True,
            API_version_major="2", API_version_minor="21", API_version_vendor="XenSource",
            software_version={
                "product_brand": "XCP-ng", "product_version": "8.3.0", "xapi": "24.19",
                "platform_name": "XCP", "xen": "4.17.5", "network_backend": xen.backend,
            },
            cpu_info={"cpu_count": str(cpus), "socket_count": "1", "vendor": "GenuineIntel",
                      "modelname": "Intel(R) Xeon(R) CPU", "speed": "2400.000"},
            sched_policy="credit", capabilities=caps, edition=LICENCES[licence]["sku_type"],
            license_params=LICENCES[licence], memory_overhead=str(512 * MIB), ssh_enabled=True,
            metrics=self.store.new("host_metrics", memory_total=str(memory_mib * MIB), live=True),
        )  # fmt: skip
        self.world.xens[ref] = xen
        dom0 = self.vm(
            f"Control domain on host: {name}", is_control_domain=True, power_state="Running",
            domid="0", resident_on=ref, affinity=ref, uuid=xen.dom0_uuid, domain_type="pv",
            memory_static_min=str(512 * MIB),
        )  # fmt: skip
        self.store.put("host", ref, control_domain=dom0)
        xen.boot()
        self.hosts.reflect(ref)
        for nic in range(pnics):
            self.nic(ref, nic, number)
            for queue in range(2):
                xen.irq_names[64 + 2 * nic + queue] = f"eth{nic}-TxRx-{queue}"
        xen.boot()
        return ref

    def nic(self, host: str, nic: int, number: int) -> str:
        """A physical NIC and its network, which is one for all hosts of the pool."""
        if nic == len(self.networks):
            self.networks.append(self.store.new(
                "network", name_label=f"Pool-wide network associated with eth{nic}",
                bridge=f"xenbr{nic}",
            ))  # fmt: skip
        metrics = self.store.new(
            "PIF_metrics", carrier=True, speed="1000", duplex=True, vendor_id="8086",
            vendor_name="Intel Corporation", device_id="1521", device_name="I350 Gigabit",
            pci_bus_path=f"0000:{number:02x}:00.{nic}",
        )  # fmt: skip
        management = nic == 0
        return self.store.new(
            "PIF", device=f"eth{nic}", network=self.networks[nic], host=host, MTU="1500",
            MAC=f"00:1b:21:00:{number:02x}:{nic:02x}", VLAN="-1", physical=True,
            management=management, metrics=metrics, currently_attached=True, managed=True,
            ip_configuration_mode="Static" if management else "None",
            IP=self.store.get("host", host)["address"] if management else "",
        )  # fmt: skip

    def sr(
        self, name: str, size: int, kind: str, hosts: Sequence[str], content: str = "user"
    ) -> str:
        ref = self.store.new(
            "SR", name_label=name, type=kind, content_type=content, physical_size=str(size),
            shared=len(hosts) > 1,
        )  # fmt: skip
        for host in hosts:
            self.store.new("PBD", host=host, SR=ref, currently_attached=True)
        return ref

    def vm(self, name: str, **values: Any) -> str:
        """A VM's record as an installer leaves it."""
        size = str(values.pop("memory_mib", 1024) * MIB)
        hvm = values.get("domain_type", "hvm") == "hvm"
        given: dict[str, Any] = {
            "name_label": name, "power_state": "Halted", "domid": "-1", "domain_type": "hvm",
            "memory_static_max": size, "memory_dynamic_max": size, "memory_dynamic_min": size,
            "memory_static_min": str(256 * MIB), "VCPUs_max": "1", "VCPUs_at_startup": "1",
            "actions_after_shutdown": "destroy", "actions_after_reboot": "restart",
            "actions_after_crash": "restart", "HVM_boot_policy": "BIOS order" if hvm else "",
            "HVM_boot_params": {"order": "cdn", "firmware": "bios"} if hvm else {},
            "platform": {"nx": "true", "acpi": "1", "apic": "true", "pae": "true",
                         "viridian": "false", "device-model": "qemu-upstream-compat"},
            "other_config": {"mac_seed": str(uuid.uuid4())}, "user_version": "1",
            "has_vendor_device": False, "metrics": self.store.new("VM_metrics"),
            "PV_bootloader": "" if hvm else "pygrub",
        }  # fmt: skip
        return self.store.new("VM", **{**given, **values})

    def disk(self, vm: str, sr: str, size: int = 4 * GIB, used: int = 1 * GIB, **vbd: Any) -> str:
        """A disk of the VM that its system boots from."""
        name = self.store.get("VM", vm)["name_label"]
        vdi = self.store.new(
            "VDI", name_label=f"{name} 0", SR=sr, virtual_size=str(size), type="user",
            physical_utilisation=str(used), managed=True,
        )  # fmt: skip
        self.store.put("VDI", vdi, location=self.store.get("VDI", vdi)["uuid"])
        given = {"userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", **vbd}
        self.store.new("VBD", VM=vm, VDI=vdi, **given)
        return vdi

    def cd(self, vm: str) -> None:
        """A CD drive without a CD."""
        self.store.new(
            "VBD", VM=vm, VDI=NULL, empty=True, userdevice="3", mode="RO", type="CD",
            bootable=False,
        )  # fmt: skip

    def templates(self, sr: str) -> None:
        """Two of somebody's own, HVM and PV, and two that every pool has."""
        hvm = self.vm("debian12", is_a_template=True)
        self.disk(hvm, sr)
        self.cd(hvm)
        self.vif(hvm, self.networks[0])
        pv = self.vm("debian12-pv", is_a_template=True, domain_type="pv")
        self.disk(pv, sr)
        self.vm(
            "Other install media", is_a_template=True, is_default_template=True,
            other_config={"default_template": "true", "mac_seed": str(uuid.uuid4())},
        )  # fmt: skip
        self.vm(
            "Debian Bookworm 12", is_a_template=True, is_default_template=True,
            other_config={"default_template": "true", "disks": DISKS,
                          "mac_seed": str(uuid.uuid4())},
        )  # fmt: skip

    def vif(self, vm: str, network: str, device: str = "0", mac: str = "") -> str:
        return self.store.new(
            "VIF", VM=vm, network=network, device=device, MTU="1500", MAC_autogenerated=not mac,
            MAC=mac or f"02:00:00:{':'.join(uuid.uuid4().hex[n:n + 2] for n in (0, 2, 4))}",
        )  # fmt: skip
