"""What Xen boots with where GRUB starts it: a file of ours in /etc/default/grub.d, and update-grub.

grub-mkconfig reads /etc/default/grub and then those files, as shell text, in the order of their
names; ours comes last, takes our options out of what the others say, and adds its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.dom0 import xl
from drivers.dom0.boot import PINNED, XEN, Words, canonical, of_xen
from drivers.dom0.look import State, state
from drivers.linux.links import sections
from provision.errors import HostError, PreflightError
from provision.host import Host

UPDATE_S = 600
PREFIX = "zz-provision-"
_OURS = "|".join(sorted(XEN))
_TAKE_OUT = rf"sed -E ':a; s/(^| )(no-)?({_OURS})(=[^ ]*)?( |$)/ /; ta'"
_LOOK = f"""
cd "$1/etc/default" || exit
said() {{
  (set +u; [ ! -e grub ] || . ./grub
   for f in grub.d/*.cfg; do
     case $f in *'*'*) continue ;; grub.d/{PREFIX}*) [ "$1" = all ] || continue ;; esac
     . "./$f"
   done >&2
   echo "$GRUB_CMDLINE_XEN $GRUB_CMDLINE_XEN_DEFAULT")
}}
echo @@all; said all
echo @@base; said base
echo @@files; for f in grub.d/{PREFIX}*.cfg; do [ ! -e "$f" ] || echo "${{f#grub.d/}}"; done
echo @@tool; command -v update-grub || :
"""
#: from a half-written file nothing would boot: it is renamed into place, and update-grub does the
#: same with the menu
_WRITE = """
cd "$1/etc/default"
if [ -n "$3" ]; then
  mkdir -p grub.d; cat > "grub.d/$2.part"; mv "grub.d/$2.part" "grub.d/$2"
else
  rm -f "grub.d/$2"
fi
update-grub >&2
"""


@dataclass(frozen=True, slots=True)
class Grub:
    """The boot options of one host, as ``boot.BootOptions``.

    ``root`` is what /etc is below; only tests have it elsewhere.
    """

    host: Host
    testbed: str
    root: str = ""

    def why_not(self) -> str:
        """Why they cannot be set here; "" = they can."""
        if self._look()["tool"]:
            return ""
        return "the host has no update-grub, and Xen's boot options are GRUB's"

    def configured(self) -> Words:
        return _ours(self._look()["all"])

    def base(self) -> Words:
        return _ours(self._look()["base"])

    def configure(self, want: Words) -> None:
        """As ``BootOptions.configure``. A second call after one that was cut short mends it."""
        seen = self._look()
        name = f"{PREFIX}{self.testbed}.cfg"
        if others := [f for f in seen["files"].split() if f != name]:
            whose = others[0].removeprefix(PREFIX).removesuffix(".cfg")
            raise PreflightError(
                f"{self.host.name}: its boot options are testbed {whose}'s",
                hint=f"provision down -n {whose}",
            )
        if not seen["tool"]:
            raise PreflightError(f"{self.host.name}: {self.why_not()}")
        same = want == _ours(seen["base"])
        words = ("sh", "-euc", _WRITE, "configure", self.root, name, "" if same else "yes")
        self.host.run(*words, input=text(self.testbed, want), timeout_s=UPDATE_S)

    def in_force(self, now: State | None = None) -> Words:
        return of_xen(now or state(self.host))

    def _look(self) -> Mapping[str, str]:
        found = sections(self.host.run("sh", "-c", _LOOK, "look", self.root))
        if "all" not in found:
            raise HostError(f"{self.host.name}: /etc/default/grub could not be read")
        return found


def text(testbed: str, words: Words) -> str:
    """The file that makes GRUB give Xen these options of ours, and no others."""
    given = " ".join(n if n == PINNED else f"{n}={v}" for n, v in sorted(words.items()))
    return (
        f"# made by provision for testbed {testbed}; `provision down -n {testbed}` removes it\n"
        f'GRUB_CMDLINE_XEN="$(echo "$GRUB_CMDLINE_XEN" | {_TAKE_OUT}) {given}"\n'
        f'GRUB_CMDLINE_XEN_DEFAULT="$(echo "$GRUB_CMDLINE_XEN_DEFAULT" | {_TAKE_OUT})"\n'
    )


def _ours(commandline: str) -> dict[str, str]:
    return canonical(xl.options(commandline))
