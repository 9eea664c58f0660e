"""Which testbed is meant, and what is said where that is not clear."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from provision import state as states
from provision.errors import ProvisionError, UserError

if TYPE_CHECKING:
    from provision.spec import Spec

DEFAULT_FILE = Path("provision.yml")
_NUMBERED = re.compile(r"(\D*)(\d*)")


def stored_spec(name: str) -> Spec | None:
    """The spec of a testbed that exists, from the journal."""
    from provision.journal import Journal
    from provision.spec import restore

    root = states.default().root
    if not (root / "journal.sqlite").exists():
        return None
    journal = Journal(root, name)
    try:
        data = journal.spec()
    finally:
        journal.close()
    return restore(data) if data is not None else None


def existing(name: str | None) -> Spec:
    """The spec of the testbed of that name, else of ./provision.yml's, the only one, or "lab".

    Raises UserError with the names there are.
    """
    there = names()
    only = "lab" if "lab" in there or len(there) != 1 else there[0]
    wanted = name or named_here() or only
    spec = stored_spec(wanted)
    if spec is not None:
        return spec
    if not there:
        raise UserError(
            f"no testbed {wanted!r}{there_are(there)}", hint=f"provision up -n {wanted}"
        )
    if name is None and named_here():
        hint = " or ".join(f"-n {n}" for n in there)
        raise UserError(
            f"no testbed {wanted!r}, which ./{DEFAULT_FILE} is about{there_are(there)}", hint=hint
        )
    hint = f"say which: {' or '.join(f'-n {n}' for n in there)}"
    if name is None:
        raise UserError(f"there are {len(there)} testbeds: {', '.join(there)}", hint=hint)
    raise UserError(f"no testbed {name!r}{there_are(there)}", hint=hint)


def named_here() -> str | None:
    """The name in ./provision.yml; None where there is none, or it is no spec."""
    from provision.spec import file as specfile

    if not DEFAULT_FILE.exists():
        return None
    try:
        return specfile.load(DEFAULT_FILE).name
    except ProvisionError:
        return None


def names() -> list[str]:
    """The testbeds there are."""
    from provision.journal import testbeds

    return [name for name, _, _ in testbeds(states.default().root)]


def there_are(found: Iterable[str]) -> str:
    """What follows the name of one that is not there: all that are, vm2 before vm10."""

    def by_number(name: str) -> list[tuple[str, int]]:
        return [(text, int(digits or 0)) for text, digits in _NUMBERED.findall(name)]

    words = ", ".join(sorted(found, key=by_number))
    return f"; there are: {words}" if words else ", nor any other"
