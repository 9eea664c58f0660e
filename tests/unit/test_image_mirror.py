"""Where Debian's packages come from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provision import image_mirror
from provision.errors import PreflightError, UserError

M = "http://mirror.example/debian/"
S = "http://mirror.example/debian-security/"


def target(uri: str, suite: str, component: str = "main", origin: str = "Debian") -> str:
    return f"{uri}\t{suite}\t{component}\t{origin}\tPackages"


def test_the_guests_release_is_taken_from_the_machines_mirror() -> None:
    targets = [
        target(S, "trixie-security", origin="Debian"),
        target(M, "trixie-updates"),
        target(M, "trixie"),
        target(M, "trixie", "contrib"),
        f"{M}\ttrixie\tmain\tDebian\tTranslations",
    ]
    assert image_mirror.sources(targets) == [
        f"deb {M} bookworm main non-free",
        f"deb {M} bookworm-updates main non-free",
        f"deb {S} bookworm-security main non-free",
    ]


def test_without_package_lists_the_suites_name_is_enough() -> None:
    assert image_mirror.sources([target(M, "stable", origin="")]) == [
        f"deb {M} bookworm main non-free"
    ]


@pytest.mark.parametrize(
    "line",
    [
        target("http://x.example/ubuntu/", "noble", origin="Ubuntu"),
        target("http://x.example/ubuntu/", "noble", origin=""),
        target("https://x.example/linux/debian/", "bookworm", "stable", origin="Docker"),
        target("https://x.example/repo/", "nodistro", origin=""),
        target("http://x.example/pgdg/", "bookworm-pgdg", origin=""),
        target(S, "bookworm-security"),
        "",
    ],
)
def test_what_is_no_archive_of_debian_is_passed_over(line: str) -> None:
    assert image_mirror.sources([line]) == []


def test_a_mirror_list_becomes_its_first_mirror(tmp_path: Path) -> None:
    listing = tmp_path / "debian.list"
    listing.write_text(f"# mirrors\n\n{M} priority:1\nhttp://other.example/\n")
    assert image_mirror.sources([target(f"mirror+file:{listing}", "bookworm")]) == [
        f"deb {M} bookworm main non-free"
    ]
    listing.unlink()
    with pytest.raises(PreflightError) as e:
        image_mirror.sources([target(f"mirror+file://{listing}", "bookworm")])
    assert "--mirror" in e.value.hint


def test_proxies_and_certificates_go_along() -> None:
    dump = """\
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::CaInfo "/etc/ssl/own.pem";
Acquire::http::Proxy::direct.example "DIRECT";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
Acquire::IndexTargets::deb::Packages::MetaKey "$(COMPONENT)/Packages";
Acquire::Languages:: "none";
Acquire::https::Verify-Peer "";
"""
    assert image_mirror.acquire(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::CaInfo "/etc/ssl/own.pem";',
        'Acquire::http::Proxy::direct.example "DIRECT";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Retries "3";',
    ]


def fake_apt(folder: Path, monkeypatch: pytest.MonkeyPatch, targets: str) -> None:
    for name, words in {"apt-get": targets, "apt-config": 'Acquire::Retries "2";'}.items():
        tool = folder / name
        tool.write_text(f"#!/bin/sh\ncat <<'E'\n{words}\nE\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_machines_own_configuration_or_the_users_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_apt(tmp_path, monkeypatch, target(M, "bookworm"))
    found = image_mirror.find()
    assert found.sources == (f"deb {M} bookworm main non-free",)
    assert found.apt_options == ('Acquire::Retries "2";',)
    given = image_mirror.find("https://own.example/debian")
    assert given.sources == ("deb https://own.example/debian bookworm main non-free",)


@pytest.mark.parametrize("url", ["", "mirror.example", "http://a b/", "http://a/ [trusted=yes]"])
def test_what_is_no_url_is_the_users_mistake(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_apt(tmp_path, monkeypatch, target(M, "bookworm"))
    with pytest.raises(UserError, match="no URL"):
        image_mirror.find(url)


def test_a_machine_without_a_mirror_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_apt(tmp_path, monkeypatch, target("http://x.example/ubuntu/", "noble", origin="Ubuntu"))
    with pytest.raises(PreflightError, match="no mirror") as e:
        image_mirror.find()
    assert "--mirror URL" in e.value.hint
