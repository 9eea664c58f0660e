"""Who a guest is: a document that needs no quoting, and a seed that cloud-init reads as well."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pycdlib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision import seed
from provision.errors import UserError
from provision.image_recipe import GUEST
from provision.resources import Guest, Vnic
from provision.seed import Identity, Nic

HOST_KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE=\nQyNTUxOQ==\n"
    "-----END OPENSSH PRIVATE KEY-----\n"
)
NICS = (
    Nic("52:54:00:00:00:01", "mgmt", "10.0.0.2/24"),
    Nic("52:54:00:00:00:02", "link1", "198.18.0.2/30", 9000),
)
VM1 = Identity("vm1", "0123456789abcdef" * 2, "ssh-ed25519 AAAA a b", HOST_KEY, NICS,
               seed=bytes(range(64)))  # fmt: skip


def test_the_document() -> None:
    assert seed.document(VM1, clock_s=1700000000.25) == (
        "provision-identity 1\n"
        "hostname vm1\n"
        "machine-id 0123456789abcdef0123456789abcdef\n"
        "clock 1700000000.250000\n"
        "authorized-key ssh-ed25519 AAAA a b\n"
        "host-key -----BEGIN OPENSSH PRIVATE KEY-----\n"
        "host-key b3BlbnNzaC1rZXktdjE=\n"
        "host-key QyNTUxOQ==\n"
        "host-key -----END OPENSSH PRIVATE KEY-----\n"
        f"seed {bytes(range(64)).hex()}\n"
        "nic 52:54:00:00:00:01 mgmt 10.0.0.2/24 1500\n"
        "nic 52:54:00:00:00:02 link1 198.18.0.2/30 9000\n"
        "end\n"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostname": ""}, "host name"),
        ({"hostname": "vm-"}, "host name"),
        ({"hostname": "vm1\nmachine-id 0"}, "host name"),
        ({"hostname": "a" * 64}, "host name"),
        ({"hostname": "vm1.example"}, "host name"),
        ({"machine_id": "0" * 32}, "machine id"),
        ({"machine_id": "xyz"}, "machine id"),
        ({"authorized_key": "ssh-ed25519 AAAA\nseed 00"}, "authorized key"),
        ({"authorized_key": ""}, "authorized key"),
        ({"host_key": "-----BEGIN RSA PRIVATE KEY-----\n"}, "host key"),
        ({"host_key": HOST_KEY.replace("==", "$(id)")}, "host key"),
        ({"user": "Root; id"}, "user"),
        ({"seed": b"short"}, "32 bytes"),
        ({"nics": (Nic("52:54:00:00:00:0g", "x", "10.0.0.2/24"),)}, "MAC"),
        ({"nics": (Nic("52:54:00:00:00:AA", "x", "10.0.0.2/24"),)}, "lower case"),
        ({"nics": (Nic(NICS[0].mac, "a b", "10.0.0.2/24"),)}, "not a name"),
        ({"nics": (Nic(NICS[0].mac, "a" * 16, "10.0.0.2/24"),)}, "not a name"),
        ({"nics": (Nic(NICS[0].mac, "x", "10.0.0.2"),)}, "prefix"),
        ({"nics": (Nic(NICS[0].mac, "x", "10.0.0.2/255.255.255.0"),)}, "prefix"),
        ({"nics": (Nic(NICS[0].mac, "x", "fe80::1/64"),)}, "IPv4"),
        ({"nics": (Nic(NICS[0].mac, "x", "10.0.0.2/24", 20),)}, "MTU"),
    ],
)
def test_what_would_need_quoting_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(VM1, **change)


def test_secrets_are_not_shown() -> None:
    assert "b3BlbnNz" not in repr(VM1) and "seed" not in repr(VM1)


@given(st.text(max_size=70))
def test_any_host_name_is_refused_or_kept_as_it_is(name: str) -> None:
    try:
        document = seed.document(dataclasses.replace(VM1, hostname=name))
    except UserError:
        return
    assert document.splitlines()[1] == f"hostname {name}"
    assert len(document.splitlines()) == len(seed.document(VM1).splitlines())


def test_a_guest_of_a_testbed() -> None:
    management = Vnic("m", "virtio", NICS[0].mac, NICS[0].address)
    link = Vnic("s", "e1000", NICS[1].mac, NICS[1].address, 9000)
    guest = Guest("vm1", 1, 512, "", management, (link,), "tcg")
    who = seed.identity(guest, VM1.authorized_key, HOST_KEY, "debian")
    assert (who.hostname, who.nics, who.user) == ("vm1", NICS, "debian")
    again = seed.identity(guest, VM1.authorized_key, HOST_KEY)
    assert again.machine_id == who.machine_id and again.seed != who.seed
    other = dataclasses.replace(guest, management=link)
    assert seed.identity(other, VM1.authorized_key, HOST_KEY).machine_id != who.machine_id


def test_cloud_inits_files() -> None:
    files = seed.nocloud(VM1)
    assert files["user-data"].startswith("#cloud-config\n")
    user = json.loads(files["user-data"].partition("\n")[2])
    assert user["ssh_keys"] == {"ed25519_private": HOST_KEY}
    assert user["users"] == [{"name": "root", "ssh_authorized_keys": [VM1.authorized_key]}]
    network = json.loads(files["network-config"])["ethernets"]
    assert network["link1"]["match"] == {"macaddress": NICS[1].mac}
    assert (network["link1"]["addresses"], network["link1"]["mtu"]) == (["198.18.0.2/30"], 9000)
    assert json.loads(files["meta-data"])["local-hostname"] == "vm1"
    debian = json.loads(
        seed.nocloud(dataclasses.replace(VM1, user="debian"))["user-data"].partition("\n")[2]
    )
    assert [u["name"] for u in debian["users"]] == ["debian", "root"]
    assert debian["users"][0]["sudo"]


def test_one_disk_for_both(tmp_path: Path) -> None:
    data = seed.iso(VM1)
    assert data.startswith(b"provision-identity 1\nhostname vm1\n")
    area = data[: seed.SYSTEM_AREA].rstrip(b"\0").decode()
    assert area.endswith("\nend\n")
    (tmp_path / "seed.iso").write_bytes(data)
    if shutil.which("blkid"):
        told = subprocess.run(
            ["blkid", "-p", "-o", "export", tmp_path / "seed.iso"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "LABEL=cidata" in told and "TYPE=iso9660" in told
    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(data))
    for name, text in seed.nocloud(VM1).items():
        for path in ({"rr_path": f"/{name}"}, {"joliet_path": f"/{name}"}):
            out = io.BytesIO()
            disc.get_file_from_iso_fp(out, **path)
            assert out.getvalue().decode() == text


class Root:
    """A folder that the guest's own scripts take for their root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("etc/ssh", "etc/provision", "root/.ssh", "proc/sys/kernel", "run"):
            (folder / name).mkdir(parents=True)
        (folder / "etc/machine-id").write_text("f" * 32 + "\n")
        scripts = folder / "usr/lib/provision"
        scripts.mkdir(parents=True)
        for name in ("wake", "nics"):
            (scripts / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{folder}/called\n')
            (scripts / name).chmod(0o755)
        text = (GUEST / "root/usr/lib/provision/identify").read_text()
        for place in ("/etc/", "/root/", "/proc/", "/run/", "/usr/lib/provision/"):
            text = text.replace(f" {place}", f" {folder}{place}")
            text = text.replace(f">{place}", f">{folder}{place}")
            text = text.replace(f"<{place}", f"<{folder}{place}")
            text = text.replace(f'"{place}', f'"{folder}{place}')
            text = text.replace(f"\n{place}", f"\n{folder}{place}")
        self.script = scripts / "identify"
        self.script.write_text(text)

    def run(self, mode: str, document: str) -> subprocess.CompletedProcess[str]:
        shell = shutil.which("dash") or "sh"
        return subprocess.run(
            [shell, str(self.script), mode], input=document, capture_output=True, text=True,
            check=False, env=os.environ,
        )  # fmt: skip

    def state(self) -> dict[str, bytes]:
        return {
            str(p.relative_to(self.folder)): p.read_bytes()
            for p in sorted(self.folder.rglob("*"))
            if p.is_file()
        }


@pytest.mark.parametrize("mode", ["boot", "live"])
def test_the_guests_own_script_takes_the_document(mode: str, tmp_path: Path) -> None:
    root = Root(tmp_path)
    (tmp_path / "run/log/journal" / ("f" * 32)).mkdir(parents=True)
    done = root.run(mode, seed.document(VM1, clock_s=1700000000.25))
    assert (done.returncode, done.stderr) == (0, "")
    state = root.state()
    assert state["etc/ssh/ssh_host_ed25519_key"].decode() == HOST_KEY
    assert (tmp_path / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert state["root/.ssh/authorized_keys"].decode() == VM1.authorized_key + "\n"
    assert state["etc/hostname"] == b"vm1\n"
    assert state["etc/machine-id"].decode() == VM1.machine_id + "\n"
    assert state["etc/provision/nics"].decode().splitlines()[1] == (
        "52:54:00:00:00:02 link1 198.18.0.2/30 9000"
    )
    called = state["called"].decode().splitlines()
    clock = "1700000000.250000" if mode == "live" else ""
    assert called[0] == f"wake {clock} {VM1.seed.hex()}"
    assert called[1:] == (["nics"] if mode == "live" else [])
    moved = tmp_path / "run/log/journal" / VM1.machine_id
    assert moved.exists() == (mode == "live")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(min_value=0, max_value=len(seed.document(VM1)) - 5))
def test_a_document_that_is_cut_short_changes_nothing(cut: int, tmp_path: Path) -> None:
    folder = tmp_path / str(cut)
    if folder.exists():
        return
    root = Root(folder)
    before = root.state()
    assert root.run("live", seed.document(VM1)[:cut]).returncode == 65
    assert root.state() == before


def test_a_word_that_the_guest_does_not_know_changes_nothing(tmp_path: Path) -> None:
    root = Root(tmp_path)
    before = root.state()
    done = root.run("live", seed.document(VM1).replace("hostname", "command"))
    assert done.returncode == 65 and "command" in done.stderr
    assert root.state() == before
