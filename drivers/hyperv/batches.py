"""The batches that make, change and end guests: data, so that all can be seen without a host."""

from __future__ import annotations

from dataclasses import dataclass, replace

from drivers.hyperv import words
from drivers.hyperv.groups import bind, unbind
from drivers.hyperv.ops import Again, Batch, Call, Made, Rmdir, Value, Write, lock
from drivers.hyperv.parse import OFF, OURS, SAVED, Seen
from provision.resources import Guest, Vnic

NEVER = {"Confirm": False}
#: files of a disk that is still being merged, or looked at, are freed some time later
FILES_GO = Again(tries=60, pause_ms=200)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a guest is to become. ``image`` is its parent disk's path, "" = an empty disk.

    ``seed`` is the seed disk's bytes, b"" = none; ``cpus`` its CPU group's, None = groups are not
    to be touched.
    """

    testbed: str
    want: Guest
    files: words.Files
    image: str
    seed: bytes
    cpus: str | None


EMPTY_BYTES = 1 << 30
WILD = frozenset("*?[]`")  # what means something in a pattern


def guest_lock(testbed: str, guest: str) -> str:
    return lock("guest", testbed, guest)


def named(name: str) -> Call:
    """The VMs of that very name: with a wildcard, so that none is an answer too."""
    return Call("Get-VM", {"Name": f"{name}*"}, select=("Id",), only={"Name": [name]})


def switches_named(name: str) -> Call:
    """As ``named``, of switches, of which several may have one name."""
    all_like = "*" if WILD & {*name} else f"{name}*"
    return Call("Get-VMSwitch", {"Name": all_like}, select=("Id",), only={"Name": [name]})


def make(plan: Plan) -> Batch:
    """A new guest, which runs if it is to. The batch ends at once where the name is taken."""
    want, vm_name = plan.want, words.vm_name(plan.testbed, plan.want.name)
    batch = Batch(guest_lock(plan.testbed, want.name))
    batch.add(replace(named(vm_name), expect="none"))
    _switches(batch, want)
    _clear(batch, plan.files)
    batch.add(Call("New-Item", {"ItemType": "Directory", "Path": plan.files.folder, "Force": True}))
    disk: dict[str, Value] = {"SizeBytes": EMPTY_BYTES, "Dynamic": True}
    if plan.image:
        disk = {"ParentPath": plan.image, "Differencing": True}
    batch.add(Call("New-VHD", {"Path": plan.files.disk, **disk}))
    vm = batch.add(
        Call(
            "New-VM",
            {
                "Name": vm_name,
                "Generation": words.generation(want),
                "MemoryStartupBytes": want.memory_mib * words.MIB,
                "VHDPath": plan.files.disk,
                "Path": plan.files.folder,
            },
            select=("Id",),
        )
    )
    _settle(batch, vm, plan)
    _firmware(batch, vm, words.generation(want))
    _shape(batch, vm, plan)
    if want.running:
        batch.add(Call("Start-VM", take={"VM": vm}))
    return batch


def change(plan: Plan, seen: Seen) -> Batch:
    """The same disk; off while its shape changes. What it was remembered as is forgotten."""
    batch, vm = _of(plan.testbed, seen, plan.want.name)
    _switches(batch, plan.want)
    _off(batch, vm, seen)
    _forget(batch, vm)
    memory = {"MemoryStartupBytes": plan.want.memory_mib * words.MIB}
    batch.add(Call("Set-VM", {"StaticMemory": True, **memory}, {"VM": vm}))
    _shape(batch, vm, plan)
    if plan.want.running:
        batch.add(Call("Start-VM", take={"VM": vm}))
    return batch


def tune(plan: Plan, seen: Seen) -> Batch:
    """What can be changed while a guest runs: its share of the CPUs, and its vNICs' rates."""
    batch, vm = _of(plan.testbed, seen, plan.want.name)
    shares = {n: v for n, v in words.processor(plan.want).items() if n != "Reserve"}
    batch.add(Call("Set-VMProcessor", shares, {"VM": vm}))
    for name, nic in words.adapter_names(plan.want):
        card = batch.add(Call("Get-VMNetworkAdapter", {}, {"VM": vm}, only={"Name": [name]}))
        batch.add(_limit(nic, card))
    _group(batch, plan)
    batch.add(Call("Set-VM", {"Notes": words.notes(plan.testbed, plan.want)}, {"VM": vm}))
    return batch


