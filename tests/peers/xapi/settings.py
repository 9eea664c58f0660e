"""What can be changed of a VM, and when: CPUs, memory, kind, and the maps beside them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from tests.peers.xapi import generic, rules
from tests.peers.xapi.core import Handler, World
from tests.peers.xapi.store import Record
from tests.peers.xapi.values import Failure

LIMITS = ("memory_static_min", "memory_static_max", "memory_dynamic_min", "memory_dynamic_max")
VCPUS = "VCPU values must satisfy: 0 < VCPUs_at_startup \N{LESS-THAN OR EQUAL TO} VCPUs_max"
MAPS = ("platform", "other_config", "blocked_operations", "NVRAM")
PLAIN = ("actions_after_crash", "has_vendor_device", "order", "start_delay", "shutdown_delay")


class Settings:
    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.store
        self.store.views["VM", "allowed_operations"] = partial(rules.allowed, self.store)

    def handlers(self) -> Mapping[str, Handler]:
        found: dict[str, Handler] = {
            "VM.set_VCPUs_max": partial(self._vcpus, "VCPUs_max"),
            "VM.set_VCPUs_at_startup": partial(self._vcpus, "VCPUs_at_startup"),
            "VM.set_memory_limits": self.set_limits,
            "VM.set_memory": lambda ref, size: self.set_limits(ref, None, size, size, size),
            "VM.set_memory_static_range": self._static_range,
            "VM.set_memory_dynamic_range": self._dynamic_range,
            "VM.set_is_a_template": self.set_template,
            "VM.set_domain_type": self._set_type,
            "VM.set_HVM_boot_policy": self._set_policy,
            "VM.assert_operation_valid": partial(rules.check, self.store),
            "VM.update_allowed_operations": lambda ref: self.store.get("VM", ref) and None,
            "VM.get_allowed_VIF_devices": partial(self._free, "VIF", "device", 7),
            "VM.get_allowed_VBD_devices": partial(self._free, "VBD", "userdevice", 16),
            "VM.compute_memory_overhead": lambda ref: self.store.get("VM", ref)["memory_overhead"],
        }
        for name in LIMITS:
            found[f"VM.set_{name}"] = partial(self._one_limit, name)
        for name in MAPS:
            for way in ("set_", "add_to_", "remove_from_"):
                found[f"VM.{way}{name}"] = partial(self._change, way, name)
        for name in PLAIN:
            found[f"VM.set_{name}"] = partial(self._change, "set_", name)
        return found

    def _change(self, way: str, name: str, ref: str, *values: object) -> None:
        generic.change(self.store, "VM", ref, way, name, *values)

    def _vcpus(self, name: str, ref: str, number: str) -> None:
        vm = self.store.get("VM", ref)
        if vm["is_control_domain"]:
            why = f"Failure: set_{name} is not allowed on dom0"
            raise Failure("INTERNAL_ERROR", why)
        rules.check(self.store, ref, "changing_VCPUs")
        asked = {**vm, name: number}
        if not 0 < int(asked["VCPUs_at_startup"]) <= int(asked["VCPUs_max"]):
            raise Failure("INVALID_VALUE", VCPUS, number)
        self.store.put("VM", ref, **{name: number})

    def set_limits(self, ref: str, smin: str | None, smax: str, dmin: str, dmax: str) -> None:
        rules.check(self.store, ref, "changing_memory_limits")
        vm = self.store.get("VM", ref)
        self._limits(ref, vm, {
            "memory_static_min": smin or min(vm["memory_static_min"], smax, key=int),
            "memory_static_max": smax, "memory_dynamic_min": dmin, "memory_dynamic_max": dmax,
        })  # fmt: skip

    def _limits(self, ref: str, vm: Record, asked: Mapping[str, str]) -> None:
        smin, smax, dmin, dmax = (int({**vm, **asked}[name]) for name in LIMITS)
        if not 0 <= smin <= dmin <= dmax <= smax or smax <= 0:
            raise Failure("MEMORY_CONSTRAINT_VIOLATION_ORDER")
        self.store.put("VM", ref, **asked)

    def _one_limit(self, name: str, ref: str, value: str) -> None:
        static = "static" in name
        rules.check(
            self.store, ref, "changing_static_range" if static else "changing_dynamic_range"
        )
        self._limits(ref, self.store.get("VM", ref), {name: value})

    def _static_range(self, ref: str, least: str, most: str) -> None:
        rules.check(self.store, ref, "changing_static_range")
        asked = {"memory_static_min": least, "memory_static_max": most}
        self._limits(ref, self.store.get("VM", ref), asked)

    def _dynamic_range(self, ref: str, least: str, most: str) -> None:
        rules.check(self.store, ref, "changing_dynamic_range")
        asked = {"memory_dynamic_min": least, "memory_dynamic_max": most}
        self._limits(ref, self.store.get("VM", ref), asked)

    def set_template(self, ref: str, value: bool) -> None:
        if value:
            rules.check(self.store, ref, "make_into_template")
            self.store.put("VM", ref, is_a_template=True)
        else:
            other = {k: v for k, v in self.store.get("VM", ref)["other_config"].items()
                     if k != "default_template"}  # fmt: skip
            self.store.put(
                "VM", ref, is_a_template=False, is_default_template=False, other_config=other
            )

    def _set_type(self, ref: str, kind: str) -> None:
        if kind == "unspecified":
            raise Failure("INVALID_VALUE", "domain_type", kind)
        policy = "BIOS order" if kind == "hvm" else ""
        self.store.put("VM", ref, domain_type=kind, HVM_boot_policy=policy)

    def _set_policy(self, ref: str, policy: str) -> None:
        self.store.put("VM", ref, HVM_boot_policy=policy, domain_type="hvm" if policy else "pv")

    def _free(self, cls: str, name: str, most: int, ref: str) -> list[str]:
        self.store.get("VM", ref)
        taken = {one[name] for _, one in self.store.each(cls, VM=ref)}
        return [str(n) for n in range(most) if str(n) not in taken]
