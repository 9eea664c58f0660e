"""The way into the guests: their keys are made here, so that no host key is ever guessed."""

from __future__ import annotations

import os
import shlex
from base64 import b64decode, b64encode
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from

from provision.errors import HostError
from provision.host import Host, hang_up, ssh, ssh_options
from provision.resources import Guest
from provision.state import sockets

_END = "-----END OPENSSH PRIVATE KEY-----\n"
#: after the magic word, cipher "none", kdf "none" without options, and how many keys there are
_PUBLIC_AT = len(b"openssh-key-v1\0") + 2 * (4 + len(b"none")) + 4 + 4


@dataclass(frozen=True, slots=True)
class Access:
    """Keys of one testbed, in ``folder`` (0700). ``jump`` is the host that must be passed through.

    ``user`` is the login user of the guests; ``jump_key`` the user's own key for that host, None =
    ssh finds one.
    """

    folder: Path
    user: str = "root"
    jump: str = ""
    jump_key: Path | None = None

    @property
    def key(self) -> Path:
        """The controller's private key; made at the first call of ``public_key``."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def public_key(self) -> str:
        """The line for a guest's authorized_keys."""
        return _public(self._private(self.key), "provision")

    def host_key(self, guest: str) -> str:
        """The guest's own private host key, as text; made once for the life of the testbed."""
        return self._private(self.folder / f"host_{guest}")

    def trust(self, guests: Iterable[Guest]) -> None:
        """Write known_hosts: exactly these guests, exactly their keys."""
        lines = []
        for guest in guests:
            lines.append(f"{address(guest)} {_public(self.host_key(guest.name))}\n")
        part = self.known_hosts.with_suffix(".part")
        part.write_text("".join(lines))
        part.replace(self.known_hosts)

    def host(self, guest: Guest) -> Host:
        """Where commands for the guest go, over one shared connection."""
        return Host(
            guest.name, ("ssh", *self.options(), "--", f"{self.user}@{address(guest)}"), True
        )

    def options(self) -> list[str]:
        """What ssh is told, the same by us and by Ansible, so that they share connections."""
        options = [f"ProxyCommand={self._through()}"] if self.jump else []
        return ssh_options(
            control=sockets(), key=self.key, known_hosts=self.known_hosts, options=options
        )

    def hang_up(self, guests: Iterable[Guest]) -> None:
        """End the shared connections; no error where there is none."""
        for guest in guests:
            hang_up(self.host(guest))
        if self.jump:
            hang_up(ssh(self.jump, control=sockets(), key=self.jump_key))

    def _through(self) -> str:
        """As ProxyJump, over one shared connection: logins would keep a host from its guests."""
        told = ssh_options(control=sockets(), key=self.jump_key)
        words = [word.replace("%", "%%") for word in told]
        return shlex.join(["ssh", *words, "-W", "[%h]:%p", "--", self.jump])

    def _private(self, path: Path) -> str:
        """The key in that file; made where there is none, or only a part of one."""
        try:
            with suppress(FileNotFoundError):
                if (text := path.read_text()).endswith(_END):
                    return text
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part, made = path.with_name(f"{path.name}.part"), _made()
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                f.write(made)
            part.replace(path)
        except OSError as e:
            raise HostError(f"{path}: {e.strerror}", hint=f"df -h {self.folder}") from e
        return made


def _made() -> str:
    """A new Ed25519 key as OpenSSH writes it."""
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return key.private_bytes(to.Encoding.PEM, to.PrivateFormat.OpenSSH, to.NoEncryption()).decode()


def _public(private: str, comment: str = "") -> str:
    """The public half of a key of ours, which stands before the private one: PROTOCOL.key."""
    blob = b64decode("".join(private.splitlines()[1:-1]))
    (length,) = unpack_from(">I", blob, _PUBLIC_AT)
    public = blob[_PUBLIC_AT + 4 : _PUBLIC_AT + 4 + length]
    return f"ssh-ed25519 {b64encode(public).decode()} {comment}".rstrip()


def address(guest: Guest) -> str:
    """The guest's management address, without its prefix."""
    return guest.management.address.split("/")[0]
