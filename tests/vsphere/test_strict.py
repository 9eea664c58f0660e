"""All that is sent, held against pyVmomi's own description of the vSphere API; and privileges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import VmomiSupport

from drivers.vsphere.driver import Vsphere
from drivers.vsphere.examine import PRIVILEGES
from drivers.vsphere.spec import MODELS, SRIOV
from provision.driver import Login, Target, Tls
from provision.errors import DriverError, Unsupported
from provision.resources import key
from tests.peers.vcsim import vcsim
from tests.vsphere import day
from tests.vsphere.day import GUEST, NIC, STEPS, SWITCH, Bed
from tests.vsphere.wire import Call, judge

_support: Any = VmomiSupport
#: privileges that every user has
EVERYBODY = ("System.Anonymous", "System.View", "System.Read")
#: what the API's reference names for calls whose privileges depend on what is asked
DYNAMIC = {
    "CloneVM_Task": "VirtualMachine.Provisioning.DeployTemplate",
    "CopyVirtualDisk_Task": "Datastore.FileManagement",
    "DeleteDatastoreFile_Task": "Datastore.FileManagement",
    "Destroy_Task": "VirtualMachine.Inventory.Delete",
    "MakeDirectory": "Datastore.FileManagement",
    "MoveDatastoreFile_Task": "Datastore.FileManagement",
    "ReconfigVM_Task": "VirtualMachine.Config.Settings",
    "SearchDatastore_Task": "Datastore.Browse",
}


def too_new(call: Call, version: str) -> Iterator[str]:
    """What pyVmomi would leave out without a word, as the server is older."""
    named = [(p, value) for p, value in zip(call.info.params, call.args, strict=True)]
    left = [(f"{call.method}.{p.name}", p, value) for p, value in named]
    while left:
        path, info, value = left.pop()
        if value is None or (isinstance(value, list) and not value):
            continue
        if not _support.IsChildVersion(version, info.version):
            yield f"{path}: of {info.version}, and the server speaks {version}"
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, _support.DataObject):
                left += [
                    (f"{path}.{p.name}", p, getattr(one, p.name)) for p in one._GetPropertyList()
                    if p.name not in ("dynamicType", "dynamicProperty")
                ]  # fmt: skip


def ill(call: Call, version: str) -> Iterator[str]:
    for info, value in zip(call.info.params, call.args, strict=True):
        yield from (f"{call.method}.{f}" for f in judge(info, value))
    yield from too_new(call, version)


def a_day(bed: Bed) -> Iterator[Call]:
    """Every step, and every type of vNIC but SR-IOV, whose cards the simulator has not."""
    driver = bed.fresh()
    for step in STEPS.values():
        step.ready(bed, driver)
        step.act(bed, driver)
    for model in set(MODELS) - {SRIOV}:
        driver.put(SWITCH)
        driver.put(bed.of(replace(GUEST, nics=(replace(NIC, model=model, rate_mbit=10),))))
    kept = replace(GUEST, pins=("0-1",), reserve_percent=100, memory_reserve_mib=512)
    for want in (kept, replace(kept, latency="high"), GUEST):
        driver.put(bed.of(want))
    driver.look([key(GUEST), key(SWITCH)])
    driver.evidence(key(GUEST))
    [*driver.examine()]
    assert driver.owned()
    day.clear(bed, driver)
    driver.close()
    yield from bed.wires.log


@pytest.fixture(scope="module", params=[(m, api) for m in day.MODELS for api in ("", "8.0.2.0")])
def sent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[list[Call], str]]:
    model, api = request.param
    with day.bed(model, tmp_path_factory.mktemp("bed"), api=api) as bed:
        version = bed.witness.session.version
        bed.wires.compared = True
        yield [*a_day(bed)], version
        assert bed.there() == bed.before
        assert all(b"LocalizedMethodFault" in reply for reply in bed.wires.left)
        assert not bed.wires.unlike  # what pyVmomi writes and reads, byte by byte, field by field


def test_all_that_is_sent_is_as_the_api_has_it(sent: tuple[list[Call], str]) -> None:
    calls, version = sent
    assert len(calls) > 100
    assert not {f for call in calls for f in ill(call, version)}


def test_the_walk_finds_what_is_wrong(sent: tuple[list[Call], str]) -> None:
    """It is not blind: each kind of fault, put into a call that was sent, is told."""
    calls, version = sent
    call = next(c for c in calls if c.method == "AddVirtualSwitch")
    spec = call.args[1]

    def found(**wrong: Any) -> str:
        other = type(spec)(**{
            p.name: getattr(spec, p.name) for p in spec._GetPropertyList()
            if p.name not in ("dynamicType", "dynamicProperty")
        } | wrong)  # fmt: skip
        return " ".join(ill(replace(call, args=("name", other)), version))

    assert not found()
    assert "bits" in found(mtu=2**31)
    assert "required" in " ".join(ill(replace(call, args=(None, spec)), version))
    create = next(c for c in calls if c.method in ("CreateVM_Task", "CloneVM_Task"))
    assert "and the server speaks" in " ".join(ill(create, "vim.version.version1"))
    shares = _support.GetVmodlType("vim.SharesInfo")(shares=1, level="hihg")
    info = _support.Object(name="x", flags=0, type=type(shares), version="vim.version.version1")
    assert "hihg" in " ".join(judge(info, shares))


def test_every_call_s_privilege_is_in_the_table(sent: tuple[list[Call], str]) -> None:
    known = {name for names in PRIVILEGES.values() for name in names}
    lacking = set()
    for call in sent[0]:
        wanted = {call.info.privId, *(p.privId for p in call.info.params)} - {None, *EVERYBODY}
        if call.changes and not call.info.privId:
            wanted.add(DYNAMIC[call.method])
        lacking |= {(call.method, w) for w in wanted if w not in known}
    assert not lacking


@pytest.mark.parametrize("what", PRIVILEGES)
def test_each_that_lacks_is_named(tmp_path: Path, what: str) -> None:
    names = [*PRIVILEGES[what]]
    with vcsim("VPX", lacking=names) as server:
        login = Login(server.user, lambda: server.password)
        target = Target("strict", tmp_path, server.uri, login=login, tls=Tls(ca=server.ca))
        driver = Vsphere(target)
        told = {c.what: c for c in driver.examine()}
        driver.close()
    for name in names:
        check = told[f"privilege {name}"]
        assert not check.ok and name in check.fix and what in check.detail


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("Host.Config.Network", "switch"),
        ("VirtualMachine.Provisioning.Clone", "guest"),
        ("VirtualMachine.Interact.PowerOn", "guest"),
        ("VirtualMachine.Interact.PowerOff", "stop"),
        ("VirtualMachine.State.CreateSnapshot", "checkpoint"),
        ("VirtualMachine.State.RevertToSnapshot", "revert"),
        ("VirtualMachine.State.RemoveSnapshot", "checkpoint again"),
    ],
)
def test_use_without_it_says_which(tmp_path: Path, name: str, step: str) -> None:
    with day.bed("VPX", tmp_path, snapshot=False, lacking=[name]) as bed:
        driver, one = bed.driver(), STEPS[step]
        with pytest.raises((DriverError, Unsupported), match=name) as e:
            one.ready(bed, driver)
            one.act(bed, driver)
        assert one.doing in str(e.value) and name in e.value.hint
        driver.close()
