"""What the commands share: the options of a spec, the way out for data, errors and progress."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, TypeVar

import click

from provision import state as states
from provision.cli.which import DEFAULT_FILE, stored_spec
from provision.errors import Interrupted, ProvisionError, UserError

if TYPE_CHECKING:
    from provision.image import Image
    from provision.progress import Progress
    from provision.session import Session
    from provision.spec import Spec

F = TypeVar("F", bound=Callable[..., Any])
EXIT_CODES = (
    "Exit codes: 0 done; 1 failed; 2 usage or spec, nothing touched; 3 changes pending "
    "(plan --detailed-exitcode); 4 host unfit or unreachable, nothing touched; 5 in use by "
    "another; 6 partly done, journal kept; 7 not what was asked; 8 workload failed or sample "
    "invalid; 130, 143 interrupted, can go on."
)


def complain(error: ProvisionError) -> int:
    """Tell a person (or, with --json, a program) what went wrong; the exit code."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(str(error), err=True)
    if error.hint:
        click.secho("next:  ", fg="cyan", nl=False, err=True)
        click.echo(error.hint, err=True)
    told(str(error), error.hint, error.exit_code)
    return error.exit_code


def told(error: str, hint: str, exit_code: int) -> None:
    """An error as a document on stdout, where --json asks for one."""
    if "--json" in sys.argv[1:]:
        click.echo(json.dumps({"error": error, "hint": hint, "exit_code": exit_code}))


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(data, indent=2, default=str))


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
name_option = click.option(
    "-n",
    "--name",
    metavar="NAME",
    help="The testbed (default: ./provision.yml's, the only one, or 'lab').",
)


def spec_options(command: F) -> F:
    """The options that say what testbed is meant."""
    options = [
        click.option("-f", "--file", "file", type=click.Path(path_type=Path), metavar="FILE",
                     help="The spec; '-' is stdin (default: ./provision.yml where there is one)."),
        click.option("-n", "--name", metavar="NAME",
                     help="The testbed's name (default: the file's, or 'lab')."),
        click.option("--hv", metavar="TYPE", help="The hypervisor: kvm, …"),
        click.option("--vms", type=int, metavar="N", help="How many guests."),
        click.option("--nic", metavar="MODEL", help="The vNIC: paravirtual, emulated or a model."),
        click.option("--switch", metavar="TYPE", help="bridge, ovs, …"),
        click.option("--rate", metavar="RATE", help="The emulated lab's wire speed: 1gbit."),
        click.option("--set", "sets", multiple=True, metavar="PATH=VALUE",
                     help="Any field of the spec: --set guests.memory=2GiB."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


yes_option = click.option(
    "-y", "--yes", "reboot", is_flag=True, help="The host may be restarted, where the plan says so."
)


def progress_options(command: F) -> F:
    """The options that say how progress is shown."""
    command = click.option("--events", is_flag=True, help="Progress as JSON lines on stdout.")(
        command
    )
    return click.option("-q", "--quiet", is_flag=True, help="No progress.")(command)


FLAGS = {"name": ("name", "--name"), "hv": ("hypervisor.type", "--hv"),
         "vms": ("guests.count", "--vms"), "nic": ("guests.nic.model", "--nic"),
         "switch": ("switch.type", "--switch"), "rate": ("lab.rate", "--rate")}  # fmt: skip


def read_spec(options: dict[str, Any]) -> Spec:
    """The spec that the options mean: a file, else the testbed as it stands, else the defaults.

    Flags and ``--set`` go over it. Raises SpecError with every fault. That it is the testbed's own
    spec is said: flags of an earlier ``up`` are in it.
    """
    from provision.spec import file as specfile

    flags = {
        FLAGS[k][0]: (FLAGS[k][1], v) for k, v in options.items() if k in FLAGS and v is not None
    }
    sets = []
    for text in options["sets"]:
        path, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: should be PATH=VALUE", hint="--set guests.memory=2GiB")
        sets.append((path, value))
    file: Path | None = options["file"]
    if file is not None and str(file) == "-":
        return specfile.loads(sys.stdin.buffer.read(), "stdin", sets, flags)
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    if file is not None:
        return specfile.load(file, sets, flags)
    stands = stored_spec(options["name"] or "lab")
    if stands is not None:
        _note(stands.name, "taking its spec as it stands; flags go over it")
    text = specfile.text(stands) if stands is not None else ""
    return specfile.loads(text, "the testbed as it stands", sets, flags)


def _note(subject: str, words: str) -> None:
    """One line of progress from the command that runs, by its own --events and --quiet."""
    asked = ctx.params if (ctx := click.get_current_context(silent=True)) else {}
    with shown(events=asked.get("events", False), quiet=asked.get("quiet", False)) as progress:
        progress(subject, "note", words)


@contextmanager
def shown(*, events: bool = False, quiet: bool = False) -> Iterator[Progress]:
    """Progress on a live terminal, as JSON lines, or as plain lines."""
    from provision import progress

    dumb = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or "CI" in os.environ
    with ExitStack() as stack:
        if quiet:
            sink: progress.Sink = progress.quiet
        elif events:
            sink = progress.ndjson(sys.stdout)
        elif sys.stderr.isatty() and not dumb:
            sink = stack.enter_context(progress.Live())
        else:
            sink = progress.lines(sys.stderr)
        yield progress.Progress(sink)


@contextmanager
def stoppable(hint: str) -> Iterator[Flag]:
    """A flag that the first Ctrl-C or SIGTERM sets; the second leaves at once.

    Raises Interrupted with the signal's exit code when the work inside did.
    """
    stop = Flag()
    got: list[int] = []

    def first(number: int, _frame: object) -> None:
        if got:
            os._exit(128 + number)
        got.append(number)
        stop.set()
        # not by sys.stderr, in the midst of whose own writing the signal may have come
        os.write(2, b"\nstopping when the calls in flight have ended; again = at once\n")

    before = {n: signal.signal(n, first) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except Interrupted as e:
        raise Interrupted(str(e), hint=hint, signal_number=got[0] if got else 2) from e
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held(
    spec: Spec,
    *,
    image: Image | None = None,
    events: bool = False,
    quiet: bool = False,
    again: str | None = None,
) -> Iterator[Session]:
    """The testbed in hand, leased, with progress shown; for verbs that change it.

    ``again`` is what to do after a Ctrl-C; by default what helps where a change was cut short.
    """
    from provision.journal import lease
    from provision.session import opened

    state = states.default()
    if again is None:
        again = f"provision up -n {spec.name} goes on, provision down -n {spec.name} puts all back"
    with (
        stoppable(again) as stop,
        lease(state.root, spec.name),
        shown(events=events, quiet=quiet) as progress,
        opened(state, spec, image=image, progress=progress, stop=stop) as session,
    ):
        yield session


@contextmanager
def looked_at(spec: Spec, image: Image | None = None) -> Iterator[Session]:
    """The testbed for verbs that only look: no lease."""
    from provision.session import opened

    with opened(states.default(), spec, image=image) as session:
        yield session
