"""The bare host beside a testbed, so that both are measured in turn: ``run --with-native``.

The baseline is a testbed of its own (``NAME-native``) on cables or NICs of its own, since those of
the testbed are its switches': in the emulated lab a second set of cables, on a real host the NICs
that the spec names beyond what its guests need. It comes up before the run and goes after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event as Flag
from typing import Any
from urllib.parse import urlsplit

from provision import verbs
from provision.driver import Seated
from provision.errors import PreflightError, Unsupported
from provision.journal import lease
from provision.session import Session, opened
from provision.spec import Spec, describe, restore

NAME_MAX = 21
SUFFIX = "-native"
#: hypervisors whose host, but for the guests, is the bare one; under Xen it is a guest itself
BARE = ("container", "kvm")
_KEPT = ("count", "name", "nics_each", "vcpus", "memory_mib", "ready_s")
_KEPT_CPU = ("pin", "weight", "cap_percent")


@contextmanager
def beside(session: Session) -> Iterator[Session]:
    """The baseline in hand, up and verified; it is gone when this ends, whatever happened.

    Raises Unsupported where the host is never bare, PreflightError where it lacks NICs for it.
    """
    spec = of(session.spec)
    if session.spec.hypervisor.type not in BARE or not isinstance(session.driver, Seated):
        raise Unsupported(
            f"--with-native: the host of {session.spec.hypervisor.type} cannot be measured bare "
            f"beside it; that of {' or '.join(BARE)} can",
            hint="boot that machine without its hypervisor, and: provision up --hv native",
        )
    with (
        lease(session.state.root, spec.name),
        opened(session.state, spec, progress=session.progress, stop=session.stop) as native,
    ):
        try:
            verbs.up(native)
            yield native
        finally:
            native.stop = Flag()  # a Ctrl-C must not keep the host from being put back
            verbs.down(native)


def of(spec: Spec) -> Spec:
    """The same testbed without the hypervisor, on links and subnets of its own; pure.

    Raises PreflightError where the spec names too few uplinks for both.
    """
    data, links = describe(spec), spec.guests.links
    parts = urlsplit(spec.hypervisor.uri)
    guests = {k: data["guests"][k] for k in _KEPT}
    guests["cpu"] = {k: data["guests"]["cpu"][k] for k in _KEPT_CPU}
    told: dict[str, Any] = {
        "name": f"{spec.name[: NAME_MAX - len(SUFFIX)]}{SUFFIX}",
        "hypervisor": {"type": "native", "uri": f"ssh://{parts.netloc}" if parts.netloc else ""},
        "guests": guests,
        "switch": {"mtu": spec.switch.mtu},
        "lab": data["lab"],
        "network": data["network"] | {"subnet": _other_half(spec)},
        "overcommit": True,  # the guests of both are there, and one of them rests
        "run": data["run"],
    }
    if spec.uplinks:
        if len(spec.uplinks) < 2 * links:
            raise PreflightError(
                f"--with-native: the bare host needs {links} NICs beside those of the guests; "
                f"uplinks has {len(spec.uplinks)}",
                hint=f"name {2 * links} uplinks and ports, or measure in turn: "
                "provision down, then up --hv native, run, and: provision report RUN RUN",
            )
        told["uplinks"] = data["uplinks"][links : 2 * links]
        generator = data["load_generator"]
        told["load_generator"] = generator | {"ports": generator["ports"][links : 2 * links]}
    return restore(told)


def _other_half(spec: Spec) -> str:
    """Of the links' subnets, those that the testbed itself has not."""
    halves = list(spec.network.subnet.subnets(prefixlen_diff=1))
    if spec.network.prefix <= halves[1].prefixlen or spec.guests.links > _room(spec):
        raise PreflightError(
            f"--with-native: {spec.network.subnet} has no subnets for two sets of links",
            hint="network.subnet: a larger one",
        )
    return str(halves[1])


def _room(spec: Spec) -> int:
    return int(2 ** (spec.network.prefix - spec.network.subnet.prefixlen - 1)) - 1
