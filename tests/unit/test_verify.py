"""What the guest sees against what was asked: every difference is told. Pure."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import resources as files
from pathlib import Path
from typing import Any

import pytest

from drivers.fake import Fake
from provision.driver import Target
from provision.errors import HostError, Interrupted, Unreachable
from provision.host import Host
from provision.resources import Guest, Switch, Vnic, key
from provision.verify import inside, mismatches, wait_ready

FACTS = Fake(Target("t", Path("/nonexistent"))).facts
GUEST = Guest(
    "vm1", 1, 512, "img",
    Vnic("m", "virtio", "52:54:00:00:00:01", "198.19.0.10/24"),
    (Vnic("b1", "e1000", "52:54:00:00:00:02", "198.18.1.2/24"),), "none",
)  # fmt: skip
SEEN: dict[str, Any] = {
    "hostname": "vm1", "cpus": 1, "memory_kib": 500_000,
    "nics": [
        {"name": "mgmt", "mac": "52:54:00:00:00:01", "mtu": 1500, "driver": "virtio_net",
         "pci_id": "1af4:1000", "addresses": ["198.19.0.10/24"]},
        {"name": "link1", "mac": "52:54:00:00:00:02", "mtu": 1500, "driver": "e1000",
         "pci_id": "8086:100e", "addresses": ["198.18.1.2/24"]},
    ],
}  # fmt: skip


def test_as_asked() -> None:
    assert inside(GUEST, SEEN, FACTS) == []


def nic(**fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda seen: seen["nics"][1].update(fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (nic(pci_id="1af4:1000"), "asked for e1000 (8086:100e), PCI id is 1af4:1000"),
        (nic(driver="virtio_net"), "its driver is 'virtio_net'"),
        (nic(addresses=[]), "asked for address 198.18.1.2/24, has none"),
        (nic(mtu=9000), "asked for MTU 1500, has 9000"),
        (nic(mac="52:54:00:00:00:99"), "no NIC with MAC 52:54:00:00:00:02 (e1000) inside"),
        (nic(mac="52:54:00:00:00:99"), "a NIC too many: link1 52:54:00:00:00:99"),
        (lambda seen: seen.update(hostname="golden"), "its hostname is 'golden'"),
        (lambda seen: seen.update(cpus=2), "asked for 1 vCPUs, it sees 2"),
        (lambda seen: seen.update(memory_kib=100_000), "asked for 512 MiB, it sees 97 MiB"),
        (lambda seen: seen.update(memory_kib=1_000_000), "asked for 512 MiB, it sees 976 MiB"),
    ],
)
def test_every_difference_is_told(change: Callable[[dict[str, Any]], None], said: str) -> None:
    seen = copy.deepcopy(SEEN)
    change(seen)
    assert any(said in line for line in inside(GUEST, seen, FACTS))


def test_the_hypervisor_is_held_to_every_field() -> None:
    wants = [Switch("b1", uplink="u1"), Switch("b2", uplink="u2")]
    have = {key(wants[0]): Switch("b1", uplink="u9", mtu=9000), key(wants[1]): None}
    assert mismatches(wants, have) == [
        "switch/b1.uplink: asked for u1, is u9",
        "switch/b1.mtu: asked for 1500, is 9000",
        "switch/b2: does not exist",
    ]


def test_what_runs_inside_says_it_of_this_machine() -> None:
    script = files.files("provision").joinpath("inspect_guest.py").read_text()
    said = subprocess.run([sys.executable, "-SE", "-"], input=script, capture_output=True,
                          text=True, check=True)  # fmt: skip
    seen = json.loads(said.stdout)
    assert seen["cpus"] >= 1
    assert seen["memory_kib"] > 0
    assert all({"mac", "mtu", "driver", "addresses"} <= set(nic) for nic in seen["nics"])


def far(code: int, words: str = "") -> Host:
    """A machine whose ssh ends with this code."""
    return Host("far", ("sh", "-c", f"echo '{words}' >&2; exit {code}", "--"), far_shell=True)


def test_silence_ends_at_the_deadline() -> None:
    with pytest.raises(Unreachable, match=r"no SSH within 0\.2 s"):
        wait_ready(far(255), "127.0.0.9", timeout_s=0.2, stop=threading.Event())


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        wait_ready(far(255), "127.0.0.9", timeout_s=60, stop=stop)


def test_a_refusal_is_told_at_once() -> None:
    host = Host("far", (*far(255, "Permission denied (publickey)").prefix, "ProxyCommand=x"), True)
    with pytest.raises(HostError, match="refuses us: far: Permission denied"):
        wait_ready(host, "127.0.0.9", timeout_s=60, stop=threading.Event())
