"""A day of one small testbed on a XenServer peer, step by step, for tests that disturb it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drivers.xenserver.driver import XenServer
from drivers.xenserver.wire import Limits
from provision.driver import Login, Target, Tls
from provision.resources import Guest, Resource, Switch, Vnic, key
from tests.contract.peer import who
from tests.peers.xapi import Peer, xapi
from tests.peers.xapi.core import World
from tests.peers.xapi.peer import Inventory

TESTBED, TAG = "bed", "abcd"
SWITCH = Switch(f"pv{TAG}b1", "ovs", "eth1")
NIC = Vnic(SWITCH.name, "netfront", "00:16:3e:00:00:02", "198.18.1.2/24")
GUEST = Guest(
    "vm1", vcpus=1, memory_mib=512, image="debian12", accel="xen", nics=(NIC,),
    management=Vnic("xenbr0", "netfront", "00:16:3e:00:00:01", "198.19.1.10/24"),
)  # fmt: skip
TUNED = replace(
    GUEST, vcpus=2, weight=512, cap_percent=50, pins=("0", "1-2"),
    nics=(replace(NIC, rate_mbit=100),),
)  # fmt: skip
EMULATED = replace(
    GUEST, management=replace(GUEST.management, model="rtl8139"),
    nics=(replace(NIC, model="rtl8139"),),
)  # fmt: skip
QUICK = Limits(call_s=20, task_s=20, carrier_s=2, reboot_s=20)


@dataclass
class Bed:
    """A peer and what was there before the testbed."""

    peer: Peer
    before: Inventory = field(default_factory=dict)
    drivers: list[XenServer] = field(default_factory=list)

    def target(self, **more: Any) -> Target:
        login = Login(self.peer.user, lambda: self.peer.password)
        return Target(**{
            "testbed": TESTBED, "folder": Path("/nowhere"), "uri": self.peer.uri, "tag": TAG,
            "identity": who, "login": login, "tls": Tls(ca=self.peer.ca), "host": "xs1", **more,
        })  # fmt: skip

    def driver(self, limits: Limits = QUICK, **more: Any) -> XenServer:
        """One that is closed at the end. No ssh: nobody answers there."""
        found = XenServer(self.target(**{"ssh": "nobody@127.0.0.1.invalid", **more}), limits)
        self.drivers.append(found)
        return found

    @property
    def witness(self) -> XenServer:
        """A driver that only ever looks; what it asks is not disturbed, nor counted."""
        return self.drivers[0]

    def sees(self, thing: Resource) -> Resource | None:
        """What there is of a thing, whatever is armed."""
        self.peer.wire.calm()
        return self.witness.read(key(thing))

    def left(self) -> str:
        """What is other than before; "" = nothing."""
        now = self.peer.inventory()
        found = [
            f"{cls} {ref}: {differing(self.before[cls].get(ref), now[cls].get(ref))}"
            for cls in self.before for ref in {*self.before[cls], *now[cls]}
            if self.before[cls].get(ref) != now[cls].get(ref)
        ]  # fmt: skip
        return "; ".join(found)[:1000]

    def tasks_left(self) -> list[str]:
        """The tasks that are there, which then are not."""
        store = self.peer.world.store
        with store.lock:
            found = [*store.tables["task"].items()]
            for ref, _ in found:
                store.drop("task", ref)
        return [task["name_label"] for _, task in found]


def differing(before: Any, now: Any) -> str:
    """What of a record is another."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return f"{str(before)[:60]} became {str(now)[:60]}"
    return ", ".join(
        f"{k}: {before.get(k)} became {now.get(k)}" for k in before if before[k] != now.get(k)
    )


@contextmanager
def bed(**more: Any) -> Iterator[Bed]:
    """Guests come about at once. At the end all is as before, and nobody is logged in."""
    with xapi(world=World(task_s=0.0, agent_s=0.0), **more) as peer:
        found = Bed(peer)
        found.driver()
        found.before = peer.inventory()
        yield found
        peer.wire.calm()
        clear(found, found.witness)
        for driver in found.drivers:
            driver.close()
        assert not found.left()
        assert not peer.tasks()
        assert not peer.sessions()


