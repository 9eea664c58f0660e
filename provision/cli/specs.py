"""Verbs on the spec: init, validate, schema, and completion for shells."""

from __future__ import annotations

from errno import ENOSPC
from pathlib import Path
from typing import Any

import click

from provision.cli.common import json_option, print_json, read_spec, spec_options
from provision.errors import UserError
from provision.state import whole
from provision.units import counted


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("provision.yml"))
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init(file: Path, force: bool) -> None:
    """Write a spec with every field at its default and explained."""
    from provision.spec.file import template

    if str(file) == "-":
        click.echo(template(), nl=False)
        return
    if file.is_file() and not force:
        raise UserError(f"{file} exists", hint=f"provision init --force {file}")
    try:
        if file.exists() and not file.is_file():
            file.write_text(template(), "utf-8")  # a terminal, a pipe
        else:
            whole(file, template())
    except OSError as e:
        hint = f"df -h {file.parent}: free some" if e.errno == ENOSPC else "provision init FILE"
        raise UserError(f"{file}: {e.strerror}", hint=hint) from e
    click.echo(f"wrote {file}; next: provision validate -f {file}")


@click.command()
@spec_options
@json_option
def validate(as_json: bool, **options: Any) -> None:
    """Check a spec without touching any host; every fault is shown with its place."""
    from provision.spec import describe

    spec = read_spec(options)
    if as_json:
        print_json(describe(spec))
    else:
        guests = counted(spec.guests.count, "guest")
        click.echo(f"{spec.name}: {guests} on {spec.hypervisor.type}: sound")


@click.command()
def schema() -> None:
    """Print the JSON schema of the spec, for editors."""
    from provision.spec import schema as of

    print_json(of())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell: source <(provision completion bash)."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(ctx.find_root().command, {}, "provision", "_PROVISION_COMPLETE").source())
