"""How a guest comes about: cloned by vCenter, or put together around a disk.

An ESXi host by itself clones no VMs; there, and for an image that was uploaded, we make a VM with a
disk that is a child of the base, as ``backing.parent`` says. vSphere API: CloneVM_Task,
VirtualDiskFlatVer2BackingInfo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drivers.vsphere import spec as wording
from drivers.vsphere.api import vim
from drivers.vsphere.disks import Disks
from drivers.vsphere.place import Place
from drivers.vsphere.sources import Source, Sources
from drivers.vsphere.tasks import Tasks
from drivers.vsphere.vms import Vms
from provision.errors import DriverError
from provision.resources import Guest

if TYPE_CHECKING:
    from provision.image import Image

_DEVICE = vim.vm.device
_FLAT = _DEVICE.VirtualDisk.FlatVer2BackingInfo
LINUX = "other3xLinux64Guest"
EMPTY_KIB = 1 << 20
CONTROLLER_KEY, DISK_KEY = -100, -110
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes VMs that are off. ``image`` is the file's that guests are to be made of, if any."""

    place: Place
    tasks: Tasks
    vms: Vms
    sources: Sources
    disks: Disks
    image: Image | None

    def source(self, want: Guest) -> Source | None:
        """The template that the guest is made of, None where it is an image or nothing."""
        if self.image is not None or not want.image:
            return None
        return self.sources.find(want.image)

    def origin(self, want: Guest) -> Any:
        """The VM that the guest is made of, None as ``source``."""
        source = self.source(want)
        return source.ref if source is not None else None

    @property
    def builds(self) -> bool:
        """Whether guests are put together here, in a folder that could be left of one."""
        return self.image is not None or not self.place.vcenter

    def has_tools(self, want: Guest) -> bool:
        """Whether VMware Tools are to be expected: an image's cloud-init needs them as well."""
        source = self.source(want)
        return self.image is not None if source is None else bool(source.tools)

    def make(self, want: Guest, config: Any, extra: dict[str, str], say: Say) -> Any:
        """The new VM. ``config`` has its shape and its vNICs, ``extra`` the rest of its marks.

        Raises DriverError, UserError, faults.
        """
        source = self.source(want)
        if source is not None and self.place.vcenter:
            return self._clone(want, source, config, extra, say)
        if source is not None:
            devices, how = self._of(want, source, say)
            config.guestId, config.firmware = source.guest_id, source.firmware
            config.version = source.hardware or None
        elif self.image is not None:
            devices, how = self._of_image(want, self.image, say)
            config.guestId = LINUX
        else:
            devices, how = [*_controller(None), _disk(_backing(self._here()), EMPTY_KIB)], "empty"
            config.guestId = LINUX
        config.deviceChange = [*devices, *config.deviceChange]
        return self._create(want, config, extra, how, say)

    def _here(self) -> str:
        """Where the server itself chooses the file."""
        return self.place.datastore.path()

    def _clone(
        self, want: Guest, source: Source, config: Any, extra: dict[str, str], say: Say
    ) -> Any:
        linked = source.snapshot is not None
        how = "linked to the snapshot of" if linked else "full, for want of a snapshot, of"
        what = "template" if source.template else "VM"
        extra = extra | self._marks(want, f"{how} {what} {source.name}")
        config.extraConfig = wording.options(extra)
        gone = [wording.remove(card) for card in wording.cards(source.devices)]
        config.deviceChange = [*gone, *config.deviceChange]
        spec = vim.vm.CloneSpec(
            location=vim.vm.RelocateSpec(
                host=self.place.host,
                pool=self.place.pool,
                datastore=self.place.datastore.ref,
                diskMoveType="createNewChildDiskBacking" if linked else None,
            ),
            snapshot=source.snapshot,
            config=config,
            powerOn=False,
            template=False,
        )
        name, folder = self.vms.name(want.name), self.place.vm_folder
        say(f"cloning, {how} {what} {source.name}")
        return self.tasks.run(
            lambda: source.ref.CloneVM_Task(folder, name, spec), lambda p: say(f"cloning: {p}")
        )

    def _create(self, want: Guest, config: Any, extra: dict[str, str], how: str, say: Say) -> Any:
        config.name = self.vms.name(want.name)
        path = self._here()
        if how != "empty":
            path = f"{self.vms.folder(want.name)}/{config.name}.vmx"
        config.files = vim.vm.FileInfo(vmPathName=path)
        config.extraConfig = wording.options(extra | self._marks(want, how))
        folder, pool, host = self.place.vm_folder, self.place.pool, self.place.host
        say(f"making it, its disk {how}")
        return self.tasks.run(lambda: folder.CreateVM_Task(config, pool, host))

    def _marks(self, want: Guest, how: str) -> dict[str, str]:
        return wording.marks(self.vms.testbed, want, how)

    def _of(self, want: Guest, source: Source, say: Say) -> tuple[list[Any], str]:
        """Controllers and disks like the template's, on its snapshot's disks or copies of them."""
        self._folder(want)
        found: list[Any] = []
        for number, disk in enumerate(wording.disks(source.devices)):
            key = DISK_KEY - number
            controller = next(d for d in source.devices if d.key == disk.controllerKey)
            made = _controller(controller, CONTROLLER_KEY - number)
            at = made[0].device.key if made else controller.key
            file = f"{self.vms.folder(want.name)}/disk{number}.vmdk"
            if source.snapshot is not None:
                backing = _backing(file, parent=disk.backing)
            else:
                say(f"copying the disk of {source.name}")
                self.disks.copy(disk.backing.fileName, file, lambda p: say(f"copying: {p}"))
                backing = _backing(file)
            found += [*made, _disk(backing, key=key, controller=at)]
        if source.snapshot is not None:
            return found, f"linked to the snapshot of {source.name}"
        return found, f"full, for want of a snapshot, of {source.name}"

    def _of_image(self, want: Guest, image: Image, say: Say) -> tuple[list[Any], str]:
        base = self.disks.place_image(image, say)
        self._folder(want)
        parent = _FLAT(fileName=base, datastore=self.place.datastore.ref, diskMode="persistent")
        backing = _backing(f"{self.vms.folder(want.name)}/disk0.vmdk", parent=parent)
        return [*_controller(None), _disk(backing)], f"linked to image {image.digest[:16]}"

    def _folder(self, want: Guest) -> None:
        """An empty one: what an attempt that was cut short left in it goes."""
        if self.vms.own(want.name) is not None:
            raise DriverError(f"guest {want.name}: somebody just made a VM of that name")
        self.vms.sight.never_was(want.name)  # that look is not to be taken for one after this try
        self.vms.sweep(want.name)
        self.disks.folder(self.vms.folder(want.name))


def _backing(file: str, parent: Any = None) -> Any:
    return _FLAT(fileName=file, diskMode="persistent", thinProvisioned=True, parent=parent)


def _disk(
    backing: Any, size_kib: int = 0, *, key: int = DISK_KEY, controller: int = CONTROLLER_KEY
) -> Any:
    """A disk to add; one with a parent, or of a size, is made, another is there."""
    made = _DEVICE.VirtualDisk(
        key=key, controllerKey=controller, unitNumber=0, backing=backing, capacityInKB=size_kib
    )
    return wording.add(made, create=backing.parent is not None or size_kib > 0)


def _controller(like: Any, key: int = CONTROLLER_KEY) -> Sequence[Any]:
    """A disk controller to add, of the same type; none for IDE's, which every VM has."""
    if isinstance(like, _DEVICE.VirtualIDEController):
        return []
    kind = type(like) if like is not None else _DEVICE.ParaVirtualSCSIController
    made = kind(key=key, busNumber=CONTROLLER_KEY - key)
    if isinstance(made, _DEVICE.VirtualSCSIController):
        made.sharedBus = "noSharing"
    return [wording.add(made)]
