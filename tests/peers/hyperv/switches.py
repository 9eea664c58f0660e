"""Virtual switches.

With a source: -SwitchType takes Internal and Private only, a NIC has one switch, a switch that
running VMs use cannot be removed. What becomes of the host's own addresses is plausible.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.peers.hyperv import show
from tests.peers.hyperv.binding import Bound
from tests.peers.hyperv.model import Nic, Switch
from tests.peers.hyperv.vms import bad
from tests.peers.hyperv.world import MARKS, World, matches
from tests.peers.powershell.values import text

PROTOCOL = "vms_pp"


def get(world: World, bound: Bound) -> Iterable[Any]:
    found = [*world.switches]
    if "Id" in bound:
        ids = [text(i).lower() for i in bound.get("Id")]
        found = [s for s in found if str(s.id) in ids]
    if "Name" in bound:
        name = bound.get("Name")
        found = [s for s in found if matches(name, s.name)]
        if not found and not MARKS & set(name):
            failed = f'Hyper-V was unable to find a virtual switch with name "{name}".'
            bound.call.error(bad(bound, failed).record)
    if "SwitchType" in bound:
        kinds = [text(k) for k in bound.get("SwitchType")]
        found = [s for s in found if s.type in kinds]
    return [show.switch(world, s) for s in found]


def new(world: World, bound: Bound) -> Iterable[Any]:
    made = Switch(bound.get("Name"), "", notes=bound.get("Notes", ""))
    made.iov = bool(bound.get("EnableIov", False))
    mode = text(bound.get("MinimumBandwidthMode", "Default"))
    made.bandwidth = ("Weight" if made.iov else "Absolute") if mode == "Default" else mode
    if made.iov and made.bandwidth != "None" and mode not in ("Default", "Weight"):
        raise bad(bound, "a switch with SR-IOV has no absolute minimum bandwidth")
    if bound.set == "SwitchType":
        made.type, made.management = text(bound.get("SwitchType")), False
        made.management = made.type == "Internal"
    else:
        nic = _nic(world, bound)
        made.type, made.nic = "External", nic.name
        made.management = bool(bound.get("AllowManagementOS", True))
        _take(world, nic, made)
    world.switches.append(made)
    _changed(world)
    return [show.switch(world, made)]


def _nic(world: World, bound: Bound) -> Nic:
    key = "NetAdapterName" if "NetAdapterName" in bound else "NetAdapterInterfaceDescription"
    asked = bound.get(key)
    names = asked if isinstance(asked, list) else [asked]
    if len(names) > 1:
        raise bad(bound, "a team of several NICs is not simulated")
    found = [
        n for n in world.nics
        if names[0].lower() == (n.name if key == "NetAdapterName" else n.description).lower()
    ]  # fmt: skip
    if not found:
        raise bad(
            bound,
            "No physical network adapter was found that matches the"
            f' specified criteria: "{names[0]}"',
        )
    (nic,) = found
    taken = f"the network adapter '{nic.name}'"
    if nic.switch is not None:
        raise bound.failed(
            "InvalidParameter",
            "InvalidArgument",
            f"External Ethernet adapter '{nic.description}' is already"
            " bound to the Microsoft Virtual Switch protocol.",
        )
    if nic.team:
        raise bad(bound, f"{taken} is a member of a team")
    if not nic.enabled:
        raise bad(bound, f"{taken} is disabled")
    return nic


def _take(world: World, nic: Nic, switch: Switch) -> None:
    """The NIC is the switch's; the host keeps its addresses only on an adapter of its own."""
    nic.switch = switch.id
    addresses, nic.addresses = nic.addresses, ()
    if switch.management:
        switch.addresses = addresses
    elif addresses:
        world.complain(f"{nic.name}: the host lost its addresses {addresses} to a switch")
        if nic is world.nics[0]:
            world.cut()


def _give_back(world: World, switch: Switch) -> None:
    nic = world.nic(switch.nic) if switch.nic else None
    if nic is not None:
        nic.switch = None
        nic.addresses, switch.addresses = switch.addresses or nic.addresses, ()


def set_(world: World, bound: Bound) -> Iterable[Any]:
    for one in _chosen(world, bound):
        if bound.set.endswith(("NetAdapterName", "NetAdapterInterfaceDescription")):
            nic = _nic(world, bound)
            _give_back(world, one)
            one.type, one.nic = "External", nic.name
            one.management = bool(bound.get("AllowManagementOS", one.management))
            _take(world, nic, one)
        elif "SwitchType" in bound and text(bound.get("SwitchType")) != one.type:
            if text(bound.get("SwitchType")) == "External":
                raise bad(bound, "an external switch needs -NetAdapterName")
            _give_back(world, one)
            one.type, one.nic = text(bound.get("SwitchType")), ""
        if "AllowManagementOS" in bound:
            one.management = bound.get("AllowManagementOS")
        one.notes = bound.get("Notes", one.notes)
        known = {
            "Name", "VMSwitch", "NetAdapterName", "NetAdapterInterfaceDescription", "SwitchType",
            "AllowManagementOS", "Notes", "Passthru", "Confirm", "Force",
        }  # fmt: skip
        for name in bound.values.keys() - known:
            raise bad(bound, f"Set-VMSwitch -{name} is not simulated")
    _changed(world)
    return []


def _chosen(world: World, bound: Bound) -> list[Switch]:
    given = bound.get("VMSwitch")
    if given is not None:
        ids = [one.properties["Id"] for one in (given if isinstance(given, list) else [given])]
        return [s for s in world.switches if s.id in ids]
    found = []
    for name in bound.get("Name"):
        some = [s for s in world.switches if matches(name, s.name)]
        if not some and not MARKS & set(name):
            raise bad(bound, f'Hyper-V was unable to find a virtual switch with name "{name}".')
        found += some
    return found


def remove(world: World, bound: Bound) -> Iterable[Any]:
    bound.sure("Remove-VMSwitch will remove the virtual switch")
    for one in _chosen(world, bound):
        if any(m.state not in ("Off", "Saved") for m, _ in world.users(one)):
            raise bound.failed(
                "InvalidState",
                "InvalidOperation",
                f"The virtual switch '{one.name}' cannot be deleted because it"
                " is being used by running virtual machines or assigned to"
                " child pools.",
            )
        for _, adapter in world.users(one):
            adapter.switch = None
        _give_back(world, one)
        world.switches.remove(one)
    _changed(world)
    return []


def rename(world: World, bound: Bound) -> Iterable[Any]:
    for one in _chosen(world, bound):
        one.name = bound.get("NewName")
    return []


def _changed(world: World) -> None:
    if world.guests is not None:
        world.guests.sync()


CMDLETS = {
    "Get-VMSwitch": get, "New-VMSwitch": new, "Set-VMSwitch": set_, "Remove-VMSwitch": remove,
    "Rename-VMSwitch": rename,
}  # fmt: skip