def power(testbed: str, seen: Seen, guest: Guest) -> Batch:
    """On or off, nothing else."""
    batch, vm = _of(testbed, seen, guest.name)
    if guest.running:
        batch.add(Call("Start-VM", take={"VM": vm}))
    else:
        _off(batch, vm, seen)
    return batch


def end(testbed: str, guest: str, files: words.Files, seen: Seen | None, grouped: bool) -> Batch:
    """The VM of ours with its checkpoints, and the folder; no error where there is neither."""
    if seen is None:
        batch = Batch(guest_lock(testbed, guest))
    else:
        batch, vm = _of(testbed, seen, guest)
        _off(batch, vm, seen)
        if grouped:
            unbind(batch, testbed, guest)
        batch.add(Call("Remove-VM", {"Force": True, **NEVER}, {"VM": vm}))
    _clear(batch, files)
    for above in files.above:
        batch.add(Rmdir(above))
    return batch


def checkpoint(testbed: str, seen: Seen, guest: str) -> Batch:
    """Memory, disk and settings as they are now; those of ours from before go."""
    batch, vm = _of(testbed, seen, guest)
    before = _snapshots(batch, vm)
    batch.add(Call("Checkpoint-VM", {"SnapshotName": OURS}, {"VM": vm}))
    batch.add(Call("Remove-VMSnapshot", NEVER, {"VMSnapshot": before}))
    return batch


def revert(testbed: str, seen: Seen, guest: str) -> Batch:
    """Back, and running: what was remembered of a guest that ran is saved memory, then."""
    batch, vm = _of(testbed, seen, guest)
    newest = {"Id": [seen.snapshots[-1]]}
    to = batch.add(Call("Get-VMSnapshot", {}, {"VM": vm}, only=newest, expect="some"))
    batch.add(Call("Restore-VMSnapshot", NEVER, {"VMSnapshot": to}))
    now = batch.add(Call("Get-VM", {"Id": seen.id}, only={"State": [OFF, SAVED]}))
    batch.add(Call("Start-VM", take={"VM": now}))
    return batch


def _of(testbed: str, seen: Seen, guest: str) -> tuple[Batch, Made]:
    """A batch on that very VM, whatever else has its name."""
    batch = Batch(guest_lock(testbed, guest))
    return batch, batch.add(Call("Get-VM", {"Id": seen.id}, select=("Id",), expect="some"))


def _switches(batch: Batch, want: Guest) -> None:
    """The batch ends, before anything is made, where one is missing."""
    for name in dict.fromkeys(v.switch for v in (want.management, *want.nics)):
        batch.add(replace(switches_named(name), expect="some"))


def _clear(batch: Batch, files: words.Files) -> None:
    """Our folder, with what an attempt that was cut short left in it."""
    folder = batch.add(Call("Get-Item", {"LiteralPath": files.folder, "Force": True}, lenient=True))
    take = {"LiteralPath": folder.of("FullName")}
    all_of_it = {"Recurse": True, "Force": True, **NEVER}
    batch.add(Call("Remove-Item", all_of_it, take, lenient=True, again=FILES_GO))


