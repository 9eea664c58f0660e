"""Keys that we make, as OpenSSH itself reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.access import Access
from provision.errors import HostError
from provision.host import Host
from provision.state import sockets


def test_openssh_reads_our_keys(tmp_path: Path) -> None:
    access = Access(tmp_path / "keys")
    said = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(access.key)] if access.public_key() else [],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert said.split()[:2] == access.public_key().split()[:2]
    assert access.key.stat().st_mode & 0o777 == 0o600
    assert access.folder.stat().st_mode & 0o777 == 0o700


def test_a_key_is_made_once_and_never_half(tmp_path: Path) -> None:
    access = Access(tmp_path)
    first = access.host_key("vm1")
    assert access.host_key("vm1") == first != access.host_key("vm2")
    (tmp_path / "host_vm1").write_text(first[:100])  # as after a power cut
    assert access.host_key("vm1") != first


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(HostError, match="keys"):
        Access(tmp_path / "keys").public_key()


def test_the_way_through_a_host_is_one_shared_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ssh itself understands it: what it would start to get there is put down."""
    hop = tmp_path / "bin/ssh"
    hop.parent.mkdir()
    hop.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/hop\nexit 1\n')
    hop.chmod(0o755)
    monkeypatch.setenv("PATH", str(hop.parent), prepend=":")
    jump = "ssh://root@dom0.example:2222"
    access = Access(tmp_path / "keys", jump=jump, jump_key=tmp_path / "own key")
    words = ["/usr/bin/ssh", *access.options(), "--", "root@198.19.7.10", "true"]
    assert subprocess.run(words, check=False, capture_output=True).returncode == 255
    said = (tmp_path / "hop").read_text().splitlines()
    assert said[-4:] == ["-W", "[198.19.7.10]:22", "--", jump]
    assert f"IdentityFile={tmp_path}/own key" in said
    assert f"ControlPath={sockets()}/%C" in said
    assert "ControlMaster=auto" in said


def test_a_far_machine_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is gone, ssh tells; one that is only slow is waited for."""
    monkeypatch.setattr("provision.host.NEAR_S", 0.2)
    near, far = Host(), Host("far", ("sh", "-c"), far_shell=True)
    with pytest.raises(HostError, match=r"^localhost: sleep 2: no end after 0.2 s$"):
        near.run("sleep", "2")
    assert far.run("sh", "-c", "sleep 0.4; echo done") == "done\n"
    with pytest.raises(HostError, match=r"^far: sleep 2: no end after 0.1 s$"):
        far.run("sleep", "2", timeout_s=0.1)
