"""The driver on the peer: what is refused, what is another's, lost answers, names that bite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.hyperv import words
from drivers.hyperv.driver import Hyperv
from drivers.hyperv.ops import Batch, Call, Write
from drivers.hyperv.wire import Limits, door
from provision.driver import Login, Tls
from provision.errors import DriverError, Foreign, Unreachable, Unsupported, UserError
from provision.resources import BOOT, Tuning, Uplink, key
from tests.hyperv import bed
from tests.peers.hyperv.peer import Peer, hyperv_host
from tests.peers.wsman.endpoint import Request, Trouble

LOGIN = Login("u", lambda: "p")


@pytest.fixture
def peer() -> Iterator[Peer]:
    with hyperv_host(nics=4) as found:
        found.foreign_switch(bed.LAN)
        found.world.volume.make_folder(bed.DISKS)
        yield found


@pytest.fixture
def driver(peer: Peer) -> Iterator[Hyperv]:
    """At the end nothing of it is left."""
    before = peer.inventory()
    with bed.driver(peer, storage=bed.DISKS) as found:
        yield found
        found.drop(key(bed.guest()))
        found.drop(key(bed.switch()))
        assert not [*found.owned()]
    assert peer.inventory() == before
    peer.endpoint.wait_quiet()  # no shell is left


def test_an_adapter_in_use_is_refused_with_its_user(driver: Hyperv, peer: Peer) -> None:
    used = {u.name: u.used_by for u in driver.facts.uplinks}
    assert "our own connection comes in by its address 192.0.2.10" in used["Ethernet 1"]
    assert "default route" in used["Ethernet 1"]
    assert used["Ethernet 2"] == ""
    before = peer.inventory()
    with pytest.raises(DriverError, match="in use"):
        driver.put(bed.switch(uplink="Ethernet 1"))
    with pytest.raises(DriverError, match="in use"):
        driver.put(Uplink("Ethernet 1", 9000, up=True))
    assert peer.inventory() == before


def test_an_mtu_that_the_adapter_has_not(driver: Hyperv) -> None:
    with pytest.raises(DriverError, match="the adapter has"):
        driver.put(Uplink("Ethernet 2", 1600, up=True, ipv6=True, lro=True))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"memory_mib": 513}, "multiples of 2 MiB"),
        ({"vcpus": 2, "cap_percent": 51}, "a multiple of 2"),
        ({"cap_percent": 20, "reserve_percent": 50}, "less than"),
        ({"pins": ("0",)}, "CpuGroups.exe"),
        ({"latency": "high"}, "latency"),
        ({"weight": 30000}, "at most"),
    ],
)
def test_what_cannot_be_is_told_before_anything_changes(
    driver: Hyperv, peer: Peer, more: dict[str, Any], says: str
) -> None:
    before = peer.inventory()
    with pytest.raises(Unsupported, match=says):
        driver.put(bed.guest(**more))
    assert peer.inventory() == before


def test_a_vm_of_that_name_without_our_mark_stays(driver: Hyperv, peer: Peer) -> None:
    driver.put(bed.switch())
    with bed.foreign(peer, bed.TESTBED, bed.guest()) as same:
        with pytest.raises(Foreign):
            driver.put(bed.guest())
        with pytest.raises(Foreign):
            driver.drop(key(bed.guest()))
        assert same()


def test_a_switch_with_anothers_vm_on_it_stays(driver: Hyperv, peer: Peer) -> None:
    driver.put(bed.switch())
    stranger = peer.foreign_vm("theirs", switch=bed.switch().name)
    with pytest.raises(Foreign, match="theirs"):
        driver.drop(key(bed.switch()))
    with peer.world.lock:
        peer.world.machines.remove(stranger)


@pytest.mark.parametrize("acts", [True, False], ids=["done", "not-done"])
@pytest.mark.parametrize("action", ["Send", "Receive"])
def test_a_lost_answer_makes_nothing_twice(
    driver: Hyperv, peer: Peer, action: str, acts: bool
) -> None:
    """Whichever message of making a guest is lost, there is one guest, and it is as asked."""
    driver.put(bed.switch())
    assert driver.read(key(bed.guest())) is None
    struck: list[Request] = []

    def hook(request: Request) -> Trouble | None:
        if request.action.endswith(action) and not struck:
            struck.append(request)
            return Trouble(acts=acts, answer="drop")
        return None

    peer.endpoint.hook = hook
    driver.put(bed.guest())
    peer.endpoint.hook = None
    assert struck
    assert driver.read(key(bed.guest())) == bed.guest()
    assert len([m for m in peer.world.machines if m.name == "bed-vm1"]) == 1
    # its shell is ended, and the batch with it: what is half made then is removed, and made anew
    assert len(peer.calls("New-VM")) == 1 + len(peer.calls("Remove-VM"))


def test_a_guest_that_was_half_made_is_ours(driver: Hyperv, peer: Peer) -> None:
    """Cut short between New-VM and its mark: the folder says whose it is."""
    driver.put(bed.switch())
    driver.put(bed.guest())
    peer.vm("bed-vm1").notes = ""
    assert key(bed.guest()) in set(driver.owned())
    driver.put(bed.guest())
    assert driver.read(key(bed.guest())) == bed.guest()


def test_the_host_is_not_restarted_under_others(driver: Hyperv, peer: Peer) -> None:
    stranger = peer.foreign_vm("theirs")
    stranger.state = "Running"
    boots = peer.world.boots
    with pytest.raises(DriverError, match="theirs"):
        driver.put(Tuning(BOOT[1], "hypervisorrootproc=2"))
    assert peer.world.boots == boots
    assert driver.read(BOOT) == Tuning(BOOT[1], "")
    with peer.world.lock:
        peer.world.machines.remove(stranger)


HARD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).map(
    lambda text: "x'; Remove-VM * -Force; '$(1)`n" + text
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(notes=HARD, data=st.binary(max_size=200))
def test_data_stays_data(driver: Hyperv, peer: Peer, notes: str, data: bytes) -> None:
    """Whatever stands in a parameter or a file comes out as it went in, and nothing runs."""
    path = f"{bed.DISKS}\\one.bin"
    made = Batch()
    switch = {"Name": "hard", "SwitchType": "Private", "Notes": notes}
    made.add(Call("New-VMSwitch", switch, select=("Notes",)))
    made.add(Write(path, data))
    mine = made.add(Call("Get-VMSwitch", select=("Notes",), only={"Name": ["hard"]}))
    made.add(Call("Remove-VMSwitch", {"Force": True}, {"VMSwitch": mine}))
    rows = driver.pool.do(made)
    assert rows[2] == [{"Notes": notes}]
    assert peer.world.volume.read(path) == data
    peer.world.volume.remove(path)


@pytest.mark.parametrize(
    ("uri", "auth", "says"),
    [
        ("http://h", "basic", "HTTPS only"),
        ("http://h", "certificate", "HTTPS only"),
        ("https://h", "certificate", "names no certificate"),
        ("ssh://h", "", "reached by WinRM"),
        ("http://u@h", "", "reached by WinRM"),
    ],
)
def test_what_is_not_safe_is_refused(uri: str, auth: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        door(uri, auth, LOGIN, Tls(), Limits())


def test_a_wrong_password_is_tried_once(peer: Peer) -> None:
    with pytest.raises(Unreachable, match="wrong name or password"):
        Hyperv(bed.target(peer, login=Login(peer.user, lambda: "wrong")))
    assert peer.endpoint.refused == 1


def test_a_certificate_that_is_another(tmp_path: Any) -> None:
    with hyperv_host(tls=True) as host:
        for tls, says in (
            (Tls(), "not trusted"),
            (Tls(fingerprint="0" * 64), f"is {host.fingerprint}, not"),
        ):
            with pytest.raises(Unreachable, match=says):
                Hyperv(bed.target(host, tls=tls))
        for tls in (Tls(fingerprint=host.fingerprint), Tls(verify=False)):
            with bed.driver(host, tls=tls, auth="basic") as found:
                assert ("tls" in found.facts.notes) == (not tls.verify)


@given(st.integers(1, 25600))
def test_weights_survive(weight: int) -> None:
    assert words.weight_ours(words.weight_here(weight), weight) == weight


def test_windows_paths_are_known() -> None:
    assert words.image_path("C:\\a\\b.vhdx", "D:\\d") == "C:\\a\\b.vhdx"
    assert words.image_path("deb", "D:\\d") == "D:\\d\\deb.vhdx"
    assert replace(bed.guest(), image="deb").image == "deb"
