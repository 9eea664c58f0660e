"""Runs a static PowerShell script on a Windows guest, with JSON on its standard input.

ansible-core alone has no modules for Windows but raw and script, which put data into script text.
Arguments: ``script``, a file of the role; ``given``, what goes to its standard input; ``bring``, a
file of the controller that goes to ``to`` first. Back comes what the script told.
"""

from __future__ import annotations

import json
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from provision.errors import WorldError
from provision.windows.powershell import answer, command


class ActionModule(ActionBase):
    _requires_connection = True
    _VALID_ARGS = frozenset({"script", "given", "bring", "to"})

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "script": {"type": "str", "required": True},
                "given": {"type": "dict", "required": True},
                "bring": {"type": "path"},
                "to": {"type": "str"},
            },
            required_together=[["bring", "to"]],
        )
        script = Path(self._find_needle("files", args["script"])).read_text("ascii")
        if args["bring"]:
            self._connection.put_file(self._find_needle("files", args["bring"]), args["to"])
        given = json.dumps(args["given"]).encode("ascii")
        done = self._low_level_execute_command(
            " ".join(command(script)), in_data=given, sudoable=False
        )
        try:
            told = answer(task_vars["inventory_hostname"], done["stdout"])
        except WorldError as e:
            why = done["stderr"].strip()[-500:]
            raise AnsibleActionFail(f"{e}{': ' if why else ''}{why}") from e
        return result | {"changed": False, "told": told}
