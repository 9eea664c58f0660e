"""A guest's life on the peer, seen through the driver; prints what was seen as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from drivers.openvz.driver import Openvz
from drivers.openvz.xml import number
from provision.access import Access
from provision.driver import Target
from provision.errors import Foreign
from provision.resources import Guest, Switch, Vnic
from provision.seed import Identity, identity

MANAGEMENT, LINK = "pvovzm", "pvovzb1"
GUEST = Guest(
    "vm1", vcpus=1, memory_mib=256, image="debian-8.0-x86_64", accel="openvz",
    management=Vnic(MANAGEMENT, "veth", "52:54:00:aa:00:01", "198.19.7.10/24"),
    nics=(Vnic(LINK, "veth", "52:54:00:aa:00:02", "198.18.1.2/24", 1400),),
)  # fmt: skip
KEY = ("guest", "vm1")


def main(folder: Path) -> None:
    access = Access(folder / "keys")

    def somebody(guest: Guest) -> Identity:
        return identity(guest, access.public_key(), access.host_key(guest.name))

    target = Target("demo", folder / "state", identity=somebody)
    seen: dict[str, object] = {}
    driver = Openvz(target)
    seen["facts"] = [driver.facts.version, driver.facts.checkpoint]
    for name in (MANAGEMENT, LINK):
        driver.put(Switch(name, mtu=1500))
    driver.put(GUEST)
    seen["put"] = driver.read(KEY) == GUEST
    at = number("demo", "vm1")
    inside = driver.host.run("ip", "-n", f"ve{at}", "-brief", "-4", "address")
    seen["inside"] = sorted(line.split()[2] for line in inside.splitlines() if "198." in line)
    seen["files"] = driver.host.read(folder / "private" / str(at) / "etc" / "hostname")
    seen["busy_s"] = driver.usage().guest_busy_s["vm1"]
    driver.close()

    driver = Openvz(target)  # libvirt reads all of it anew
    seen["anew"] = driver.read(KEY) == GUEST
    seen["owned"] = sorted(kind for kind, _ in driver.owned())
    more = replace(GUEST, memory_mib=512)
    private = folder / "private" / str(at) / "kept"
    private.write_text("")
    driver.put(more)
    seen["live"] = driver.read(KEY) == more and private.exists()
    driver.host.run("vzctl", "stop", str(at))
    stopped = driver.read(KEY)
    seen["stopped"] = isinstance(stopped, Guest) and not stopped.running
    driver.put(more)
    seen["again"] = driver.read(KEY) == more and private.exists()
    driver.put(replace(more, image="debian-8.0-x86_64", nics=()))
    seen["other"] = driver.read(KEY) == replace(more, nics=()) and not private.exists()
    driver.drop(KEY)
    seen["gone"] = [driver.read(KEY), driver.host.run("vzlist", "-a", "-ovpsid,status", "-H")]
    driver.close()

    print(json.dumps(seen | others(target, folder, at)))


def others(target: Target, folder: Path, at: int) -> dict[str, object]:
    """Containers of that number that are another's, or were never finished."""
    seen: dict[str, object] = {}
    conf = Path(f"/etc/vz/conf/{at}.conf")
    conf.write_text('CPUS="1"\nVE_PRIVATE="/nowhere"\n')
    driver = Openvz(target)
    seen["foreign"] = [refused(partial(driver.put, GUEST)), refused(partial(driver.drop, KEY))]
    seen["untouched"] = conf.read_text().startswith('CPUS="1"')
    driver.close()
    conf.unlink()

    driver = Openvz(target)
    driver.put(GUEST)
    driver.host.run("vzctl", "stop", str(at))
    conf.write_text("".join(w for w in conf.open() if "UUID" not in w))  # killed before that
    driver.close()
    driver = Openvz(target)
    seen["half"] = [driver.read(KEY), list(driver.owned())]
    driver.put(GUEST)
    driver.close()
    driver = Openvz(target)
    seen["mended"] = driver.read(KEY) == GUEST
    driver.drop(KEY)
    seen["left"] = [str(one) for one in (folder / "private").iterdir()]
    driver.close()
    return seen


def refused(what: Callable[[], None]) -> str:
    """What was said against it."""
    try:
        what()
    except Foreign as e:
        return str(e)
    return "nothing"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
