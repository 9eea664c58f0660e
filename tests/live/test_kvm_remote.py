"""The KVM driver over qemu+ssh://, with this machine as the far one: an sshd of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import image, state

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="needs openssh-server"),
]
ROOT = Path(__file__).parents[2]

# In a mount namespace root's ~/.ssh is ours, so that neither libvirt's ssh nor ours meets the
# user's own keys and hosts.
SCRIPT = """
import json, subprocess, sys
from dataclasses import replace
from pathlib import Path
folder, port, store = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
def sh(*words): subprocess.run(words, check=True)
sh("mount", "-t", "tmpfs", "-o", "mode=700", "none", "/root/.ssh")
home = Path("/root/.ssh")
for name in ("id_ed25519", "host"):
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name))
(home / "authorized_keys").write_text((home / "id_ed25519.pub").read_text())
(home / "known_hosts").write_text(f"[127.0.0.1]:{port} " + (home / "host.pub").read_text())
Path("/run/sshd").mkdir(exist_ok=True)
sshd = subprocess.Popen([
    "/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", str(home / "host"), "-p", port,
    "-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no", "-o", "PidFile=none",
    "-o", "PermitRootLogin=prohibit-password",
], stderr=subprocess.DEVNULL)
from drivers.kvm.driver import Kvm
from provision import image
from provision.driver import Target
from provision.resources import key
from provision.errors import Unreachable
from tests.contract.peer import resources, who
said = []
target = Target("remote", folder / "bed", f"qemu+ssh://root@127.0.0.1:{port}/system",
                image.find(store), who, "boot", say=lambda k, phase: said.append(phase))
try:
    for _ in range(100):
        try:
            driver = Kvm(target)
        except Unreachable as e:
            if "refused" not in str(e):
                raise
        else:
            break
    uplink, switches, guest = resources("x", image=target.image.digest, accel=driver.facts.accel)
    guest = replace(guest, nics=())
    try:
        driver.put(switches[0])
        driver.put(guest)
        same = driver.read(key(guest)) == guest
        there = sorted(p.name for p in (folder / ".images").glob("*/*"))
        driver.put(replace(guest, weight=512))
        live = driver.read(key(guest)) == replace(guest, weight=512)
        usage = driver.usage()
        evidence = dict(driver.evidence(key(guest)))
        console = driver.console(key(guest))
    finally:
        driver.drop(key(guest))
        driver.drop(key(switches[0]))
    owned = list(driver.owned())
    sockets = list(Path("/tmp").glob("pv-*/*"))
    driver.close()
    print(json.dumps({
        "host": driver.host.name, "same": same, "live": live, "there": there, "said": said,
        "busy": list(usage.guest_busy_s), "cpus": len(usage.host_busy_s), "owned": owned,
        "started": evidence["started"], "bed": (folder / "bed").exists(),
        "left": [str(p) for p in sockets if p.exists()],
    }))
finally:
    sshd.terminate()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="provision-remote-", dir="/var/tmp"))
    found.chmod(0o755)
    home = Path("/root/.ssh")
    new = not home.exists()
    home.mkdir(mode=0o700, exist_ok=True)
    yield found
    shutil.rmtree(found)
    if new:
        home.rmdir()


def test_a_host_behind_ssh(folder: Path) -> None:
    """The image is pushed once, the rest is made there; nothing stays but the image."""
    store = state.default().images
    if image.find(store) is None:
        pytest.fail("the guest image is not built: make image")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", SCRIPT, str(folder), port, str(store)],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["host"] == f"ssh://root@127.0.0.1:{port}"
    assert found["same"]
    assert found["live"]
    assert {*found["there"]} - {"vmlinuz"} == {"disk.qcow2", "initrd", "vmlinux"}
    assert found["said"][0].startswith("pushing the image")
    assert found["busy"] == ["vm1"]
    assert found["cpus"] == os.cpu_count()
    assert found["started"] == "booted"
    assert found["owned"] == []
    assert not found["bed"]
    assert found["left"] == []
