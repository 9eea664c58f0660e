"""What a user may ask for: a testbed, and what is run on it.

In YAML a quantity's field has the plain name (``memory: 1GiB``); in Python its name has the unit
(``memory_mib``). ``provision.spec.file`` reads a spec from text and tells every fault in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from provision.spec import checks as speccheck
from provision.spec.faults import faults_error
from provision.spec.hypervisor import Hypervisor
from provision.spec.section import Section
from provision.spec.sections import (
    Dom0,
    Guests,
    Lab,
    LoadGenerator,
    Management,
    Network,
    Run,
    Switches,
)
from provision.spec.types import Name, NicAddress


class Spec(Section):
    """A testbed and what is run on it."""

    name: Name = Field(
        default="lab", description="The testbed's name; all that is made on a host bears it."
    )
    hypervisor: Hypervisor = Field(default=Hypervisor(), description="Where the guests run.")
    guests: Guests = Field(default=Guests(), description="The guests, all alike.")
    switch: Switches = Field(
        default=Switches(), description="The switch that each guest has of its own."
    )
    uplinks: tuple[NicAddress, ...] = Field(
        default=(),
        description="The host's NICs, by name, PCI address or MAC: the first is guest 1's own "
        "(with `guests.nics_each`, the first few), and so on. None makes an emulated lab.",
    )
    overcommit: bool = Field(
        default=False,
        description="Whether guests may together want more CPUs and memory than the host has; the "
        "ratios are in every result. An emulated lab may always want more CPUs.",
    )
    lab: Lab = Field(default=Lab(), description="The emulated lab; only without uplinks.")
    load_generator: LoadGenerator | None = Field(
        default=None, description="The machine at the uplinks' far ends; only with uplinks."
    )
    network: Network = Field(default=Network(), description="Addresses and ports of the links.")
    management: Management = Field(default=Management(), description="How the guests are reached.")
    dom0: Dom0 = Field(default=Dom0(), description="What the host keeps for itself.")
    run: Run = Field(default=Run(), description="What is measured.")

    @model_validator(mode="after")
    def _together(self) -> Spec:
        if faults := list(speccheck.faults(self)):
            raise faults_error(faults)
        return self


def describe(spec: Spec) -> dict[str, Any]:
    """As plain data for JSON, under the names with units; ``restore`` gives an equal spec."""
    return spec.model_dump(mode="json")


def restore(data: Mapping[str, Any]) -> Spec:
    """Back from ``describe``; raises pydantic's ValidationError on anything else."""
    return Spec.model_validate(data)


def schema() -> dict[str, Any]:
    """The JSON schema of the YAML file, for editors."""
    found = Spec.model_json_schema(mode="validation")
    # a section's default would be told under the names that Python has
    for section in (found, *found["$defs"].values()):
        for field in section.get("properties", {}).values():
            if "$ref" in field:
                del field["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found
