"""Looks at VMs: several in one command, ours told from others'."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drivers.linux.links import sections
from drivers.virtualbox import parse, words
from drivers.virtualbox.manage import ABSENT, Manage, code
from drivers.virtualbox.parse import Seen
from provision.errors import DriverError, Foreign, HostError

TRIES = 5
_LIST = "VBoxManage list vms || exit"
_LOOK = f"""
{_LIST.replace("VBoxManage", "listed=$(VBoxManage").replace(" ||", ") ||")}
echo @@vms; printf '%s\\n' "$listed"
for id in "$@"; do
  case $listed in *"{{$id}}"*) ;; *) continue ;; esac
  info=$(VBoxManage showvminfo "$id" --machinereadable) || exit
  echo "@@info $id"; printf '%s\\n' "$info"
  echo "@@record $id"; VBoxManage getextradata "$id" {words.RECORD} || exit
  case $info in *BandwidthGroup*)
    echo "@@nics $id"; VBoxManage showvminfo "$id" | grep '^NIC ' || exit ;;
  esac
done
"""


@dataclass(frozen=True, slots=True)
class Sight:
    """The VMs of one testbed; keys are guests' names."""

    manage: Manage
    testbed: str

    def look(self, names: Iterable[str]) -> dict[str, Seen]:
        """Those that there are and that are ours."""
        return self._look(list(names))[0]

    def own(self, name: str) -> Seen | None:
        """None where there is none; raises Foreign where the name is taken by another's."""
        found, vms = self._look([name])
        if name in found:
            return found[name]
        full = words.vm_name(self.testbed, name)
        if full in vms.values() or words.vm_uuid(self.testbed, name) in vms:
            raise Foreign(
                f"{full} exists on {self.manage.host.name} without our mark, which is the group "
                f"{words.group(self.testbed)}",
                hint=f"VBoxManage showvminfo {full}",
            )
        return None

    def there(self, name: str) -> Seen:
        """Raises DriverError where there is none."""
        found = self.own(name)
        if found is None:
            raise DriverError(f"there is no guest {name}")
        return found

    def names(self) -> list[str]:
        """All guests that there are."""
        prefix = words.vm_name(self.testbed, "")
        vms = parse.listed(self.manage.sh(_LIST))
        maybe = [
            name.removeprefix(prefix)
            for uuid, name in vms.items()
            if name.startswith(prefix)
            and uuid == words.vm_uuid(self.testbed, name.removeprefix(prefix))
        ]
        return [*self.look(maybe)] if maybe else []

    def _look(self, names: list[str]) -> tuple[dict[str, Seen], dict[str, str]]:
        by_id = {words.vm_uuid(self.testbed, name): name for name in names}
        for last in range(TRIES):
            try:
                seen = sections(self.manage.sh(_LOOK, *by_id))
                break
            except HostError as e:
                if code(e) != ABSENT or last == TRIES - 1:
                    raise  # else one went between two looks
        vms = parse.listed(seen["vms"])
        found = {}
        for uuid, name in by_id.items():
            if (text := seen.get(f"info {uuid}")) is None:
                continue
            info = parse.readable(text)
            if info.get("name") == words.vm_name(self.testbed, name) and parse.marked(
                info, self.testbed
            ):
                asked = parse.record(seen[f"record {uuid}"])
                limits = parse.groups(seen.get(f"nics {uuid}", ""))
                found[name] = parse.vm(info, name, asked, limits)
        return found, vms
