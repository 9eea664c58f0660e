"""The KVM driver with real guests: who they are, what they carry, and the way back."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import pytest

from drivers.kvm.driver import Kvm
from drivers.kvm.facts import PLUGGED
from drivers.kvm.golden import NAME
from provision import image, state
from provision.access import Access, address
from provision.driver import Target
from provision.host import Host
from provision.resources import Guest, StartMode, Switch, Vnic, key
from provision.seed import identity
from provision.verify import inside, inspect, wait_ready

pytestmark = pytest.mark.live
TESTBED = "kvmlive"
MANAGEMENT = Switch("pvkvmlm", address="198.19.252.1/24")


@dataclass(frozen=True)
class Bed:
    """A driver with a management switch, and the way into its guests."""

    driver: Kvm
    access: Access

    def guest(self, number: int, *models: str) -> Guest:
        """A guest with one data NIC of each model, each on a switch of its own."""
        vnics = tuple(
            Vnic(f"pvkvml{number}{i}", model, f"52:54:00:cc:{number:02x}:{i:02x}",
                 f"198.18.{100 + 10 * number + i}.2/24")
            for i, model in enumerate(models)
        )  # fmt: skip
        for vnic in vnics:
            near = vnic.address.replace(".2/", ".1/")
            self.driver.put(Switch(vnic.switch, address=near))
        found = image.find(state.default().images)
        management = Vnic(
            MANAGEMENT.name,
            "virtio",
            f"52:54:00:cc:{number:02x}:ff",
            f"198.19.252.{10 + number}/24",
        )
        return Guest(
            f"vm{number}", vcpus=1, memory_mib=512, image=found.digest if found else "",
            management=management, nics=vnics, accel=self.driver.facts.accel,
        )  # fmt: skip

    def reach(self, guest: Guest) -> Host:
        """Inside the guest, once it answers under its own host key."""
        self.access.trust([guest])
        self.access.hang_up([guest])
        host = self.access.host(guest)
        wait_ready(host, address(guest), timeout_s=120, stop=Event())
        return host


@contextmanager
def opened(start: StartMode) -> Iterator[Bed]:
    built = image.find(state.default().images)
    if built is None:
        pytest.fail("the guest image is not built: make image")
    # one place for all runs, so that the golden guest is made once; QEMU's user may pass there
    folder = Path(tempfile.gettempdir()) / "provision-kvm-live" / TESTBED
    folder.parent.mkdir(mode=0o755, exist_ok=True)
    access = Access(folder / "keys")
    target = Target(
        TESTBED, folder, "", built,
        lambda g: identity(g, access.public_key(), access.host_key(g.name)), start,
    )  # fmt: skip
    driver = Kvm(target)
    try:
        driver.put(MANAGEMENT)
        yield Bed(driver, access)
    finally:
        for kind in ("guest", "switch"):
            for k in driver.owned():
                if k[0] == kind:
                    driver.drop(k)
        left = list(driver.owned())
        driver.close()
        assert not left


@pytest.fixture(scope="module", params=["boot", "restore"])
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with opened(request.param) as found:
        yield found


def test_each_guest_is_somebody(bed: Bed) -> None:
    """Name, machine id, host key, addresses, clock and entropy of its own, however it started."""
    guests = [bed.guest(n, "virtio") for n in (1, 2)]
    seen = []
    for guest in guests:
        bed.driver.put(guest)
        assert bed.driver.read(key(guest)) == guest
    for guest in guests:
        host = bed.reach(guest)
        found = inspect(host)
        assert not inside(guest, found, bed.driver.facts)
        assert abs(float(host.run("date", "+%s.%N")) - time.time()) < 3
        assert bed.driver.console(key(guest)) is not None
        seen.append((found["machine_id"], host.run("head", "-c", "16", "/dev/urandom")))
    assert len({m for m, _ in seen}) == len({r for _, r in seen}) == 2
    for guest in guests:
        evidence = bed.driver.evidence(key(guest))
        assert (
            evidence["started"]
            == {"boot": "booted", "restore": "restored"}[bed.driver.guests.target.start]
        )
        assert evidence["accel"] == guest.accel
        bed.driver.drop(key(guest))


def test_back_to_clean(bed: Bed) -> None:
    """Memory and disk go back, the process stays, the clock goes on."""
    guest = bed.guest(1, "virtio")
    bed.driver.put(guest)
    host = bed.reach(guest)
    before = host.run("cat", "/proc/sys/kernel/random/boot_id")
    host.run("sh", "-c", "echo kept > /root/kept; sync; exec sleep 1000 >&- 2>&- <&- &")
    bed.driver.checkpoint(key(guest))
    for _ in range(2):
        host.run("sh", "-c", "touch /root/dirty; rm /root/kept; pkill sleep; sync")
        began = time.monotonic()
        bed.driver.revert(key(guest))
        host = bed.reach(guest)
        assert time.monotonic() - began < 15
        assert host.run("ls", "/root").split() == ["kept"]
        assert host.run("pgrep", "-c", "sleep").strip() == "1"
        assert host.run("cat", "/proc/sys/kernel/random/boot_id") == before
        assert abs(float(host.run("date", "+%s.%N")) - time.time()) < 3
        assert bed.driver.read(key(guest)) == guest
    bed.driver.guests.domains.there(guest.name)[0].destroy()
    bed.driver.revert(key(guest))
    assert bed.reach(guest).run("ls", "/root").split() == ["kept"]
    bed.driver.drop(key(guest))


def test_a_change_of_shape_keeps_the_disk_and_takes_the_new_address(bed: Bed) -> None:
    guest = bed.guest(1, "virtio")
    bed.driver.put(guest)
    bed.reach(guest).run("sh", "-c", "echo kept > /root/kept; sync")
    bed.driver.checkpoint(key(guest))
    moved = replace(guest.management, address="198.19.252.77/24")
    other = replace(guest, vcpus=2, memory_mib=640, management=moved)
    bed.driver.put(other)
    assert bed.driver.read(key(other)) == other
    host = bed.reach(other)
    assert not inside(other, inspect(host), bed.driver.facts)
    assert host.run("cat", "/root/kept") == "kept\n"
    assert bed.driver.evidence(key(other))["started"] == "booted"
    bed.driver.drop(key(other))


def test_every_vnic_model_is_what_it_says_and_carries_traffic(bed: Bed) -> None:
    """One guest with a NIC of each: PCI id and driver inside, pings from the host."""
    boots = bed.driver.guests.target.start == "boot"
    models = [name for name, model in bed.driver.facts.nic_models.items()
              if not model.direct and (boots or name in PLUGGED)]  # fmt: skip
    guest = bed.guest(1, *models)
    bed.driver.put(guest)
    assert bed.driver.read(key(guest)) == guest
    host = bed.reach(guest)
    assert not inside(guest, inspect(host), bed.driver.facts)
    for vnic in guest.nics:
        assert Host().run("ping", "-n", "-c", "2", "-W", "10", vnic.address.split("/")[0])
    bed.driver.drop(key(guest))


def test_a_guest_on_open_vswitch_is_reached(bed: Bed) -> None:
    guest = bed.guest(1)
    switch = Switch("pvkvmlo", "ovs", address="198.18.199.1/24")
    bed.driver.put(switch)
    vnic = Vnic(switch.name, "virtio", "52:54:00:cc:01:0f", "198.18.199.2/24")
    guest = replace(guest, nics=(vnic,))
    bed.driver.put(guest)
    assert bed.driver.read(key(guest)) == guest
    bed.reach(guest)
    assert Host().run("ping", "-n", "-c", "2", "-W", "10", "198.18.199.2")
    bed.driver.drop(key(guest))
    bed.driver.drop(key(switch))


def test_a_golden_guest_cut_short_goes_with_the_next_drop() -> None:
    with opened("restore") as bed:
        guests = bed.driver.guests
        golden = replace(bed.guest(1), name=NAME)
        boot = guests._boot(golden)
        assert boot is not None
        guests.disks.make(NAME, boot, None)
        guests._start(
            guests.domains.conn.defineXML(_xml(bed, golden, boot)), replace(golden, running=False)
        )
        assert ("guest", NAME) in set(bed.driver.owned())
        bed.driver.drop(("guest", "vm1"))
        assert ("guest", NAME) not in set(bed.driver.owned())
        assert not guests.disks.there(guests.disks.disk(NAME))


def _xml(bed: Bed, guest: Guest, boot: object) -> str:
    from drivers.kvm.xml import domain

    body = bed.driver.guests._body(guest, boot, frozenset(), {})  # type: ignore[arg-type]
    return domain(guest, body, bare=True)


def test_the_saved_memory_is_kept_for_the_next_time() -> None:
    with opened("restore") as bed:
        folder = bed.driver.guests.disks.folder.parent / ".golden"
        kept = sorted(p.name for p in Path(folder).glob("*.qcow2"))
        guest = bed.guest(1, "virtio")
        bed.driver.put(guest)
        assert sorted(p.name for p in Path(folder).glob("*.qcow2")) == kept
        assert json.loads(bed.driver.guests.host.run(
            "qemu-img", "info", "-U", "--output=json", bed.driver.guests.disks.disk("vm1")
        ))["backing-filename"] == str(image.find(state.default().images).disk)  # type: ignore[union-attr]  # fmt: skip
