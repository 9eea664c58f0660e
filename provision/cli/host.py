"""Verbs on hosts: doctor, image, lab, gc."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from provision import state as states
from provision.cli.common import (
    held,
    json_option,
    name_option,
    print_json,
    progress_options,
    read_spec,
    shown,
    spec_options,
)
from provision.cli.which import existing
from provision.errors import UserError
from provision.units import counted


@click.command()
@spec_options
@json_option
@click.option("--matrix", is_flag=True, help="What can be had where, of all drivers or --hv's.")
@click.option("--markdown", is_flag=True, help="The matrix as a page.")
def doctor(as_json: bool, matrix: bool, markdown: bool, **options: Any) -> None:
    """Say what this machine and the hypervisor's host have, what they lack, and the mend.

    With --matrix, say what every driver can do, without any host.
    """
    from provision import doctor as look

    if markdown and not matrix:
        raise click.UsageError("--markdown goes with --matrix")
    if matrix:
        _matrix(options["hv"], as_json=as_json, markdown=markdown)
        return
    spec, state = read_spec(options), states.default()
    found = [*look.controller(state, spec), *look.hypervisor(state, spec)]
    if as_json:
        print_json([asdict(f) for f in found])
    else:
        for finding in found:
            mark = click.style("ok  ", fg="green") if finding.ok else click.style("--  ", fg="red")
            click.echo(f"{mark}{finding.what:<22} {finding.detail}")
            if finding.fix and not finding.ok:
                click.echo(f"{'':<26} fix: {finding.fix}")
    if any(f.needed and not f.ok for f in found):
        sys.exit(4)


def _matrix(hv: str | None, *, as_json: bool, markdown: bool) -> None:
    from provision import matrix

    found = matrix.matrix([hv] if hv else None)
    if as_json:
        print_json(matrix.plain(found))
    elif markdown:
        click.echo(matrix.page(found), nl=False)
    else:
        for line in matrix.terminal(found):
            click.echo(line)


@click.group()
def image() -> None:
    """Build, list and remove guest images."""


@image.command("build")
@progress_options
@json_option
@click.option("--mirror", metavar="URL", help="Debian's mirror (default: this machine's own).")
@click.option("--force", is_flag=True, help="Build even where it is built already.")
@click.option("--files", is_flag=True, help="For containers alone: no disk, nothing of QEMU's.")
def image_build(
    events: bool, quiet: bool, as_json: bool, mirror: str | None, force: bool, files: bool
) -> None:
    """Build the Debian 12 guest image, unless one of the same recipe is there."""
    from provision import image as images

    with shown(events=events, quiet=quiet) as progress:
        progress("image", "start")
        found = images.build(
            states.default().images,
            lambda phase: progress("image", "phase", phase),
            mirror=mirror,
            force=force,
            files=files,
        )
        progress("image", "done", str(found.folder))
    if as_json:
        print_json({"digest": found.digest, "folder": str(found.folder), "info": dict(found.info)})
    else:
        click.echo(found.folder)


@image.command("list")
@json_option
def image_list(as_json: bool) -> None:
    """List the images that are built, whole."""
    from provision import image as images

    found = images.listing(states.default().images)
    if as_json:
        print_json([{"digest": i.digest, "info": dict(i.info)} for i in found])
        return
    for each in found:
        words = ", ".join(f"{k} {v}" for k, v in each.info.items())
        click.echo(f"{each.digest[:16]}  {words}")


@image.command("rm")
@click.argument("digest")
def image_rm(digest: str) -> None:
    """Remove an image, by its digest or the beginning of it."""
    from provision import image as images

    store = states.default().images
    hits = [i for i in images.listing(store) if i.digest.startswith(digest)]
    if len(hits) != 1:
        what = f"{len(hits)} images begin" if hits else "no image begins"
        raise UserError(f"{what} with {digest!r}", hint="provision image list")
    images.remove(store, hits[0].digest)
    click.echo(f"removed {hits[0].digest[:16]}")


@click.group()
def lab() -> None:
    """The emulated lab alone: load generator, cables and addresses, without guests."""


@lab.command("up")
@spec_options
@progress_options
def lab_up(events: bool, quiet: bool, **options: Any) -> None:
    """Build the load generator's namespace and a cable for each guest to come."""
    from provision import verbs
    from provision.resources import label

    spec = read_spec(options)
    if spec.uplinks:
        raise UserError("the spec names uplinks: there is no lab to emulate", hint="provision up")
    with held(spec, events=events, quiet=quiet) as session:
        for step in verbs.lab_up(session):
            click.echo(f"{step.sign} {label(step.key)}")


@lab.command("status")
@name_option
@click.pass_context
def lab_status(ctx: click.Context, name: str | None) -> None:
    """Show each part of the lab: as asked, different, or gone."""
    from provision.cli.testbed import status

    ctx.invoke(status, name=name, as_json=False)


@lab.command("down")
@name_option
@click.pass_context
def lab_down(ctx: click.Context, name: str | None) -> None:
    """Undo the lab; refused while guests are cabled to it."""
    from provision.cli.testbed import down
    from provision.session import guests_of

    spec = existing(name)
    if guests := guests_of(states.default(), spec.name):
        raise UserError(
            f"guests are cabled to this lab: {', '.join(guests)}",
            hint=f"provision down -n {spec.name}",
        )
    ctx.invoke(down, name=spec.name, events=False, quiet=False, as_json=False)


@click.command()
@spec_options
@json_option
@click.option("-y", "--yes", is_flag=True, help="Remove them.")
def gc(as_json: bool, yes: bool, **options: Any) -> None:
    """List what bears the testbed's mark on the host and stands in no journal; --yes removes it."""
    from provision.resources import label
    from provision.standing import remove, strays

    spec = read_spec(options)
    with held(spec, quiet=True) as session:
        found = strays(session)
        if yes:
            remove(session, found)
    names = [label(k) for k in found]
    if as_json:
        print_json({"testbed": spec.name, "strays": names, "removed": yes})
        return
    for name in names:
        click.echo(f"{'removed ' if yes else ''}{name}")
    if not names:
        click.echo(f"{spec.name}: no strays")
    elif not yes:
        click.echo(f"{counted(len(names), 'stray')}; --yes removes them", err=True)
