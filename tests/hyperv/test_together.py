"""What threads ask at the same time goes in few requests, and each gets its own answer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.hyperv import words
from drivers.hyperv.ops import Batch, Call, Refused, Row
from drivers.hyperv.shell import Answer
from drivers.hyperv.together import Together, once_each
from provision.errors import Foreign
from tests.hyperv import bed
from tests.peers.hyperv.peer import hyperv_host

THREADS = 8


def test_who_comes_while_one_is_asking_goes_together() -> None:
    held, under_way = Event(), Event()
    asked: list[list[int]] = []

    def ask_all(numbers: Sequence[int]) -> list[int | Refused]:
        asked.append([*numbers])
        under_way.set()
        held.wait(10)
        return [Refused(None, {"id": "odd"}) if n % 2 else n * 10 for n in numbers]

    together: Together[int, int] = Together(ask_all)
    with ThreadPoolExecutor(THREADS) as pool:
        first = pool.submit(together.ask, 0)
        assert under_way.wait(10)
        rest = [pool.submit(together.ask, n) for n in range(1, THREADS)]
        while len(together._waiting) < THREADS - 1:
            under_way.wait(0.01)
        held.set()
        assert first.result() == 0
        for n, future in enumerate(rest, 1):
            if n % 2:
                with pytest.raises(Refused):
                    future.result()
            else:
                assert future.result() == n * 10
    assert [len(some) for some in asked] == [1, THREADS - 1]


def test_an_error_is_everybodys_and_the_next_question_is_asked() -> None:
    broken = [True]

    def ask_all(numbers: Sequence[int]) -> Sequence[int]:
        if broken[0]:
            raise OSError("gone")
        return numbers

    together: Together[int, int] = Together(ask_all)
    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(together.ask, n) for n in range(THREADS)]:
            assert isinstance(future.exception(), OSError)
    broken[0] = False
    assert together.ask(5) == 5


def test_equal_batches_are_asked_once() -> None:
    seen: list[Sequence[Batch]] = []

    def ask_all(batches: Sequence[Batch]) -> list[Answer]:
        seen.append(batches)
        rows: list[list[list[Row]]] = [[[{"n": n}]] for n in range(len(batches))]
        return [*rows]

    vm, host = Batch(ops=[Call("Get-VM")]), Batch(ops=[Call("Get-VMHost")])
    assert once_each(ask_all)([vm, host, vm]) == [[[{"n": 0}]], [[{"n": 1}]], [[{"n": 0}]]]
    assert seen == [[vm, host]]


@given(st.sets(st.from_regex(r"[a-z][a-z0-9-]{0,3}", fullmatch=True), max_size=20))
def test_each_vm_is_met_by_one_pattern(names: set[str]) -> None:
    """Where two met one, its adapters would be told twice."""
    patterns = words.vm_patterns("bed", names)
    assert len(patterns) <= words.MOST_PATTERNS
    for name in names:
        assert sum(fnmatchcase(words.vm_name("bed", name), p) for p in patterns) == 1


def test_a_look_at_some_is_of_those() -> None:
    """Names that begin like others'; what vanished behind our back; what is another's."""
    with hyperv_host() as peer:
        peer.foreign_switch(bed.LAN)
        peer.world.volume.make_folder(bed.DISKS)
        with bed.driver(peer, storage=bed.DISKS) as driver:
            driver.put(bed.switch())
            guests = [bed.guest(name=f"vm{n}", running=False) for n in (1, 10, 11)]
            for guest in guests:
                driver.put(guest)
            keys = [("guest", g.name) for g in guests]
            for guest, key in zip(guests, keys, strict=True):
                assert driver.read(key) == guest
            assert driver.look(keys) == dict(zip(keys, guests, strict=True))
            driver.drop(keys[1])
            assert driver.look(keys) == {keys[0]: guests[0], keys[1]: None, keys[2]: guests[2]}
            for key in keys:
                driver.drop(key)
            driver.drop(("switch", bed.switch().name))


def test_a_guest_is_dropped_by_what_was_seen_last() -> None:
    """One request that ends it, and a look at names alone afterwards."""
    with hyperv_host() as peer:
        peer.foreign_switch(bed.LAN)
        peer.world.volume.make_folder(bed.DISKS)
        with bed.driver(peer, storage=bed.DISKS) as driver:
            driver.put(bed.switch())
            for number in (1, 10):
                driver.put(bed.guest(number, nics=()))
            keys = [("guest", "vm1"), ("guest", "vm10")]
            driver.look(keys)
            asked, called = driver.pool.requests, len(peer.calls())
            driver.drop(keys[0])
            assert driver.read(keys[0]) is None
            assert driver.pool.requests == asked + 2
            names = [call.name for call in peer.calls()[called:]]
            assert names == ["Get-VM", "Stop-VM", "Remove-VM", "Get-Item", "Remove-Item", "Get-VM"]
            peer.vm("bed-vm10").state = "Off"  # behind our back: what was seen last is no more
            driver.drop(keys[1])
            assert driver.look(keys) == dict.fromkeys(keys)
            driver.put(bed.guest(1, nics=()))
            assert driver.read(keys[0]) == bed.guest(1, nics=())
            driver.drop(keys[0])
            strange = peer.foreign_vm("bed-vm1")
            assert driver.read(keys[0]) is None
            with pytest.raises(Foreign):
                driver.drop(keys[0])
            assert strange in peer.world.machines
            driver.drop(("switch", bed.switch().name))
