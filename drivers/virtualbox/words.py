"""The vNIC models of VirtualBox, and how things of ours are called in it; pure."""

from __future__ import annotations

from collections.abc import Mapping

from drivers.libvirt.marks import domain_name, domain_uuid
from provision.driver import NicModel

ACCEL = "virtualbox"
MAC_PREFIX = "08:00:27"
CLEAN = "provision-clean"  # the snapshot that is a guest's checkpoint
RECORD = "provision/guest"  # the key of extra data that holds what was asked for
SEED, CONSOLE = "provision-seed.iso", "provision-console.log"
MOST_NICS = 7  # besides management's: the PIIX3 chipset has eight network adapters
JUMBO, PLAIN = 9000, 1500  # as their Linux drivers take it

MODELS: Mapping[str, NicModel] = {
    m.name: m
    for m in (
        # 6.0 and older are a transitional device, newer ones one of virtio 1.0
        NicModel("virtio", ("1af4:1000", "1af4:1041"), ("virtio_net",), JUMBO),
        NicModel("82540EM", ("8086:100e",), ("e1000",), JUMBO),
        NicModel("82543GC", ("8086:1004",), ("e1000",), JUMBO),
        NicModel("82545EM", ("8086:100f",), ("e1000",), JUMBO),
        NicModel("Am79C970A", ("1022:2000",), ("pcnet32",), PLAIN),
        NicModel("Am79C973", ("1022:2000",), ("pcnet32",), PLAIN),
    )
}
WORDS = {"paravirtual": "virtio", "emulated": "82540EM"}


def vm_name(testbed: str, guest: str) -> str:
    return domain_name(testbed, guest)


def vm_uuid(testbed: str, guest: str) -> str:
    """The same for the same guest every time; a VM has it from its first moment."""
    return str(domain_uuid(testbed, guest))


def group(testbed: str) -> str:
    """The group that all VMs of a testbed are in: the mark that they bear, and their folder."""
    return f"/provision/{testbed}"


def folder(root: str, testbed: str, guest: str) -> str:
    """Where VirtualBox keeps a VM of that group, under a folder of machines."""
    return f"{root}{group(testbed)}/{vm_name(testbed, guest)}"


def limit_group(nic: int) -> str:
    """The bandwidth group of a vNIC, 1 is management's."""
    return f"pv{nic}"


def mac_here(mac: str) -> str:
    """A MAC as VirtualBox writes it."""
    return mac.replace(":", "").upper()


def mac(text: str) -> str:
    """And as we do."""
    return ":".join(text[n : n + 2] for n in range(0, 12, 2)).lower()
