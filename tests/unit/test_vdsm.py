"""Which NICs VDSM has, from what it records; the files are as its netconfpersistence.py writes."""

from __future__ import annotations

import pytest

from drivers.linux.vdsm import ANY, owner, owners

LIB = "/var/lib/vdsm/persistence/netconf"
MANAGEMENT = (
    '{    "ipv6autoconf": false,    "nic": "em1",    "bridged": true,    "defaultRoute": true}'
)


@pytest.mark.parametrize(
    ("lines", "nic", "words"),
    [
        ([f"{LIB}/nets/ovirtmgmt\t{MANAGEMENT}"], "em1", "belongs to VDSM's network ovirtmgmt"),
        ([f"{LIB}/nets/ovirtmgmt\t{MANAGEMENT}"], "em2", ""),
        (
            [
                f'{LIB}/bonds/bond0\t{{"nics": ["em2", "em3"], "options": "mode=4"}}',
                f'{LIB}/nets/vlan7\t{{"bonding": "bond0", "vlan": 7, "switch": "legacy"}}',
            ],
            "em3", "belongs to VDSM's network vlan7, over bond0",
        ),
        ([f'{LIB}/bonds/bond0\t{{"nics": ["em2"]}}'], "em2", "is a member of VDSM's bond0"),
        (
            [
                f'{LIB}/devices/em5\t{{"sriov": {{"numvfs": 4}}}}',
                f'{LIB}/nets/em5\t{{"bridged": true}}',
            ],
            "em5", "has virtual functions of VDSM's",
        ),
        ([f'{LIB}/devices/em5\t{{"sriov": {{"numvfs": 0}}}}'], "em5", ""),
        (
            [f'{LIB}/devices/em1\t{{"sriov": {{"numvfs": 4}}}}',
             f"{LIB}/nets/ovirtmgmt\t{MANAGEMENT}"],
            "em1", "belongs to VDSM's network ovirtmgmt",
        ),
        (
            ["/etc/sysconfig/network-scripts/ifcfg-em4"], "em4",
            "is VDSM's own, by /etc/sysconfig/network-scripts/ifcfg-em4",
        ),
        ([f"{LIB}/nets/lan\t{{"], "em9", f"may be VDSM's: {LIB}/nets/lan is damaged"),
        ([f"{LIB}/nets/lan\t[]"], "em9", f"may be VDSM's: {LIB}/nets/lan is damaged"),
        ([f'{LIB}/nets/alone\t{{"bridged": true}}'], "em9", ""),
        ([], "em1", ""),
    ],
)  # fmt: skip
def test_whose_a_nic_is(lines: list[str], nic: str, words: str) -> None:
    found = owners("".join(f"{line}\n" for line in lines))
    assert owner(nic, found) == words
    assert (ANY in found) == ("may be" in words)
