"""Ansible's inventory plugin for testbeds that ``provision up`` has made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

try:
    from ansible.template import trust_as_template
except ImportError:  # before 2.19 every string was trusted

    def trust_as_template(value: str) -> str:
        return value


DOCUMENTATION = r"""
name: provision
short_description: The guests and the load generator of a testbed
description:
  - Shows what C(provision inventory --list) shows, with groups of one's own beside it.
  - >-
    The group C(guests) has one host a guest, the group C(loadgenerators) has the load generator.
  - >-
    The command is searched on the PATH, then beside the Python that runs Ansible. A testbed that
    is not up is an error, never an empty inventory.
  - The source's name ends in C(provision.yml) or C(provision.yaml).
extends_documentation_fragment: constructed
options:
  plugin:
    description: Says that the file is meant for this plugin.
    required: true
    choices: [provision]
  testbed:
    description: The testbed's name; without it the only one there is, or C(lab).
    type: str
    env:
      - name: PROVISION_NAME
  state_dir:
    description: Where provision keeps its state; without it the place that the command has.
    type: path
    env:
      - name: PROVISION_STATE_DIR
"""

EXAMPLES = r"""
plugin: provision
testbed: rack7
keyed_groups:
  - key: provision_nic_model
    prefix: nic
compose:
  link_name: "'link' ~ provision_link"
"""

TIMEOUT_S = 60


class InventoryModule(BaseInventoryPlugin, Constructable):  # type: ignore[misc]  # untyped bases
    """What ``provision inventory --list`` prints, as groups, hosts and variables.

    Nothing is cached: the command takes half a second, and guests come and go between jobs.
    """

    NAME = "provision"

    def verify_file(self, path: str) -> bool:
        """Whether the file is meant for this plugin, by its name."""
        named = path.endswith(("provision.yml", "provision.yaml"))
        return bool(super().verify_file(path)) and named

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory; raises AnsibleParserError in provision's own words."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        found = _listed(self.get_option("testbed"), self.get_option("state_dir"))
        variables = found.pop("_meta")["hostvars"]
        for group in found["all"]["children"]:
            inventory.add_group(group)
            for host in found[group]["hosts"]:
                inventory.add_host(host, group)
        for host, values in variables.items():
            for name, value in values.items():
                inventory.set_variable(host, name, _trusted(value))
            self._construct(host)

    def _construct(self, host: str) -> None:
        """Variables and groups that the source file asks for."""
        strict = self.get_option("strict")
        self._set_composite_vars(
            self.get_option("compose"), self.inventory.get_host(host).get_vars(), host, strict
        )
        values = self.inventory.get_host(host).get_vars()
        self._add_host_to_composed_groups(self.get_option("groups"), values, host, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), values, host, strict)


def _listed(testbed: str | None, state_dir: str | None) -> dict[str, Any]:
    """The inventory as provision prints it."""
    places = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
    command = shutil.which("provision", path=places)
    if command is None:
        raise AnsibleParserError(
            "there is no provision command on the PATH, nor beside Ansible's Python; "
            "next: install provision where Ansible is installed"
        )
    words = [command, "inventory", "--list", *([f"--name={testbed}"] if testbed else [])]
    state = {"PROVISION_STATE_DIR": state_dir} if state_dir else {}
    try:
        done = subprocess.run(
            words, env=os.environ | state, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        raise AnsibleParserError(f"{' '.join(words)}: {e}") from e
    if done.returncode:
        said = "; ".join(" ".join(line.split()) for line in done.stderr.splitlines())
        raise AnsibleParserError(f"{said or words} (provision's exit code {done.returncode})")
    return dict(json.loads(done.stdout))


def _trusted(value: Any) -> Any:
    """Strings as plain ones; what could be a template stays data, and Ansible marks it so."""
    if isinstance(value, dict):
        return {k: _trusted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_trusted(v) for v in value]
    if isinstance(value, str) and "{" not in value:
        return trust_as_template(value)
    return value
