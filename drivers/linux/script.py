"""Changes to a Linux host's network, gathered and carried out as one command."""

from __future__ import annotations

import re
import shlex

from provision.errors import DriverError, HostError
from provision.host import Host

_WORD = re.compile(r"[^\s'\"#\\]+")
_FAILED = re.compile(r"Command failed -:(\d+) / step (\d+)$")
ROOT = "it needs root there: sudo, or an SSH login as root"


class Script:
    """Steps in order; the first that fails ends it. Nothing happens before ``run``.

    Lines for the same tool that follow one another become one batch (``ip -batch``).
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, list[str]]] = []

    def ip(self, *words: str, inside: str = "") -> None:
        """One line for ``ip -batch``, in a namespace where ``inside`` names one."""
        self._batch("ip", inside, words)

    def tc(self, *words: str, inside: str = "") -> None:
        """One line for ``tc -batch``."""
        self._batch("tc", inside, words)

    def write(self, path: str, value: object) -> None:
        """Write a file of sysfs or procfs where it exists: a kernel without IPv6 has some not."""
        where = shlex.quote(path)
        self.sh(f"[ ! -e {where} ] || echo {shlex.quote(str(value))} > {where}")

    def run_words(self, *words: str) -> None:
        """One command."""
        self.sh(shlex.join(words))

    def sh(self, text: str) -> None:
        """Shell text, as it is."""
        self._steps.append((text, []))

    def run(self, host: Host, *within: str) -> str:
        """Carry it out, in a shell that ``within`` starts; returns what it printed.

        Raises HostError with the very line that failed; what came before it stays done.
        """
        if not self._steps:
            return ""
        try:
            return host.run(*within, "sh", "-es", input=self.text())
        except HostError as e:
            denied = "not permitted" in str(e) or "Permission denied" in str(e)
            raise HostError(self._named(str(e)), hint=ROOT if denied else e.hint) from e

    def text(self) -> str:
        """The script for ``sh -es``."""
        parts = []
        for n, (text, lines) in enumerate(self._steps):
            body = "\n".join(lines)
            end = f" <<'END' || {{ echo step {n} >&2; exit 1; }}\n{body}\nEND" if lines else ""
            parts.append(f"{text}{end}\n")
        return "".join(parts)

    def _batch(self, tool: str, inside: str, words: tuple[str, ...]) -> None:
        for word in words:
            if not _WORD.fullmatch(word):
                raise DriverError(f"{word!r} cannot be a word of {tool}'s")
        command = shlex.join([tool, *(["-n", inside] if inside else []), "-batch", "-"])
        if not self._steps or self._steps[-1][0] != command:
            self._steps.append((command, []))
        self._steps[-1][1].append(" ".join(words))

    def _named(self, message: str) -> str:
        """The message with the failing line in place of its number."""
        found = _FAILED.search(message)
        if found is None:
            return message.replace("sh -es: ", "")
        command, lines = self._steps[int(found[2])]
        line = f"{command.removesuffix(' -batch -')} {lines[int(found[1]) - 1]}"
        told = message[: found.start()].rstrip(" /").replace("sh -es: exit 1: ", "")
        return f"{told} ({line})"
