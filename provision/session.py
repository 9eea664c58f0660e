"""One testbed in hand: its spec, its drivers, its journal, and the way into its guests."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from provision import secrets
from provision.access import Access
from provision.driver import Driver, Target, Tls, look
from provision.engine import Engine, Outcome
from provision.errors import Interrupted, JournalFull, Partial, UserError
from provision.host import Host, hang_up, ssh
from provision.journal import Journal
from provision.plan import Step
from provision.progress import Progress, quiet
from provision.registry import find
from provision.resources import Guest, Key, Resource, label
from provision.state import State, sockets
from provision.testbed import Testbed, expand, namespace_of, tag

if TYPE_CHECKING:
    from provision.image import Image
    from provision.seed import Identity
    from provision.spec import Spec


@dataclass(slots=True)
class Session:
    """Open with ``opened``; everything in it is closed when that ends.

    ``reboot`` says that the hypervisor's host may be restarted.
    """

    state: State
    spec: Spec
    image: Image | None
    journal: Journal
    driver: Driver
    lab: Driver
    access: Access
    load_generator: Host
    progress: Progress
    stop: Flag = field(default_factory=Flag)
    reboot: bool = False

    def route(self, kind: str) -> Driver:
        """The driver that keeps resources of this kind: the hypervisor's, else the lab's."""
        return self.driver if kind in self.driver.facts.kinds else self.lab

    def read(self, key: Key) -> Resource | None:
        return self.route(key[0]).read(key)

    def look(self, keys: Iterable[Key]) -> dict[Key, Resource | None]:
        """Many things as they are now."""
        by_driver: dict[bool, list[Key]] = {}
        for k in keys:
            by_driver.setdefault(self.route(k[0]) is self.driver, []).append(k)
        found: dict[Key, Resource | None] = {}
        for ours, some in by_driver.items():
            found |= look(self.driver if ours else self.lab, some)
        return found

    def engine(self) -> Engine:
        return Engine(self.route, self.journal, self.progress, self.stop)

    def carry_out(self, found: Iterable[Step], after: Mapping[Key, frozenset[Key]]) -> Outcome:
        """As ``Engine.apply``; raises Partial where anything failed."""
        outcome = self.engine().apply(found, after)
        if not outcome.failed:
            return outcome
        lines = [f"{label(k)}: {error}" for k, error in outcome.failed.items()]
        lines += [f"{label(k)}: skipped, it needs {label(n)}" for k, n in outcome.skipped.items()]
        hint = f"mend it and run up again, or: provision down -n {self.spec.name}"
        full = [e.hint for e in outcome.failed.values() if isinstance(e, JournalFull)]
        first = next(iter(outcome.failed.values()))
        raise Partial("\n".join(lines), hint=full[0] if full else hint) from first

    def go_on(self, so_far: str) -> None:
        """Raises Interrupted, which says how far things are, where we were asked to stop."""
        if self.stop.is_set():
            raise Interrupted(f"stopped: {so_far}")

    def testbed(self) -> Testbed:
        """What the spec means here; raises as ``testbed.expand`` does."""
        if self.image is not None:
            image = self.image.digest
        else:
            facts = self.driver.facts
            image = "" if facts.simulated or facts.bare else self.spec.guests.image
        return expand(self.spec, self.driver.facts, image)


def access_of(state: State, spec: Spec) -> Access:
    """The way into the spec's guests: through the hypervisor's host where it has the only one."""
    parts = urlsplit(spec.hypervisor.uri)
    far = parts.netloc and parts.scheme.endswith("ssh") and spec.management.bridge is None
    key = parse_qs(parts.query).get("keyfile") if far else None
    return Access(
        state.folder(spec.name) / "keys", spec.guests.login,
        jump=f"ssh://{parts.netloc}" if far else "", jump_key=Path(key[0]) if key else None,
    )  # fmt: skip


def tls(spec: Spec) -> Tls:
    """How the hypervisor's server has to prove itself."""
    asked = spec.hypervisor.tls
    ca = Path(asked.ca) if asked.ca else None
    cert, key = (Path(p) if p else None for p in (asked.client_cert, asked.client_key))
    return Tls(ca, asked.fingerprint or "", asked.verify, cert, key)


def guests_of(state: State, testbed: str) -> dict[str, Guest]:
    """The guests that the journal says there are, by name."""
    journal = Journal(state.root, testbed)
    try:
        return {r.name: r for r in journal.wants().values() if isinstance(r, Guest)}
    finally:
        journal.close()


def load_generator(spec: Spec, namespace: str) -> Host:
    """The machine that load comes from: over SSH, or a namespace of this one."""
    if spec.load_generator is not None:
        return ssh(spec.load_generator.ssh, control=sockets())
    return Host().inside(namespace)


@contextmanager
def opened(
    state: State,
    spec: Spec,
    *,
    image: Image | None = None,
    progress: Progress | None = None,
    stop: Flag | None = None,
) -> Iterator[Session]:
    """A session on the spec's hypervisor; connects, and changes nothing.

    Raises Unreachable where a host does not answer, PreflightError where it is not fit.
    """
    progress = progress or Progress(quiet)
    if not spec.uplinks and (remote := urlsplit(spec.hypervisor.uri).netloc):
        raise UserError(
            f"hypervisor.uri: the emulated lab is built on this machine, not on {remote}",
            hint="name its uplinks and a load_generator: provision init",
        )
    access = access_of(state, spec)
    namespace = namespace_of(spec.name)
    target = Target(
        testbed=spec.name,
        folder=state.folder(spec.name),
        uri=secrets.uri(spec.hypervisor),
        tag=tag(spec.name),
        login=secrets.login(spec.hypervisor),
        auth=spec.hypervisor.auth or "",
        tls=tls(spec),
        host=spec.hypervisor.host or "",
        storage=spec.hypervisor.storage or "",
        pool=spec.hypervisor.pool or "",
        ssh=spec.hypervisor.ssh or "",
        image=image,
        identity=lambda guest: identity(access, guest),
        start=spec.guests.start,
        accel=spec.hypervisor.accel,
        say=lambda key, phase: progress(label(key), "phase", phase),
    )
    lg_host = load_generator(spec, namespace)
    driver = find(spec.hypervisor.type)(target)
    try:
        lab = driver if "port" in driver.facts.kinds else _lab(spec, lg_host, namespace)
        journal = Journal(state.root, spec.name)
        try:
            yield Session(
                state, spec, image, journal, driver, lab, access, lg_host, progress,
                stop or Flag(),
            )  # fmt: skip
        finally:
            journal.close()
    finally:
        driver.close()


def _lab(spec: Spec, lg_host: Host, namespace: str) -> Driver:
    from drivers.lab.driver import Lab

    if spec.load_generator is not None:
        return Lab(lg_host, spec.name, None)
    return Lab(Host(), spec.name, namespace)


def identity(access: Access, guest: Guest) -> Identity:
    """Who the guest is, keys included; for a driver's put, never for the journal."""
    from provision.seed import identity as of

    return of(guest, access.public_key(), access.host_key(guest.name), access.user)


def forget(session: Session) -> None:
    """Remove what is left of the testbed on this machine: keys, consoles, its journal rows."""
    session.access.hang_up(r for r in session.journal.wants().values() if isinstance(r, Guest))
    hang_up(session.load_generator)
    session.journal.close_testbed()
    shutil.rmtree(session.state.folder(session.spec.name), ignore_errors=True)
