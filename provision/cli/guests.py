"""Verbs on guests: inventory, ssh, console, logs."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from provision import state as states
from provision.cli.common import (
    json_option,
    looked_at,
    name_option,
    print_json,
)
from provision.cli.which import existing, there_are
from provision.errors import Mismatch, UserError

if TYPE_CHECKING:
    from provision.resources import Guest
    from provision.spec import Spec


def guest_named(spec: Spec, name: str) -> Guest:
    """The guest of that name, as the journal has it.

    Raises UserError with those there are, Mismatch where the spec has it and ``up`` never began it.
    """
    from provision.session import guests_of

    there = guests_of(states.default(), spec.name)
    if name in there:
        return there[name]
    if name in [f"{spec.guests.name}{n}" for n in range(1, spec.guests.count + 1)]:
        raise _absent(spec, name)
    raise UserError(f"no guest {name!r}{there_are(there)}", hint="provision status")


def _absent(spec: Spec, name: str) -> Mismatch:
    return Mismatch(f"guest {name} was never made, or is gone", hint=f"provision up -n {spec.name}")


def made(spec: Spec, guest: Guest) -> None:
    """Raises Mismatch for a guest whose making was cut short, and that is not there."""
    from provision.journal import Journal
    from provision.resources import key

    journal = Journal(states.default().root, spec.name)
    unfinished = journal.unfinished()
    journal.close()
    if key(guest) not in unfinished:
        return
    with looked_at(spec) as session:
        if session.read(key(guest)) is None:
            raise _absent(spec, guest.name)


@click.command()
@name_option
@click.option("--list", "listing", is_flag=True, help="All hosts and groups (the default).")
@click.option("--host", metavar="HOST", help="The variables of one host.")
def inventory(name: str | None, listing: bool, host: str | None) -> None:
    """Print Ansible's inventory of the testbed, as its inventory scripts do."""
    from provision.inventory import build, host_variables, script

    if listing and host:
        raise click.UsageError("--list and --host exclude each other")
    found = build(states.default(), existing(name))
    print_json(host_variables(found, host) if host else script(found))


@click.command(context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("guest")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str | None, guest: str, command: tuple[str, ...]) -> None:
    """Log in to GUEST, or have its shell run COMMAND as ssh does: ssh vm1 -- uname -r."""
    from provision.session import access_of

    spec = existing(name)
    found = guest_named(spec, guest)
    made(spec, found)
    access = access_of(states.default(), spec)
    words = [*access.host(found).prefix, *command]
    sys.stdout.flush()
    os.execvp(words[0], words)


@click.command()
@name_option
@click.argument("guest")
def console(name: str | None, guest: str) -> None:
    """Print the end of a guest's serial console."""
    from provision.resources import key

    spec = existing(name)
    found = guest_named(spec, guest)
    with looked_at(spec) as session:
        said = session.driver.console(key(found))
        started = session.driver.evidence(key(found)).get("started", "")
    if said.strip():
        click.echo(said)
        return
    why = ": it was restored, not booted" if started == "restored" else ""
    click.echo(f"{guest}: nothing was written to its console{why}", err=True)


@click.command()
@name_option
@json_option
def logs(name: str | None, as_json: bool) -> None:
    """Show what was done and when: each thing's last step in the journal."""
    from provision.journal import Journal

    spec = existing(name)
    journal = Journal(states.default().root, spec.name)
    rows = journal.history()
    journal.close()
    if as_json:
        print_json([{"at": at, "thing": thing, "state": state} for at, thing, state in rows])
        return
    for at, thing, state in rows:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        click.echo(f"{when}  {thing:<24} {state}")
