"""What doctor asks of a host, and what it advises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivers.hyperv import examine
from drivers.hyperv.examine import LEAST
from provision.driver import Check
from provision.resources import BOOT, Tuning
from tests.hyperv import bed
from tests.peers.hyperv.peer import Peer, hyperv_host
from tests.peers.hyperv.world import CmdletTrouble
from tests.peers.powershell.errors import ErrorRecord


def checks(peer: Peer, storage: str = "") -> dict[str, Check]:
    """By what each is of; nothing is changed."""
    before = peer.inventory()
    with bed.driver(peer, storage=storage) as driver:
        found = {check.what: check for check in driver.examine()}
    assert peer.inventory() == before
    return found


def test_a_sound_host(peer: Peer) -> None:
    peer.world.volume.make_folder(bed.DISKS)
    found = checks(peer, bed.DISKS)
    assert all(check.ok for check in found.values()), found
    assert "Windows Server" in found["version"].detail
    assert found["rights"].detail == "one of Administrators"
    for name, least in LEAST.items():
        assert f"at least {least}" in found[f"WinRM {name}"].detail


def test_what_is_wrong_comes_with_what_helps() -> None:
    with hyperv_host() as peer:
        peer.world.volume.capacity = peer.world.volume.capacity // 20
        found = checks(peer, "C:\\Nowhere")
        assert not found["guests' disks"].ok
        assert "hypervisor.storage" in found["guests' disks"].fix
        assert not found["disk space"].ok and "make room" in found["disk space"].fix
        assert not found["CPU groups"].ok and not found["CPU groups"].needed
        assert "dom0.vcpus" in found["root partition"].fix
        record = ErrorRecord("PathNotFound", "PermissionDenied", "no")
        peer.world.troubles[:] = [CmdletTrouble("Get-Item", record)]
        assert "cannot be read" in checks(peer)["WinRM MaxShellsPerUser"].detail


def test_the_root_partition_with_cpus_of_its_own(peer: Peer) -> None:
    with bed.driver(peer) as driver:
        driver.put(Tuning(BOOT[1], "hypervisorrootproc=2"))
    found = checks(peer)["root partition"]
    assert (found.detail, found.fix) == ("2 of 8 CPUs", "")


@pytest.mark.parametrize(
    ("sids", "ok", "says"),
    [
        ("S-1-5-32-544", True, "one of Administrators"),
        ("S-1-5-32-578", True, "dom0.vcpus and jumbo frames need more"),
        ("S-1-5-32-545", False, "neither"),
        ("", False, "neither"),
    ],
)
def test_rights_by_groups(sids: str, ok: bool, says: str) -> None:
    found = examine._rights([{"code": 0, "lines": f'"a","{sids}","b" | "S-1-1-0"'}])
    assert (found.ok, says in found.detail) == (ok, True)
    assert ok or "Add-LocalGroupMember" in found.fix


def test_quotas_and_versions_that_are_too_small(peer: Peer) -> None:
    small = examine._quota("MaxShellsPerUser", 8, [{"Value": "5"}])
    assert not small.ok and "Set-Item WSMan:\\localhost\\Shell\\MaxShellsPerUser 8" in small.fix
    with bed.driver(peer) as driver:
        old = examine._version(replace(driver.place, build=9600))
    assert not old.ok and old.fix == "Windows Server 2016 or later"
