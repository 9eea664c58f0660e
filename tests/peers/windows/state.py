"""What a Windows guest keeps over a boot, and what of it a namespace has to be told."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path

from provision.host import Host

JUMBO = ("1514", "4088", "9014")
HEADER = 14
ALWAYS = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
"""


@dataclass
class Card:
    """An adapter; ``device`` is its NIC in the namespace, ``tap`` that one's other end."""

    name: str
    mac: str
    index: int
    description: str
    driver: str
    pnp: str
    device: str = ""
    tap: str = ""
    mtu: int = 1500
    jumbo: int = 1514
    dhcp: bool = True
    addresses: list[str] = field(default_factory=list)
    unbound: set[str] = field(default_factory=set)

    def lines(self) -> list[str]:
        """For ``ip -batch``: as it is now, from nothing."""
        known = [f"addr add {a} dev {self.device}" for a in self.addresses]
        return [
            f"link set {self.device} mtu {self.mtu} up",
            f"addr flush dev {self.device}",
            *known,
        ]


@dataclass(frozen=True)
class Rule:
    """Who is let in. () and "" are anybody, anything."""

    name: str
    protocol: str
    local: tuple[str, ...]
    remote: tuple[str, ...]
    ports: tuple[str, ...]
    icmp: tuple[str, ...]
    program: str

    def lines(self) -> list[str]:
        """For iptables; that it is for one program cannot be had there."""
        protocol = {"icmpv4": "icmp"}.get(self.protocol.lower(), self.protocol.lower())
        words = ["" if protocol == "any" else f"-p {protocol}"]
        if self.ports:
            words.append(f"-m multiport --dports {','.join(self.ports)}")
        rest = " ".join([*words, *(f"--icmp-type {t}" for t in self.icmp)])
        return [
            f"-A INPUT{at}{of} {rest} -j ACCEPT"
            for at in ([f" -d {a}" for a in self.local] or [""])
            for of in ([f" -s {a}" for a in self.remote] or [""])
        ]


@dataclass(frozen=True)
class Task:
    """What the scheduler runs when it is told to; ``limit_s`` ends it."""

    name: str
    execute: str
    argument: str
    limit_s: float
    priority: int
    user: str


@dataclass
class State:
    """``instance`` is whom cloudbase-init made it; ``services`` are startup types."""

    hostname: str = "WIN-PEER"
    instance: str = ""
    cards: list[Card] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=lambda: {"sshd": "Manual"})

    @staticmethod
    def load(path: Path) -> State:
        if not path.exists():
            return State()
        found = pickle.loads(path.read_bytes())
        assert isinstance(found, State)
        return found

    def save(self, path: Path) -> None:
        path.write_bytes(pickle.dumps(self))

    def plug(self, mac: str, device: str, tap: str, *, legacy: bool) -> None:
        """An adapter is there, a new one where its MAC was never seen."""
        card = next((c for c in self.cards if c.mac == mac), None)
        if card is None:
            number = len(self.cards) + 1
            name = "Ethernet" if number == 1 else f"Ethernet {number}"
            what = "Microsoft Hyper-V Network Adapter"
            card = Card(name, mac, 3 + number, f"{what} #{number}", "netvsc.sys",
                        f"VMBUS\\{{F8615163-DF3E-46C5-913F-F2D2F965ED0E}}\\{number}")  # fmt: skip
            if legacy:
                card.description = "Intel 21140-Based PCI Fast Ethernet Adapter (Emulated)"
                card.driver, card.pnp = "dc21x4vm.sys", "PCI\\VEN_1011&DEV_0009&SUBSYS_21140A00"
            self.cards.append(card)
        card.device, card.tap = device, tap

    @property
    def present(self) -> list[Card]:
        return [c for c in self.cards if c.device]

    def apply_links(self, inside: Host, host: Host) -> None:
        for card in self.present:
            shut = "1" if "ms_tcpip6" in card.unbound else "0"
            inside.run("sysctl", "-qw", f"net.ipv6.conf.{card.device}.disable_ipv6={shut}")
            host.run("ip", "link", "set", card.tap, "mtu", str(card.mtu))
        lines = [line for card in self.present for line in card.lines()]
        inside.run("ip", "-batch", "-", input="".join(f"{line}\n" for line in lines))

    def apply_rules(self, inside: Host) -> None:
        lines = [line for rule in self.rules for line in rule.lines()]
        text = ALWAYS + "".join(f"{line}\n" for line in lines) + "COMMIT\n"
        inside.run("iptables-restore", input=text)

    def bare(self, name: str) -> list[str]:
        """The addresses of an adapter without prefixes."""
        return [
            str(ip_interface(a).ip) for c in self.present if c.name == name for a in c.addresses
        ]
