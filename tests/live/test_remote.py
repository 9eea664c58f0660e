"""A real host's road: the hypervisor and the load generator over SSH, uplinks that are there.

Both far machines are this one: an sshd on loopback, and one in a namespace at the cables' far end.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from drivers.linux.script import Script
from drivers.linux.shaping import shape
from provision.host import Host
from tests.live.conftest import Shell
from tests.live.oslevel import killed_while_it_makes

pytestmark = pytest.mark.live
GENERATOR = "pvremote-lg"
HOST = Host()
SPEC = """
name: remote
hypervisor: {type: kvm, uri: "qemu+ssh://root@hv7/system"}
guests: {count: 2, nic: e1000}
uplinks: [pvrup1, pvrup2]
load_generator: {ssh: root@lg7, ports: [pvrlg1, pvrlg2]}
"""
SSHD = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/id.pub
ListenAddress {address}
PidFile {folder}/{name}.pid
UsePAM no
StrictModes no
"""
CONFIG = """
Host *
  IdentityFile {folder}/id
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
Host hv7
  HostName 127.0.0.1
  Port {port}
Host lg7
  HostName 198.19.240.2
"""
PORT = 22022


@pytest.fixture
def far(shell: Shell, as_before: Callable[[], None]) -> Iterator[Shell]:
    """Two machines behind SSH, known to ``ssh`` as hv7 and lg7, and two cables between them."""
    if shutil.which("sshd") is None:
        pytest.skip("sshd is not installed: apt-get install openssh-server")
    folder = shell.folder / "ssh"
    folder.mkdir(mode=0o700)
    with ExitStack() as stack:
        stack.callback(HOST.run, "ip", "netns", "del", GENERATOR)
        HOST.run("ip", "netns", "add", GENERATOR)
        for near, far_end in (("pvrmgmt", "pvrm"), ("pvrup1", "pvrlg1"), ("pvrup2", "pvrlg2")):
            words = ["ip", "link", "add", near, "type", "veth"]
            HOST.run(*words, "peer", "name", far_end, "netns", GENERATOR)
            stack.callback(HOST.run, "ip", "link", "del", near)
            HOST.run("sysctl", "-qw", f"net.ipv6.conf.{near}.disable_ipv6=1")
        HOST.run("ip", "addr", "add", "198.19.240.1/30", "dev", "pvrmgmt")
        HOST.run("ip", "link", "set", "pvrmgmt", "up")
        inside = HOST.inside(GENERATOR)
        inside.run("ip", "addr", "add", "198.19.240.2/30", "dev", "pvrm")
        for nic in ("lo", "pvrm"):
            inside.run("ip", "link", "set", nic, "up")
        _keys(folder)
        Path("/run/sshd").mkdir(exist_ok=True)
        for name, host, address in (
            ("hv7", HOST, f"127.0.0.1:{PORT}"), ("lg7", inside, "198.19.240.2:22"),
        ):  # fmt: skip
            conf = folder / f"{name}.conf"
            conf.write_text(SSHD.format(folder=folder, address=address, name=name))
            sshd = subprocess.Popen(host.argv("/usr/sbin/sshd", "-D", "-f", str(conf)))
            stack.callback(sshd.wait)
            stack.callback(sshd.terminate)
        _wrap(folder, shell)
        for name in ("remote", "remote-native"):
            stack.callback(shell, "down", "-n", name, code=None)
        yield shell


def _keys(folder: Path) -> None:
    for name in ("id", "host"):
        HOST.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    known = [f"[127.0.0.1]:{PORT} {key}", f"198.19.240.2 {key}"]
    (folder / "known_hosts").write_text("\n".join(known) + "\n")
    (folder / "config").write_text(CONFIG.format(folder=folder, port=PORT))


def _wrap(folder: Path, shell: Shell) -> None:
    """Have ``ssh`` read this configuration, for us, for libvirt and for Ansible."""
    (folder / "bin").mkdir()
    wrapper = folder / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/config "$@"\n')
    wrapper.chmod(0o755)
    shell.env["PATH"] = f"{folder / 'bin'}:{shell.env['PATH']}"


def test_the_main_job_over_ssh(far: Shell, as_before: Callable[[], None]) -> None:
    spec = far.folder / "remote.yml"
    spec.write_text(SPEC)
    before = HOST.inside(GENERATOR).json("ip", "-j", "addr")
    built = far.json("up", "-f", str(spec))
    assert {g["started"] for g in built["guests"].values()} <= {"restored", "booted"}
    assert "nothing to change" in far("up", "-f", str(spec)).stdout
    result = far.json("run", "netperf-receive", "-n", "remote", "--seconds", "2", "--repeat", "1",
                      "--redo", "0", code=None)  # fmt: skip
    (subject,) = {str(r["subject"]["nic"]) for r in result["runs"]}
    assert subject == "e1000"
    (sample,) = result["runs"][0]["samples"]
    # this load generator is no machine of its own, so its CPUs may be the limit, and nothing else
    assert all("of the load generator was" in reason for reason in sample["finding"]["reasons"])
    assert set(sample["finding"]["guests_mbit"]) == {"vm1", "vm2"}
    assert far("ssh", "-n", "remote", "vm2", "--", "hostname").stdout == "vm2\n"
    far("reset", "-n", "remote", "--level", "revert")
    far("down", "-n", "remote")
    after = HOST.inside(GENERATOR).json("ip", "-j", "addr")
    drop = {"operstate", "flags", "qdisc"}  # of a NIC that was up once: the kernel keeps its qdisc
    ports = ("pvrlg1", "pvrlg2")
    then, now = (
        [{k: v for k, v in link.items() if k not in drop} for link in links]
        for links in (before, after)
    )
    assert [x for x in now if x["ifname"] in ports] == [x for x in then if x["ifname"] in ports]


