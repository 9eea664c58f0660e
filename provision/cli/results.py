"""Verbs on measurements: run and report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provision import state as states
from provision.cli.common import (
    held,
    json_option,
    name_option,
    print_json,
    progress_options,
)
from provision.cli.which import existing
from provision.errors import UserError
from provision.units import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provision.measuring.results import Run
    from provision.presets import Chosen

INVALID = 8


@click.command()
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@name_option
@click.option("--seconds", type=click.IntRange(1), help="The window that is measured.")
@click.option("--ramp", type=click.IntRange(1), help="Seconds of traffic around the window.")
@click.option("--repeat", type=click.IntRange(1), help="Valid samples of each workload.")
@click.option("--within", type=click.FloatRange(0, 100, min_open=True), metavar="PERCENT",
              help="Repeat on until the 95 % interval is within this of the mean.")  # fmt: skip
@click.option("--most", type=click.IntRange(1), help="Repetitions at most, to come within that.")
@click.option("--redo", type=click.IntRange(0), help="Tries more for an invalid sample.")
@click.option("--with-native", is_flag=True,
              help="Measure the bare host in turn with it; the report has the ratio.")  # fmt: skip
@click.option("--preset", metavar="NAME", help="The matrix of a publication, its figures beside "
              "ours: vmware-2007, haproxy-2012, wuerzburg-2011.")  # fmt: skip
@click.option("--scale", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE",
              help="A preset made shorter: 0.05 is a twentieth.")  # fmt: skip
@progress_options
@json_option
def run(
    workloads: tuple[str, ...], name: str | None, events: bool, quiet: bool, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Run WORKLOADs on the testbed: streams started together, each sample with its verdict.

    Without a word, the spec's workloads are run. Exit 8 where a repetition has no valid sample.
    """
    from provision import baseline, running
    from provision.cli.testbed import image_under
    from provision.reporting import document, terminal

    with_native = options.pop("with_native")
    chosen = _preset(options.pop("preset"), options.pop("scale"), workloads)
    meant = running.named(workloads)  # what is wrong with the words is told before all else
    spec = running.asked(existing(name), meant, options, chosen)
    image = image_under(spec)
    kept = f"provision report -n {spec.name}"
    again = f"the same command runs it again; what was measured is kept: {kept}"
    with held(spec, image=image, events=events, quiet=quiet, again=again) as session:
        if with_native:
            with baseline.beside(session) as turns:
                done = running.together(turns.sessions, chosen, turns.turn)[-1]
        else:
            done = running.run(session, chosen)
    if as_json:
        print_json(document([done.folder]))
    else:
        terminal([done.folder])
        click.echo(f"run {done.folder.name}: {done.folder}/report.html")
    if done.invalid:
        have = "repetition has" if done.invalid == 1 else "repetitions have"
        click.echo(f"{done.invalid} {have} no valid sample", err=True)
        sys.exit(INVALID)


def _preset(name: str | None, scale: float | None, workloads: Sequence[str]) -> Chosen | None:
    """The preset at its scale, where one is named."""
    from provision import presets

    if name and workloads:
        raise UserError(f"--preset {name} says what is run, and so do {', '.join(workloads)}")
    if scale and not name:
        raise UserError("--scale shortens a preset, and --preset names none")
    return presets.choose(name, scale or 1.0) if name else None


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("-n", "--name", metavar="NAME", help="Only runs of this testbed.")
@json_option
@click.option("--list", "listing", is_flag=True, help="List the runs there are.")
def report(runs: tuple[str, ...], name: str | None, as_json: bool, listing: bool) -> None:
    """Show what RUNs gave (by default the last one): names, folders, or the beginning of a name.

    Several are shown side by side. Needs no host, only the folders. Exit 8 where nothing was taken.
    """
    from provision.measuring.results import Run
    from provision.measuring.results import runs as kept
    from provision.reporting import document, terminal, write

    there = kept(states.default().runs)
    if name is not None:
        there = [run for run in there if run.testbed == name]
    if listing:
        _list(there, as_json)
        return
    found = [_run(word, there) for word in runs] or there[-1:]
    if not found:
        which = f" of testbed {name!r}" if name else ""
        hint = f"provision run -n {name}" if name else "provision run"
        raise UserError(f"there is no run{which} yet", hint=hint)
    folders = [one.path for one in found]
    places = [folder.resolve() for folder in folders]
    if twice := [f.name for n, f in enumerate(folders) if places[n] in places[:n]]:
        raise UserError(
            f"{twice[0]} is named twice: a run is set beside another, not beside itself",
            hint=f"provision report {twice[0]}, or: provision report --list",
        )
    if as_json:
        print_json(document(folders))
    else:
        terminal(folders)
        click.echo(write(folders))
    if not any(Run(folder).samples() for folder in folders):
        sys.exit(INVALID)


def _list(there: list[Run], as_json: bool) -> None:
    """Each run with how many samples it has, or why it cannot be read."""
    rows = [{"run": run.id, "testbed": run.testbed, "samples": _samples(run)} for run in there]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        click.echo(f"{row['run']}  {row['samples']}")
    if not rows:
        click.echo("no run yet; provision run makes one")


def _samples(run: Run) -> str:
    try:
        samples = run.samples()
    except UserError:
        return "cannot be read"
    invalid = sum(not s.valid for s in samples)
    words = counted(len(samples), "sample") if samples else "no sample"
    return words + (f", {invalid} invalid" if invalid else "")


def _run(word: str, there: list[Run]) -> Run:
    """A run by its folder or by the beginning of its name."""
    from provision.measuring.results import Run

    folder = Path(word)
    hits = [run for run in there if run.id.startswith(word)]
    if folder.is_dir() and not hits:
        found = Run(folder)
        found.head()
        return found
    if len(hits) == 1:
        return hits[0]
    what = "no run begins" if not hits else f"{len(hits)} runs begin"
    raise UserError(f"{what} with {word!r}", hint="provision report --list")
