"""The pool and its hosts: enabled or not, rebooted, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.peers.xapi import generic
from tests.peers.xapi.core import Handler, World
from tests.peers.xapi.power import Power
from tests.peers.xapi.sessions import Sessions
from tests.peers.xapi.store import now
from tests.peers.xapi.values import NULL, Failure

MIB = 1 << 20


class Hosts:
    def __init__(self, world: World, power: Power, sessions: Sessions) -> None:
        self.world, self.store = world, world.store
        self.power, self.sessions = power, sessions
        self._leaving: set[str] = set()

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "host.enable": partial(self._enable, True),
            "host.disable": lambda host, _auto_enable=True: self._enable(False, host),
            "host.reboot": self.reboot,
            "host.compute_free_memory": lambda host: str(self.world.xens[host].free_mib * MIB),
            "host.compute_memory_overhead": lambda host: self.store.get("host", host)[
                "memory_overhead"
            ],
            "host.get_servertime": lambda host: self.store.get("host", host) and now(),
            "host.call_plugin": self._plugin,
            "host.get_management_interface": self._management,
            "host.get_sched_gran": lambda host: self.store.get("host", host) and "cpu",
            "host.has_extension": lambda host, _name: not self.store.get("host", host),
            "pool.set_name_label": partial(self._pool_name, "name_label"),
        }

    def _pool_name(self, name: str, ref: str, value: str) -> None:
        generic.change(self.store, "pool", ref, "set_", name, value)

    def _management(self, host: str) -> str:
        return self.store.refs("PIF", host=host, management=True)[0]

    def _plugin(self, host: str, name: str, _fn: str, _args: Any) -> str:
        self.store.get("host", host)
        raise Failure("XENAPI_MISSING_PLUGIN", name)

    def _enable(self, value: bool, host: str) -> None:
        if host in self.world.booting:
            raise Failure("HOST_STILL_BOOTING")
        self.store.put("host", host, enabled=value)

    def reboot(self, host: str) -> None:
        """Only a host that is disabled and runs no VM may be rebooted (xapi_host.ml)."""
        if self.store.get("host", host)["enabled"]:
            raise Failure("HOST_NOT_DISABLED")
        for vm, _ in self.store.each("VM", resident_on=host, is_control_domain=False):
            raise Failure("HOST_IN_USE", host, "VM", vm)
        self.leave(host)

    def leave(self, host: str) -> None:
        """It shuts down: the call that asked for it is answered, and a little later it is gone."""
        if host not in self._leaving:
            self._leaving.add(host)
            self.world.later(self.world.goes_s, partial(self.go_down, host))

    def go_down(self, host: str) -> None:
        """It ends as a machine that is rebooted does, and is back ``boot_s`` later."""
        self._leaving.discard(host)
        if host in self.world.down:
            return
        for vm, _ in self.store.each("VM", resident_on=host, is_control_domain=False):
            self.power.stop(vm)
        self.store.put("host_metrics", self.store.get("host", host)["metrics"], live=False)
        self.world.down.add(host)
        self.world.booting.add(host)
        if self.world.pool["master"] == host:
            self.sessions.end_all()
            for task in self.store.refs("task"):
                self.store.drop("task", task)
        for tell in self.world.power:
            tell(host, False)
        self.world.later(self.world.boot_s, partial(self.come_up, host))

    def come_up(self, host: str) -> None:
        """It answers, but is not ready yet: HOST_STILL_BOOTING for a while."""
        xen = self.world.xens[host]
        xen.boot()
        self.reflect(host)
        self.world.down.discard(host)
        for tell in self.world.power:
            tell(host, True)
        self.world.later(self.world.boot_s / 4, partial(self._ready, host))

    def _ready(self, host: str) -> None:
        for pif, one in self.store.each("PIF", host=host):
            if one["bond_slave_of"] == NULL:
                self.store.put("PIF", pif, currently_attached=True)
        self.store.put("host_metrics", self.store.get("host", host)["metrics"], live=True)
        self.store.put("host", host, enabled=True)
        self.world.booting.discard(host)

    def reflect(self, host: str) -> None:
        """The database as what was booted has it."""
        xen, record = self.world.xens[host], self.store.get("host", host)
        dom0 = xen.domains[0]
        version = {**record["software_version"], "network_backend": xen.backend}
        other = {**record["other_config"], "boot_time": f"{xen.booted_at:.0f}."}
        self.store.put("host", host, software_version=version, other_config=other)
        memory = str(dom0.memory_mib * MIB)
        self.store.put(
            "VM", record["control_domain"], VCPUs_max=str(dom0.vcpus),
            VCPUs_at_startup=str(dom0.vcpus), memory_target=memory, memory_static_max=memory,
            memory_dynamic_max=memory, memory_dynamic_min=memory,
        )  # fmt: skip
