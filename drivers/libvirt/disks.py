"""What a guest keeps on the hypervisor's host: its overlay, its seed, its console's log.

The image itself is never written to. On a remote host it is pushed once, under its digest, beside
the testbeds' folders.
"""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

from provision.errors import DriverError, HostError, PreflightError
from provision.host import Host

if TYPE_CHECKING:
    from provision.image import Image

# beside the testbeds' folders, under names that no testbed can have
STORE = ".images"
GOLDEN = ".golden"
GOLDEN_KEPT = 4
PUSH_S = 3600
TAIL_BYTES = 16384

_MAKE = """
umask 022
mkdir -p "$folder/disks" "$folder/seeds" "$folder/consoles"
[ -z "$seed" ] || { (umask 077; base64 -d > "$seed"); [ -z "$owner" ] || chown "$owner" "$seed"; }
rm -f "$disk"
[ -z "$copy" ] || { touch -c "$copy"; cp --reflink=auto "$copy" "$disk"; }
[ -n "$copy" ] || qemu-img create -q -f qcow2 -F "$format" -b "$base" "$disk"
as=
if [ -n "$owner" ]; then
  chown "$owner" "$disk"
  as="setpriv --reuid=${owner%:*} --regid=${owner#*:} --init-groups"
fi
for file in "$disk" "$base" "$kernel" "$initrd"; do
  [ -z "$file" ] || $as test -r "$file" || { echo "$file"; break; }
done
"""
_SEED = """
(umask 077; base64 -d > "$seed"); [ -z "$owner" ] || chown "$owner" "$seed"
"""
_REMOVE = 'rm -f "$disk" "$seed" "$console"'
# the overlay comes last: with it, the golden guest is whole
_KEEP = """
mkdir -p -m 755 "$store"
part="$golden.xml.$$"; cat > "$part"
chmod 644 "$disk"; chown "$(id -u):$(id -g)" "$disk"
mv "$part" "$golden.xml"; mv "$disk" "$golden"
ls -t "$store"/*.qcow2 | tail -n +$((kept + 1)) | while read -r old; do
  rm -f "$old" "$old.xml"
done
"""
# the folder, or what it will be made in
_FREE = """
while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
df --block-size=1M --output=avail "$folder"
"""
# what is empty goes too: a remote host has nobody else to clean up after us
_TIDY = """
rmdir "$folder/disks" "$folder/seeds" "$folder/consoles" "$folder" 2>/dev/null || :
"""


@dataclass(frozen=True, slots=True)
class Boot:
    """An image as it lies on the hypervisor's host."""

    disk: str
    format: str
    kernel: str | None
    initrd: str | None
    cmdline: str
    packed: str | None = None


