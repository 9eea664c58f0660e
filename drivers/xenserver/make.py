"""How a guest comes about: cloned from a template, and given its shape, vNICs and identity.

XenAPI: VM.clone copies on write in the same storage, VM.copy whole into another; both copy the
template's VIFs, which go. A VM is called by its name only once it is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.xenserver import shape
from drivers.xenserver.api import NULL, Record, but, gone_is_fine
from drivers.xenserver.connect import Session
from drivers.xenserver.nets import Network
from drivers.xenserver.place import MARK, TAG, Place
from drivers.xenserver.seeds import Seeds
from drivers.xenserver.sources import Source, Sources
from drivers.xenserver.tasks import Say
from drivers.xenserver.vms import Vms
from provision.errors import DriverError
from provision.resources import Guest, Vnic

CORES = "cores-per-socket"


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes VMs that are off. All raise failures, Lost."""

    session: Session
    place: Place
    vms: Vms
    sources: Sources
    seeds: Seeds

    def make(
        self, want: Guest, networks: Mapping[str, Network], iso: bytes | None, say: Say
    ) -> str:
        """The new VM's reference, as wanted but not running.

        One that is half made is gone on with, where it is of the same template.
        """
        source = self.sources.find(want.image)
        how = self._how(source)
        half = self.vms.half_made(want.name)
        for vm in half[1:] if len(half) > 1 else ():
            self.vms.end(vm.ref, want.name)
        ref = half[0].ref if half else self._copy(want, source, how, say)
        self._mark(ref, want, how)
        self.shape(ref, want, networks, iso)
        self.session.call("VM.set_name_label", ref, self.vms.name(want.name))
        return ref

    def shape(
        self, ref: str, want: Guest, networks: Mapping[str, Network], iso: bytes | None
    ) -> None:
        """Whatever of a halted VM is other than wanted, its identity included."""
        call = self.session.call
        has = call("VM.get_record", ref)
        source = self.sources.find(want.image)
        self._cpus(ref, has, want)
        size = str(want.memory_mib << 20)
        call("VM.set_memory_limits", ref, size, size, size, size)
        call("VM.set_VCPUs_params", ref, shape.params(want))
        self._nic_model(ref, has, want.nics[0].model if want.nics else want.management.model)
        if has["affinity"] != self.place.host:
            call("VM.set_affinity", ref, self.place.host)
        self._vifs(ref, want, networks)
        if iso is not None:
            self.seeds.detach(ref)
            self.seeds.attach(ref, want.name, self.sources.storage(source).ref, iso)
        note = shape.note(want, shape.noted(has).source or self._how(source))
        other = call("VM.get_other_config", ref)
        self.vms.set_keys("VM", ref, {shape.RECORD: note}, other)

    def _how(self, source: Source) -> str:
        storage = self.sources.storage(source).name
        how = "cloned on write from" if self.sources.clones(source) else f"copied to {storage} from"
        return f"{how} template {source.name}"

    def _copy(self, want: Guest, source: Source, how: str, say: Say) -> str:
        name = self.vms.making(want.name)
        say(how)
        tasks = self.vms.tasks
        if self.sources.clones(source):
            ref = tasks.run("VM.clone", source.ref, name, say=lambda p: say(f"cloning: {p}"))
        else:
            to = self.sources.storage(source).ref
            ref = tasks.run("VM.copy", source.ref, name, to, say=lambda p: say(f"copying: {p}"))
        if not ref.startswith("OpaqueRef:") or ref == NULL:
            raise DriverError(f"cloning {source.name} gave no VM, but {ref!r}")
        return ref

    def _mark(self, ref: str, want: Guest, how: str) -> None:
        """That it and its disks are ours; then it is no template any more."""
        has = self.session.call("VM.get_record", ref)
        keys = {MARK: self.vms.testbed, shape.RECORD: shape.note(want, how)}
        self.vms.set_keys("VM", ref, keys, has["other_config"])
        self.vms.mark_disks(ref, want.name, made=True)
        if (tag := f"{TAG}{self.vms.testbed}") not in has["tags"]:
            self.session.call("VM.add_tags", ref, tag)
        if has["is_a_template"]:
            with but("PROVISION_ONLY_ALLOWED_ON_TEMPLATE"):
                self.vms.tasks.run("VM.provision", ref)
        if has["name_description"] != "made by provision":
            self.session.call("VM.set_name_description", ref, "made by provision")

    def _cpus(self, ref: str, has: Record, want: Guest) -> None:
        """At no moment more at the start than at most."""
        count, call = str(want.vcpus), self.session.call
        per = has["platform"].get(CORES, "1")
        if per.isdecimal() and int(per) > 1 and want.vcpus % int(per):
            call("VM.remove_from_platform", ref, CORES)
        order = ["VCPUs_max", "VCPUs_at_startup"]
        if want.vcpus < int(has["VCPUs_at_startup"]):
            order.reverse()
        for name in order:
            if has[name] != count:
                call(f"VM.set_{name}", ref, count)

    def _nic_model(self, ref: str, has: Record, model: str) -> None:
        """A guest keeps to the emulated NIC only where its PV drivers find no platform device."""
        emulated = model != shape.NETFRONT
        self.vms.set_keys(
            "VM", ref, {shape.NO_PV: "1" if emulated else None}, has["xenstore_data"],
            "xenstore_data",
        )  # fmt: skip
        nic_type = has["platform"].get("nic_type")
        if emulated and (nic_type or shape.RTL8139) != model:
            self.vms.set_keys("VM", ref, {"nic_type": model}, has["platform"], "platform")

    def _vifs(self, ref: str, want: Guest, networks: Mapping[str, Network]) -> None:
        """Those wanted and no others; one that differs is made anew."""
        wanted = dict(shape.wanted_nics(want))
        for vif in self.session.call("VM.get_VIFs", ref):
            has = self.session.call("VIF.get_record", vif)
            vnic = wanted.get(has["device"])
            if vnic is not None and self._is(has, vnic, networks[vnic.switch].ref):
                del wanted[has["device"]]
            else:
                with gone_is_fine():
                    self.session.call("VIF.destroy", vif)
        for device, vnic in wanted.items():
            kind, params = shape.kbps(vnic.rate_mbit)
            self.session.call("VIF.create", {
                "device": device, "network": networks[vnic.switch].ref, "VM": ref,
                "MAC": vnic.mac, "MTU": str(vnic.mtu), "other_config": {MARK: self.vms.testbed},
                "qos_algorithm_type": kind, "qos_algorithm_params": params,
            })  # fmt: skip

    def _is(self, has: Record, vnic: Vnic, network: str) -> bool:
        kind, params = shape.kbps(vnic.rate_mbit)
        return bool(
            has["network"] == network
            and str(has["MAC"]).lower() == vnic.mac
            and has["MTU"] == str(vnic.mtu)
            and has["other_config"].get(MARK) == self.vms.testbed
            and has["qos_algorithm_type"] == kind
            and has["qos_algorithm_params"] == params
        )
