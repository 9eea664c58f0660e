"""The bare host beside a testbed, so that both are measured in turn: ``run --with-native``.

The baseline is a testbed of its own (``NAME-native``), which comes up before the run and goes after
it. In the emulated lab it has a second set of cables. On a real host it has the NICs that the spec
names beyond what its guests need or, where there are none, the guests' own in turn with them: each
switch lets go of its uplink, and the host has it, under the guest's address, until it is plugged
back. Nothing is restarted for that, neither guests nor netservers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event as Flag
from typing import Any
from urllib.parse import urlsplit

from provision import inventory, verbs
from provision.driver import Seated
from provision.errors import Mismatch, PreflightError, Unsupported
from provision.journal import lease
from provision.resources import Guest, Resource, Switch, key
from provision.session import Session, opened
from provision.spec import Spec, describe, restore
from provision.verify import mismatches

NAME_MAX = 21
SUFFIX = "-native"
#: hypervisors whose host, but for the guests, is the bare one; under Xen it is a guest itself
BARE = ("container", "kvm")
_KEPT = ("count", "name", "nics_each", "vcpus", "memory_mib", "ready_s")
_KEPT_CPU = ("pin", "weight", "cap_percent")
NICS = "uplinks"  # the subject of progress
_FLUSH = 'for port; do ip neigh flush dev "$port"; done'


@dataclass(slots=True)
class Turns:
    """Who has the NICs; ``switches`` are the guests' as asked, () where each side has its own."""

    guests: Session
    switches: tuple[Switch, ...] = ()
    native: Session | None = None
    bare: tuple[Guest, ...] = ()
    lent: bool = False

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The bare host's first, as reports have it."""
        return (self.native, self.guests) if self.native is not None else (self.guests,)

    def turn(self, session: Session) -> None:
        """See that this testbed has the NICs, and the other one nothing of them."""
        if not self.switches or self.lent == (session is not self.guests):
            return
        if self.lent:
            self.give_back()
        else:
            self.lend()

    def lend(self) -> None:
        """The switches let go of their uplinks, and the bare host's guests, if made, have them."""
        self.lent = True
        self.guests.progress(NICS, "start", "the bare host's turn")
        _put(self.guests, (replace(switch, uplink=None) for switch in self.switches))
        if self.native is not None:
            _put(self.native, self.bare)
        self._forget()
        self.guests.progress(NICS, "done", "the bare host's turn")

    def give_back(self) -> None:
        """As it was before ``lend``."""
        self.guests.progress(NICS, "start", "the guests' turn")
        if self.native is not None:
            _put(self.native, (replace(guest, nics=()) for guest in self.bare))
        _put(self.guests, self.switches)
        self._forget()
        self.lent = False
        self.guests.progress(NICS, "done", "the guests' turn")

    def _forget(self) -> None:
        """The same addresses are another's now: the load generator has to ask anew."""
        ports = [link.port for link in inventory.links_of(self.guests.journal)]
        self.guests.load_generator.run("sh", "-c", _FLUSH, "flush", *ports)


def _put(session: Session, wants: Iterable[Resource]) -> None:
    """And read it back. The journal goes on saying what was asked: it is what ``up`` puts back."""
    for want in wants:
        session.driver.put(want)
        if wrong := mismatches([want], {key(want): session.read(key(want))}):
            raise Mismatch("\n".join(wrong), hint=f"provision up -n {session.spec.name}")


@contextmanager
def beside(session: Session) -> Iterator[Turns]:
    """The baseline in hand, up and verified; it is gone when this ends, whatever happened.

    The guests have their NICs back then. Raises Unsupported where the host is never bare,
    PreflightError where it can have no NICs.
    """
    spec = of(session.spec)
    if session.spec.hypervisor.type not in BARE or not isinstance(session.driver, Seated):
        raise Unsupported(
            f"--with-native: the host of {session.spec.hypervisor.type} cannot be measured bare "
            f"beside it; that of {' or '.join(BARE)} can",
            hint="boot that machine without its hypervisor, and: provision up --hv native",
        )
    turns = Turns(session, _to_lend(session, spec))
    with lease(session.state.root, spec.name):
        try:
            if turns.switches:
                turns.lend()
            with _up(session, spec, turns):
                yield turns
        finally:
            session.stop = Flag()  # a Ctrl-C must not keep the NICs from being given back
            if turns.lent:
                turns.native = None
                turns.give_back()


@contextmanager
def _up(session: Session, spec: Spec, turns: Turns) -> Iterator[None]:
    with opened(session.state, spec, progress=session.progress, stop=session.stop) as native:
        try:
            turns.bare = verbs.up(native).testbed.guests
            turns.native = native
            yield
        finally:
            native.stop = Flag()  # nor the host from being put back
            verbs.down(native)


def _to_lend(session: Session, spec: Spec) -> tuple[Switch, ...]:
    """The switches whose uplinks the bare host gets in turn; raises as ``beside`` does."""
    if not spec.uplinks or spec.uplinks != session.spec.uplinks[: spec.guests.links]:
        return ()
    wants = session.journal.wants().values()
    found = tuple(w for w in wants if isinstance(w, Switch) and w.uplink is not None)
    if len(found) < spec.guests.links:
        raise PreflightError(
            f"--with-native: the guests have their {spec.guests.links} NICs as hardware of their "
            f"own, not by turns; uplinks has {len(session.spec.uplinks)}",
            hint=f"name {2 * spec.guests.links} uplinks and ports, or measure one after the other: "
            "provision down, then up --hv native, run, and: provision report RUN RUN",
        )
    return found


def of(spec: Spec) -> Spec:
    """The same testbed without the hypervisor; pure.

    Its links and subnets are its own, or both the guests' where the spec names too few for both.
    Raises PreflightError where there is no subnet left.
    """
    data, links = describe(spec), spec.guests.links
    shares = bool(spec.uplinks) and len(spec.uplinks) < 2 * links
    parts = urlsplit(spec.hypervisor.uri)
    guests = {k: data["guests"][k] for k in _KEPT}
    guests["cpu"] = {k: data["guests"]["cpu"][k] for k in _KEPT_CPU}
    told: dict[str, Any] = {
        "name": f"{spec.name[: NAME_MAX - len(SUFFIX)]}{SUFFIX}",
        "hypervisor": {"type": "native", "uri": f"ssh://{parts.netloc}" if parts.netloc else ""},
        "guests": guests,
        "switch": {"mtu": spec.switch.mtu},
        "lab": data["lab"],
        "network": data["network"] | ({} if shares else {"subnet": _other_half(spec)}),
        "overcommit": True,  # the guests of both are there, and one of them rests
        "run": data["run"],
    }
    if spec.uplinks:
        its = slice(0, links) if shares else slice(links, 2 * links)
        told["uplinks"] = data["uplinks"][its]
        generator = data["load_generator"]
        told["load_generator"] = generator | {"ports": generator["ports"][its]}
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
