"""The same workload on the bare host, in containers and in VMs, in one campaign: ``make compare``.

Three testbeds of the emulated lab stand side by side and are measured in turn; the table has each
one's ratio to the bare host with its 95 % interval. What it made is gone when it ends.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from threading import Event as Flag

from provision import image, running, state, verbs
from provision.errors import ProvisionError
from provision.journal import lease
from provision.progress import Progress, lines
from provision.reporting import terminal
from provision.session import Session, opened
from provision.spec.file import loads

SYSTEMS = ("native", "container", "kvm")
SPEC = """
name: compare-{system}
hypervisor: {system}
guests: {{count: {guests}, memory: 512MiB}}
lab: {{rate: {rate}}}
run: {{workloads: [{workloads}], duration: {seconds}s, repeat: {repeat}}}
overcommit: true
"""


def main() -> int:
    asked = _asked()
    with ExitStack() as stack:
        sessions = [_up(stack, system, asked) for system in SYSTEMS]
        done = running.together(sessions)
    terminal([done[-1].folder])
    print(f"page: {done[-1].folder / 'report.html'}")
    return 8 if any(one.invalid for one in done) else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--rate", default="null", help="the cables' speed; null = no limit")
    parser.add_argument("--workloads", default="netperf-send, netperf-receive, netperf-rr")
    return parser.parse_args()


def _up(stack: ExitStack, system: str, asked: argparse.Namespace) -> Session:
    """The testbed, verified; it goes when the stack ends, whatever happened."""
    spec, where = loads(SPEC.format(system=system, **vars(asked)), "compare"), state.default()
    disk = None if system == "native" else image.find(where.images)
    stack.enter_context(lease(where.root, spec.name))
    progress = Progress(lines(sys.stderr))
    session = stack.enter_context(opened(where, spec, image=disk, progress=progress))
    stack.callback(_down, session)
    verbs.up(session)
    return session


def _down(session: Session) -> None:
    session.stop = Flag()
    verbs.down(session)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProvisionError as e:
        print(f"error: {e}\nnext:  {e.hint}", file=sys.stderr)
        sys.exit(e.exit_code)