@dataclass(frozen=True)
class Step:
    """``ready`` brings what the step starts from, whatever there is; ``holds`` says it is done.

    ``doing`` is what errors have to say.
    """

    ready: Callable[[Bed, XenServer], None]
    act: Callable[[Bed, XenServer], object]
    holds: Callable[[Bed], bool]
    doing: str


def clear(_bed: Bed, driver: XenServer) -> None:
    """Nothing of ours."""
    driver.drop(key(GUEST))
    driver.drop(key(SWITCH))


def _has(*wants: Resource) -> Callable[[Bed, XenServer], None]:
    def ready(_bed: Bed, driver: XenServer) -> None:
        for want in (SWITCH, *wants):
            driver.put(want)

    return ready


def _alone(at: Bed, driver: XenServer) -> None:
    """The switch, and no guest."""
    driver.drop(key(GUEST))
    _has()(at, driver)


def _new(at: Bed, driver: XenServer) -> None:
    _alone(at, driver)
    driver.put(GUEST)


def _kept(at: Bed, driver: XenServer) -> None:
    _has(GUEST)(at, driver)
    if not driver.has_checkpoint(key(GUEST)):
        driver.checkpoint(key(GUEST))


def _suspended(at: Bed, driver: XenServer) -> None:
    """As somebody may have left it."""
    _has(GUEST)(at, driver)
    with at.peer.world.store.lock:
        at.peer.rooms.power.suspend(at.peer.vm(f"{TESTBED}-{GUEST.name}"))


def _put(want: Resource) -> tuple[Callable[[Bed, XenServer], object], Callable[[Bed], bool]]:
    return lambda _at, driver: driver.put(want), lambda at: at.sees(want) == want


def _drop(want: Resource) -> tuple[Callable[[Bed, XenServer], object], Callable[[Bed], bool]]:
    return lambda _at, driver: driver.drop(key(want)), lambda at: at.sees(want) is None


def _runs(at: Bed) -> bool:
    return at.sees(GUEST) == GUEST


def _one_checkpoint(at: Bed) -> bool:
    vm = at.peer.vm(f"{TESTBED}-{GUEST.name}")
    return _runs(at) and len(at.peer.find("VM", snapshot_of=vm)) == 1


def _checkpoint(_at: Bed, driver: XenServer) -> None:
    driver.checkpoint(key(GUEST))


_SWITCH, _VM = f"switch {SWITCH.name}", f"guest {GUEST.name}"
STEPS: Mapping[str, Step] = {
    "switch": Step(clear, *_put(SWITCH), f"put {_SWITCH}"),
    "mtu": Step(_alone, *_put(replace(SWITCH, mtu=9000)), f"put {_SWITCH}"),
    "guest": Step(_alone, *_put(TUNED), f"put {_VM}"),
    "restart": Step(_kept, *_put(TUNED), f"put {_VM}"),
    "emulated": Step(_has(GUEST), *_put(EMULATED), f"put {_VM}"),
    "stop": Step(_has(GUEST), *_put(replace(GUEST, running=False)), f"put {_VM}"),
    "resume": Step(_suspended, *_put(GUEST), f"put {_VM}"),
    "checkpoint": Step(_new, _checkpoint, _one_checkpoint, f"checkpoint {_VM}"),
    "checkpoint again": Step(_kept, _checkpoint, _one_checkpoint, f"checkpoint {_VM}"),
    "revert": Step(_kept, lambda _at, d: d.revert(key(GUEST)), _runs, f"revert {_VM}"),
    "drop guest": Step(_kept, *_drop(GUEST), f"drop {_VM}"),
    "drop switch": Step(_alone, *_drop(SWITCH), f"drop {_SWITCH}"),
}
