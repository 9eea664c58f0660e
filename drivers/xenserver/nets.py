"""A pool's networks: whose they are, and what each is called.

Each physical interface (PIF) has one network of its own. Ours is one that bears a note of what it
was like before us, as JSON in its other_config, so that it can be put back without a journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from drivers.xenserver.api import Record
from drivers.xenserver.connect import Session

WAS = "provision.was"


@dataclass(frozen=True, slots=True)
class Was:
    """What a network was before it became a testbed's switch; ``attached`` is its PIF's state."""

    testbed: str
    switch: str
    name_label: str
    name_description: str
    mtu: int
    attached: bool

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Network:
    """``was`` None = it is no testbed's."""

    ref: str
    has: Record
    was: Was | None

    @property
    def names(self) -> tuple[str, ...]:
        """All that a spec may call it."""
        return self.has["name_label"], self.has["bridge"], self.has["uuid"]

    @property
    def mtu(self) -> int:
        return int(self.has["MTU"])


def was(has: Record) -> Was | None:
    """What of the note is as we write it."""
    try:
        data = json.loads(has["other_config"].get(WAS, ""))
        return Was(
            str(data["testbed"]), str(data["switch"]), str(data["name_label"]),
            str(data["name_description"]), int(data["mtu"]), bool(data["attached"]),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class Nets:
    """All raise failures."""

    session: Session
    testbed: str

    def all(self) -> dict[str, Network]:
        """By reference."""
        found = self.session.call("network.get_all_records")
        return {ref: Network(ref, has, was(has)) for ref, has in found.items()}

    def one(self, ref: str) -> Network:
        has = self.session.call("network.get_record", ref)
        return Network(ref, has, was(has))

    def ours(self, network: Network) -> bool:
        return network.was is not None and network.was.testbed == self.testbed

    def named(self, word: str, among: Mapping[str, Network]) -> list[Network]:
        """Those that a spec can mean by this word: a switch of ours by its name, or another."""
        mine = [n for n in among.values() if self.ours(n) and n.was and n.was.switch == word]
        return mine or [n for n in among.values() if n.was is None and word in n.names]
