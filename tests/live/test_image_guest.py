"""The guest image in a bare QEMU: who it is after a cold boot, and after the agent says otherwise.

No libvirt, no bridge, no root: QEMU's user network with one forwarded port.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision import image, seed

pytestmark = pytest.mark.live
BOOT_S = 180
MACS = ("52:54:00:0a:00:01", "52:54:00:0a:00:02")


class Qemu:
    """One guest, its agent and its shell."""

    def __init__(self, found: image.Image, folder: Path) -> None:
        self.folder = folder
        self.key = self.make_key("id")
        (folder / "serial").touch()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port: int = s.getsockname()[1]
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", found.disk,
             folder / "disk.qcow2"], check=True,
        )  # fmt: skip
        (folder / "seed.iso").write_bytes(seed.iso(self.identity("vm1", "host1")))
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg",
             "-cpu", "max", "-m", "512", "-kernel", str(found.kernel), "-initrd",
             str(found.initrd), "-append", found.cmdline,
             "-drive", f"if=virtio,file={folder}/disk.qcow2,cache=unsafe",
             "-drive", f"if=virtio,file={folder}/seed.iso,format=raw,readonly=on",
             "-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:22",
             "-device", f"virtio-net-pci,netdev=n0,mac={MACS[0]},romfile=",
             "-netdev", "user,id=n1,net=10.0.3.0/24",
             "-device", f"e1000,netdev=n1,mac={MACS[1]},romfile=",
             "-chardev", f"file,id=s0,path={folder}/serial", "-serial", "chardev:s0",
             "-device", "virtio-serial", "-device",
             "virtserialport,chardev=a0,name=org.qemu.guest_agent.0",
             "-chardev", f"socket,id=a0,path={folder}/agent,server=on,wait=off"],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def make_key(self, name: str) -> str:
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path.with_suffix(".pub").read_text().strip()

    def identity(self, name: str, host_key: str) -> seed.Identity:
        public = self.make_key(host_key)
        words = " ".join(public.split()[:2])
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {words}\n")
        nics = (
            seed.Nic(MACS[0], "mgmt", "10.0.2.15/24"),
            seed.Nic(MACS[1], "link1", "10.0.3.15/24", 1400),
        )
        private = (self.folder / host_key).read_text()
        return seed.Identity(name, name.encode().hex().zfill(32), self.key, private, nics)

    def ssh(self, command: str) -> str:
        """Log in, the host key being exactly the one that was given."""
        deadline = time.monotonic() + BOOT_S
        while True:
            done = subprocess.run(
                ["ssh", "-F", "none", "-p", str(self.port), "-i", self.folder / "id",
                 "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", "-o", "IdentitiesOnly=yes",
                 "-o", "StrictHostKeyChecking=yes",
                 "-o", f"UserKnownHostsFile={self.folder}/known_hosts",
                 "root@127.0.0.1", command],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return done.stdout
            console = (self.folder / "serial").read_text(errors="replace")[-2000:]
            assert done.returncode == 255, f"{command}: {done.stderr}"
            assert "verification failed" not in done.stderr, done.stderr
            assert self.process.poll() is None and time.monotonic() < deadline, console
            time.sleep(0.2)  # QEMU's forwarder takes connections before the guest does

    def agent(self, command: str, **arguments: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as s, s.makefile("r") as answer:
            s.settimeout(60)
            s.connect(str(self.folder / "agent"))
            s.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            return json.loads(answer.readline())["return"]

    def identify(self, document: str) -> int:
        data = base64.b64encode(document.encode()).decode()
        path = "/usr/lib/provision/identify"
        pid = self.agent("guest-exec", path=path, arg=["live"], **{"input-data": data})["pid"]
        while True:
            status = self.agent("guest-exec-status", pid=pid)
            if status["exited"]:
                return int(status["exitcode"])


@pytest.fixture(scope="module")
def guest(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Qemu]:
    found = image.find(images)
    assert found is not None
    started = Qemu(found, tmp_path_factory.mktemp("guest"))
    try:
        yield started
    finally:
        started.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.process.wait(10)


def test_a_cold_guest_is_who_its_seed_says(guest: Qemu) -> None:
    assert guest.ssh("hostname; cat /etc/machine-id").split() == ["vm1", b"vm1".hex().zfill(32)]
    nics = json.loads(guest.ssh("ip -j addr"))
    told = {
        n["ifname"]: (n["address"], n["mtu"], [a["local"] for a in n["addr_info"]]) for n in nics
    }
    assert told["mgmt"] == (MACS[0], 1500, ["10.0.2.15"])
    assert told["link1"] == (MACS[1], 1400, ["10.0.3.15"])
    assert abs(float(guest.ssh("date +%s.%N")) - time.time()) < 5


def test_nothing_runs_in_it_that_would_disturb_a_measurement(guest: Qemu) -> None:
    assert guest.ssh("systemctl list-timers --all --no-legend").strip() == ""
    assert guest.ssh("systemctl --failed --no-legend").strip() == ""
    listening = guest.ssh("ss -Hltun | awk '{print $5}'").split()
    assert listening == ["0.0.0.0:22"]
    assert guest.ssh("pgrep -c 'netserver|haproxy|apt|udevd|cron' || true").strip() == "0"
    assert guest.ssh("cat /proc/sys/net/ipv4/conf/all/arp_ignore").strip() == "1"


def test_what_playbooks_need_is_in_it(guest: Qemu) -> None:
    assert "2.7.0" in guest.ssh("netperf -V")
    guest.ssh("command -v netserver ethtool ip ping python3 haproxy stress-ng sockperf timeout")
    guest.ssh("python3 -c 'import json, ssl, ctypes, sqlite3, subprocess'")
    models = "virtio_net e1000 e1000e 8139cp 8139too vmxnet3 pktgen sch_tbf"
    guest.ssh(f"for m in {models}; do modinfo -n $m >/dev/null || exit 1; done")


def test_the_same_seed_is_a_nocloud_disk_for_others(guest: Qemu) -> None:
    files = guest.ssh("mount -o ro /dev/vdb /mnt && cd /mnt && for f in *; do echo $f; done")
    assert files.split() == ["meta-data", "network-config", "user-data"]


def test_a_document_that_is_cut_short_is_refused_and_changes_nothing(guest: Qemu) -> None:
    document = seed.document(guest.identity("vm2", "host_unused"))
    assert guest.identify(document[: len(document) // 2]) == 65
    known = (guest.folder / "host1.pub").read_text().split()
    (guest.folder / "known_hosts").write_text(f"[127.0.0.1]:{guest.port} {known[0]} {known[1]}\n")
    assert guest.ssh("hostname").strip() == "vm1"


def test_the_agent_gives_a_restored_guest_its_own_identity(guest: Qemu) -> None:
    guest.ssh("date -s @1600000000; cat /proc/sys/kernel/random/uuid")
    assert guest.identify(seed.document(guest.identity("vm3", "host3"))) == 0
    assert guest.ssh("hostname; cat /etc/machine-id").split() == ["vm3", b"vm3".hex().zfill(32)]
    assert abs(float(guest.ssh("date +%s.%N")) - time.time()) < 5
    assert "vm3" in guest.ssh("journalctl -n 1 -o short")
    assert json.loads(guest.ssh("ip -j addr show link1"))[0]["addr_info"][0]["local"] == "10.0.3.15"
