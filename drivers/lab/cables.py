"""The cables from the emulated load generator's namespace to the hypervisor's host."""

from __future__ import annotations

from drivers.linux.links import Link, links, mark, sections, staged
from drivers.linux.namespaces import IS, Namespaces
from drivers.linux.script import Script
from drivers.linux.shaping import mbit, shape
from provision.errors import Foreign, HostError, Unsupported
from provision.host import Host
from provision.resources import Cable

TRIES = 5
_LOOK = f"""
{IS}
echo @@near; ip -d -json address show; echo @@near.qdiscs; tc -json qdisc show
is "$1" || exit 0
echo; echo @@far; ip -n "$1" -d -json address show; echo @@far.qdiscs; tc -n "$1" -json qdisc show
"""


class Cables:
    """Kind ``cable``; ``namespace`` is the only one that cables lead to."""

    def __init__(self, host: Host, testbed: str, namespace: str) -> None:
        self.host = host
        self.testbed = testbed
        self.namespace = namespace

    def is_ours(self, link: Link) -> bool:
        return link.kind == "veth" and link.alias == mark(self.testbed)

    def read(self, name: str) -> Cable | None:
        """A cable that leads elsewhere reads as one to ``?``; rate 0 = the directions differ."""
        return self._cable(name, self._look())

    def put(self, want: Cable) -> None:
        if want.namespace != self.namespace:
            raise Unsupported(f"cable {want.name}: the load generator is {self.namespace}")
        found = self._look()
        have = self._cable(want.name, found)
        script = Script()
        if have is None or have.far != want.far:
            self._remove(script, want.name, links(found["near"]))
            self._make(script, want)
        elif have != want:
            moved = self._moved(want.name) if want.name not in links(found["near"]) else None
            _shape(script, want.name, want, moved[0] if moved else "")
        script.run(self.host)

    def drop(self, name: str) -> None:
        """Both ends, and what an earlier put left half made.

        A command of a controller that was killed may still be at work: then the link is renamed
        between our look and our word, and we look again.
        """
        for _ in range(TRIES):
            script = Script()
            try:
                self._remove(script, name, links(self._look()["near"]))
                script.run(self.host)
            except HostError as e:
                failed = e
            else:
                return
        raise failed

    def _look(self) -> dict[str, str]:
        """Links and queueing disciplines of both sides."""
        return sections(self.host.run("sh", "-c", _LOOK, "look", self.namespace))

    def _cable(self, name: str, found: dict[str, str]) -> Cable | None:
        near, qdiscs = links(found["near"]).get(name), found["near.qdiscs"]
        if near is None and (moved := self._moved(name)):
            _, near, qdiscs = moved
        if near is None or not self.is_ours(near):
            return None
        there = links(found.get("far", "")).values()
        far = next((f for f in there if f.index == near.peer and f.peer == near.index), None)
        if far is None:
            return Cable(name, "?", "?")
        rates = {mbit(qdiscs, name), mbit(found["far.qdiscs"], far.name)}
        return Cable(name, far.name, self.namespace, rates.pop() if len(rates) == 1 else 0)

    def _moved(self, name: str) -> tuple[str, Link, str] | None:
        """The near end where a native guest has it: in what namespace, and the qdiscs there."""
        spaces = Namespaces(self.host, self.testbed)
        ours = [n for n, alias in spaces.aliases().items() if alias == mark(self.testbed)]
        for space, inside in spaces.inside(n for n in ours if n != self.namespace).items():
            if name in inside:
                qdiscs = self.host.run("tc", "-n", space, "-json", "qdisc", "show")
                return space, inside[name], qdiscs
        return None

    def _remove(self, script: Script, name: str, near: dict[str, Link]) -> None:
        if staged(self.testbed, name) in near:
            script.ip("link", "del", staged(self.testbed, name))
        if name in near:
            if not self.is_ours(near[name]):
                raise Foreign(
                    f"{name} exists on {self.host.name} without our mark",
                    hint=f"ip -d link show {name}",
                )
            script.ip("link", "del", name)

    def _make(self, script: Script, want: Cable) -> None:
        """The near end gets its name last: under it, all is as it should be."""
        stage = staged(self.testbed, want.name)
        script.ip("link", "add", stage, "type", "veth", "peer", "name", want.far,
                  "netns", want.namespace)  # fmt: skip
        script.ip("link", "set", stage, "alias", mark(self.testbed))
        script.ip("link", "set", want.far, "alias", mark(self.testbed), inside=want.namespace)
        script.write(f"/proc/sys/net/ipv6/conf/{stage}/disable_ipv6", 1)
        if want.rate_mbit is not None:
            _shape(script, stage, want)
        script.ip("link", "set", stage, "name", want.name)


def _shape(script: Script, near: str, want: Cable, inside: str = "") -> None:
    shape(script, ((near, inside), (want.far, want.namespace)), want.rate_mbit)
