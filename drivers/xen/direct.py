"""NICs and virtual functions of dom0 for guests: what they need, whose they are, their return.

xl(1) pci-assignable-list: what is bound to dom0's driver ``pciback`` may be given to guests, or
is. libvirt binds what is ``managed`` itself, and finds the driver by that name only (virpci.c): its
module, xen-pciback, has to be there. Xen holds the IOMMU, so Linux has no groups to look at.
"""

from __future__ import annotations

from drivers.linux import sriov
from drivers.xen.facts import Machine
from drivers.xen.xml import HVM, PVH, Seen
from provision.errors import DriverError, PreflightError
from provision.host import Host
from provision.resources import Guest

PCIBACK = "pciback"
NO_IOMMU = (
    "Xen has no IOMMU in force for {} guests: put iommu=1 on Xen's command line, and VT-d or "
    "AMD-Vi on in the host's firmware (xl info's virt_caps has {} then)"
)
NO_PCIBACK = "dom0 has no driver to give devices by: modprobe xen-pciback"
_DRIVERS = """
cd "$1/bus/pci/devices" || exit
shift
for pci; do
  driver=$(readlink "$pci/driver") || driver=
  echo "$pci" "${driver##*/}"
done
"""


def lack(guest: Guest, machine: Machine, seen: sriov.Functions, *, ours: bool) -> str:
    """Why the guest can have no device of the host; "" = it can. ``ours``: it boots our image."""
    if guest.accel == PVH:
        return "a pvh guest has no PCI devices; guests.virt: hvm, or pv"
    if (word := f"{guest.accel}_directio") not in machine.caps:
        return NO_IOMMU.format(guest.accel, word)
    if guest.accel != HVM and ours:
        return (
            "the built image's kernel has no xen-pcifront, by which a pv guest has PCI devices; "
            "guests.virt: hvm, or an image of your own"
        )
    return "" if seen.pciback else NO_PCIBACK


def claim(host: Host, want: Guest, now: Seen | None) -> dict[str, str]:
    """The device of each NIC that has to give one; raises PreflightError where it is another's.

    A guest that runs (``now``) has its own already.
    """
    held = now.functions if now is not None and now.active else {}

    def free(seen: sriov.Functions, one: sriov.Virtual) -> None:
        if not seen.pciback:
            raise PreflightError(f"{seen.host}: {NO_PCIBACK}")
        if one.pci in seen.pciback and held.get(one.nic) != one.pci:
            raise PreflightError(
                f"{one.pci} of {seen.host}, {one.nic}'s, is with pciback already: somebody made it "
                "assignable, or has it",
                hint=f"xl pci-assignable-list; where nobody has it: "
                f"xl pci-assignable-remove -r {one.pci}",
            )

    return sriov.give(host, want, held, free)


def returned(host: Host, now: Seen) -> None:
    """Raise DriverError where a device is not back with dom0's driver after its guest ended.

    A function may have had none, a NIC had one.
    """
    nics = {now.functions.get(n.switch) for n in now.guest.nics if n.model == sriov.PASSTHROUGH}
    told = host.run("sh", "-c", _DRIVERS, "drivers", host.sysfs, *now.functions.values())
    for pci, *has in map(str.split, told.splitlines()):
        if has == [PCIBACK] or (pci in nics and not has):
            raise DriverError(
                f"libvirt did not give {pci} back to {host.name}: its driver is "
                f"{has[0] if has else 'none'}",
                hint=f"xl pci-assignable-remove -r {pci}"
                if has
                else f"echo {pci} > {host.sysfs}/bus/pci/drivers_probe",
            )
