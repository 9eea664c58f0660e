"""A guest in vSphere's own terms, and back: every number survives the way."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyVmomi")

from drivers.vsphere import parse
from drivers.vsphere import spec as wording
from drivers.vsphere.api import vim
from drivers.vsphere.examine import PRIVILEGES
from drivers.vsphere.networks import on_port_group
from drivers.vsphere.vnics import Plugs
from provision.resources import Guest, Vnic
from provision.seed import identity
from provision.units import cpu_list

MHZ = st.integers(1000, 5000)
VCPUS = st.integers(1, 128)
SMALL = Guest(
    "vm1", vcpus=1, memory_mib=512, image="base", accel="esxi",
    management=Vnic("VM Network", "vmxnet3", "00:50:56:00:00:01", "198.19.1.10/24"),
    nics=(Vnic("pvabcdb1", "e1000", "00:50:56:00:00:02", "198.18.1.2/24", 9000),),
)  # fmt: skip


@given(st.integers(1, 65535), VCPUS)
def test_a_weight_survives(weight: int, vcpus: int) -> None:
    want = replace(SMALL, weight=weight, vcpus=vcpus)
    assert wording.weight(wording.cpu(want, 2000).shares, vcpus) == weight


@given(st.none() | st.integers(1, 12800), st.none() | st.integers(1, 12800), MHZ)
def test_percents_of_a_cpu_survive(cap: int | None, kept: int | None, mhz: int) -> None:
    made = wording.cpu(replace(SMALL, cap_percent=cap, reserve_percent=kept), mhz)
    assert wording.percent(made.limit, mhz) == cap
    assert wording.percent(made.reservation, mhz) == kept


@given(st.frozensets(st.integers(0, 255), min_size=1), VCPUS)
def test_one_set_of_cpus_survives(cpus: frozenset[int], vcpus: int) -> None:
    pins = (cpu_list(cpus),) * vcpus
    assert wording.pins(wording.affinity(pins), vcpus) == pins


def test_levels_of_shares_are_weights() -> None:
    levels = {"low": 128, "normal": 256, "high": 512}
    for level, weight in levels.items():
        assert wording.weight(vim.SharesInfo(level=level, shares=0), 4) == weight


def test_an_affinity_is_sent_only_where_it_changes() -> None:
    """A cluster whose DRS is automated refuses even an empty one."""
    pinned = replace(SMALL, pins=("0-1",))
    assert wording.resources(SMALL, 2000).cpuAffinity is None
    assert [*wording.resources(pinned, 2000).cpuAffinity.affinitySet] == [0, 1]
    lifted = wording.resources(SMALL, 2000, pinned).cpuAffinity
    assert lifted is not None and not lifted.affinitySet
    assert wording.resources(pinned, 2000, pinned).cpuAffinity is None


def test_a_whole_allocation_is_sent_every_time() -> None:
    made = wording.resources(replace(SMALL, weight=512), 2000)
    assert (made.cpuAllocation.limit, made.cpuAllocation.reservation) == (-1, 0)
    assert made.cpuAllocation.shares.level == "custom"
    assert (made.memoryAllocation.limit, made.memoryAllocation.reservation) == (-1, 0)


@pytest.mark.parametrize("model", wording.MODELS)
def test_a_vnic_is_known_by_its_type(model: str) -> None:
    nic = replace(SMALL.nics[0], model=model)
    made = wording.card(nic, on_port_group(nic.switch), -1, "0000:03:00.0")
    assert wording.model(made) == model
    assert (made.addressType, made.macAddress) == ("manual", nic.mac)
    if model == wording.SRIOV:
        assert made.sriovBacking.physicalFunctionBacking.id == "0000:03:00.0"


def test_a_type_of_no_model_of_ours_has_its_own_name() -> None:
    assert wording.model(vim.vm.device.VirtualPCNet32()) == "pcnet32"
    assert wording.model(vim.vm.device.VirtualVmxnet3Vrdma()) == "vmxnet3vrdma"


def as_properties(want: Guest, cloned: str = "linked", **more: str) -> dict[str, Any]:
    """What a server would tell of a VM that was made by our specs."""
    config = wording.shape(want, 2000)
    cards = [
        wording.card(nic, on_port_group(nic.switch), 4000 + n)
        for n, nic in enumerate((want.management, *want.nics))
    ]
    extra = wording.marks("tb", want, cloned) | more
    return {
        "config.hardware": SimpleNamespace(
            numCPU=config.numCPUs, memoryMB=config.memoryMB,
            device=[vim.vm.device.VirtualIDEController(key=200), *cards],
        ),
        "config.extraConfig": wording.options(extra),
        "config.cpuAllocation": config.cpuAllocation,
        "config.memoryAllocation.reservation": config.memoryAllocation.reservation,
        "config.cpuAffinity": config.cpuAffinity,
        "config.latencySensitivity": config.latencySensitivity,
        "config.files.vmPathName": "[ds] provision/tb-vm1/tb-vm1.vmx",
        "runtime.powerState": "poweredOn",
    }  # fmt: skip


def name(backing: Any) -> str:
    return str(backing.deviceName)


@given(
    st.builds(
        replace, st.just(SMALL), vcpus=st.integers(1, 8), weight=st.integers(1, 1000),
        memory_mib=st.integers(1, 1 << 20), cap_percent=st.none() | st.integers(1, 800),
        reserve_percent=st.none() | st.integers(1, 800),
        memory_reserve_mib=st.none() | st.integers(1, 1 << 20),
        latency=st.sampled_from(["normal", "high"]), running=st.just(True),
    ),
    st.sampled_from([m for m in wording.MODELS if m != wording.SRIOV]),
)  # fmt: skip
def test_a_guest_survives(want: Guest, model: str) -> None:
    want = replace(want, nics=(replace(want.nics[0], model=model),))
    raw = parse.whole(as_properties(want))
    assert raw is not None
    seen = parse.parse(object(), "vm1", raw, 2000, name)
    assert seen.guest == want
    assert (seen.mark, seen.cloned, seen.secret) == ("tb", "linked", False)


def test_a_guest_read_briefly_is_the_same() -> None:
    has = as_properties(SMALL)
    hardware, extra = has.pop("config.hardware"), has.pop("config.extraConfig")
    short = has | {
        "config.hardware.numCPU": 1, "config.hardware.memoryMB": 512,
        "summary.config.numEthernetCards": 2,
        **{f"config.hardware.device[{d.key}]": d for d in wording.cards(hardware.device)},
        **{f'config.extraConfig["{o.key}"]': o for o in extra},
    }  # fmt: skip
    assert set(parse.brief_paths((4000, 4001))) >= set(short) - {"config.files.vmPathName"}
    raw = parse.brief(short, (4000, 4001))
    assert raw is not None
    assert parse.parse(object(), "vm1", raw, 2000, name).guest == SMALL
    # one vNIC more than is known, one that is gone, no mark: it takes a whole look
    assert parse.brief(short | {"summary.config.numEthernetCards": 3}, (4000, 4001)) is None
    assert parse.brief(short, (4000, 4002)) is None
    assert (
        parse.brief({k: v for k, v in short.items() if "extraConfig" not in k}, (4000, 4001))
        is None
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"image": 1}', '{"nics": [[1]]}'])
def test_a_record_that_a_guest_has_spoilt_reads_as_another_guest(text: str) -> None:
    raw = parse.whole(as_properties(SMALL, **{wording.RECORD: text}))
    assert raw is not None
    seen = parse.parse(object(), "vm1", raw, 2000, name)
    assert seen.guest != SMALL and seen.mark == "tb"


def test_a_vm_without_configuration_is_not_judged() -> None:
    assert parse.whole({"runtime.powerState": "poweredOff"}) is None


def test_the_identity_is_cloud_inits_own_datasource() -> None:
    pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    handed = wording.handed(identity(SMALL, "ssh-ed25519 AAAA", pem))
    assert handed.keys() == {
        "guestinfo.userdata", "guestinfo.userdata.encoding",
        "guestinfo.metadata", "guestinfo.metadata.encoding",
    }  # fmt: skip
    meta = json.loads(b64decode(handed["guestinfo.metadata"]))
    assert meta["local-hostname"] == "vm1" and meta["instance-id"]
    assert meta["cleanup-guestinfo"] == ["userdata"]
    nics = meta["network"]["ethernets"]
    assert nics["link1"]["match"] == {"macaddress": SMALL.nics[0].mac}
    assert nics["link1"]["mtu"] == 9000
    assert b64decode(handed["guestinfo.userdata"]).startswith(b"#cloud-config\n")
    assert "PRIVATE" not in handed["guestinfo.metadata"]


def test_a_vnics_type_changes_by_taking_it_out() -> None:
    cards = [
        wording.card(nic, on_port_group(nic.switch), 4000 + n)
        for n, nic in enumerate((SMALL.management, *SMALL.nics))
    ]
    networks: Any = SimpleNamespace(name=name)
    backings = {n: on_port_group(n) for n in ("VM Network", "pvabcdb1")}
    plugs = Plugs(backings, {}, {}, networks)
    assert plugs.plug(cards, SMALL) == []
    other = replace(SMALL, nics=(replace(SMALL.nics[0], model="vmxnet3"),))
    out, into = plugs.plug(cards, other)
    assert (out.operation, out.device.key) == ("remove", 4001)
    assert (into.operation, wording.model(into.device)) == ("add", "vmxnet3")
    assert into.device.key < 0
    assert [c.operation for c in plugs.plug([], SMALL)] == ["add", "add"]


CALLED = {
    vim.host.NetworkSystem: (
        "AddVirtualSwitch", "UpdateVirtualSwitch", "RemoveVirtualSwitch", "AddPortGroup",
        "UpdatePortGroup", "RemovePortGroup",
    ),
    vim.Folder: ("CreateVm",),
    vim.VirtualMachine: (
        "Clone", "PowerOn", "PowerOff", "Destroy", "Unregister", "Reconfigure", "CreateSnapshot",
    ),
    vim.vm.Snapshot: ("Revert", "Remove"),
    vim.FileManager: ("MakeDirectory", "DeleteFile", "MoveFile"),
    vim.VirtualDiskManager: ("CopyVirtualDisk",),
}  # fmt: skip


def test_every_privilege_that_the_api_declares_for_our_calls_is_in_the_table() -> None:
    known = {name for wanted in PRIVILEGES.values() for name in wanted}
    declared = set()
    for kind, methods in CALLED.items():
        for method in methods:
            info = kind._GetMethodInfo(method)
            declared |= {info.privId, *(p.privId for p in info.params)}
    declared -= {None, "dynamic", "System.Read", "System.View", "System.Anonymous"}
    assert declared
    assert declared <= known
