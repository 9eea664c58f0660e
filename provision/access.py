"""The way into the guests: their keys are made here, so that no host key is ever guessed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from provision.errors import HostError
from provision.host import Host, hang_up, ssh_options
from provision.resources import Guest
from provision.state import sockets


@dataclass(frozen=True, slots=True)
class Access:
    """Keys of one testbed, in ``folder`` (0700). ``jump`` is the host that must be passed through.

    ``user`` is the login user of the guests.
    """

    folder: Path
    user: str = "root"
    jump: str = ""

    @property
    def key(self) -> Path:
        """The controller's private key; made at the first call of ``public_key``."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def public_key(self) -> str:
        """The line for a guest's authorized_keys."""
        return self._public(self.key, "provision")

    def host_key(self, guest: str) -> str:
        """The guest's own private host key, as text; made once for the life of the testbed."""
        path = self._host_key(guest)
        self._make(path, guest)
        return path.read_text()

    def trust(self, guests: Iterable[Guest]) -> None:
        """Write known_hosts: exactly these guests, exactly their keys."""
        lines = []
        for guest in guests:
            kind, text = self._public(self._host_key(guest.name), guest.name).split()[:2]
            lines.append(f"{address(guest)} {kind} {text}\n")
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
        options = [f"ProxyJump={self.jump}"] if self.jump else []
        return ssh_options(
            control=sockets(), key=self.key, known_hosts=self.known_hosts, options=options
        )

    def hang_up(self, guests: Iterable[Guest]) -> None:
        """End the shared connections; no error where there is none."""
        for guest in guests:
            hang_up(self.host(guest))

    def _host_key(self, guest: str) -> Path:
        return self.folder / f"host_{guest}"

    def _public(self, path: Path, comment: str) -> str:
        """The key's public line."""
        return self._make(path, comment).read_text().strip()

    def _make(self, path: Path, comment: str) -> Path:
        """The public half's file; the pair is made where there is none, the public half last."""
        public = path.with_suffix(".pub")
        if not public.exists():
            private_text, public_text = _pair(comment)
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                with os.fdopen(
                    os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
                ) as f:
                    f.write(private_text)
                part = public.with_suffix(".part")
                part.write_bytes(public_text)
                part.replace(public)
            except OSError as e:
                raise HostError(f"{path}: {e.strerror}", hint=f"df -h {self.folder}") from e
        return public


def _pair(comment: str) -> tuple[bytes, bytes]:
    """A new Ed25519 key as OpenSSH writes it: private, public."""
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(to.Encoding.PEM, to.PrivateFormat.OpenSSH, to.NoEncryption())
    public = key.public_key().public_bytes(to.Encoding.OpenSSH, to.PublicFormat.OpenSSH)
    return private, public + f" {comment}\n".encode()


def address(guest: Guest) -> str:
    """The guest's management address, without its prefix."""
    return guest.management.address.split("/")[0]
