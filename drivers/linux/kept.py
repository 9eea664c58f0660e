"""What was asked of each OS-level guest, in a folder of its own on the host, with its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from provision.host import Host
from provision.resources import Guest, load

TAIL_BYTES = "16384"
_KNOWN = """
for f in "$1"/*/guest.json; do
  [ -e "$f" ] || continue
  d=${f%/*}; echo "@@guest"; cat "$f"; echo; echo "@@pid"; cat "$d/pid" 2>/dev/null || echo 0
done
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """The folders in ``root``; the file ``guest.json`` says what was asked."""

    host: Host
    root: Path

    def folder(self, name: str) -> Path:
        return self.root / name

    def look(self) -> dict[str, tuple[Guest, int]]:
        """What was asked of each guest, and the process that answers for it; 0 = none did."""
        text = self.host.run("sh", "-c", _KNOWN, "known", str(self.root))
        found: dict[str, tuple[Guest, int]] = {}
        for part in text.split("@@guest\n")[1:]:
            asked, _, pid = part.partition("@@pid\n")
            try:
                guest = load(json.loads(asked))
            except (ValueError, KeyError):
                continue  # somebody damaged it: the guest is made anew
            if isinstance(guest, Guest):
                found[guest.name] = guest, int(pid.strip() or 0)
        return found

    def write(self, name: str, files: Mapping[str, str]) -> None:
        """All in one command; each is whole or not there. The shell's own words are in no argv."""
        folder = quote(str(self.folder(name)))
        lines = ["umask 077", f"mkdir -p {folder}", f"cd {folder}"]
        lines += [f"printf %s {quote(t)} > {f}.part; mv {f}.part {f}" for f, t in files.items()]
        self.host.run("sh", "-es", input="\n".join(lines))

    def console(self, name: str) -> str:
        """The last that the guest said."""
        path, script = str(self.folder(name) / "console"), '[ ! -e "$1" ] || tail -c "$2" "$1"'
        return self.host.run("sh", "-c", script, "console", path, TAIL_BYTES)

    def remove(self, name: str) -> None:
        """The folder and all that is in it; what is mounted there is not entered."""
        self.host.run("rm", "-rf", "--one-file-system", str(self.folder(name)))
        self.host.run("rmdir", "--ignore-fail-on-non-empty", str(self.root), check=False)
