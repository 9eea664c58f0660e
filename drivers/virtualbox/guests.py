"""Guests as linked clones of a base VM: read, put, drop, checkpoint and revert."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock

from drivers.virtualbox import words
from drivers.virtualbox.fit import LIVE, refuse
from drivers.virtualbox.manage import ABSENT, PAUSE_S, STATE, Manage, code, told
from drivers.virtualbox.parse import GOING, SAVED, SETTLED, STOPPED, Seen, seed_slot
from drivers.virtualbox.place import Place
from drivers.virtualbox.sight import Sight
from provision.driver import Target
from provision.errors import DriverError, HostError, PreflightError
from provision.resources import Guest, changed, dump, key

SETTLE_S = 120
_SEED = 'umask 077; base64 -d > "$1.part" && mv "$1.part" "$1"'
# what VirtualBox made is gone; what it left when it was cut short lies in folders of ours alone
_SWEEP = """
[ ! -e "$1/$2" ] || VBoxManage closemedium dvd "$1/$2" >/dev/null 2>&1 || :
rm -rf -- "$1"; rmdir -- "${1%/*}" "${1%/*/*}" 2>/dev/null || :
"""
_REACH = '[ -e "/sys/class/net/$1" ] || echo "$1"'


@dataclass(frozen=True, slots=True)
class Guests:
    """Kind ``guest`` of the driver, for one testbed. Keys are guests' names."""

    target: Target
    manage: Manage
    place: Place
    sight: Sight
    #: a base VM is locked while it is cloned
    _cloning: Lock = field(default_factory=Lock, repr=False)

    def look(self, names: Iterable[str]) -> dict[str, Guest | None]:
        """Each as ``Driver.read`` gives it."""
        names = [*names]
        with told("read guests"):
            found = self.sight.look(names)
        return {n: s.guest if (s := found.get(n)) is not None else None for n in names}

    def put(self, want: Guest) -> None:
        """As ``Driver.put``; a change is made live, else by a restart, else by a new guest."""
        refuse(want)
        with told(f"put guest {want.name}"):
            seen = self.sight.own(want.name)
            self._reach(want)
            if seen is not None and (seen.half or seen.guest.image != want.image):
                self._drop(want.name, seen)
                seen = None
            if seen is None:
                seen = self._clone(want)
                self._set(want, seen)
                self._start(want)
                return
            differ = {*changed(seen.guest, want)}
            if seen.state == "paused" and want.running:
                self.manage.run("controlvm", seen.uuid, "resume")
                differ.discard("running")
            if seen.state in GOING and differ <= LIVE:
                self._tune(want, seen, differ)
            elif differ:
                self._off(want.name, seen)
                self._forget(seen)
                self._set(want, self.sight.there(want.name))
                self._start(want)

    def drop(self, name: str) -> None:
        """As ``Driver.drop``: the VM, its snapshots, its folder."""
        with told(f"drop guest {name}"):
            self._drop(name, self.sight.own(name))

    def has_checkpoint(self, name: str) -> bool:
        """As ``Keeper.has_checkpoint``."""
        with told(f"look at guest {name}"):
            found = self.sight.look([name]).get(name)
        return found is not None and words.CLEAN in found.snapshots

    def checkpoint(self, name: str) -> None:
        """As ``Driver.checkpoint``: with memory; the guest stands still meanwhile."""
        with told(f"checkpoint guest {name}"):
            seen = self.sight.there(name)
            self._forget(seen)
            self.manage.run("snapshot", seen.uuid, "take", words.CLEAN)

    def revert(self, name: str) -> None:
        """As ``Driver.revert``."""
        with told(f"revert guest {name}"):
            seen = self.sight.there(name)
            if words.CLEAN not in seen.snapshots:
                raise DriverError(f"guest {name} has no checkpoint")
            self._off(name, seen)
            self.manage.run("snapshot", seen.uuid, "restore", words.CLEAN)
            self.manage.run("startvm", seen.uuid, "--type=headless")

    def evidence(self, name: str) -> Mapping[str, str]:
        """How the guest came about."""
        return {
            "accel": words.ACCEL,
            "started": "booted from a linked clone",
            "hypervisor": self.place.version,
            "identity": "by a NoCloud seed disk",
        }

    def _reach(self, want: Guest) -> None:
        """Raise DriverError where a NIC is missing: VirtualBox would make such a VM."""
        for name in dict.fromkeys(v.switch for v in (want.management, *want.nics)):
            if self.manage.sh(_REACH, name):
                raise DriverError(
                    f"guest {want.name} needs {name}, which {self.place.name} has not"
                )

    def _clone(self, want: Guest) -> Seen:
        base = self.place.bases.get(want.image)
        if base is None:
            raise DriverError(
                f"guest {want.name}: {self.place.name} has no VM {want.image!r} with a snapshot",
                hint=f"VBoxManage snapshot {want.image} take base",
            )
        self.target.say(key(want), "cloning")
        self._sweep(want.name)
        with self._cloning:
            self.manage.run(
                "clonevm", want.image, f"--snapshot={base}", "--options=link",
                f"--name={words.vm_name(self.target.testbed, want.name)}",
                f"--uuid={words.vm_uuid(self.target.testbed, want.name)}",
                f"--groups={words.group(self.target.testbed)}",
                f"--basefolder={self.place.root}", "--register",
            )  # fmt: skip
        return self.sight.there(want.name)

    def _set(self, want: Guest, seen: Seen) -> None:
        """All that it is, while it is off; the record comes last: with it, the VM is whole."""
        if seen.state in SAVED:  # the base's snapshot was taken while it ran
            self.manage.run("discardstate", seen.uuid)
        self._limit(want, seen)
        self.manage.run("modifyvm", seen.uuid, *self._options(want, seen))
        self._seed(want, seen)
        self._record(want, seen)

    def _options(self, want: Guest, seen: Seen) -> Iterator[str]:
        yield f"--cpus={want.vcpus}"
        yield "--ioapic=on"  # more than one vCPU needs it, and a guest shall not see it come
        yield f"--memory={want.memory_mib}"
        yield f"--cpuexecutioncap={(want.cap_percent or 100 * want.vcpus) // want.vcpus}"
        yield from ("--uart1", "0x3F8", "4")
        yield from ("--uartmode1", "file", f"{seen.folder}/{words.CONSOLE}")
        vnics = (want.management, *want.nics)
        for n, vnic in enumerate(vnics, 1):
            kind = self.place.attachment(vnic.switch)
            adapter = {"bridged": "bridgeadapter", "hostonly": "hostonlyadapter"}[kind]
            yield f"--nic{n}={kind}"
            yield f"--{adapter}{n}={vnic.switch}"
            yield f"--nictype{n}={vnic.model}"
            yield f"--macaddress{n}={words.mac_here(vnic.mac)}"
            yield f"--cableconnected{n}=on"
            limit = words.limit_group(n) if vnic.rate_mbit is not None else "none"
            yield f"--nicbandwidthgroup{n}={limit}"
        for n in range(len(vnics) + 1, words.MOST_NICS + 2):
            yield f"--nic{n}=none"

    def _limit(self, want: Guest, seen: Seen) -> None:
        for n, vnic in enumerate((want.management, *want.nics), 1):
            name = words.limit_group(n)
            if vnic.rate_mbit is None:
                continue
            limit = f"--limit={vnic.rate_mbit}m"
            if name in seen.limits:
                self.manage.run("bandwidthctl", seen.uuid, "set", name, limit)
            else:
                self.manage.run("bandwidthctl", seen.uuid, "add", name, "--type=network", limit)

    def _seed(self, want: Guest, seen: Seen) -> None:
        if self.target.identity is None:
            return
        from provision.seed import iso

        path = f"{seen.folder}/{words.SEED}"
        slot = seed_slot(seen, path)
        if slot is None:
            raise PreflightError(
                f"guest {want.name}: the VM {want.image} has no free place for its seed disk",
                hint="give it an empty DVD drive, and take its snapshot anew",
            )
        self.manage.sh(_SEED, path, input=b64encode(iso(self.target.identity(want))).decode())
        if slot.medium != path:
            self._attach(seen, slot.controller, slot.port, slot.device, path)

    def _attach(self, seen: Seen, controller: str, port: int, device: int, medium: str) -> None:
        self.manage.run(
            "storageattach", seen.uuid, f"--storagectl={controller}", f"--port={port}",
            f"--device={device}", "--type=dvddrive", f"--medium={medium}",
        )  # fmt: skip

    def _record(self, want: Guest, seen: Seen) -> None:
        text = json.dumps(dump(want), sort_keys=True)
        self.manage.run("setextradata", seen.uuid, words.RECORD, text)

    def _start(self, want: Guest) -> None:
        if want.running:
            self.target.say(key(want), "booting")
            uuid = words.vm_uuid(self.target.testbed, want.name)
            self.manage.run("startvm", uuid, "--type=headless")

    def _tune(self, want: Guest, seen: Seen, differ: Iterable[str]) -> None:
        if "cap_percent" in [*differ]:
            cap = (want.cap_percent or 100 * want.vcpus) // want.vcpus
            self.manage.run("controlvm", seen.uuid, "cpuexecutioncap", str(cap))
            self._record(want, seen)

    def _off(self, name: str, seen: Seen) -> Seen:
        """Pull the plug; what is being done with it by others is waited for."""
        until = time.monotonic() + SETTLE_S
        while seen.state not in STOPPED | SAVED:
            if time.monotonic() > until:
                raise DriverError(f"guest {name} is {seen.state} for {SETTLE_S} s")
            if seen.state in SETTLED:
                try:
                    self.manage.run("controlvm", seen.uuid, "poweroff")
                except HostError as e:
                    if code(e) not in (*STATE, ABSENT) and "not currently running" not in str(e):
                        raise
            else:
                time.sleep(PAUSE_S)  # no event tells of it
            seen = self.sight.there(name)
        if seen.state in SAVED:
            self.manage.run("discardstate", seen.uuid)
        return seen

    def _forget(self, seen: Seen) -> None:
        """The checkpoint belongs to the former shape."""
        for _ in range(seen.snapshots.count(words.CLEAN)):
            self.manage.run("snapshot", seen.uuid, "delete", words.CLEAN, lenient=ABSENT)

    def _drop(self, name: str, seen: Seen | None) -> None:
        if seen is not None:
            seen = self._off(name, seen)
            path = f"{seen.folder}/{words.SEED}"
            for slot in seen.slots:
                if slot.medium == path:
                    self._attach(seen, slot.controller, slot.port, slot.device, "emptydrive")
            self.manage.run("unregistervm", seen.uuid, "--delete", lenient=ABSENT)
        self._sweep(name, seen)

    def _sweep(self, name: str, seen: Seen | None = None) -> None:
        folder = words.folder(self.place.root, self.target.testbed, name)
        if seen is not None and seen.folder.endswith(folder.removeprefix(self.place.root)):
            folder = seen.folder  # where another spec once put it
        self.manage.sh(_SWEEP, folder, words.SEED)
