"""Secrets by reference: where each comes from, and that no message holds one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from provision import secrets
from provision.errors import UserError
from provision.spec.hypervisor import Hypervisor, Secret

SECRET = "hunter2 ünd 'quotes'"


def test_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PASSWORD", SECRET)
    assert secrets.fetch(Secret(env="LAB_PASSWORD")) == SECRET
    monkeypatch.delenv("LAB_PASSWORD")
    with pytest.raises(UserError, match="no LAB_PASSWORD") as caught:
        secrets.fetch(Secret(env="LAB_PASSWORD"))
    assert "export LAB_PASSWORD" in caught.value.hint


def test_the_first_line_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\nanother\n")
    assert secrets.fetch(Secret(file=str(path))) == SECRET
    path.write_text("\n")
    with pytest.raises(UserError, match="first line is empty"):
        secrets.fetch(Secret(file=str(path)))
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="not text"):
        secrets.fetch(Secret(file=str(path)))
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        secrets.fetch(Secret(file=str(path)))


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Encrypted by ansible-vault itself."""
    path, key = tmp_path / "secrets.yml", tmp_path / "key"
    path.write_text(f'vsphere: "{SECRET}"\nnumber: 7\n')
    key.write_text("the vault's own\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(key))
    words = [sys.executable, "-m", "ansible", "vault", "encrypt", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    assert SECRET not in path.read_text()
    return path


def test_a_vault(vault: Path) -> None:
    assert secrets.fetch(Secret(vault=str(vault), key="vsphere")) == SECRET
    for key in ("number", "esx"):
        with pytest.raises(UserError, match=f"no text under '{key}'") as caught:
            secrets.fetch(Secret(vault=str(vault), key=key))
        assert SECRET not in str(caught.value)


def test_a_vault_that_does_not_open(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = vault.with_name("wrong")
    wrong.write_text("not it\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(wrong))
    with pytest.raises(UserError, match=r"secrets\.yml") as caught:
        secrets.fetch(Secret(vault=str(vault), key="vsphere"))
    assert "Decryption failed" in str(caught.value)
    assert "ANSIBLE_VAULT_PASSWORD_FILE" in caught.value.hint


def test_what_the_spec_says_goes_before_the_credential_of_awx(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VMWARE_HOST", "vc.example")
    monkeypatch.setenv("VMWARE_USER", "awx@vsphere.local")
    monkeypatch.setenv("VMWARE_PASSWORD", SECRET)
    monkeypatch.setenv("MINE", "another")
    silent = Hypervisor(type="vsphere")
    assert secrets.uri(silent) == "https://vc.example/"
    login = secrets.login(silent)
    assert login is not None
    assert (login.user, login.password()) == ("awx@vsphere.local", SECRET)
    assert SECRET not in repr(login)
    told = Hypervisor(type="vsphere", uri="https://esx1/", user="root", password=Secret(env="MINE"))
    assert secrets.uri(told) == "https://esx1/"
    login = secrets.login(told)
    assert login is not None
    assert (login.user, login.password()) == ("root", "another")


def test_other_drivers_take_nothing_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMWARE_HOST", "vc.example")
    monkeypatch.setenv("VMWARE_USER", "root")
    assert secrets.uri(Hypervisor(type="kvm")) == ""
    assert secrets.login(Hypervisor(type="kvm")) is None
