"""What of a host's set-up is told before it disturbs a benchmark."""

from __future__ import annotations

from drivers.linux.net import LinuxNet
from provision.host import Host


def test_a_firewall_on_bridges_is_told_with_its_cure() -> None:
    path = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    net = LinuxNet(Host("h", ("sh", "-c", f"echo {path}")), "t1")
    assert net.notes() == {
        "bridge-nf-call-iptables": "bridged frames pass through the host's firewall: "
        "sysctl -w net.bridge.bridge-nf-call-iptables=0"
    }
    assert LinuxNet(Host("h", ("true",)), "t1").notes() == {}
