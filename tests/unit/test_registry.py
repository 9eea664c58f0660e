"""How a driver is found, and what is said where it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import provision
from provision import registry
from provision.errors import PreflightError, UserError

ROOT = Path(provision.__file__).parent.parent


def lost(monkeypatch: pytest.MonkeyPatch, target: str) -> PreflightError:
    monkeypatch.setattr(registry, "BUILTIN", {"acme": target})
    with pytest.raises(PreflightError) as e:
        registry.find("acme")
    return e.value


def test_no_such_driver() -> None:
    with pytest.raises(UserError, match=r"no driver 'kvn'; known: container, hyperv, kvm"):
        registry.find("kvn")


def test_a_module_of_ours_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    error = lost(monkeypatch, "drivers.acme.driver:Acme")
    assert str(error) == f"driver 'acme': its module 'drivers.acme' is missing from {ROOT}"
    assert error.hint == "install provision anew"


def test_another_package_of_that_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers" / "__init__.py").write_text("")
    for name in [n for n in sys.modules if n.split(".")[0] == "drivers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        error = lost(monkeypatch, "drivers.acme.driver:Acme")
    finally:
        sys.modules.pop("drivers", None)
    assert str(error).startswith(f"driver 'acme': {tmp_path / 'drivers'} hides provision's own")


def test_a_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "room.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    error = lost(monkeypatch, "room:Acme")
    assert str(error) == "driver 'acme' needs the Python package 'no_such_library'"
    assert error.hint == "pip install 'provision[acme]'"
