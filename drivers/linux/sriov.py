"""Virtual functions of a Linux host's NICs, as sysfs has them.

https://docs.kernel.org/PCI/pci-iov-howto.html and the kernel's ABI page sysfs-bus-pci: a physical
function says in ``sriov_totalvfs`` how many it could have, and has as many as are written to
``sriov_numvfs``; each is a PCI device of its own, in an IOMMU group (vfio.rst).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from drivers.linux.links import sections
from provision.driver import NicModel, UplinkFacts
from provision.errors import PreflightError
from provision.host import Host
from provision.resources import Guest

HARDWARE = SRIOV, PASSTHROUGH = "sriov", "passthrough"
NO_IOMMU = (
    "the host has no IOMMU in force: put intel_iommu=on iommu=pt (AMD: iommu=pt) on its kernel's "
    "command line, and VT-d or AMD-Vi on in its firmware"
)
# a bridge of the PCI tree stands in groups of others, and is no device that a guest could reach
_LOOK = r"""
cd "$1" || exit
echo @@iommu; ls kernel/iommu_groups 2>/dev/null | head -n 1
echo @@pciback; [ ! -d bus/pci/drivers/pciback ] || ls bus/pci/drivers/pciback
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
    """All of a host. ``iommu``: whether any device is in a group.

    ``pciback`` is the folder of Xen's driver for devices that are given away: its devices, and
    more; empty where there is no such driver.
    """

    host: str
    iommu: bool
    physical: Mapping[str, Physical]
    virtual: tuple[Virtual, ...]
    pciback: frozenset[str] = frozenset()

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

    def unfit(self, guest: Guest, lack: str | None = None) -> Iterator[str]:
        """Each objection to a guest with hardware for vNICs, with the spec's path.

        ``lack`` is what the host lacks for any of it; by default Linux's own IOMMU is looked at.
        """
        if lack is None:
            lack = "" if self.iommu else NO_IOMMU
        for nic in guest.nics:
            if nic.model not in HARDWARE:
                continue
            if lack:
                yield f"guests.nic.model: {nic.model}: {lack}"
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

    def first(
        self, nics: Iterable[str], number: int = 0, judge: Judge | None = None
    ) -> dict[str, str]:
        """The PCI address of each NIC's first virtual function, ``judge``d to be given away.

        With ``number`` WHOLE, of the NIC itself. Raises PreflightError where there is none, and
        what the judge raises.
        """
        by_nic = {v.nic: v for v in self.virtual if v.number == number}
        found = {}
        for nic in nics:
            if (one := by_nic.get(nic)) is None:
                lacks = "is no PCI device" if number == WHOLE else "has no virtual function made"
                raise PreflightError(f"{nic} of {self.host} {lacks}")
            (judge or alone)(self, one)
            found[nic] = one.pci
        return found


Judge = Callable[[Functions, Virtual], None]


def alone(seen: Functions, one: Virtual) -> None:
    """Raise PreflightError where there is no IOMMU of Linux's, or a group that others are in."""
    if not seen.iommu or not one.group:
        raise PreflightError(f"{one.pci} of {seen.host}: {NO_IOMMU}")
    if others := [pci for pci in one.group if pci != one.pci]:
        raise PreflightError(
            f"{one.pci}, {one.nic}'s, shares its IOMMU group with "
            f"{', '.join(others)}: all of a group go to a guest, or none",
            hint="another slot, or firmware with ACS on",
        )


def give(
    host: Host, want: Guest, held: Mapping[str, str], judge: Judge | None = None
) -> dict[str, str]:
    """The device of each NIC that has to give one to a guest; raises PreflightError.

    A whole NIC that the guest has already (``held``) is out of the host's sight.
    """
    models = {n.switch: n.model for n in want.nics if n.model in HARDWARE}
    if not models:
        return {}
    found = {n: held[n] for n, m in models.items() if m == PASSTHROUGH and n in held}
    seen = look(host)
    for model, number in ((SRIOV, 0), (PASSTHROUGH, WHOLE)):
        names = [n for n, m in models.items() if m == model and n not in found]
        found |= seen.first(names, number, judge)
    return found


def placed(host: Host, guest: Guest) -> Guest:
    """With the NIC whose virtual function each hardware vNIC is, in place of its address."""
    if not any(nic.model == SRIOV for nic in guest.nics):
        return guest
    seen = look(host)
    nics = [
        replace(n, switch=seen.nic_of(n.switch) or f"({n.switch} is gone)")
        if n.model == SRIOV
        else n
        for n in guest.nics
    ]
    return replace(guest, nics=tuple(nics))


def and_given(
    there: tuple[UplinkFacts, ...], held: Iterable[tuple[Guest, Mapping[str, str]]]
) -> tuple[UplinkFacts, ...]:
    """A host's NICs, and those that guests have whole: each guest with the devices of its NICs."""
    names = {u.name for u in there}
    given = [
        UplinkFacts(nic.switch, nic.mac, functions.get(nic.switch), up=True, mtu=nic.mtu)
        for guest, functions in held
        for nic in guest.nics
        if nic.model == PASSTHROUGH and nic.switch not in names
    ]
    return (*there, *given)


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
        frozenset(seen.get("pciback", "").split()),
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