@pytest.mark.parametrize("virt", ["namespace", "host"])
def test_the_bare_host_over_ssh(far: Shell, as_before: Callable[[], None], virt: str) -> None:
    """Native: the uplinks themselves carry the guests' addresses, and are as before after that."""
    spec = far.folder / "remote.yml"
    spec.write_text(SPEC.replace("type: kvm", "type: native").replace(
        "qemu+ssh://root@hv7/system", "ssh://root@hv7").replace(", nic: e1000", ""))  # fmt: skip
    HOST.run("ip", "link", "set", "pvrup1", "mtu", "1400")
    before = _settings()
    up = ("up", "-f", str(spec), "--set", f"guests.virt={virt}")
    built = far.json(*up)
    assert {g["started"] for g in built["guests"].values()} == {"native"}
    there = HOST.inside("pv-remote-vm1") if virt == "namespace" else HOST
    (link,) = there.json("ip", "-j", "-4", "addr", "show", "pvrup1")
    assert [a["local"] for a in link["addr_info"]] == ["198.18.1.2"]
    assert far.json(*up)["changed"] == []
    assert far("ssh", "-n", "remote", "vm2", "--", "hostname").stdout == "vm2\n"
    far("down", "-n", "remote")
    assert _settings() == before


def _containers(far: Shell) -> None:
    """Two of them, and cables that are slower than the machine."""
    spec = far.folder / "remote.yml"
    text = SPEC.replace('kvm, uri: "qemu+ssh://root@hv7/system"', "container")
    spec.write_text(text.replace(", nic: e1000", ""))
    script = Script()
    for n in (1, 2):
        shape(script, ((f"pvrup{n}", ""), (f"pvrlg{n}", GENERATOR)), 60)
    script.run(HOST)
    far("up", "-f", str(spec))


def test_the_bare_host_has_the_guests_nics_in_turn(far: Shell) -> None:
    before = _settings()
    _containers(far)
    result = far.json("run", "netperf-send", "-n", "remote", "--seconds", "1", "--ramp", "1",
                      "--repeat", "2", "--redo", "0", "--with-native", code=None)  # fmt: skip
    assert [r["subject"]["hypervisor"] for r in result["runs"]] == ["native", "container"]
    samples = [sample for run in result["runs"] for sample in run["samples"]]
    assert len(samples) == 4
    for sample in samples:
        # as above: its CPUs may be the limit, nothing else
        assert all("of the load generator was" in r for r in sample["finding"]["reasons"])
        rates = sample["finding"]["guests_mbit"]
        assert all(45 < mbit < 63 for mbit in rates.values()), rates
    assert "as asked" in far("verify", "-n", "remote").stdout
    assert far.json("up", "-n", "remote")["changed"] == []
    far("down", "-n", "remote")
    assert _settings() == before


def test_killed_in_the_bare_hosts_turn_the_nics_are_put_back(far: Shell) -> None:
    before = _settings()
    _containers(far)
    words = ("run", "netperf-send", "-n", "remote", "--seconds", "1", "--with-native")
    killed_while_it_makes(far, "guest/vm", *words)
    assert "uplink" in far("status", "-n", "remote", code=7).stdout
    far("down", "-n", "remote-native")
    done = far.json("up", "-n", "remote")
    assert all(line.startswith("~ switch/") for line in done["changed"]) and done["changed"]
    killed_while_it_makes(far, "guest/vm", *words)
    told = far("down", "-n", "remote", code=6).stderr
    assert "has address 198.18.1.2/24" in told
    for name in ("remote-native", "remote"):
        far("down", "-n", name)
    assert _settings() == before


def _settings() -> list[object]:
    """All that is set of the uplinks; a NIC that was up or elsewhere once shows that in these."""
    found: list[object] = []
    moving = ("operstate", "flags", "qdisc", "ifindex")
    for nic in ("pvrup1", "pvrup2"):
        (link,) = HOST.json("ip", "-j", "addr", "show", nic)
        found.append({k: v for k, v in link.items() if k not in moving})
        for word in ("arp_ignore", "arp_announce", "rp_filter"):
            found.append(HOST.read(f"/proc/sys/net/ipv4/conf/{nic}/{word}"))
        found.append(HOST.read(f"/proc/sys/net/ipv6/conf/{nic}/disable_ipv6"))
    return found


def test_an_uplink_that_carries_an_address_is_refused(far: Shell) -> None:
    HOST.run("ip", "addr", "add", "198.51.100.1/24", "dev", "pvrup1")
    spec = far.folder / "remote.yml"
    spec.write_text(SPEC)
    done = far("up", "-f", str(spec), code=4)
    assert "pvrup1" in done.stderr
    assert "198.51.100.1/24" in done.stderr
    assert "no testbed" in far("status").stdout


def test_a_host_that_does_not_let_us_in(far: Shell) -> None:
    spec = far.folder / "remote.yml"
    spec.write_text(SPEC.replace("root@hv7", "nobody@hv7"))
    done = far("up", "-f", str(spec), code=4)
    assert "Permission denied" in done.stderr
    assert "next:" in done.stderr
