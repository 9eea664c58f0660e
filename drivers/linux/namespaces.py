"""Network namespaces that bear a testbed's mark: the alias of their ``lo``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drivers.linux import reap
from drivers.linux.links import Link, links, mark, sections
from drivers.linux.script import Script
from provision.errors import Foreign
from provision.host import Host

#: for every NIC inside: no IPv6 chatter, and ARP only for the NIC's own address
QUIET = {
    "ipv6/conf/{}/disable_ipv6": 1,
    "ipv4/conf/{}/arp_ignore": 1,
    "ipv4/conf/{}/arp_announce": 2,
}
# ip-netns(8) makes a file and then mounts the namespace on it: cut between, only the file is there
IS = 'is() { [ "$(stat -f -c %T "/run/netns/$1" 2>/dev/null)" = nsfs ]; }'
_NETNS = f"""
{IS}
for f in /run/netns/${{1:-*}}; do
  n=${{f##*/}}
  ! is "$n" || echo "$n $(ip -n "$n" -json link show lo)"
done
"""
#: what a command says inside each; one that goes meanwhile is left out
EACH = f"""
{IS}
each() {{
  command=$1; shift
  for n; do
    if ! is "$n"; then continue; fi
    if said=$($command -n "$n" $arguments); then echo "@@$n"; echo "$said"
    elif is "$n"; then exit 1; fi
  done
}}
"""
_INSIDE = f"""{EACH}
arguments="-d -json address show"
each ip "$@"
"""
_STUB = f'{IS}; is "$1" || rm -f "/run/netns/$1"'


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Those on ``host``; only the testbed's own are ever changed."""

    host: Host
    testbed: str

    def aliases(self, name: str = "") -> dict[str, str]:
        """The alias of ``lo`` in each namespace, or in that of this name; "" = it has none."""
        found = {}
        for line in self.host.run("sh", "-c", _NETNS, "netns", name).splitlines():
            there, _, text = line.partition(" ")
            rows = json.loads(text or "[]")
            found[there] = rows[0].get("ifalias", "") if rows else ""
        return found

    def inside(self, names: Iterable[str]) -> dict[str, dict[str, Link]]:
        """The links in each of these that exists, in one command."""
        found = sections(self.host.run("sh", "-c", _INSIDE, "inside", *names))
        return {name: links(text) for name, text in found.items()}

    def is_ours(self, name: str) -> bool:
        return self.aliases(name).get(name) == mark(self.testbed)

    def make(self, name: str) -> None:
        """It gets its name last: under it, it bears our mark from the first moment."""
        if self.is_there(name):
            return
        self._sweep(name)
        script = Script()
        script.ip("link", "set", "lo", "alias", mark(self.testbed), "up")
        for path, value in QUIET.items():
            for which in ("all", "default"):
                script.write(f"/proc/sys/net/{path.format(which)}", value)
        script.sh(f"ip netns attach {name} $$")
        script.run(self.host, "unshare", "--net")

    def remove(self, name: str) -> None:
        """Whatever runs inside is ended: a namespace of ours has nothing else to do."""
        if not self.is_there(name):
            self._sweep(name)
            return
        if self.host.run("ip", "netns", "pids", name):
            self.host.run("python3", "-", name, input=Path(reap.__file__).read_text())
        self.host.run("ip", "netns", "del", name)

    def is_there(self, name: str) -> bool:
        """Whether the namespace exists and is ours; raises DriverError where it is another's."""
        alias = self.aliases(name).get(name)
        if alias is not None and alias != mark(self.testbed):
            raise Foreign(
                f"namespace {name} exists on {self.host.name} without our mark",
                hint=f"ip netns pids {name}",
            )
        return alias is not None

    def _sweep(self, name: str) -> None:
        """Remove the file that a put left which was cut short."""
        self.host.run("sh", "-c", _STUB, "sweep", name)
