"""Verbs on measurements: run and report."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from provision import state as states
from provision.cli.common import (
    existing,
    held,
    json_option,
    name_option,
    print_json,
    progress_options,
)
from provision.errors import UserError

INVALID = 8


@click.command()
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@name_option
@click.option("--seconds", type=click.IntRange(1), help="The window that is measured.")
@click.option("--ramp", type=click.IntRange(1), help="Seconds of traffic around the window.")
@click.option("--repeat", type=click.IntRange(1), help="Valid samples of each workload.")
@click.option("--redo", type=click.IntRange(0), help="Tries more for an invalid sample.")
@progress_options
@json_option
def run(
    workloads: tuple[str, ...], name: str | None, events: bool, quiet: bool, as_json: bool,
    **options: int | None,
) -> None:  # fmt: skip
    """Run WORKLOADs on the testbed: streams started together, each sample with its verdict.

    Without a word, the spec's workloads are run. Exit 8 where a repetition has no valid sample.
    """
    from provision import running
    from provision.cli.testbed import image_under
    from provision.reporting import document, terminal

    spec = running.asked(existing(name), workloads, options)
    image = image_under(spec)
    again = f"provision run -n {spec.name} runs it again; what was measured is kept"
    with held(spec, image=image, events=events, quiet=quiet, again=again) as session:
        done = running.run(session)
    if as_json:
        print_json(document([done.folder]))
    else:
        terminal([done.folder])
        click.echo(f"run {done.folder.name}: {done.folder}/report.html")
    if done.invalid:
        click.echo(f"{done.invalid} repetitions have no valid sample", err=True)
        sys.exit(INVALID)


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@json_option
@click.option("--list", "listing", is_flag=True, help="List the runs there are.")
def report(runs: tuple[str, ...], as_json: bool, listing: bool) -> None:
    """Show what RUNs gave (by default the last one): names, folders, or the beginning of a name.

    Several are shown side by side. Needs no host, only the folders.
    """
    from provision.reporting import document, terminal, write

    there = sorted(p for p in states.default().runs.glob("*/") if (p / "results.jsonl").exists())
    if listing:
        for folder in there:
            click.echo(folder.name)
        return
    folders = [_folder(word, there) for word in runs] or there[-1:]
    if not folders:
        raise UserError("there is no run yet", hint="provision run")
    if as_json:
        print_json(document(folders))
        return
    terminal(folders)
    click.echo(write(folders))


def _folder(word: str, there: list[Path]) -> Path:
    """A run by its folder or by the beginning of its name."""
    if (Path(word) / "results.jsonl").exists():
        return Path(word)
    hits = [p for p in there if p.name.startswith(word)]
    if len(hits) == 1:
        return hits[0]
    what = "no run" if not hits else f"{len(hits)} runs"
    raise UserError(f"{what} begin with {word!r}", hint="provision report --list")
