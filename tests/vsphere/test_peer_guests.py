"""The peer's guests: one boots as its VM says, and is reached over the uplink that is named."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision import seed
from provision.host import Host, ssh
from tests.peers import cloudinit, oracle
from tests.peers.esx_guests import MANAGEMENT, EsxLab, esx_lab
from tests.peers.oracle import await_value, bond, done, group, host
from tests.peers.sshd import behind_ssh
from tests.root.machines import CLIENT, SERVER

MACS = ("00:50:56:00:00:01", "00:50:56:00:00:02")
HERE = Host()
DATA = "198.18.241.2"
NEAR = "198.18.241.1"  # the generator's
SHAPED_MBIT = 20


def identity(folder: Path, address: str = "198.51.100.9/24") -> seed.Identity:
    """Someone at that address, with keys of whom the folder has the private halves."""
    for name in ("id", "host"):
        HERE.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    public = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"{address.partition('/')[0]} {' '.join(public)}\n")
    nics = (seed.Nic(MACS[0], "mgmt", address), seed.Nic(MACS[1], "link1", f"{DATA}/24"))
    return seed.Identity(
        "vm1", "0123456789abcdef" * 2, (folder / "id.pub").read_text().strip(),
        (folder / "host").read_text(), nics,
    )  # fmt: skip


def guestinfo(who: seed.Identity, *, packed: bool) -> dict[str, str]:
    """The datasource's four variables, and the network within the metadata either way."""
    files = seed.nocloud(who)
    network = json.loads(files["network-config"])
    meta = json.loads(files["meta-data"]) | (
        {"network": pack(json.dumps(network)), "network.encoding": "gzip+base64"}
        if packed
        else {"network": network}
    )
    encoding, encoded = ("gzip+base64", pack) if packed else ("base64", plain)
    return {
        "guestinfo.metadata": encoded(json.dumps(meta)),
        "guestinfo.metadata.encoding": encoding,
        "guestinfo.userdata": encoded(files["user-data"]),
        "guestinfo.userdata.encoding": encoding,
    }


def pack(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode())).decode()


def plain(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("packed", [False, True])
def test_guestinfo_is_read_as_cloud_init_does(tmp_path: Path, packed: bool) -> None:
    who = identity(tmp_path)
    read = cloudinit.identity(guestinfo(who, packed=packed))
    assert (read.hostname, read.machine_id, read.nics) == (who.hostname, who.machine_id, who.nics)
    assert (read.authorized_key, read.host_key) == (who.authorized_key, who.host_key)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"guestinfo.metadata": None}, "no guestinfo.metadata"),
        ({"guestinfo.userdata.encoding": "none"}, "not #cloud-config"),
        ({"guestinfo.userdata": plain("hostname: vm1")}, "not #cloud-config"),
        ({"guestinfo.userdata": plain("#cloud-config\nusers: []\n")}, "root may not log in"),
        ({"guestinfo.metadata": plain('{"instance-id": "x"}')}, "no network"),
        ({"guestinfo.userdata": "x" * 70000}, "more than 65536"),
    ],
)
def test_guestinfo_that_makes_nobody(
    tmp_path: Path, wrong: Mapping[str, str | None], words: str
) -> None:
    changed = {**guestinfo(identity(tmp_path), packed=False), **wrong}
    with pytest.raises(ValueError, match=words):
        cloudinit.identity({key: value for key, value in changed.items() if value is not None})


