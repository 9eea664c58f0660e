"""Which drivers there are, and how one is found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from provision.driver import DriverType
from provision.errors import PreflightError, UserError

GROUP = "provision.drivers"
IMAGINED = "fake"  # it makes nothing: for tests, and not offered to people
#: built in, so that a bare checkout needs no install
BUILTIN: Mapping[str, str] = {
    "container": "drivers.container.driver:Container",
    "fake": "drivers.fake:Fake",
    "hyperv": "drivers.hyperv.driver:Hyperv",
    "kvm": "drivers.kvm.driver:Kvm",
    "native": "drivers.native.driver:Native",
    "openvz": "drivers.openvz.driver:Openvz",
    "virtualbox": "drivers.virtualbox.driver:Virtualbox",
    "vsphere": "drivers.vsphere.driver:Vsphere",
    "xen": "drivers.xen.driver:Xen",
    "xenserver": "drivers.xenserver.driver:XenServer",
}


def known() -> list[str]:
    """The names of all drivers that can be found, but for the one that makes nothing."""
    every = {*BUILTIN, *(e.name for e in metadata.entry_points(group=GROUP))}
    return sorted(every - {IMAGINED})


def find(name: str) -> DriverType:
    """The driver of that name: built in first, then other distributions' entry points."""
    target = BUILTIN.get(name)
    if target is None:
        for entry in metadata.entry_points(group=GROUP, name=name):
            return cast(DriverType, entry.load())
        raise UserError(f"no driver {name!r}; known: {', '.join(known())}")
    module, _, attribute = target.partition(":")
    try:
        return cast(DriverType, getattr(import_module(module), attribute))
    except ModuleNotFoundError as e:
        if e.name and e.name.split(".")[0] not in ("drivers", "provision"):
            raise PreflightError(
                f"driver {name!r} needs the Python package {e.name!r}",
                hint=f"pip install 'provision[{name}]'",
            ) from e
        raise _lost(name, e.name or module) from e


def _lost(driver: str, module: str) -> PreflightError:
    """A module of our own is not found: another package has its name, or it is gone."""
    ours, spec = Path(__file__).parent.parent / "drivers", find_spec("drivers")
    there = [Path(p).resolve() for p in (spec and spec.submodule_search_locations) or ()]
    if there and ours.resolve() not in there:
        return PreflightError(
            f"driver {driver!r}: {there[0]} hides provision's own 'drivers' package",
            hint="start it from another folder, or mend PYTHONPATH",
        )
    return PreflightError(
        f"driver {driver!r}: its module {module!r} is missing from {ours.parent}",
        hint="install provision anew",
    )
