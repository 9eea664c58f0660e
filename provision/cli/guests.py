"""Verbs on guests: inventory, ssh, console, logs."""

from __future__ import annotations

import os
import sys
import time

import click

from provision import state as states
from provision.cli.common import existing, json_option, looked_at, name_option, print_json
from provision.errors import UserError


def guest_named(session_guests: dict[str, object], name: str) -> None:
    """Raises UserError with the guests there are."""
    if name not in session_guests:
        raise UserError(
            f"no guest {name!r}; there are: {', '.join(session_guests) or 'none'}",
            hint="provision status",
        )


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
    from provision.session import access_of, guests_of

    spec = existing(name)
    there = guests_of(states.default(), spec.name)
    guest_named(dict(there), guest)
    access = access_of(states.default(), spec)
    words = [*access.host(there[guest]).prefix, *command]
    sys.stdout.flush()
    os.execvp(words[0], words)


@click.command()
@name_option
@click.argument("guest")
def console(name: str | None, guest: str) -> None:
    """Print the end of a guest's serial console."""
    from provision.resources import Guest, key

    spec = existing(name)
    with looked_at(spec) as session:
        there = {r.name: r for r in session.journal.wants().values() if isinstance(r, Guest)}
        guest_named(dict(there), guest)
        click.echo(session.driver.console(key(there[guest])))


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
