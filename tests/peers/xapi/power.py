"""How VMs start and stop: which host takes them, what stands in the way, what is then in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from tests.peers.xapi import rules
from tests.peers.xapi.core import Handler, World
from tests.peers.xapi.disks import Disks
from tests.peers.xapi.nets import Nets
from tests.peers.xapi.store import Record, now, null
from tests.peers.xapi.values import NULL, Failure

MIB = 1 << 20
XENSTORE_BYTES = 4096  # of one value


class Power:
    def __init__(self, world: World, disks: Disks, nets: Nets) -> None:
        self.world, self.store = world, world.store
        self.disks, self.nets = disks, nets

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "VM.start": self.start, "VM.start_on": self._start_on,
            "VM.hard_shutdown": partial(self._stop, "hard_shutdown"),
            "VM.clean_shutdown": partial(self._stop, "clean_shutdown"),
            "VM.shutdown": partial(self._stop, "shutdown"),
            "VM.hard_reboot": partial(self._reboot, "hard_reboot"),
            "VM.clean_reboot": partial(self._reboot, "clean_reboot"),
            "VM.pause": lambda ref: self._pause(ref, "pause", "Paused"),
            "VM.unpause": lambda ref: self._pause(ref, "unpause", "Running"),
            "VM.suspend": self.suspend, "VM.resume": self.resume,
            "VM.assert_can_boot_here": self._check_host,
            "VM.get_possible_hosts": self._possible,
            "VM.power_state_reset": self._reset,
        }  # fmt: skip

    def start(self, ref: str, paused: bool, _force: bool) -> None:
        rules.check(self.store, ref, "start")
        self._begin(ref, self._choose(ref), paused)

    def _start_on(self, ref: str, host: str, paused: bool, _force: bool) -> None:
        rules.check(self.store, ref, "start_on")
        self._check_host(ref, host)
        self._begin(ref, host, paused)

    def _possible(self, ref: str) -> list[str]:
        return [host for host in self.store.refs("host") if not any(self._objections(ref, host))]

    def _choose(self, ref: str) -> str:
        hosts = self.store.refs("host")
        if len(hosts) == 1:
            self._check_host(ref, hosts[0])
            return hosts[0]
        able = self._possible(ref)
        if not able:
            raise Failure("NO_HOSTS_AVAILABLE")
        wanted = self.store.get("VM", ref)["affinity"]
        return wanted if wanted in able else able[0]

    def _check_host(self, ref: str, host: str) -> None:
        for failure in self._objections(ref, host):
            raise failure

    def _objections(self, ref: str, host: str) -> Iterator[Failure]:
        """Why the VM cannot run there."""
        vm, on = self.store.get("VM", ref), self.store.get("host", host)
        if host in self.world.down or not self.store.get("host_metrics", on["metrics"])["live"]:
            yield Failure("HOST_NOT_LIVE")
        if not on["enabled"]:
            yield Failure("HOST_DISABLED", host)
        xen = self.world.xens[host]
        if int(vm["VCPUs_at_startup"]) > xen.cpus:
            yield Failure("HOST_NOT_ENOUGH_PCPUS", vm["VCPUs_at_startup"], xen.cpus)
        if vm["domain_type"] == "hvm" and not any("hvm" in word for word in on["capabilities"]):
            yield Failure("VM_HVM_REQUIRED", ref)
        needed = int(vm["memory_static_max"])
        if needed > xen.free_mib * MIB:
            yield Failure("HOST_NOT_ENOUGH_FREE_MEMORY", needed, xen.free_mib * MIB)
        for _, vif in self.store.each("VIF", VM=ref):
            pifs = [*self.store.each("PIF", network=vif["network"])]
            if pifs and not any(pif["host"] == host for _, pif in pifs):
                yield Failure("HOST_CANNOT_ATTACH_NETWORK", host, vif["network"])
        for _, vbd in self.store.each("VBD", VM=ref):
            if not vbd["empty"]:
                sr = self.store.get("VDI", vbd["VDI"])["SR"]
                if not self.store.refs("PBD", SR=sr, host=host, currently_attached=True):
                    yield Failure("VM_REQUIRES_SR", ref, sr)

    def _begin(self, ref: str, host: str, paused: bool) -> None:
        vm = self.store.get("VM", ref)
        self._platform(vm)
        bootable = [
            v for _, v in self.store.each("VBD", VM=ref) if v["bootable"] and not v["empty"]
        ]
        if vm["domain_type"] != "hvm" and not bootable and not vm["PV_kernel"]:
            raise Failure("BOOTLOADER_FAILED", ref, "no bootable disk")
        for key, vbd in self.store.each("VBD", VM=ref):
            self.disks.check_free(key, vbd)
        for key, vif in self.store.each("VIF", VM=ref):
            self.nets.attach(key, vif, host)
        for key, vbd in self.store.each("VBD", VM=ref):
            self.disks.mount(key, vbd)
        self._run(ref, host, "Paused" if paused else "Running")

    def _platform(self, vm: Record) -> None:
        per = vm["platform"].get("cores-per-socket", "1")
        if per.isdigit() and int(per) and int(vm["VCPUs_max"]) % int(per):
            raise Failure("VCPU_MAX_NOT_CORES_PER_SOCKET_MULTIPLE", vm["VCPUs_max"], per)
        for key, value in vm["xenstore_data"].items():
            if len(value.encode()) > XENSTORE_BYTES:
                raise Failure("INTERNAL_ERROR", f"xenopsd internal error: E2BIG {key}")

    def _run(self, ref: str, host: str, state: str) -> None:
        """Xen has it now, as its parameters say so far as they can be read."""
        vm = self.store.get("VM", ref)
        domid = self.world.xens[host].build(
            vm["name_label"], vm["uuid"], int(vm["VCPUs_at_startup"]),
            int(vm["memory_static_max"]) // MIB, vm["VCPUs_params"],
            self.store.get("host", host)["guest_VCPUs_params"],
        )  # fmt: skip
        self.store.put(
            "VM", ref, power_state=state, resident_on=host, domid=str(domid),
            guest_metrics=NULL, parent=vm["parent"],
        )  # fmt: skip
        metrics = {"VCPUs_number": vm["VCPUs_at_startup"], "start_time": now()}
        self.store.put("VM_metrics", vm["metrics"], **metrics)
        if state == "Running":
            self.world.machines.started(ref)

    def _stop(self, operation: str, ref: str) -> None:
        rules.check(self.store, ref, operation)
        self.stop(ref)

    def stop(self, ref: str) -> None:
        """It is off, however it came to that."""
        vm = self.store.get("VM", ref)
        self._vanish(ref)
        if self.store.has("VDI", vm["suspend_VDI"]):
            self.disks.destroy(vm["suspend_VDI"])
        self.store.put("VM", ref, power_state="Halted", suspend_VDI=NULL)

    def _vanish(self, ref: str) -> None:
        """Its domain goes, and with it all that was attached."""
        vm = self.store.get("VM", ref)
        if vm["resident_on"] in self.world.xens:
            self.world.xens[vm["resident_on"]].domains.pop(int(vm["domid"]), None)
        self.world.machines.stopped(ref)
        for vif in self.store.refs("VIF", VM=ref, currently_attached=True):
            self.store.put("VIF", vif, currently_attached=False)
        for vbd in self.store.refs("VBD", VM=ref, currently_attached=True):
            self.store.put("VBD", vbd, currently_attached=False, device="")
        if self.store.has("VM_guest_metrics", vm["guest_metrics"]):
            self.store.drop("VM_guest_metrics", vm["guest_metrics"])
        self.store.put("VM", ref, resident_on=NULL, domid="-1", guest_metrics=NULL)

    def _reboot(self, operation: str, ref: str) -> None:
        rules.check(self.store, ref, operation)
        host = self.store.get("VM", ref)["resident_on"]
        self.stop(ref)
        self._begin(ref, host, paused=False)

    def _pause(self, ref: str, operation: str, state: str) -> None:
        rules.check(self.store, ref, operation)
        vm = self.store.get("VM", ref)
        domain = self.world.xens[vm["resident_on"]].domains[int(vm["domid"])]
        domain.paused = state == "Paused"
        self.store.put("VM", ref, power_state=state)
        self.world.machines.changed(ref)
        if state == "Running" and null(vm["guest_metrics"]):
            self.world.machines.started(ref)

    def suspend_room(self, ref: str) -> tuple[str, int]:
        """Where a VM's memory is written to, and how much that is."""
        vm = self.store.get("VM", ref)
        sr = next(
            one for one in (vm["suspend_SR"], self.world.pool["suspend_image_SR"],
                            self.world.pool["default_SR"]) if self.store.has("SR", one)
        )  # fmt: skip
        return sr, int(vm["memory_static_max"])

    def suspend(self, ref: str) -> None:
        rules.check(self.store, ref, "suspend")
        sr, size = self.suspend_room(ref)
        memory = self.disks.make(
            {"SR": sr, "virtual_size": str(size), "type": "suspend", "name_label": "Suspend image"},
            size,
        )  # fmt: skip
        self._vanish(ref)
        self.store.put("VM", ref, power_state="Suspended", suspend_VDI=memory)

    def resume(self, ref: str, paused: bool, _force: bool) -> None:
        rules.check(self.store, ref, "resume")
        self._begin(ref, self._choose(ref), paused)
        memory = self.store.get("VM", ref)["suspend_VDI"]
        self.store.put("VM", ref, suspend_VDI=NULL)
        if self.store.has("VDI", memory):
            self.disks.destroy(memory)

    def renumber(self, ref: str) -> None:
        """It was gone for a moment, and is another domain now."""
        vm = self.store.get("VM", ref)
        xen = self.world.xens[vm["resident_on"]]
        domain = xen.domains.pop(int(vm["domid"]))
        domain.domid, xen.next_domid = xen.next_domid, xen.next_domid + 1
        xen.domains[domain.domid] = domain
        self.store.put("VM", ref, domid=str(domain.domid))

    def _reset(self, ref: str) -> None:
        rules.check(self.store, ref, "power_state_reset")
        self.stop(ref)
