"""Networks that a vNIC can be on: found by name on the host, and named from a vNIC's backing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from drivers.vsphere.api import vim
from drivers.vsphere.connect import Session
from drivers.vsphere.place import Place
from drivers.vsphere.read import each, get

_ETHERNET = vim.vm.device.VirtualEthernetCard
_DISTRIBUTED = vim.dvs.DistributedVirtualPortgroup


@dataclass(slots=True)
class Networks:
    """Those of one host that are there without us; what is ours is ``Switches``'s."""

    session: Session
    place: Place
    _backings: dict[str, Any] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def backing(self, name: str) -> Any | None:
        """What a vNIC on the network of that name is backed by; None = the host has no such."""
        with self._lock:
            if name not in self._backings:
                self._look()
            return self._backings.get(name)

    def names(self) -> list[str]:
        """All of the host's networks, for people."""
        with self._lock:
            self._look()
            return sorted(self._backings)

    def name(self, backing: Any) -> str:
        """The network's name, its key where the host has it not (any more)."""
        if isinstance(backing, _ETHERNET.NetworkBackingInfo):
            return str(backing.deviceName)
        if isinstance(backing, _ETHERNET.DistributedVirtualPortBackingInfo):
            key = str(backing.port.portgroupKey)
            with self._lock:
                if key not in self._names:
                    self._look()
                return self._names.get(key, key)
        return str(getattr(backing, "opaqueNetworkId", ""))

    def _look(self) -> None:
        refs = get(self.session, self.place.host, "network").get("network", ())
        plain = [r for r in refs if type(r) is vim.Network]
        self._backings = {
            n.has["name"]: on_port_group(n.has["name"]) for n in each(self.session, plain, "name")
        }
        self._distributed([r for r in refs if isinstance(r, _DISTRIBUTED)])

    def _distributed(self, refs: Iterable[Any]) -> None:
        groups = each(self.session, refs, "name", "key", "config.distributedVirtualSwitch")
        switches = {g.has["config.distributedVirtualSwitch"] for g in groups}
        uuids = {s.ref: s.has["uuid"] for s in each(self.session, switches, "uuid")}
        for group in groups:
            key = group.has["key"]
            self._names[key] = group.has["name"]
            port = vim.dvs.PortConnection(
                portgroupKey=key, switchUuid=uuids[group.has["config.distributedVirtualSwitch"]]
            )
            self._backings[group.has["name"]] = _ETHERNET.DistributedVirtualPortBackingInfo(
                port=port
            )


def on_port_group(name: str) -> Any:
    """The backing of a vNIC on a standard switch's port group."""
    return _ETHERNET.NetworkBackingInfo(deviceName=name)
