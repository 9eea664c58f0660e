"""GRUB's options for Xen: ours on top of the host's own, and gone without a trace. Real shell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drivers.dom0.grub import PREFIX, Grub
from provision.errors import HostError, PreflightError
from provision.host import Host

#: what update-grub would put into the menu: both variables, as grub-mkconfig reads them
UPDATE = """#!/bin/sh
cd "{root}/etc/default"
. ./grub
for f in grub.d/*.cfg; do [ ! -e "$f" ] || . "./$f"; done
echo "$GRUB_CMDLINE_XEN $GRUB_CMDLINE_XEN_DEFAULT" > "{root}/menu"
"""
OWN = 'GRUB_CMDLINE_XEN="dom0_mem=2G,max:2G loglvl=all"\n'
MORE = 'GRUB_CMDLINE_XEN_DEFAULT="dom0_vcpus_pin sched=credit"\n'
BEFORE = {"dom0_mem": "2G,max:2G", "dom0_vcpus_pin": "true"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/update-grub"
    tool.write_text(UPDATE.format(root=tmp_path))
    tool.chmod(0o755)
    folder = tmp_path / "etc/default/grub.d"
    folder.mkdir(parents=True)
    (folder.parent / "grub").write_text(OWN)
    (folder / "xen.cfg").write_text(MORE)
    return Host("xs1", ("env", f"PATH={tmp_path}/bin:{os.environ['PATH']}"))


def menu(folder: Path) -> set[str]:
    return set((folder / "menu").read_text().split())


def test_options_are_ours_then_the_hosts_own_again(host: Host, tmp_path: Path) -> None:
    grub, folder = Grub(host, "demo", str(tmp_path)), tmp_path / "etc/default/grub.d"
    assert grub.why_not() == ""
    assert grub.base() == grub.configured() == BEFORE
    want = {"dom0_max_vcpus": "1", "dom0_mem": "1G,max:1G"}
    for _ in range(2):
        grub.configure(want)
        assert grub.configured() == want
        assert grub.base() == BEFORE
        assert menu(tmp_path) == {
            "dom0_max_vcpus=1", "dom0_mem=1G,max:1G", "loglvl=all", "sched=credit",
        }  # fmt: skip
    grub.configure(BEFORE)
    assert grub.configured() == BEFORE
    assert [p.name for p in folder.iterdir()] == ["xen.cfg"]
    assert menu(tmp_path) == {"dom0_mem=2G,max:2G", "loglvl=all", "dom0_vcpus_pin", "sched=credit"}


def test_a_flag_that_is_switched_off_is_as_none(host: Host, tmp_path: Path) -> None:
    (tmp_path / "etc/default/grub").write_text('GRUB_CMDLINE_XEN="no-dom0_vcpus_pin ucode=scan"\n')
    (tmp_path / "etc/default/grub.d/xen.cfg").unlink()
    grub = Grub(host, "demo", str(tmp_path))
    assert grub.base() == {}
    grub.configure({"dom0_vcpus_pin": "true"})
    assert menu(tmp_path) == {"dom0_vcpus_pin", "ucode=scan"}


def test_what_another_testbed_has_set_is_left_to_it(host: Host, tmp_path: Path) -> None:
    Grub(host, "first", str(tmp_path)).configure({"dom0_max_vcpus": "1"})
    before = menu(tmp_path)
    with pytest.raises(PreflightError, match="testbed first's") as caught:
        Grub(host, "second", str(tmp_path)).configure({"dom0_max_vcpus": "2"})
    assert caught.value.hint == "provision down -n first"
    assert menu(tmp_path) == before


def test_without_update_grub_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    shell = tmp_path / "bin"
    shell.mkdir()
    for tool in ("sh", "cat", "sed", "mkdir", "rm", "mv"):
        (shell / tool).symlink_to(f"/bin/{tool}")
    bare = Host("xs1", ("env", f"PATH={shell}"))
    grub = Grub(bare, "demo", str(tmp_path))
    assert "update-grub" in grub.why_not()
    with pytest.raises(PreflightError, match="update-grub"):
        grub.configure({"dom0_max_vcpus": "1"})
    assert not list((tmp_path / "etc/default").rglob(f"{PREFIX}*"))


def test_no_folder_of_grubs_is_said(host: Host, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"etc/default"):
        Grub(host, "demo", str(tmp_path / "elsewhere")).base()
