"""Where XenServer keeps what a host boots with: ``xen-cmdline``, and its network's backend.

What there was before us is noted in a file of dom0, which goes when all is as before again. The
commands: XenServer's and XCP-ng's own documentation, "dom0 vCPUs", "network backend".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.dom0 import boot, xl
from drivers.dom0.look import State, state
from drivers.linux.links import sections
from provision.errors import PreflightError
from provision.host import Host

XEN_CMDLINE = "/opt/xensource/libexec/xen-cmdline"
NOTE = "/etc/xensource/provision.boot"
_READ = """
for name in dom0_max_vcpus dom0_mem dom0_vcpus_pin; do
  echo "@@$name"; "$1" --get-xen "$name" || exit
done
echo @@backend; cat /etc/xensource/network.conf
echo @@note; [ ! -e "$2" ] || cat "$2"
"""


@dataclass(frozen=True, slots=True)
class XenServerOptions:
    """``boot.BootOptions`` of one host; ``backend`` is what its networks are made of now."""

    host: Host
    testbed: str
    backend: Callable[[], str]
    command: str = XEN_CMDLINE

    def configured(self) -> dict[str, str]:
        return self._read()[0]

    def base(self) -> dict[str, str]:
        configured, note, _ = self._read()
        return note if note is not None else configured

    def in_force(self, now: State | None = None) -> dict[str, str]:
        return boot.of_xen(now or state(self.host)) | {boot.BACKEND: self.backend()}

    def configure(self, want: boot.Words) -> None:
        """The note first: what was before us is never lost."""
        have, note, rival = self._read()
        if rival:
            raise PreflightError(
                f"{self.host.name}: its boot options are changed by testbed {rival}",
                hint=f"provision down -n {rival}",
            )
        if note is None and have != want:
            self.host.run("tee", NOTE, input=f"{self.testbed}\n{boot.text(have)}\n")
            note = have
        for name in sorted(boot.XEN):
            if have.get(name) != want.get(name):
                self._set(name, want.get(name))
        backend = want.get(boot.BACKEND)
        if backend is not None and backend != have[boot.BACKEND]:
            self.host.run("xe-switch-network-backend", backend)
        if note is not None and note == want:
            self.host.run("rm", "-f", NOTE)

    def _set(self, name: str, value: str | None) -> None:
        if value is None:
            self.host.run(self.command, "--delete-xen", name)
        else:
            word = name if value == xl.TRUE else f"{name}={value}"
            self.host.run(self.command, "--set-xen", word)

    def _read(self) -> tuple[dict[str, str], dict[str, str] | None, str]:
        """What the next boot has, what our note says (None = there is none), and whose else it is.

        What another testbed has set is, to us, how the host is.
        """
        found = sections(self.host.run("sh", "-c", _READ, "read", self.command, NOTE))
        words = boot.canonical(xl.options(" ".join(found[name] for name in sorted(boot.XEN))))
        backend = found["backend"].strip()
        words[boot.BACKEND] = "bridge" if backend == "bridge" else "openvswitch"
        owner, _, note = found["note"].partition("\n")
        if owner == self.testbed:
            return words, boot.parse(note), ""
        return words, None, owner