class Disks:
    """One testbed's files. ``owner`` is ``UID:GID`` of QEMU, "" = as whoever makes them."""

    def __init__(self, host: Host, folder: Path, owner: str) -> None:
        self.host = host
        self.folder = PurePosixPath(folder)
        self.owner = owner
        self._lock = Lock()
        self._placed: dict[str, Boot] = {}

    def disk(self, guest: str) -> str:
        return str(self.folder / "disks" / f"{guest}.qcow2")

    def seed(self, guest: str) -> str:
        return str(self.folder / "seeds" / f"{guest}.iso")

    def console(self, guest: str) -> str:
        return str(self.folder / "consoles" / f"{guest}.log")

    def place(self, image: Image, say: Callable[[str], None]) -> Boot:
        """See that the image is on the host. Raises DriverError where the push fails."""
        with self._lock:
            if image.digest not in self._placed:
                far = self.host.far_shell
                self._placed[image.digest] = self._push(image, say) if far else _boot(image)
            return self._placed[image.digest]

    def golden(self, digest: str) -> str:
        """Where the overlay of a golden guest is; its snapshot's XML is beside it."""
        return str(self.folder.parent / GOLDEN / f"{digest}.qcow2")

    def keep_golden(self, guest: str, golden: str, text: str) -> None:
        """The guest's overlay becomes that golden one; of others the newest stay."""
        store = str(PurePosixPath(golden).parent)
        self._run(_KEEP, guest, text, golden=golden, store=store, kept=str(GOLDEN_KEPT))

    def make(self, guest: str, boot: Boot, seed: bytes | None, copy: str = "") -> None:
        """A fresh overlay on the image's disk, or a copy of another overlay, and the seed.

        Raises DriverError in words, PreflightError where QEMU may not read a file; nothing of it
        is left then.
        """
        try:
            closed = self._run(
                _MAKE, guest, b64encode(seed or b"").decode(), base=boot.disk, format=boot.format,
                kernel=boot.kernel or "", initrd=boot.initrd or "", copy=copy,
                seed=self.seed(guest) if seed is not None else "",
            )  # fmt: skip
        except HostError as e:
            self._run(_REMOVE, guest)
            raise _spoken(f"the disk of guest {guest}", self.host, self.folder, e) from e
        if closed := closed.strip():
            self._run(_REMOVE, guest)
            raise PreflightError(
                f"{self.host.name}: QEMU's user may not read {closed}",
                hint=f"let it pass and read: namei -l {shlex.quote(closed)}",
            )

    def reseed(self, guest: str, seed: bytes) -> None:
        """Another identity at the next start. Raises DriverError in words."""
        try:
            self._run(_SEED, guest, b64encode(seed).decode())
        except HostError as e:
            raise _spoken(f"the seed of guest {guest}", self.host, self.folder, e) from e

    def there(self, path: str) -> bool:
        """Whether a file exists."""
        if self.host.local:
            return Path(path).exists()
        return bool(self.host.run("sh", "-c", '[ ! -e "$1" ] || echo yes', "there", path))

    def free_mib(self) -> int:
        """What is free where the disks will be, in MiB."""
        return int(self._run(_FREE, "").split()[-1])

    def remove(self, guest: str) -> None:
        """All of the guest's files; no error where there are none."""
        self._run(_REMOVE, guest)

    def tidy(self) -> None:
        """Remove the folders that are empty, when no guest is being made in them."""
        self._run(_TIDY, "")

    def tail(self, guest: str) -> str:
        """The end of the console's log; "" where there is none."""
        words = ("tail", "-c", str(TAIL_BYTES), self.console(guest))
        return self.host.run(*words, check=False)

    def _run(self, script: str, guest: str, stdin: str = "", **more: str) -> str:
        names = {
            "folder": str(self.folder), "disk": self.disk(guest), "seed": self.seed(guest),
            "console": self.console(guest), "owner": self.owner, **more,
        }  # fmt: skip
        setting = "; ".join(f"{name}={shlex.quote(value)}" for name, value in names.items())
        return self.host.run("sh", "-ec", f"{setting}\n{script}", input=stdin)

    def _push(self, image: Image, say: Callable[[str], None]) -> Boot:
        """Whole or not at all: it comes to lie under its digest in one step."""
        store = self.folder.parent / STORE
        final, part = store / image.digest[:16], store / f"part-{uuid4().hex}"
        files = [*dict.fromkeys(_files(image))]
        boot = _boot(image, final)
        if not self.there(str(final)):
            size_mib = sum(f.stat().st_size for f in files) >> 20
            say(f"pushing the image to {self.host.name} ({size_mib} MiB)")
            try:
                self.host.run("mkdir", "-p", "-m", "755", str(store), str(part))
                for file in files:
                    self.host.push(file, str(part / file.name), timeout_s=PUSH_S)
                self.host.run("sh", "-c", 'chmod 644 "$1"/* && mv -T "$1" "$2" || [ -d "$2" ]',
                              "place", str(part), str(final))  # fmt: skip
            except HostError as e:
                raise _spoken("the image", self.host, store, e) from e
            finally:
                self.host.run("rm", "-rf", str(part), check=False)
        return boot


def _boot(image: Image, folder: PurePosixPath | None = None) -> Boot:
    def at(file: Path) -> str:
        return str(file if folder is None else folder / file.name)

    return Boot(
        at(image.disk),
        image.info["format"],
        at(image.kernel) if image.kernel is not None else None,
        at(image.initrd) if image.initrd is not None else None,
        image.cmdline,
        at(image.packed) if image.packed is not None else None,
    )


def _files(image: Image) -> Iterator[Path]:
    for file in (image.disk, image.kernel, image.initrd, image.packed):
        if file is not None:
            yield file


def _spoken(what: str, host: Host, folder: PurePosixPath, error: HostError) -> DriverError:
    if "No space left" in str(error):
        return DriverError(
            f"{host.name}: no room for {what} in {folder}", hint=f"df -h {folder}: free some"
        )
    return DriverError(f"{host.name}: {what} cannot be made: {error}", hint=error.hint)
