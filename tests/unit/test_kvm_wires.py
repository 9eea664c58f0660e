"""Where taps are, whatever libvirt was once told, and how they are plugged back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libvirt")

from drivers.libvirt.wires import NOWHERE, rewire, wired
from drivers.linux.links import OvsBridge, View, links
from provision.host import Host
from provision.resources import Guest, Vnic

TAPS = ("tap0", "tap1")
GUEST = Guest(
    "vm1", 1, 512, "img", Vnic("m", "virtio", "52:54:00:00:00:01", "198.19.0.10/24"),
    (Vnic("b1", "virtio", "52:54:00:00:01:01", "198.18.1.2/24"),), "tcg",
)  # fmt: skip
ON_OVS = replace(GUEST, nics=(replace(GUEST.nics[0], switch="o1"),))


def link(name: str, index: int, **more: Any) -> dict[str, Any]:
    return {"ifindex": index, "ifname": name, "flags": ["UP"], "mtu": 1500, "link_type": "ether",
            "addr_info": [], **more}  # fmt: skip


def net(tap1: dict[str, Any] | None, ovs: tuple[str, ...] = ()) -> View:
    """A host whose tap1 has these attributes, or is not there; ``ovs`` are the ports of o1."""
    rows = [link("m", 1), link("b1", 2), link("b2", 3), link("tap0", 4, master="m")]
    rows += [link("tap1", 5, **tap1)] if tap1 is not None else []
    bridge = OvsBridge("o1", "t", "system", True, False, False, dict.fromkeys(ovs, ""))
    return View(links(json.dumps(rows)), {"o1": bridge})


BRIDGE = {"linkinfo": {"info_slave_kind": "bridge"}}


@pytest.mark.parametrize(
    ("tap1", "ovs", "switch"),
    [
        ({"master": "b1"}, (), "b1"),
        ({"master": "b2"}, (), "b2"),
        ({}, (), NOWHERE),
        (None, (), NOWHERE),
        ({"master": "b1", "flags": []}, (), "b1 (down)"),
        ({"master": "ovs-system"}, ("tap1",), "o1"),
        ({}, ("tap1",), "o1"),
    ],
)
def test_a_guest_is_where_its_taps_are(
    tap1: dict[str, Any] | None, ovs: tuple[str, ...], switch: str
) -> None:
    found = wired(GUEST, TAPS, net(tap1, ovs))
    assert found == replace(GUEST, nics=(replace(GUEST.nics[0], switch=switch),))


@pytest.mark.parametrize(
    ("guest", "tap1", "ovs", "steps"),
    [
        (GUEST, {"master": "b1"}, (), []),
        (GUEST, None, (), []),
        (GUEST, {}, (), ["link set tap1 master b1", "link set tap1 up"]),
        (GUEST, {"master": "b2"}, (), ["link set tap1 master b1", "link set tap1 up"]),
        (GUEST, {"master": "b1", "flags": []}, (),
         ["link set tap1 master b1", "link set tap1 up"]),
        (GUEST, {"master": "ovs-system"}, ("tap1",),
         ["ovs-vsctl --timeout=30 del-port o1 tap1", "link set tap1 master b1",
          "link set tap1 up"]),
        (ON_OVS, {"master": "ovs-system"}, ("tap1",), []),
        (ON_OVS, {"master": "b2"} | BRIDGE, (),
         ["link set tap1 nomaster", "ovs-vsctl --timeout=30 --may-exist add-port o1 tap1",
          "link set tap1 up"]),
    ],
)  # fmt: skip
def test_what_is_loose_is_plugged_back(
    tmp_path: Path, guest: Guest, tap1: dict[str, Any] | None, ovs: tuple[str, ...],
    steps: list[str],
) -> None:  # fmt: skip
    """The host keeps the script that it is given."""
    given = tmp_path / "script"
    host = Host("h", ("sh", "-c", f"cat > {given}", "x"))
    assert rewire(host, guest, guest, TAPS, net(tap1, ovs)) == bool(steps)
    text = given.read_text() if given.exists() else ""
    told = [line.partition(" <<")[0] for line in text.splitlines()]
    assert [line for line in told if line not in ("END", "ip -batch -")] == steps


def test_a_wish_for_another_switch_is_no_loose_plug(tmp_path: Path) -> None:
    host = Host("h", ("sh", "-c", f"touch {tmp_path}/ran", "x"))
    other = replace(GUEST, nics=(replace(GUEST.nics[0], switch="b2"),))
    assert not rewire(host, GUEST, other, TAPS, net({}))
    assert not (tmp_path / "ran").exists()
