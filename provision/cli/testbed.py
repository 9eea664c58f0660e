"""Verbs on the testbed: up, plan, verify, status, reset, down."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provision import state as states
from provision.cli.common import (
    held,
    json_option,
    looked_at,
    name_option,
    print_json,
    progress_options,
    read_spec,
    shown,
    spec_options,
    yes_option,
)
from provision.cli.which import existing, names, there_are
from provision.errors import Mismatch, PreflightError, UserError

if TYPE_CHECKING:
    from provision.image import Image
    from provision.resources import Guest
    from provision.spec import Spec


def image_for(
    spec: Spec, *, build: bool, events: bool = False, quiet: bool = False
) -> Image | None:
    """The guests' golden image; built where it is ours, is not there and ``build`` says so.

    None where the hypervisor's guests are cloned from a template of its own.
    """
    from provision import image
    from provision.registry import find

    state = states.default()
    if "/" in spec.guests.image:
        return image.from_file(Path(spec.guests.image))
    driver = find(spec.hypervisor.type)
    if not driver.takes_image:
        return None
    if spec.guests.image != image.NAME:
        raise UserError(
            f"guests.image: no image {spec.guests.image!r}; there is {image.NAME!r}, or a path",
            hint="provision image list",
        )
    files = driver.capabilities.files
    found = image.find(state.images, files=files)
    if found is not None:
        return found
    if not build:
        raise PreflightError(
            f"the guest image {image.NAME!r} is not built", hint="provision image build"
        )
    with looked_at(spec) as session:
        session.testbed()  # what the hypervisor refuses is told before minutes go by
    with shown(events=events, quiet=quiet) as progress:
        progress("image", "start")
        found = image.build(
            state.images, lambda phase: progress("image", "phase", phase), files=files
        )
        progress("image", "done", str(found.folder))
    return found


def image_under(spec: Spec) -> Image | None:
    """The image that the testbed's guests stand on, which may be older than today's recipe."""
    from provision import image
    from provision.session import guests_of

    state = states.default()
    for guest in guests_of(state, spec.name).values():
        if guest.image and (found := image.find(state.images, guest.image)):
            return found
    return image_for(spec, build=False)


AS_ASKED = "as asked"


@click.command()
@spec_options
@yes_option
@progress_options
@json_option
def up(events: bool, quiet: bool, as_json: bool, reboot: bool, **options: Any) -> None:
    """Make the testbed as the spec says, and prove that it is so.

    Without a file and without uplinks an emulated lab is built on this machine. Run again, it
    changes what differs and nothing else; each guest is reached over its link every time. Without
    a file, the testbed's own spec is taken as it stands; flags go over it, and are kept.
    """
    from provision import resetting, verbs

    spec = read_spec(options)
    image = image_for(spec, build=True, events=events, quiet=quiet)
    with held(spec, image=image, events=events, quiet=quiet) as session:
        session.reboot = reboot
        built = verbs.up(session)
        resetting.keep_clean(session, built.testbed)
    if as_json:
        print_json(
            {
                "testbed": spec.name,
                "changed": [f"{s.sign} {s.key[0]}/{s.key[1]}" for s in built.changed],
                "guests": built.facts,
                "took_s": round(built.took_s, 2),
            }
        )
        return
    for line in guest_table(built.testbed.guests, built.facts):
        click.echo(line)
    done = "up" if built.changed else "nothing to change, up"
    click.echo(f"{spec.name}: {done} and verified in {built.took_s:.1f} s")


def guest_table(guests: tuple[Guest, ...], facts: dict[str, dict[str, Any]]) -> list[str]:
    """One line a vNIC: where its guest is, what it is, and what proved it."""
    lines = [f"{'GUEST':<8} {'MANAGEMENT':<15} {'vNIC':<9} {'ADDRESS':<15} {'SWITCH':<12} STARTED"]
    for guest in guests:
        seen = facts.get(guest.name, {})
        started = f"{seen.get('started', '?')} ({seen.get('accel', guest.accel)})"
        for nic in guest.nics:
            lines.append(
                f"{guest.name:<8} {guest.management.address.split('/')[0]:<15} {nic.model:<9} "
                f"{nic.address.split('/')[0]:<15} {nic.switch:<12} {started}"
            )
    return lines


@click.command()
@spec_options
@json_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit 3 where something would change.")
def plan(as_json: bool, detailed_exitcode: bool, **options: Any) -> None:
    """Show what `up` would change, field by field, and how disturbing each change is."""
    from provision import verbs
    from provision.plan import render
    from provision.resources import dump

    spec = read_spec(options)
    image = image_for(spec, build=False)
    with looked_at(spec, image) as session:
        _, found = verbs.plan(session)
    if as_json:
        print_json(
            [
                {"step": s.sign, "kind": s.key[0], "name": s.key[1], "fields": s.fields,
                 "change": s.change, "reason": s.reason, "have": dump(s.have), "want": dump(s.want)}
                for s in found
            ]
        )  # fmt: skip
    else:
        for line in render(found):
            click.echo(line)
        click.echo(f"{len(found)} to change" if found else "nothing to change")
    if found and detailed_exitcode:
        sys.exit(3)


@click.command()
@name_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def verify(name: str | None, as_json: bool, quiet: bool) -> None:
    """Read all back, from the hypervisor and from inside the guests; exit 7 if it differs."""
    from provision.proving import verify as prove

    spec = existing(name)
    with held(spec, image=image_under(spec), quiet=quiet, again="") as session:
        testbed = session.testbed()
        facts = prove(session, testbed)
    if as_json:
        print_json(facts)
        return
    for line in guest_table(testbed.guests, facts):
        click.echo(line)
    click.echo(f"{spec.name}: as asked")


@click.command()
@name_option
@json_option
def status(name: str | None, as_json: bool) -> None:
    """Show each thing of the testbed: as asked, different, or gone; exit 7 if not all is as asked.

    The guests' inside is not looked at: that is `verify`. Without a testbed, list them all.
    """
    from provision.journal import testbeds
    from provision.resources import dump, label
    from provision.standing import state_of

    root = states.default().root
    there = testbeds(root)
    if name is None and len(there) != 1:
        rows = [{"testbed": n, "hypervisor": hv, "since": since} for n, hv, since in there]
        if as_json:
            print_json(rows)
        for n, hv, since in () if as_json else there:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
            click.echo(f"{n:<20} {hv:<10} since {when}")
        if not there and not as_json:
            click.echo("no testbed; provision up --hv kvm --vms 4 makes one")
        return
    spec = existing(name)
    with looked_at(spec, _image_known(spec)) as session:
        found = state_of(session)
    rows = [
        {"thing": label(s.key), "state": s.words or AS_ASKED, "have": dump(s.have)} for s in found
    ]
    good = sum(row["state"] == AS_ASKED for row in rows)
    if as_json:
        print_json({"testbed": spec.name, "things": rows})
    else:
        for row in rows:
            click.echo(f"{row['thing']:<24} {row['state']}")
        click.echo(f"{spec.name} on {spec.hypervisor.type}: {good} of {len(rows)} as asked")
    if good < len(rows):
        click.secho("next:  ", fg="cyan", nl=False, err=True)
        click.echo(f"provision up -n {spec.name}, or provision down -n {spec.name}", err=True)
        sys.exit(Mismatch.exit_code)


def _image_known(spec: Spec) -> Image | None:
    """The image that the guests stand on; None where it is gone: the journal is seen then."""
    try:
        return image_under(spec)
    except (PreflightError, UserError):
        return None


@click.command()
@name_option
@progress_options
@json_option
@click.option(
    "--level",
    type=click.Choice(["process", "revert", "recreate"]),
    default="revert",
    help="End our processes; go back to the clean checkpoint; make the guests anew.",
)
def reset(name: str | None, events: bool, quiet: bool, as_json: bool, level: str) -> None:
    """Bring the guests back to clean, at the level asked, and verify them."""
    from provision import resetting

    spec = existing(name)
    began = time.monotonic()
    image = image_under(spec)
    again = f"provision reset --level {level} -n {spec.name}"
    with held(spec, image=image, events=events, quiet=quiet, again=again) as session:
        resetting.reset(session, level)
    took_s = round(time.monotonic() - began, 2)
    if as_json:
        print_json({"testbed": spec.name, "level": level, "took_s": took_s})
    else:
        click.echo(f"{spec.name}: clean again ({level}, {took_s:.1f} s)")


@click.command()
@name_option
@yes_option
@progress_options
@json_option
def down(name: str | None, events: bool, quiet: bool, as_json: bool, reboot: bool) -> None:
    """Put the host back exactly as it was: guests, disks, switches, lab and tuning.

    Where there is no such testbed, that is so already.
    """
    from provision import verbs

    there = names()
    if not there or (name is not None and name not in there):
        if as_json:
            print_json({"testbed": name, "undone": []})
        else:
            which = f"no testbed {name!r}{there_are(there)}" if name else "no testbed"
            click.echo(f"{which}; nothing to do")
        return
    spec = existing(name)
    began = time.monotonic()
    again = f"provision down -n {spec.name} goes on"
    with held(spec, events=events, quiet=quiet, again=again) as session:
        session.reboot = reboot
        outcome = verbs.down(session)
    took_s = round(time.monotonic() - began, 2)
    if as_json:
        undone = [f"{kind}/{n}" for kind, n in outcome.done]
        print_json({"testbed": spec.name, "undone": undone, "took_s": took_s})
    else:
        click.echo(f"{spec.name}: gone, the host is as before ({took_s:.1f} s)")
