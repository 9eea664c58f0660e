"""A hypervisor in one file: the reference for the contract, and faults on demand.

It makes nothing. It enforces what a real host would: a guest needs its switches, a switch in use
cannot go, an uplink serves one switch, and a host that restarts loses what was set live.
``fake:///path/world.json`` keeps the world between processes. PROVISION_FAKE=``fail=N``, ``die=N``
and ``&after=1`` make a process's Nth change fail or kill it, before or after its effect.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from time import time
from urllib.parse import parse_qs, urlsplit

from provision.capabilities import Capabilities
from provision.driver import (
    Change,
    Check,
    Dom0,
    Facts,
    NicModel,
    Target,
    UplinkFacts,
    Usage,
    host_tunings,
)
from provision.errors import DriverError, Foreign, PreflightError, Unsupported
from provision.resources import (
    BOOT,
    KINDS,
    STATES,
    Among,
    Cable,
    Guest,
    Key,
    Port,
    Resource,
    Switch,
    Tuning,
    Uplink,
    dump,
    key,
    label,
    load,
    needs,
)

MODELS = {
    "virtio": NicModel("virtio", ("1af4:1000",), ("virtio_net",)),
    "e1000": NicModel("e1000", ("8086:100e",), ("e1000",)),
}
LIVE = {("guest", f): Change.LIVE for f in ("weight", "cap_percent", "pins", "emulator_pin")}
RESTART = {("guest", f): Change.RESTART for f in ("vcpus", "memory_mib", "nics", "running")}


BOOTED: Mapping[Key, Tuning] = {
    ("tuning", "dom0.cpus"): Tuning("dom0.cpus", "0-7"),
    ("tuning", "dom0.weight"): Tuning("dom0.weight", "256"),
}


def tunings(dom0: Dom0, uplinks: tuple[UplinkFacts, ...]) -> Iterable[Tuning]:
    """Those of any host, and dom0's memory, for which it must boot anew."""
    yield from host_tunings(dom0, uplinks)
    if dom0.memory_mib is not None:
        yield Tuning(BOOT[1], f"dom0_mem={dom0.memory_mib}")


CAPABILITIES = Capabilities(
    MODELS,
    {"paravirtual": "virtio", "emulated": "e1000"},
    ("bridge", "ovs"),
    refused={"dom0.cap_percent": "its scheduler knows no cap"},
    imagined=True,
)


