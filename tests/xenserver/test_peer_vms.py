"""The peer's VMs: what each state allows, what copies take along, what is really in force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.xenserver.bed import MIB, NULL, Client, client, refused


@pytest.fixture
def at() -> Iterator[Client]:
    with client() as found:
        yield found


def test_a_day_leaves_nothing(at: Client) -> None:
    before = at.peer.inventory()
    for number in range(3):
        vm = at.clone(name=f"vm{number}")
        at.vif(vm, number + 1)
        at.api.VM.set_memory_limits(vm, *[str(512 * MIB)] * 4)
        at.start(vm)
        snap = at.api.VM.snapshot(vm, "clean", [])
        at.api.VM.hard_shutdown(vm)
        at.api.VM.revert(snap)
    assert at.peer.inventory() != before
    for number in range(3):
        at.remove(at.peer.vm(f"vm{number}"))
    assert at.peer.inventory() == before


def test_a_clone_takes_everything_along(at: Client) -> None:
    template = at.peer.vm("debian12")
    vm = at.api.VM.clone(template, "vm1")
    record, original = at.api.VM.get_record(vm), at.api.VM.get_record(template)
    assert record["is_a_template"] and record["power_state"] == "Halted"
    assert [len(record[n]) for n in ("VIFs", "VBDs")] == [1, 2]
    (vif,), (former,) = record["VIFs"], original["VIFs"]
    assert at.api.VIF.get_network(vif) == at.api.VIF.get_network(former)
    assert at.api.VIF.get_MAC(vif) != at.api.VIF.get_MAC(former)
    (mine,), (its,) = at.disks(vm), at.disks(template)
    assert mine != its and at.api.VDI.get_SR(mine) == at.api.VDI.get_SR(its)
    at.api.VM.destroy(vm)
    assert at.api.VDI.get_VBDs(mine) == []  # a VM's end is not its disk's
    at.api.VDI.destroy(mine)


def test_a_default_template_gets_its_disks_when_provisioned(at: Client) -> None:
    vm = at.api.VM.clone(at.peer.vm("Debian Bookworm 12"), "vm1")
    assert at.disks(vm) == []
    at.api.VM.provision(vm)
    (disk,) = at.disks(vm)
    assert at.api.VDI.get_virtual_size(disk) == str(10 << 30)
    assert not at.api.VM.get_is_a_template(vm)
    assert at.disks(at.clone("Other install media", "vm2")) == []
    assert refused(at.api.VM.destroy, at.peer.vm("Other install media"))[0] == (
        "VM_CANNOT_DELETE_DEFAULT_TEMPLATE"
    )


@pytest.mark.parametrize(
    ("state", "call", "args", "expected"),
    [
        ("Halted", "hard_shutdown", (), "paused, suspended, running"),
        ("Halted", "pause", (), "running"),
        ("Halted", "checkpoint", ("c",), "paused, suspended, running"),
        ("Halted", "hard_reboot", (), "paused, running"),
        ("Running", "start", (False, False), "halted"),
        ("Running", "destroy", (), "halted, suspended"),
        ("Running", "clone", ("b",), "halted, suspended"),
        ("Running", "set_VCPUs_max", ("2",), "halted"),
        ("Running", "set_memory_limits", ("1", "1", "1", "1"), "halted"),
        ("Running", "unpause", (), "paused"),
        ("Running", "resume", (False, False), "suspended"),
        ("Paused", "start", (False, False), "halted"),
        ("Suspended", "start", (False, False), "halted"),
    ],
)
def test_what_a_state_does_not_allow(
    at: Client, state: str, call: str, args: tuple[Any, ...], expected: str
) -> None:
    vm = at.clone()
    if state != "Halted":
        at.start(vm, paused=state == "Paused")
    if state == "Suspended":
        at.api.VM.suspend(vm)
    said = refused(getattr(at.api.VM, call), vm, *args)
    assert said == ["VM_BAD_POWER_STATE", vm, expected, state.lower()]
    assert at.api.VM.get_power_state(vm) == state
    assert call not in at.api.VM.get_allowed_operations(vm)


def test_what_a_template_and_a_snapshot_do_not_allow(at: Client) -> None:
    vm = at.clone()
    snap = at.api.VM.snapshot(vm, "clean", [])
    assert refused(at.start, at.peer.vm("debian12"))[0] == "VM_IS_TEMPLATE"
    assert refused(at.start, snap)[0] == "VM_IS_SNAPSHOT"
    assert refused(at.api.VM.provision, vm) == ["PROVISION_ONLY_ALLOWED_ON_TEMPLATE"]
    assert refused(at.api.VM.revert, vm) == ["REVERT_ONLY_ALLOWED_ON_SNAPSHOT"]
    at.api.VM.add_to_blocked_operations(vm, "start", "WHY")
    assert refused(at.start, vm) == ["OPERATION_BLOCKED", vm, "WHY"]


def test_dom0_is_not_as_others(at: Client) -> None:
    dom0 = at.api.host.get_control_domain(at.peer.hosts[0])
    assert refused(at.api.VM.set_VCPUs_max, dom0, "2") == [
        "INTERNAL_ERROR", "Failure: set_VCPUs_max is not allowed on dom0",
    ]  # fmt: skip
    assert refused(at.api.VM.hard_shutdown, dom0)[0] == "OPERATION_NOT_ALLOWED"
    at.api.VM.set_VCPUs_params(dom0, {"weight": "512"})
    (line,) = at.peer.dom0().run("xl", ["sched-credit", "-d", "0"])[1].splitlines()[1:]
    assert line.split()[2] == "256"  # nothing applies them


def test_a_revert_makes_all_devices_anew(at: Client) -> None:
    vm = at.clone()
    vif = at.vif(vm, mac="00:16:3e:00:00:01")
    (disk,) = at.disks(vm)
    at.api.VM.set_VCPUs_params(vm, {"weight": "512"})
    snap = at.api.VM.snapshot(vm, "clean", [])
    (shot,) = at.disks(snap)
    assert at.api.VDI.get_snapshot_of(shot) == disk
    at.api.VM.set_VCPUs_params(vm, {})
    at.api.VM.set_name_label(vm, "renamed")
    at.start(vm)
    at.api.VM.revert(snap)
    assert at.api.VM.get_power_state(vm) == "Halted"
    assert at.api.VM.get_name_label(vm) == "renamed"
    assert at.api.VM.get_VCPUs_params(vm) == {"weight": "512"}
    for cls, ref in (("VIF", vif), ("VDI", disk)):
        assert refused(getattr(at.api, cls).get_record, ref) == ["HANDLE_INVALID", cls, ref]
    (new,) = at.api.VM.get_VIFs(vm)
    assert at.api.VIF.get_MAC(new) == "00:16:3e:00:00:01"
    assert at.api.VDI.get_snapshot_of(shot) == at.disks(vm)[0]
    at.remove(vm)
    assert refused(at.api.VM.revert, snap)[0] == "HANDLE_INVALID"


def test_a_checkpoint_has_memory_and_goes_on_from_there(at: Client) -> None:
    vm = at.clone()
    at.start(vm)
    domid = at.api.VM.get_domid(vm)
    snap = at.api.VM.checkpoint(vm, "with memory")
    assert at.api.VM.get_power_state(vm) == "Running"
    assert at.api.VM.get_domid(vm) != domid
    memory = at.api.VM.get_suspend_VDI(snap)
    assert at.api.VDI.get_type(memory) == "suspend"
    at.api.VM.hard_shutdown(vm)
    at.api.VM.revert(snap)
    assert at.api.VM.get_power_state(vm) == "Suspended"
    at.api.VM.resume(vm, False, False)
    assert at.api.VM.get_power_state(vm) == "Running"
    assert at.api.VM.get_suspend_VDI(vm) == NULL
    at.remove(vm)
    assert refused(at.api.VDI.get_record, memory)[0] == "HANDLE_INVALID"


@pytest.mark.parametrize(
    ("params", "pins", "weight", "cap"),
    [
        ({}, [None, None], 256, 0),
        ({"mask": "1,2"}, [{1, 2}, {1, 2}], 256, 0),
        ({"mask": "1;3", "weight": "1024", "cap": "50"}, [{1}, {3}], 1024, 50),
        ({"mask": "1-2"}, [None, None], 256, 0),
        ({"mask": "1, 2"}, [None, None], 256, 0),
        ({"mask": "1;x"}, [None, None], 256, 0),
        ({"weight": "heavy", "cap": "50%"}, [None, None], 256, 0),
        ({"weight": "0", "cap": "9999"}, [None, None], 256, 0),
        ({"weight": "70000"}, [None, None], 256, 0),
        ({"mask": "99"}, [None, None], 256, 0),
    ],
)
def test_xenapi_swallows_what_it_cannot_read(
    at: Client, params: dict[str, str], pins: list[Any], weight: int, cap: int
) -> None:
    vm = at.clone()
    at.api.VM.set_VCPUs_max(vm, "2")
    at.api.VM.set_VCPUs_at_startup(vm, "2")
    at.api.VM.set_VCPUs_params(vm, params)
    at.start(vm)
    found = at.domain(vm)
    assert (found.hard, found.weight, found.cap) == (pins, weight, cap)
    assert at.api.VM.get_VCPUs_params(vm) == params


def test_params_count_at_a_start_and_the_host_has_a_word(at: Client) -> None:
    vm = at.clone()
    at.start(vm)
    at.api.VM.set_VCPUs_params(vm, {"mask": "1,2,3", "weight": "512"})
    assert (at.domain(vm).hard, at.domain(vm).weight) == ([None], 256)
    at.api.host.set_guest_VCPUs_params(at.peer.hosts[0], {"mask": "2,3,4"})
    at.api.VM.hard_reboot(vm)
    assert (at.domain(vm).hard, at.domain(vm).weight) == ([frozenset({2, 3})], 512)


@pytest.mark.parametrize(
    ("startup", "most", "good"), [("2", "4", True), ("0", "4", False), ("4", "2", False)]
)
def test_vcpus_in_order(at: Client, startup: str, most: str, good: bool) -> None:
    vm = at.clone()
    at.api.VM.set_VCPUs_max(vm, "8")
    if good:
        at.api.VM.set_VCPUs_at_startup(vm, startup)
        at.api.VM.set_VCPUs_max(vm, most)
        return
    if startup == "0":
        said = refused(at.api.VM.set_VCPUs_at_startup, vm, startup)
    else:
        at.api.VM.set_VCPUs_at_startup(vm, startup)
        said = refused(at.api.VM.set_VCPUs_max, vm, most)
    assert said[0] == "INVALID_VALUE"


def test_memory_in_order(at: Client) -> None:
    vm = at.clone()
    said = refused(at.api.VM.set_memory_limits, vm, "4", "3", "2", "1")
    assert said == ["MEMORY_CONSTRAINT_VIOLATION_ORDER"]
    at.api.VM.set_memory_limits(vm, str(1 << 20), str(4 << 30), str(4 << 30), str(4 << 30))
    assert at.api.VM.get_memory_static_max(vm) == str(4 << 30)


def test_a_host_that_has_no_room(at: Client) -> None:
    vm, host = at.clone(), at.peer.hosts[0]
    at.api.VM.set_memory_limits(vm, *[str(64 << 30)] * 4)
    assert refused(at.start, vm)[0] == "HOST_NOT_ENOUGH_FREE_MEMORY"
    at.api.VM.set_memory_limits(vm, *[str(1 << 30)] * 4)
    at.api.VM.set_VCPUs_max(vm, "16")
    at.api.VM.set_VCPUs_at_startup(vm, "16")
    assert refused(at.start, vm) == ["HOST_NOT_ENOUGH_PCPUS", "16", "8"]
    at.api.VM.set_VCPUs_at_startup(vm, "1")
    at.api.host.disable(host)
    assert refused(at.start, vm) == ["HOST_DISABLED", host]
    at.api.host.enable(host)
    free = int(at.api.host.compute_free_memory(host))
    at.start(vm)
    assert free - int(at.api.host.compute_free_memory(host)) == 1 << 30


def test_what_an_old_host_cannot_run() -> None:
    with client(hvm=False) as at:
        vm = at.clone()
        assert refused(at.start, vm) == ["VM_HVM_REQUIRED", vm]
        at.start(at.clone("debian12-pv", "vm2"))
    with client() as at:
        vm = at.clone("Other install media")
        at.api.VM.set_domain_type(vm, "pv")
        assert refused(at.start, vm)[0] == "BOOTLOADER_FAILED"


def test_two_at_once_are_one_too_many() -> None:
    with client() as at:
        at.peer.world.task_s = 0.5
        vm = at.clone()
        task = getattr(at.api, "Async").VM.start(vm, False, False)  # noqa: B009
        at.wait("vm")
        said = refused(at.start, vm)
        assert said[:3] == ["OTHER_OPERATION_IN_PROGRESS", "VM", vm]
        assert list(at.api.VM.get_current_operations(vm).values()) == ["start"]
        at.api.task.cancel(task)
        with at.peer.world.store.lock:
            ended = at.peer.world.store.changed.wait_for(
                lambda: at.peer.get("task", task)["status"] == "cancelled", 20
            )
        assert ended
        assert at.api.VM.get_power_state(vm) == "Halted"
        assert at.api.task.get_error_info(task) == ["TASK_CANCELLED", task]
