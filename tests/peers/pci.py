"""A PCI tree whose files behave: NICs with virtual functions, in folders as sysfs has them.

``sriov_numvfs`` takes what the kernel takes (a change is from 0 or to 0, EBUSY else; ERANGE beyond
the total), and functions come and go with it. What it cannot judge: hardware, drivers that bind,
IOMMUs, and that frames of a function leave by its NIC.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from provision.host import Host
from tests.peers.xapi.fuse import File, mounted

VENDOR, FUNCTION = "0x8086", "154c"


@dataclass
class Tree:
    """The tree at ``root``; ``groups`` has devices that share the group of a new function.

    ``refuses`` is the error of every write, 0 = none.
    """

    root: Path
    groups: dict[str, list[str]] = field(default_factory=dict)
    iommu: bool = True
    made: dict[str, int] = field(default_factory=dict)
    refuses: int = 0
    bound: dict[str, str] = field(default_factory=dict)

    def device(self, pci: str) -> Path:
        return self.root / "devices" / "pci0000:3a" / pci

    def add(self, nic: str, pci: str, total: int) -> None:
        """A NIC that can have functions, in a group of its own."""
        at = self.device(pci)
        at.mkdir(parents=True)
        for name, text in (("sriov_totalvfs", total), ("sriov_numvfs", 0), ("vendor", VENDOR),
                           ("sriov_vf_device", FUNCTION), ("class", "0x020000")):  # fmt: skip
            (at / name).write_text(f"{text}\n")
        net = self.root / "class" / "net" / nic
        net.mkdir(parents=True)
        (net / "device").symlink_to(at)
        self.made[pci] = 0
        self._group(pci)

    def pciback(self, *devices: str) -> None:
        """Xen's driver for devices that are given away is there, and has these; NICs have i40e."""
        self.bound = {**dict.fromkeys(self.made, "i40e"), **dict.fromkeys(devices, "pciback")}
        self.bind()

    def bind(self) -> None:
        """Devices are with the drivers that ``bound`` says."""
        bus = self.root / "bus" / "pci"
        shutil.rmtree(bus, ignore_errors=True)
        for driver in {"pciback", *self.bound.values()}:
            (bus / "drivers" / driver).mkdir(parents=True)
            (bus / "drivers" / driver / "new_id").touch()
        (bus / "devices").mkdir()
        for pci, driver in self.bound.items():
            (self.device(pci) / "driver").unlink(missing_ok=True)
            (self.device(pci) / "driver").symlink_to(bus / "drivers" / driver)
            (bus / "drivers" / driver / pci).symlink_to(self.device(pci))
            (bus / "devices" / pci).symlink_to(self.device(pci))

    def read(self, pci: str) -> str:
        return f"{self.made[pci]}\n"

    def write(self, pci: str, text: str) -> None:
        """As a write to ``sriov_numvfs``."""
        number, now = int(text), self.made[pci]
        if self.refuses:
            raise OSError(self.refuses, "the driver refuses")
        if number and now:
            raise OSError(errno.EBUSY, "change from 0 only")
        if number > int((self.device(pci) / "sriov_totalvfs").read_text()):
            raise OSError(errno.ERANGE, "too many")
        for n in range(max(number, now)):
            link, function = self.device(pci) / f"virtfn{n}", f"{pci[:-4]}10.{n}"
            if not number:
                link.unlink()
                shutil.rmtree(self.device(function))
                continue
            self.device(function).mkdir()
            (self.device(function) / "class").write_text("0x020000\n")
            self._group(function)
            link.symlink_to(self.device(function))
        self.made[pci] = number

    def _group(self, pci: str) -> None:
        if not self.iommu:
            return
        group = self.root / "kernel" / "iommu_groups" / f"g{pci[-4:]}"
        (group / "devices").mkdir(parents=True, exist_ok=True)
        for name in (pci, *self.groups.get(pci, ())):
            link = group / "devices" / name
            if not link.is_symlink():
                link.symlink_to(self.device(name))
        (self.device(pci) / "iommu_group").symlink_to(group)


@contextmanager
def pci(host: Host, root: Path, nics: dict[str, tuple[str, int]], **how: Any) -> Iterator[Tree]:
    """NICs by name, each with its address and how many functions it can have; needs root."""
    tree = Tree(root / "sys", **how)
    with ExitStack() as stack:
        for nic, (address, total) in nics.items():
            tree.add(nic, address, total)
            door = root / f"door-{nic}"
            door.mkdir()
            file = File(partial(tree.read, address), partial(tree.write, address))
            stack.enter_context(mounted({"sriov_numvfs": file}, host, door))
            host.run("mount", "--bind", f"{door}/sriov_numvfs",
                     str(tree.device(address) / "sriov_numvfs"))  # fmt: skip
        yield tree