class Fake:
    """See the module; ``changes`` counts puts, drops, checkpoints and reverts."""

    takes_image = False
    capabilities = CAPABILITIES

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.uri)
        query = {k: int(v[0]) for k, v in parse_qs(os.environ.get("PROVISION_FAKE", "")).items()}
        self.fail, self.die, self.after = (query.get(k, 0) for k in ("fail", "die", "after"))
        self._path = Path(parts.path) if parts.path else None
        self._mark = target.testbed
        self._lock = Lock()
        self.changes = 0
        self.world: dict[Key, Resource] = {
            **BOOTED,
            BOOT: Tuning(BOOT[1], "dom0_mem=4096"),
            **{("uplink", f"eth{n}"): Uplink(f"eth{n}") for n in range(1, 9)},
            **{("port", f"lg{n}"): Port(f"lg{n}") for n in range(1, 9)},
        }
        self.marks: dict[Key, str] = {}
        self.clean: dict[Key, Guest] = {}
        self._load()
        self.facts = Facts(
            hypervisor="fake", version="1", host="fake", cpus=8, memory_mib=1 << 20, accel="none",
            nic_models=MODELS, words=CAPABILITIES.words,
            switch_flavours=CAPABILITIES.switches, kinds=frozenset(KINDS),
            uplinks=tuple(
                UplinkFacts(f"eth{n}", f"02:00:00:00:00:{n:02x}", f"0000:00:{n:02x}.0")
                for n in range(1, 9)
            ),
            cannot=CAPABILITIES.refused, tunings=tunings,
            change=LIVE | RESTART, parallel={"guest": 4}, simulated=True,
        )  # fmt: skip

    def at(self, key: Key) -> Key:
        """Where the host keeps it: guests of different testbeds may have one name."""
        return (key[0], f"{self._mark}-{key[1]}") if key[0] == Guest.kind else key

    def _load(self) -> None:
        if self._path is None or not self._path.exists():
            return
        stored = json.loads(self._path.read_text())
        loaded = [load(d) for d in stored["world"]]
        keys = [(kind, name) for kind, name in stored["keys"]]
        self.world = {k: r for k, r in zip(keys, loaded, strict=True) if r is not None}
        self.marks = {(k, n): mark for k, n, mark in stored["marks"]}
        self.clean = {(k, n): g for k, n, d in stored["clean"] if isinstance(g := load(d), Guest)}

    def _save(self) -> None:
        if self._path is None:
            return
        text = json.dumps({
            "keys": list(self.world),
            "world": [dump(r) for r in self.world.values()],
            "marks": [[*k, mark] for k, mark in self.marks.items()],
            "clean": [[*k, dump(g)] for k, g in self.clean.items()],
        })  # fmt: skip
        part = self._path.with_suffix(".part")
        part.write_text(text)
        part.replace(self._path)

    def _fault(self, after: bool) -> None:
        if not after:
            self.changes += 1
        else:
            self._save()
        if after != bool(self.after):
            return
        if self.changes == self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.changes == self.fail:
            raise DriverError(f"change {self.changes} was told to fail")

    def read(self, key: Key) -> Resource | None:
        with self._lock:
            key = self.at(key)
            ours = key[0] in STATES or self.marks.get(key) == self._mark
            return self.world.get(key) if ours else None

    def put(self, want: Resource) -> None:
        with self._lock:
            k = self.at(key(want))
            self._refuse(want)
            if k in self.world and k[0] not in STATES and self.marks.get(k) != self._mark:
                raise Foreign(f"{label(k)} exists and is not ours")
            self._fault(after=False)
            self._hold_together(want)
            if k == BOOT and self.world[k] != want:
                self._restart()
            self.world[k] = want
            if k[0] not in STATES:
                self.marks[k] = self._mark
            if isinstance(want, Cable):
                self.world.setdefault(("uplink", want.name), Uplink(want.name))
                self.world.setdefault(("port", want.far), Port(want.far))
            self._fault(after=True)

    def _restart(self) -> None:
        """What was set live is as the host boots, and what ran does not."""
        if holding := [k for k in self.world if k[0] in (Guest.kind, Switch.kind)]:
            raise PreflightError(f"{', '.join(map(label, holding))} would not outlive a restart")
        for k in [k for k in self.world if k[0] in (Tuning.kind, Uplink.kind) and k != BOOT]:
            self.world[k] = BOOTED.get(k) or Uplink(k[1])

    def _refuse(self, want: Resource) -> None:
        if isinstance(want, Guest):
            for nic in (want.management, *want.nics):
                if nic.model not in MODELS:
                    raise Unsupported(f"fake has no vNIC model {nic.model!r}")
        if isinstance(want, Switch) and want.flavour not in ("bridge", "ovs"):
            raise Unsupported(f"fake has no switch of type {want.flavour!r}")

    def _hold_together(self, want: Resource) -> None:
        if isinstance(want, Guest):
            switches = {("switch", nic.switch) for nic in (want.management, *want.nics)}
            if absent := switches - self.world.keys():
                raise DriverError(f"{label(key(want))} needs {', '.join(map(label, absent))}")
        if isinstance(want, Switch) and want.uplink is not None:
            if ("uplink", want.uplink) not in self.world:
                raise DriverError(f"no NIC {want.uplink!r}")
            for other in self.world.values():
                if (
                    isinstance(other, Switch)
                    and other.uplink == want.uplink
                    and other.name != want.name
                ):
                    raise DriverError(f"{want.uplink} is the uplink of {other.name}")
        if key(want)[0] in STATES and key(want) not in self.world:
            raise DriverError(f"no {label(key(want))} on this host")

    def drop(self, key: Key) -> None:
        with self._lock:
            key = self.at(key)
            if key[0] in STATES:
                raise DriverError(f"{label(key)} cannot be dropped, only put back")
            if key in self.world and self.marks.get(key) != self._mark:
                raise Foreign(f"{label(key)} exists and is not ours")
            self._fault(after=False)
            among = Among.of(self.world)
            if users := [k for k, r in self.world.items() if key in needs(r, among)]:
                holding = [k for k in users if k[0] not in STATES]
                if holding:
                    raise DriverError(f"{label(key)} is in use by {', '.join(map(label, holding))}")
            gone = self.world.pop(key, None)
            self.marks.pop(key, None)
            self.clean.pop(key, None)
            if isinstance(gone, Cable):
                self.world.pop(("uplink", gone.name), None)
                self.world.pop(("port", gone.far), None)
            self._fault(after=True)

    def has_checkpoint(self, key: Key) -> bool:
        return self.at(key) in self.clean

    def checkpoint(self, key: Key) -> None:
        with self._lock:
            key = self.at(key)
            guest = self.world.get(key)
            if not isinstance(guest, Guest):
                raise DriverError(f"{label(key)}: no such guest")
            self._fault(after=False)
            self.clean[key] = guest
            self._fault(after=True)

    def revert(self, key: Key) -> None:
        with self._lock:
            key = self.at(key)
            if key not in self.clean:
                raise DriverError(f"{label(key)} has no checkpoint")
            self._fault(after=False)
            self.world[key] = replace(self.clean[key], running=True)
            self._fault(after=True)

    def owned(self) -> Iterable[Key]:
        cut = len(self._mark) + 1
        return [
            (kind, name[cut:] if kind == Guest.kind else name)
            for (kind, name), mark in self.marks.items()
            if mark == self._mark
        ]

    def usage(self) -> Usage:
        return Usage(time(), (0.0,) * 8, {}, {})

    def evidence(self, key: Key) -> Mapping[str, str]:
        return {"started": "imagined"} if self.at(key) in self.world else {}

    def examine(self) -> Iterable[Check]:
        return ()

    def console(self, key: Key) -> str:
        return ""

    def close(self) -> None:
        self._save()
