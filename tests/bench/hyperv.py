"""Requests and time a guest of ``up``, of a second one that finds nothing to do, and of ``down``.

On the tests' own Hyper-V, which answers at once: what is measured is what the driver asks for.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from drivers.hyperv.driver import Hyperv
from provision.resources import Resource, Uplink, key
from tests.hyperv import bed
from tests.peers.hyperv.peer import hyperv_host

COUNTS = (4, 64)
AT_ONCE = 16  # as the engine


@dataclass(frozen=True)
class Cost:
    """Of one guest. ``cpu_ms`` is the driver's and the peer's, whatever else the machine does."""

    requests: float
    messages: float
    time_ms: float
    cpu_ms: float


def measure(count: int) -> dict[str, Cost]:
    """By verb; each guest with a switch on an uplink of its own."""
    numbers = range(1, count + 1)
    switches = [bed.switch(n) for n in numbers]
    guests = [bed.guest(n) for n in numbers]
    uplinks = [Uplink(f"Ethernet {n + 1}", up=True) for n in numbers]
    with hyperv_host(nics=count + 1, memory=1 << 40) as peer:
        peer.foreign_switch(bed.LAN)
        peer.world.volume.make_folder(bed.DISKS)
        with bed.driver(peer, storage=bed.DISKS) as driver:
            everything: list[Resource] = [*uplinks, *switches, *guests]
            keys = [key(one) for one in everything]
            found: dict[str, Cost] = {}

            def put(one: Resource) -> None:
                driver.put(one)
                assert driver.read(key(one)) == one

            def drop(one: Resource) -> None:
                driver.drop(key(one))
                assert driver.read(key(one)) is None

            def cost(verb: str, driver: Hyperv, work: object) -> None:
                asked, sent = driver.pool.requests, len(peer.endpoint.log)
                began, cpu_began = time.perf_counter(), time.process_time()
                work()  # type: ignore[operator]
                took_s = time.perf_counter() - began
                cpu_s = time.process_time() - cpu_began
                found[verb] = Cost(
                    (driver.pool.requests - asked) / count,
                    (len(peer.endpoint.log) - sent) / count, took_s * 1000 / count,
                    cpu_s * 1000 / count,
                )  # fmt: skip

            def up() -> None:
                driver.look(keys)
                for some in (uplinks, switches, guests):
                    list(pool.map(put, some))
                have = driver.look(keys)
                assert all(have[key(one)] == one for one in everything)
                list(pool.map(driver.checkpoint, map(key, guests)))

            def nothing() -> None:
                have = driver.look(keys)
                assert all(have[key(one)] == one for one in everything)
                assert all(pool.map(driver.has_checkpoint, map(key, guests)))

            def down() -> None:
                for some in (guests, switches):
                    list(pool.map(drop, some))

            with ThreadPoolExecutor(AT_ONCE) as pool:
                cost("up", driver, up)
                cost("no-op", driver, nothing)
                cost("down", driver, down)
            return found


def main() -> None:
    print("| guests | verb | requests a guest | messages a guest | ms a guest | CPU ms a guest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in COUNTS:
        for verb, cost in measure(count).items():
            print(
                f"| {count} | {verb} | {cost.requests:.2f} | {cost.messages:.2f} "
                f"| {cost.time_ms:.0f} | {cost.cpu_ms:.0f} |"
            )


if __name__ == "__main__":
    main()
