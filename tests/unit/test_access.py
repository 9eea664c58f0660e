"""Keys that we make, as OpenSSH itself reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.access import Access
from provision.errors import HostError
from provision.host import Host


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


def test_a_far_machine_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is gone, ssh tells; one that is only slow is waited for."""
    monkeypatch.setattr("provision.host.NEAR_S", 0.2)
    near, far = Host(), Host("far", ("sh", "-c"), far_shell=True)
    with pytest.raises(HostError, match=r"^localhost: sleep 2: no end after 0.2 s$"):
        near.run("sleep", "2")
    assert far.run("sh", "-c", "sleep 0.4; echo done") == "done\n"
    with pytest.raises(HostError, match=r"^far: sleep 2: no end after 0.1 s$"):
        far.run("sleep", "2", timeout_s=0.1)
