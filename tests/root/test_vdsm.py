"""A host whose NICs VDSM has in part: those are no uplinks, whatever the kernel says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from drivers.linux.net import LinuxNet
from provision.errors import PreflightError
from provision.host import Host
from provision.resources import Switch, Uplink
from tests.peers import wires
from tests.root import machines

pytestmark = machines.marks
LAY = """
mount -t tmpfs tmpfs /var/lib
for kind in nets bonds; do mkdir -p "/var/lib/vdsm/persistence/netconf.x/$kind"; done
ln -s netconf.x /var/lib/vdsm/persistence/netconf
"""


@pytest.fixture
def host() -> Iterator[Host]:
    """em1 is ovirtmgmt's, em2 is in a bond of VDSM's that is down, em3 is free."""
    with wires.machine("ovirt1") as found:
        found.run("sh", "-ec", LAY)
        for nic in ("em1", "em2", "em3"):
            found.run("ip", "link", "add", nic, "type", "veth", "peer", "name", f"{nic}x")
        files = {
            "nets/ovirtmgmt": {"nic": "em1", "bridged": True, "defaultRoute": True},
            "bonds/bond0": {"nics": ["em2"], "options": "mode=1"},
            "nets/storage": {"bonding": "bond0", "bridged": False},
        }
        for path, held in files.items():
            text = json.dumps(held, indent=4)
            found.run("tee", f"/var/lib/vdsm/persistence/netconf/{path}", input=text)
        yield found


def test_what_vdsm_has_is_refused_with_its_networks_name(host: Host) -> None:
    net = LinuxNet(host, "lab")
    facts = {u.name: u.used_by for u in net.uplinks()}
    assert facts["em1"] == "belongs to VDSM's network ovirtmgmt"
    assert facts["em2"] == "belongs to VDSM's network storage, over bond0"
    assert facts["em3"] == ""
    before = host.run("ip", "-d", "-o", "link", "show", "em1")
    with pytest.raises(PreflightError, match="VDSM's network ovirtmgmt"):
        net.put(Uplink("em1", mtu=9000, up=True))
    with pytest.raises(PreflightError, match="VDSM's network storage"):
        net.put(Switch("pvlab", uplink="em2"))
    assert host.run("ip", "-d", "-o", "link", "show", "em1") == before
    assert not [*net.owned()]
    net.put(Switch("pvlab", uplink="em3"))
    assert [*net.owned()] == [("switch", "pvlab")]