def _settle(batch: Batch, vm: Made, plan: Plan) -> None:
    """The mark first, saying that it is half made; nothing starts, stops or remembers it but us."""
    batch.add(
        Call(
            "Set-VM",
            {
                "Notes": words.notes(plan.testbed, plan.want, half=True),
                "StaticMemory": True,
                "CheckpointType": "Standard",
                "AutomaticCheckpointsEnabled": False,
                "AutomaticStartAction": "Nothing",
                "AutomaticStopAction": "TurnOff",
            },
            {"VM": vm},
        )
    )


def _firmware(batch: Batch, vm: Made, generation: int) -> None:
    """It boots from its disk alone."""
    if generation == 1:
        order = ["IDE", "CD", "LegacyNetworkAdapter", "Floppy"]
        batch.add(Call("Set-VMBios", {"StartupOrder": order}, {"VM": vm}))
        return
    disk = batch.add(Call("Get-VMHardDiskDrive", take={"VM": vm}))
    batch.add(
        Call("Set-VMFirmware", {"EnableSecureBoot": "Off"}, {"VM": vm, "FirstBootDevice": disk})
    )


def _shape(batch: Batch, vm: Made, plan: Plan) -> None:
    """Processors, vNICs, and the identity that goes with them."""
    want = plan.want
    count = {"Count": want.vcpus}
    batch.add(Call("Set-VMProcessor", {**count, **words.processor(want)}, {"VM": vm}))
    cards = batch.add(Call("Get-VMNetworkAdapter", take={"VM": vm}))
    batch.add(Call("Remove-VMNetworkAdapter", NEVER, {"VMNetworkAdapter": cards}))
    for name, nic in words.adapter_names(want):
        card = batch.add(
            Call(
                "Add-VMNetworkAdapter",
                {
                    "Name": name,
                    "SwitchName": nic.switch,
                    "StaticMacAddress": words.mac_here(nic.mac),
                    "IsLegacy": nic.model == words.LEGACY,
                    "Passthru": True,
                },
                {"VM": vm},
            )
        )
        if nic.rate_mbit is not None:
            batch.add(_limit(nic, card))
    _seed(batch, vm, plan)
    _group(batch, plan)
    batch.add(Call("Set-VM", {"Notes": words.notes(plan.testbed, want)}, {"VM": vm}))


def _limit(nic: Vnic, card: Made) -> Call:
    """What the guest sends over it, in bits a second; 0 = as much as it likes."""
    bits = (nic.rate_mbit or 0) * words.MBIT
    return Call("Set-VMNetworkAdapter", {"MaximumBandwidth": bits}, {"VMNetworkAdapter": card})


def _seed(batch: Batch, vm: Made, plan: Plan) -> None:
    drives = batch.add(Call("Get-VMDvdDrive", take={"VM": vm}))
    batch.add(Call("Remove-VMDvdDrive", take={"VMDvdDrive": drives}))
    if plan.seed:
        batch.add(Write(plan.files.seed, plan.seed))
        batch.add(Call("Add-VMDvdDrive", {"Path": plan.files.seed}, {"VM": vm}))


def _group(batch: Batch, plan: Plan) -> None:
    if plan.cpus is not None:
        unbind(batch, plan.testbed, plan.want.name)
        if plan.cpus:
            bind(batch, plan.testbed, plan.want.name, plan.cpus)


def _off(batch: Batch, vm: Made, seen: Seen) -> None:
    """At once, as when the plug is pulled."""
    if seen.state == SAVED:
        batch.add(Call("Remove-VMSavedState", NEVER, {"VM": vm}))
    elif seen.state != OFF:
        batch.add(Call("Stop-VM", {"TurnOff": True, "Force": True, **NEVER}, {"VM": vm}))


def _snapshots(batch: Batch, vm: Made) -> Made:
    """Ours of that VM."""
    return batch.add(Call("Get-VMSnapshot", {}, {"VM": vm}, only={"Name": [OURS]}))


def _forget(batch: Batch, vm: Made) -> None:
    batch.add(Call("Remove-VMSnapshot", NEVER, {"VMSnapshot": _snapshots(batch, vm)}))
