"""What a driver can do whatever its host is: what its facts are built from, and the matrix shows.

A word of a spec that is in none of these is honoured on every host that the driver takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provision.driver import NicModel

MODEL, SWITCH, CHECKPOINT = "guests.nic.model", "switch.type", "checkpoint"
MANAGEMENT = "management.bridge"
NICS = "guests.nics_each"
OS = "guests.os"
#: why there are no Windows guests, where a driver says nothing else
NO_WINDOWS = "no seed that a Windows guest reads is made there; Hyper-V's guests may be Windows"
SAME_KERNEL = "its guests run on the host's own kernel"


class Answer(StrEnum):
    """Whether something can be had."""

    YES = "yes"
    NO = "no"
    REBOOT = "needs reboot"


@dataclass(frozen=True, slots=True)
class Can:
    """An answer, and why not, or on what it depends; "" = on nothing."""

    answer: Answer
    words: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """All of a driver that needs no connection to be known.

    ``words`` and ``switches`` are as in ``Facts``. The others are by the spec's dotted path as its
    attributes are named (``guests.nic.rate_mbit``), with the value where one value alone is meant
    (``switch.type=ovs``): ``refused`` says why not, ``reboots`` what restarts the host,
    ``depends`` what the host must have. ``management`` is why guests need an existing network,
    ``checkpoint`` why they cannot be brought back to clean, "" = they can; ``windows`` why they
    cannot be Windows. ``files``: the image's files are all that guests need of it, and no disk.
    ``imagined``: there is no such hypervisor.
    """

    nic_models: Mapping[str, NicModel]
    words: Mapping[str, str]
    switches: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    reboots: Mapping[str, str] = field(default_factory=dict)
    depends: Mapping[str, str] = field(default_factory=dict)
    management: str = ""
    checkpoint: str = ""
    windows: str = NO_WINDOWS
    most_nics: int = 15
    files: bool = False
    imagined: bool = False

    def can(self, path: str, value: str = "") -> Can:
        """Whether a spec's word, or one value of it, can be had."""
        at = f"{path}={value}" if value else path
        if why := self.refused.get(at) or self._lacks(path, value):
            return Can(Answer.NO, why)
        if at in self.reboots:
            return Can(Answer.REBOOT, self.reboots[at])
        return Can(Answer.YES, self.depends.get(at, ""))

    def _lacks(self, path: str, value: str) -> str:
        if path == MODEL and self.words.get(value, value) not in self.nic_models:
            return f"its vNIC models are {', '.join(sorted(self.nic_models))}"
        if path == SWITCH and value not in self.switches:
            have = ", ".join(self.switches) or "none, its guests are on their uplinks"
            return f"its switches are: {have}"
        if path == OS and value == "windows":
            return self.windows
        return {MANAGEMENT: self.management, CHECKPOINT: self.checkpoint}.get(path, "")
