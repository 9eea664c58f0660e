"""Virtual functions of a Linux host's NICs, as sysfs has them.

https://docs.kernel.org/PCI/pci-iov-howto.html and the kernel's ABI page sysfs-bus-pci: a physical
function says in ``sriov_totalvfs`` how many it could have, and has as many as are written to
``sriov_numvfs``; each is a PCI device of its own, in an IOMMU group (vfio.rst).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from drivers.linux.links import sections
from provision.driver import NicModel
from provision.errors import PreflightError
from provision.host import Host
from provision.resources import Guest

SRIOV, PASSTHROUGH = "sriov", "passthrough"
NO_IOMMU = (
    "the host has no IOMMU in force: put intel_iommu=on iommu=pt (AMD: iommu=pt) on its kernel's "
    "command line, and VT-d or AMD-Vi on in its firmware"
)
# a bridge of the PCI tree stands in groups of others, and is no device that a guest could reach
_LOOK = r"""
cd "$1" || exit
echo @@iommu; ls kernel/iommu_groups 2>/dev/null | head -n 1
echo @@physical
for d in class/net/*/device; do
  [ -e "$d/sriov_totalvfs" ] || continue
  n=${d%/device}; p=$(cd -P "$d" && pwd)
  id=$(cat "$d/vendor" "$d/sriov_vf_device" 2>/dev/null | tr '\n' :)
  echo "${n##*/}" "${p##*/}" $(cat "$d/sriov_totalvfs" "$d/sriov_numvfs") "$id"
done
echo @@functions
for v in class/net/*/device/virtfn* class/net/*/device; do
  [ -e "$v/class" ] || continue
  n=${v#class/net/}; p=$(cd -P "$v" && pwd); with=
  for o in "$v"/iommu_group/devices/*; do
    [ -e "$o" ] || continue
    case $(cat "$o/class" 2>/dev/null) in 0x0604*) ;; *) with="$with ${o##*/}" ;; esac
  done
  case $v in *virtfn*) f=${v##*virtfn} ;; *) f=-1 ;; esac
  echo "${n%%/*}" "$f" "${p##*/}" $with
done
"""


WHOLE = -1


@dataclass(frozen=True, slots=True)
class Physical:
    """A NIC that can have ``total`` virtual functions, and has ``made`` of them.

    ``function_id`` is what each is inside a guest, ``vendor:device`` in hex; "" = it does not tell.
    """

    pci: str
    total: int
    made: int
    function_id: str = ""


@dataclass(frozen=True, slots=True)
class Virtual:
    """A virtual function: ``nic`` is its physical function's; ``group`` are all in its group.

    The NIC itself has ``number`` WHOLE.
    """

    nic: str
    number: int
    pci: str
    group: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Functions:
    """All of a host. ``iommu``: whether any device is in a group."""

    host: str
    iommu: bool
    physical: Mapping[str, Physical]
    virtual: tuple[Virtual, ...]

    def made(self, nic: str) -> int:
        found = self.physical.get(nic)
        return found.made if found else 0

    def nic_of(self, pci: str) -> str:
        """The NIC that a virtual function is of; "" where there is none such."""
        return next((v.nic for v in self.virtual if v.pci == pci and v.number != WHOLE), "")

    def seen_as(self, model: NicModel) -> NicModel:
        """The model with what proves it inside a guest, as far as this host's NICs tell."""
        ids = {p.function_id for p in self.physical.values()} - {""}
        return replace(model, pci_ids=tuple(sorted(ids)))

    def unfit(self, guest: Guest) -> Iterator[str]:
        """Each objection to a guest with virtual functions, with the spec's path."""
        for nic in guest.nics:
            if nic.model not in (SRIOV, PASSTHROUGH):
                continue
            if not self.iommu:
                yield f"guests.nic.model: {nic.model}: {NO_IOMMU}"
            if nic.rate_mbit is not None:
                yield f"guests.nic.rate: what could shape has no sight of a {nic.model} vNIC"
            if nic.model == PASSTHROUGH:
                continue
            if nic.switch not in self.physical:
                there = ", ".join(sorted(self.physical)) or "none"
                yield (
                    f"guests.nic.model: {SRIOV}: {nic.switch} of {self.host} has no virtual "
                    f"functions; NICs that have: {there}"
                )

    def first(self, nics: Iterable[str], number: int = 0) -> dict[str, str]:
        """The PCI address of each NIC's first virtual function, checked to be given away.

        With ``number`` WHOLE, of the NIC itself. Raises PreflightError where there is none, no
        IOMMU, or a group that others are in.
        """
        by_nic = {v.nic: v for v in self.virtual if v.number == number}
        found = {}
        for nic in nics:
            if (one := by_nic.get(nic)) is None:
                lacks = "is no PCI device" if number == WHOLE else "has no virtual function made"
                raise PreflightError(f"{nic} of {self.host} {lacks}")
            if not self.iommu or not one.group:
                raise PreflightError(f"{one.pci} of {self.host}: {NO_IOMMU}")
            if others := [pci for pci in one.group if pci != one.pci]:
                raise PreflightError(
                    f"{one.pci}, {nic}'s, shares its IOMMU group with "
                    f"{', '.join(others)}: all of a group go to a guest, or none",
                    hint="another slot, or firmware with ACS on",
                )
            found[nic] = one.pci
        return found


def look(host: Host) -> Functions:
    """Ask the host once; changes nothing."""
    seen = sections(host.run("sh", "-c", _LOOK, "look", host.sysfs))
    physical = (line.split() for line in seen.get("physical", "").splitlines())
    virtual = (line.split() for line in seen.get("functions", "").splitlines())
    return Functions(
        host.name,
        bool(seen.get("iommu")),
        {w[0]: Physical(w[1], int(w[2]), int(w[3]), _id(w[4] if w[4:] else "")) for w in physical},
        tuple(Virtual(w[0], int(w[1]), w[2], tuple(w[3:])) for w in virtual),
    )


def _id(text: str) -> str:
    """Of ``0xVENDOR:DEVICE:``, as two files of sysfs have it."""
    vendor, _, device = text.rstrip(":").partition(":")
    return f"{int(vendor, 16):04x}:{int(device, 16):04x}" if vendor and device else ""


def refuse(host: Host, nic: str, have: int, want: int) -> None:
    """Raise PreflightError where a NIC cannot get so many: the kernel changes none but from 0."""
    if have and want:
        raise PreflightError(
            f"{nic} of {host.name} has {have} virtual functions already, which others may use",
            hint=f"echo 0 > {path(host, nic)}: they go",
        )
    total = found.total if (found := look(host).physical.get(nic)) else 0
    if want > total:
        raise PreflightError(
            f"{nic} of {host.name} can have {total} virtual functions, not {want}",
            hint="name a NIC that can, or another guests.nic.model",
        )


def path(host: Host, nic: str) -> str:
    """The file that a NIC's number of virtual functions is written to."""
    return f"{host.sysfs}/class/net/{nic}/device/sriov_numvfs"
