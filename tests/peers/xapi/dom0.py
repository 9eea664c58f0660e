"""The commands of a host's dom0, as its shell has them: what each prints, and its exit code.

``xl`` is in ``xl.py``. Formats are those of the tools' own sources; ``xen-cmdline`` prints
``name=value``, and nothing for what is not set. What a tool does not know is its usage error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tests.peers.xapi import xl
from tests.peers.xapi.core import World
from tests.peers.xapi.hosts import Hosts
from tests.peers.xapi.xen import Xen, value

Result = tuple[int, str, str]  # exit code, standard output, standard error
XEN_CMDLINE = "/opt/xensource/libexec/xen-cmdline"
USAGE = (
    "Usage: xen-cmdline {--get-xen|--delete-xen|--get-dom0|--delete-dom0} NAME ...\n"
    "       xen-cmdline {--set-xen|--set-dom0} NAME[=VALUE] ...\n"
)
UNIT = "irqbalance"


@dataclass
class Dom0:
    """One host's shell. ``run`` wants the world's lock held by nobody."""

    world: World
    host: str
    hosts: Hosts

    @property
    def xen(self) -> Xen:
        return self.world.xens[self.host]

    @property
    def programs(self) -> Mapping[str, Callable[[Sequence[str]], Result]]:
        """By the name that a command is called by."""
        return {
            "xl": lambda words: xl.run(self.xen, words),
            "xen-cmdline": self._cmdline,
            "xe-switch-network-backend": self._backend,
            "systemctl": self._systemctl,
            "service": self._service,
            "pidof": lambda words: (
                (0, "1234\n", "") if [*words] == [UNIT] and self.xen.balancing else (1, "", "")
            ),
            "irqbalance": lambda _words: (1, "", "irqbalance: is a service here\n"),
            "reboot": lambda words: self._reboot() if not words else _usage("reboot"),
            "shutdown": lambda words: (
                self._reboot() if [*words] == ["-r", "now"] else _usage("shutdown")
            ),
        }

    def run(self, name: str, words: Sequence[str]) -> Result:
        """What a command gives."""
        with self.world.store.lock:
            if self.host in self.world.down:
                return 255, "", "the host is down\n"
            return self.programs[name](words)

    def _reboot(self) -> Result:
        self.hosts.leave(self.host)
        return 0, "", ""

    def _cmdline(self, words: Sequence[str]) -> Result:
        verbs = {
            "--get-xen": self._get, "--set-xen": self._set, "--delete-xen": self._delete,
        }  # fmt: skip
        if len(words) < 2 or words[0] not in verbs or any(w.startswith("-") for w in words[1:]):
            return 1, "", USAGE
        return verbs[words[0]](words[1:])

    def _get(self, names: Sequence[str]) -> Result:
        lines = []
        for name in names:
            if (found := value(self.xen.configured, name)) is not None:
                plain = name in self.xen.configured
                lines.append(name if plain else f"{name}={found}")
        return 0, "".join(f"{line}\n" for line in lines), ""

    def _set(self, options: Sequence[str]) -> Result:
        for option in options:
            name = option.partition("=")[0]
            places = [n for n, o in enumerate(self.xen.configured) if o.partition("=")[0] == name]
            if places:
                self.xen.configured[places[-1]] = option
            else:
                self.xen.configured.append(option)
        return 0, "", ""

    def _delete(self, names: Sequence[str]) -> Result:
        kept = [o for o in self.xen.configured if o.partition("=")[0] not in names]
        self.xen.configured[:] = kept
        return 0, "", ""

    def _backend(self, words: Sequence[str]) -> Result:
        if len(words) != 1:
            return 1, "Need bridge or openvswitch...\n", ""
        if words[0] not in ("bridge", "vswitch", "openvswitch"):
            return 1, 'Mode must be "bridge" or "vswitch"\n', ""
        new = "bridge" if words[0] == "bridge" else "openvswitch"
        self.xen.next_backend = new
        daemon = "Disabling" if new == "bridge" else "Enabling"
        out = (
            "Cleaning up old ifcfg files\n Remove... ifcfg-xenbr0\n"
            f"{daemon} openvswitch daemon\nConfigure system for {new} networking\n"
        )
        return 0, out, "You *MUST* now reboot your system\n"

    def _systemctl(self, words: Sequence[str]) -> Result:
        if [*words] == ["reboot"]:
            return self._reboot()
        options = {w for w in words if w.startswith("-")}
        verb, *units = [w for w in words if not w.startswith("-")] or [""]
        if strange := options - {"--now", "--quiet", "-q"}:
            return 1, "", f"systemctl: unrecognized option '{min(strange)}'\n"
        verbs: dict[str, Callable[[], Result]] = {
            "start": partial(self._balance, True), "stop": partial(self._balance, False),
            "restart": partial(self._balance, True),
            "enable": partial(self._enable, True, "--now" in options),
            "disable": partial(self._enable, False, "--now" in options),
            "is-active": lambda: self._asked(self.xen.balancing, "active", "inactive", 3),
            "is-enabled": lambda: self._asked(self.xen.balances, "enabled", "disabled", 1),
        }  # fmt: skip
        if verb not in verbs or len(units) != 1:
            why = "Too few arguments." if verb in verbs else f"Unknown operation '{verb}'."
            return 1, "", f"{why}\n"
        if units[0].removesuffix(".service") != UNIT:
            lost = 5, "", f"Failed to {verb} {units[0]}: Unit not found.\n"
            return (3, "unknown\n", "") if verb == "is-active" else lost
        code, out, err = verbs[verb]()
        return code, "" if options & {"--quiet", "-q"} else out, err

    def _service(self, words: Sequence[str]) -> Result:
        if len(words) != 2 or words[0] != UNIT:
            return 1, "", "Usage: service < option > | --status-all | [ name [ command ] ]\n"
        if words[1] == "status":
            return self._asked(self.xen.balancing, "active", "inactive", 3)
        if words[1] not in ("start", "stop", "restart"):
            return 2, "", f"The service command supports only basic LSB actions, not {words[1]}\n"
        return self._balance(words[1] != "stop")

    def _balance(self, on: bool) -> Result:
        self.xen.balancing = on
        self.xen.rebalance()
        return 0, "", ""

    def _enable(self, on: bool, now: bool) -> Result:
        self.xen.balances = on
        return self._balance(on) if now else (0, "", "")

    def _asked(self, truth: bool, yes: str, no: str, code: int) -> Result:
        return (0, f"{yes}\n", "") if truth else (code, f"{no}\n", "")


def _usage(name: str) -> Result:
    return 1, "", f"{name}: invalid arguments\n"