@dataclass(frozen=True)
class Bed:
    """A lab, the VM of ``identity`` in it, and the way into its guest."""

    lab: EsxLab
    si: Any
    vm: Any
    address: str
    shell: Host

    def reaches(self, port: int) -> bool:
        """Whether the generator reaches the guest's data NIC over that port of its own."""
        generator, nic = self.lab.wires.generator, f"lg{port}"
        generator.run("ip", "addr", "add", f"{NEAR}/24", "dev", nic)
        try:
            generator.run("ip", "link", "set", nic, "up")
            said = generator.run("ping", "-c", "3", "-i", "0.3", "-W", "2", DATA, check=False)
            return " 0 received" not in said
        finally:
            generator.run("ip", "addr", "del", f"{NEAR}/24", "dev", nic)

    def sends_mbit(self, port: int, seconds: float = 4) -> float:
        """What one TCP stream of the guest's brings to that port."""
        generator, nic = self.lab.wires.generator, f"lg{port}"
        generator.run("ip", "addr", "add", f"{NEAR}/24", "dev", nic)
        with subprocess.Popen(
            generator.argv(sys.executable, "-c", SERVER, NEAR), stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                self.shell.run("python3", "-c", CLIENT, NEAR, str(seconds))
                return float(server.stdout.read())
            finally:
                server.kill()


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("bed")
    with esx_lab(pnics=3, cpus=2, memory_mib=4096) as lab:
        si = lab.peer.connect()
        net = host(si).configManager.networkSystem
        net.AddVirtualSwitch("pv1", bond("vmnic2"))
        net.AddPortGroup(group("pv1", "pv1", mbit=SHAPED_MBIT))
        nics = [("vmxnet3", MANAGEMENT, MACS[0]), ("e1000", "pv1", MACS[1])]
        address = str(lab.management[9])
        who = guestinfo(identity(folder, f"{address}/24"), packed=True)
        vm = oracle.create(si, "bed-vm1", nics, who, with_disk=True)
        done(vm.PowerOnVM_Task())
        running(si, vm)
        shell = ssh(f"root@{address}", key=folder / "id", known_hosts=folder / "known_hosts")
        yield Bed(lab, si, vm, address, shell)


def running(si: Any, vm: Any) -> None:
    await_value(si, vm, "guest.toolsRunningStatus", "guestToolsRunning")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")


@pytest.mark.live
@needs_root
def test_a_guest_is_as_its_vm_says(bed: Bed) -> None:
    assert bed.vm.guest.ipAddress == bed.address
    assert bed.vm.guest.hostName == "vm1"
    assert [list(nic.ipAddress) for nic in bed.vm.guest.net] == [[bed.address], [DATA]]
    drivers = bed.shell.run("sh", "-c", "readlink /sys/class/net/*/device/driver")
    assert [line.rsplit("/", 1)[1] for line in drivers.split()] == ["e1000", "vmxnet3"]
    assert bed.shell.run("nproc").strip() == "1"
    assert 400 < int(bed.shell.run("awk", "/MemTotal/ {print $2}", "/proc/meminfo")) >> 10 < 512
    assert not bed.lab.complaints


@pytest.mark.live
@needs_root
def test_traffic_takes_the_uplink_that_is_named(bed: Bed) -> None:
    net = host(bed.si).configManager.networkSystem
    assert bed.reaches(2)
    assert not bed.reaches(1)
    net.UpdateVirtualSwitch("pv1", bond("vmnic1"))
    assert bed.reaches(1)
    assert not bed.reaches(2)
    net.UpdateVirtualSwitch("pv1", bond())
    assert not bed.reaches(1)
    net.UpdateVirtualSwitch("pv1", bond("vmnic1"))
    assert 0.5 * SHAPED_MBIT < bed.sends_mbit(1) < 1.1 * SHAPED_MBIT


@pytest.mark.live
@needs_root
def test_memory_comes_back_and_a_reset_loses_it(bed: Bed) -> None:
    bed.shell.run("touch", "/run/before")
    taken = done(bed.vm.CreateSnapshot_Task("warm", None, True, False))
    bed.shell.run("mv", "/run/before", "/run/after")
    done(taken.RevertToSnapshot_Task())
    running(bed.si, bed.vm)
    assert bed.shell.run("sh", "-c", "echo /run/before /run/after*").split() == [
        "/run/before", "/run/after*",
    ]  # fmt: skip
    done(bed.vm.ResetVM_Task())
    running(bed.si, bed.vm)
    assert bed.shell.run("sh", "-c", "echo /run/before*").strip() == "/run/before*"
    bed.vm.ShutdownGuest()
    assert bed.vm.runtime.powerState == "poweredOff"
    assert not bed.vm.guest.ipAddress
    done(bed.vm.Destroy_Task())
    assert not bed.lab.complaints


@pytest.mark.live
@needs_root
def test_the_generator_answers_ssh(tmp_path: Path) -> None:
    with esx_lab(pnics=2) as lab:
        where = ("lg7", lab.wires.generator, lab.wires.generator_address)
        with behind_ssh(tmp_path, [where]) as programs:
            words = [str(programs / "ssh"), "root@lg7", "ls", "/sys/class/net"]
            said = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
            assert said.stdout.split() == ["lg1", "lo", "mgmt"]
