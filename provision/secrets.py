"""Secrets, fetched when they are needed from where the spec says they are, and kept nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from provision.driver import Login
from provision.errors import UserError

if TYPE_CHECKING:
    from provision.spec.hypervisor import Hypervisor, Secret

WHERE = "hypervisor.password"
#: the variables that AWX's own credential types set, by driver: user, password, host
AWX = {"vsphere": ("VMWARE_USER", "VMWARE_PASSWORD", "VMWARE_HOST")}


def uri(hypervisor: Hypervisor) -> str:
    """Where the hypervisor is: as the spec says, else as AWX's credential does."""
    _, _, host = AWX.get(hypervisor.type, ("", "", ""))
    told = os.environ.get(host, "") if host else ""
    return hypervisor.uri or (f"https://{told}/" if told else "")


def login(hypervisor: Hypervisor) -> Login | None:
    """Who we are to the hypervisor, where the spec or AWX's credential says so."""
    user_env, password_env, _ = AWX.get(hypervisor.type, ("", "", ""))
    user = hypervisor.user or (os.environ.get(user_env) if user_env else None)
    if user is None:
        return None
    reference = hypervisor.password
    return Login(user, lambda: fetch(reference) if reference else _env(password_env))


def fetch(reference: Secret) -> str:
    """The secret that a spec refers to.

    Raises UserError where it cannot be had; no message ever holds any of it.
    """
    if reference.env is not None:
        return _env(reference.env)
    if reference.file is not None:
        return _file(Path(reference.file))
    return _vault(Path(reference.vault or ""), reference.key or "")


def _env(name: str) -> str:
    if not name:
        raise UserError(
            f"{WHERE}: the spec does not say where it is", hint=f"{WHERE}: {{env: NAME}}"
        )
    if not (found := os.environ.get(name)):
        raise UserError(
            f"{WHERE}: the environment has no {name}", hint=f"read -rs {name}; export {name}"
        )
    return found


def _file(path: Path) -> str:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "not text"
        raise UserError(f"{WHERE}: {path}: {why}") from None
    if not lines or not lines[0]:
        raise UserError(f"{WHERE}: {path}: its first line is empty")
    return lines[0]


def _vault(path: Path, key: str) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    # without a terminal it cannot ask: ANSIBLE_VAULT_PASSWORD_FILE or ansible.cfg has to say
    words = [sys.executable, "-m", "ansible", "vault", "view", str(path)]
    done = subprocess.run(
        words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["ansible-vault failed"])[-1]
        hint = "export ANSIBLE_VAULT_PASSWORD_FILE=…"
        raise UserError(f"{WHERE}: {path}: {last}", hint=hint)
    try:
        found = YAML(typ="safe").load(done.stdout)
    except YAMLError:
        raise UserError(f"{WHERE}: {path}: what it holds is not YAML") from None
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, str) or not value:
        raise UserError(f"{WHERE}: {path}: it has no text under {key!r}")
    return value
