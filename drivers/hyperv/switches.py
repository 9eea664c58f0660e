"""External VMSwitches, one for each guest: one uplink, and the host itself not on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from threading import Lock

from drivers.hyperv import hostnet, words
from drivers.hyperv.api import EXISTS, told
from drivers.hyperv.batches import switches_named
from drivers.hyperv.hostnet import Looks, Net, Standing
from drivers.hyperv.ops import Batch, Call, Refused, Value, lock
from drivers.hyperv.pool import Pool
from drivers.hyperv.words import FLAVOUR
from provision.errors import DriverError, Foreign, Unsupported
from provision.resources import Switch

EXTERNAL, PRIVATE = "External", "Private"
NEVER = {"Confirm": False}


@dataclass(slots=True)
class Switches:
    """Kind ``switch`` of the driver. ``refused`` says why adapters may be no uplinks."""

    pool: Pool
    looks: Looks
    changes: Looks
    testbed: str
    refused: dict[str, str]
    _absent: set[str] = field(default_factory=set)
    _dropped: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def read(self, name: str) -> Switch | None:
        """As ``Driver.read``."""
        return self.look([name])[name]

    def look(self, names: Iterable[str], net: Net | None = None) -> dict[str, Switch | None]:
        """As ``read``, of many at once."""
        names = [*names]
        with self._lock:
            dropped = net is None and {*names} <= self._dropped
        if dropped and not any(self._bare(names)):
            return dict.fromkeys(names)
        net = net or self._net()
        with self._lock:
            self._absent |= {*names} - net.switches.keys()
        found = {n: net.switches.get(n) for n in names}
        return {n: _as_is(s, net) if s and self._ours(s) else None for n, s in found.items()}

    def owned(self) -> list[str]:
        return [s.name for s in self._net().switches.values() if self._ours(s)]

    def put(self, want: Switch) -> None:
        """As ``Driver.put``; another uplink means another switch."""
        self._refuse(want)
        with told(f"put switch {want.name}"):
            self.pool.again(lambda: self._put(want), _lock(want.name))

    def drop(self, name: str) -> None:
        """As ``Driver.drop``."""
        with told(f"drop switch {name}"):
            self.pool.again(lambda: self._drop(name), _lock(name))

    def _put(self, want: Switch) -> None:
        with self._lock:
            absent = want.name in self._absent  # when last looked for; the next look is a real one
            self._absent.discard(want.name)
            self._dropped.discard(want.name)
        batch = Batch(_lock(want.name))
        if not absent:
            net = self._net()
            found = self._own(net.switches.get(want.name))
            if found is not None:
                if replace(_as_is(found, net), mtu=want.mtu) == want:
                    return  # how long its frames may be is its uplink's
                _remove(batch, found)
        _add(batch, want, self.testbed)
        try:
            self.changes.ask(batch)
        except Refused as e:
            if e.id != EXISTS:
                raise
            net = self._net()
            found = self._own(net.switches.get(want.name))
            if found is None or _as_is(found, net) != want:
                raise

    def _drop(self, name: str) -> None:
        with self._lock:
            self._dropped.add(name)
        found = self._own(self._bare([name])[0])
        if found is None:
            return
        batch = Batch(_lock(name))
        _remove(batch, found)
        try:
            self.changes.ask(batch)
        except Refused as e:
            if e.id == EXISTS:
                self._say_users(name)
            raise

    def _say_users(self, name: str) -> None:
        """Raise with the VMs that are on the switch: Foreign where they are another's."""
        card = Call("Get-VMNetworkAdapter", {"All": True}, select=("VMName",), only=_on(name))
        vms = sorted({str(row["VMName"]) for row in self.looks.ask(Batch(ops=[card]))[0]})
        strange = [vm for vm in vms if not vm.startswith(words.vm_name(self.testbed, ""))]
        if strange:
            raise Foreign(f"switch {name}: VM {', '.join(strange)} is on it")
        if vms:
            raise DriverError(f"switch {name} is in use by VM {', '.join(vms)}")

    def _refuse(self, want: Switch) -> None:
        if want.flavour != FLAVOUR:
            raise Unsupported(
                f"switch {want.name}: Hyper-V has no switch of type {want.flavour!r}",
                hint=f"switch: {FLAVOUR}",
            )
        if want.address is not None:
            raise Unsupported(f"switch {want.name}: the host itself has no address on it")
        if why := self.refused.get(want.uplink or ""):
            raise DriverError(f"switch {want.name}: uplink {want.uplink} is in use: {why}")

    def _bare(self, names: list[str]) -> list[Standing | None]:
        """The switches, with adapters' descriptions in place of their names: a quick look."""
        looks = [replace(switches_named(name), select=hostnet.SWITCH) for name in names]
        with told(f"look for switch {', '.join(names)}"):
            found = self.looks.ask(Batch(ops=[*looks]))
        return [next(hostnet.standing(rows, {}), None) for rows in found]

    def _net(self) -> Net:
        with told("read switches"):
            return hostnet.look(self.looks)

    def _ours(self, found: Standing) -> bool:
        return found.testbed == self.testbed

    def _own(self, found: Standing | None) -> Standing | None:
        if found is not None and not self._ours(found):
            raise Foreign(
                f"VMSwitch {found.name} exists without our mark",
                hint="look at its Notes in Virtual Switch Manager, and rename or remove it",
            )
        return found


def _on(name: str) -> dict[str, list[str]]:
    return {"SwitchName": [name]}


def _lock(name: str) -> str:
    return lock("switch", name)


def _as_is(found: Standing, net: Net) -> Switch:
    """The switch's MTU is its uplink's; one that others are on too says so in its flavour."""
    flavour = FLAVOUR
    if found.shared:
        flavour = f"{FLAVOUR} shared with the host"
    elif len(found.cards) > 1 or found.kind not in (EXTERNAL, PRIVATE):
        flavour = f"{found.kind} {FLAVOUR} on {' and '.join(found.cards) or 'nothing'}"
    uplink = found.cards[0] if found.cards else None
    card = net.cards.get(uplink or "")
    return Switch(found.name, flavour, uplink, card.mtu if card else words.LEAST_MTU)


def _add(batch: Batch, want: Switch, testbed: str) -> None:
    """The batch ends at once where the name is taken: two switches may have one name."""
    batch.add(replace(switches_named(want.name), expect="none"))
    named = {"Name": want.name, "Notes": words.switch_notes(testbed)}
    if want.uplink is None:
        batch.add(Call("New-VMSwitch", {**named, "SwitchType": PRIVATE}))
        return
    with_uplink: dict[str, Value] = {"NetAdapterName": want.uplink, "AllowManagementOS": False}
    batch.add(Call("New-VMSwitch", {**named, **with_uplink}))


def _remove(batch: Batch, found: Standing) -> None:
    """That very one, if it is still there; the batch ends at once where VMs are on it."""
    cards = Call("Get-VMNetworkAdapter", {"All": True}, only=_on(found.name), expect="none")
    batch.add(cards)
    mine = batch.add(replace(switches_named(found.name), only={"Id": [found.id]}))
    batch.add(Call("Remove-VMSwitch", {"Force": True, **NEVER}, {"VMSwitch": mine}))
