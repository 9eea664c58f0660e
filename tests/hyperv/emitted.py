"""Every operation that the driver can send, without a host: for checks against the tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from drivers.hyperv import (
    batches,
    boot,
    examine,
    groups,
    hostnet,
    place,
    sight,
    switches,
    usage,
    words,
)
from drivers.hyperv import uplinks as ups
from drivers.hyperv.ops import Batch, Call, Operation, Value
from drivers.hyperv.parse import Seen
from drivers.hyperv.pool import Pool
from drivers.hyperv.shell import Answer
from provision.resources import Guest, Switch, Uplink, Vnic

SYNTHETIC = Guest(
    "vm1", 2, 512, "deb", Vnic("lan", "synthetic", "00:15:5d:00:00:01", "198.19.0.10/24"),
    (Vnic("pvb1", "synthetic", "00:15:5d:00:00:02", "198.18.1.2/24", rate_mbit=100),), "hyperv",
    pins=("0-1", "0-1"), cap_percent=100, reserve_percent=20,
)  # fmt: skip
LEGACY = replace(SYNTHETIC, nics=(replace(SYNTHETIC.nics[0], model="legacy", rate_mbit=None),))


def seen(guest: Guest, state: str = "Running") -> Seen:
    return Seen("id", guest, False, state, words.generation(guest), "Ok", "11.0", ("s1",))


class Notebook:
    """Stands for the pool: it writes down what is asked, and answers nothing."""

    def __init__(self) -> None:
        self.ops: list[Operation] = []

    def read(self, asked: list[Batch]) -> list[Answer]:
        for batch in asked:
            self.ops += batch.ops
        raise EOFError


def _asked(work: object) -> list[Operation]:
    """What a function asks a pool first."""
    book = Notebook()
    try:
        list(work(book))  # type: ignore[operator]
    except EOFError:
        return book.ops
    raise AssertionError("nothing was asked")


def _of_guests() -> Iterator[Batch]:
    files = words.files("D:\\Hyper-V", "bed", "vm1")
    for guest in (SYNTHETIC, LEGACY, replace(SYNTHETIC, running=False, image="")):
        image = words.image_path(guest.image, "D:\\Hyper-V") if guest.image else ""
        for cpus in (None, "", "0-1"):
            plan = batches.Plan("bed", guest, files, image, b"seed", cpus)
            yield batches.make(plan)
            for state in ("Running", "Off", "Saved"):
                yield batches.change(plan, seen(guest, state))
            yield batches.tune(plan, seen(guest))
        yield batches.power("bed", seen(guest), guest)
        yield batches.checkpoint("bed", seen(guest), "vm1")
        yield batches.revert("bed", seen(guest), "vm1")
        yield batches.end("bed", "vm1", files, seen(guest), True)
        yield batches.end("bed", "vm1", files, None, False)


def _of_switches() -> Iterator[Batch]:
    for uplink in (None, "Ethernet 1"):
        batch = Batch()
        switches._add(batch, Switch("pvb1", uplink=uplink), "bed")
        there = hostnet.Standing("pvb1", "id", "bed", "External", False, ())
        switches._remove(batch, there)
        yield batch


def _of_uplinks() -> Iterator[Operation]:
    card = hostnet.Card(
        "Ethernet 1", "NIC", "", "Up", 1, True, 1500, (1500, 9000), True, True, True
    )
    off = replace(card, status="Disabled", ipv6=False, rsc=False)
    yield from ups._changes(card, Uplink("Ethernet 1", 9000, up=False))
    yield from ups._changes(off, Uplink("Ethernet 1", 9000, up=True, ipv6=True, lro=True))


def operations() -> Iterator[Operation]:
    """All of them, many of them several times."""
    for batch in (*_of_guests(), *_of_switches()):
        yield from batch.ops
    yield from _of_uplinks()
    yield from (*hostnet.LOOK, *hostnet.USERS, *usage.LOOK, *groups.LOOK)
    yield from (boot.ROOT, boot.LOOK, boot._SINCE, place._HOST, place._SYSTEM)
    there = place.Place(
        "hv", "Windows", 20348, True, 8, 8, 1 << 16, "D:\\Hyper-V", "D:\\Hyper-V", False, "",
        hostnet.Net({}, {}), (),
    )  # fmt: skip
    yield from _asked(lambda pool: examine.examine(pool, there))
    looks = sight.Sight(cast(Pool, None), "bed", "D:\\", grouped=True)
    for names in ([], ["vm1", "vm2"]):
        yield from looks.batch(names).ops
    yield Call("Restart-Computer", {"Force": True, "Confirm": False})
    yield Call("Test-Path", {"LiteralPath": "D:\\"}, select=(".",))
    connections: dict[str, Value] = {"State": "Established"}
    yield Call("Get-NetTCPConnection", connections, select=("LocalAddress",))
