"""Which operations a VM allows, by its power state and by what it is (xapi_vm_lifecycle.ml)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.peers.xapi.store import Store
from tests.peers.xapi.values import Failure

ALL = ("Halted", "Paused", "Suspended", "Running")
STATES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("changing_memory_limits", "changing_shadow_memory", "changing_static_range",
         "changing_VCPUs", "make_into_template", "provision", "start", "start_on"), ("Halted",)
    ),
    "unpause": ("Paused",),
    **dict.fromkeys(("resume", "resume_on"), ("Suspended",)),
    **dict.fromkeys(
        ("clean_reboot", "clean_shutdown", "changing_memory_live", "changing_VCPUs_live", "pause",
         "pool_migrate", "suspend", "data_source_op"), ("Running",)
    ),
    "changing_dynamic_range": ("Halted", "Running"),
    **dict.fromkeys(("clone", "copy", "destroy", "export"), ("Halted", "Suspended")),
    "hard_reboot": ("Paused", "Running"),
    **dict.fromkeys(
        ("checkpoint", "hard_shutdown", "shutdown"), ("Paused", "Suspended", "Running")
    ),
    **dict.fromkeys(("revert", "snapshot", "power_state_reset"), ALL),
}  # fmt: skip
OF_TEMPLATES = frozenset({
    "changing_dynamic_range", "changing_static_range", "changing_memory_limits",
    "changing_shadow_memory", "changing_VCPUs", "clone", "copy", "export", "provision",
})  # fmt: skip
OF_SNAPSHOTS = frozenset({"revert", "clone", "copy", "export", "destroy", "hard_shutdown"})
OF_DOM0 = frozenset({"changing_memory_live", "changing_dynamic_range", "changing_memory_limits"})
SAYS = "Operations on domain 0 are not allowed"


def check(store: Store, ref: str, operation: str) -> None:
    """Raises what XenAPI raises where the operation is not allowed now."""
    for failure in _objections(store, ref, operation):
        raise failure


def allowed(store: Store, ref: str) -> list[str]:
    """The VM's ``allowed_operations``."""
    enum = set(store.model.enums["vm_operations"])
    return [op for op in STATES if op in enum and not any(_objections(store, ref, op))]


def _objections(store: Store, ref: str, operation: str) -> Iterator[Failure]:
    vm = store.get("VM", ref)
    if operation in vm["blocked_operations"]:
        yield Failure("OPERATION_BLOCKED", ref, vm["blocked_operations"][operation])
    states = STATES[operation]
    if operation == "changing_memory_limits" and vm["is_control_domain"]:
        states = ALL
    if vm["power_state"] not in states:
        wanted = ", ".join(state.lower() for state in states)
        yield Failure("VM_BAD_POWER_STATE", ref, wanted, vm["power_state"].lower())
    if vm["is_control_domain"] and operation not in OF_DOM0:
        yield Failure("OPERATION_NOT_ALLOWED", SAYS)
    if vm["is_a_template"] and not vm["is_a_snapshot"]:
        may = operation == "destroy" and not vm["is_default_template"]
        if operation not in OF_TEMPLATES and not may:
            if operation == "destroy":
                yield Failure("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", ref)
            yield Failure("VM_IS_TEMPLATE", ref, operation)
    if vm["is_a_snapshot"] and operation not in OF_SNAPSHOTS:
        yield Failure("VM_IS_SNAPSHOT", ref, operation)
    if operation == "provision" and not vm["is_a_template"]:
        yield Failure("PROVISION_ONLY_ALLOWED_ON_TEMPLATE")
    if operation == "revert" and not vm["is_a_snapshot"]:
        yield Failure("REVERT_ONLY_ALLOWED_ON_SNAPSHOT")
    if operation in ("clean_shutdown", "clean_reboot") and _lacks_drivers(store, ref):
        yield Failure("VM_MISSING_PV_DRIVERS", ref)


def has_drivers(store: Store, ref: str) -> bool:
    """Whether the guest has said so itself."""
    metrics = store.get("VM", ref)["guest_metrics"]
    return store.has("VM_guest_metrics", metrics) and bool(
        store.get("VM_guest_metrics", metrics)["PV_drivers_detected"]
    )


def _lacks_drivers(store: Store, ref: str) -> bool:
    return store.get("VM", ref)["domain_type"] == "hvm" and not has_drivers(store, ref)
