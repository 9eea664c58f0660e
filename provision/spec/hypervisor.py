"""The spec's section on the hypervisor: where it is, who we are to it, how it proves itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from provision import registry
from provision.errors import did_you_mean
from provision.spec.faults import Fault, faults_error, show
from provision.spec.section import Section
from provision.spec.types import EnvName, Fingerprint, Path, SshTarget, Text, Uri

_REFERENCE = "{env: NAME}, {file: PATH} or {vault: FILE, key: NAME}"


class Secret(Section):
    """Where a secret is found; a spec never holds one."""

    env: EnvName | None = Field(default=None, description="A variable of the environment.")
    file: Path | None = Field(default=None, description="A file whose first line it is.")
    vault: Path | None = Field(
        default=None,
        description="A YAML file encrypted by ansible-vault; ANSIBLE_VAULT_PASSWORD_FILE opens it.",
    )
    key: Text | None = Field(default=None, description="Its name in the vault.")

    @model_validator(mode="before")
    @classmethod
    def _no_plain_text(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, dict | Secret):
            raise ValueError(f"should say where the secret is: {_REFERENCE}; a spec holds none")
        return value

    @model_validator(mode="after")
    def _one(self) -> Secret:
        said = [w for w in ("env", "file", "vault") if getattr(self, w) is not None]
        if len(said) != 1:
            raise ValueError(f"should be one of {_REFERENCE}")
        if (self.vault is None) != (self.key is None):
            raise faults_error([Fault("vault and key belong together", (("key",),))])
        return self


class Tls(Section):
    ca: Path | None = Field(
        default=None,
        description="The CA that signed the server's certificate; empty is the system's.",
    )
    fingerprint: Fingerprint | None = Field(
        default=None, description="SHA-256 of the server's own certificate, in place of any CA."
    )
    verify: bool = Field(
        default=True, description="`false` trusts whoever answers, and every result says so."
    )

    client_cert: Path | None = Field(
        default=None, description="Our own certificate, in PEM, where the login is by one."
    )
    client_key: Path | None = Field(default=None, description="Its private key, in PEM.")

    @model_validator(mode="after")
    def _one(self) -> Tls:
        if (self.client_cert is None) != (self.client_key is None):
            where = (("client_cert",), ("client_key",))
            raise faults_error([Fault("client_cert and client_key belong together", where)])
        said = [(w,) for w in ("ca", "fingerprint") if getattr(self, w) is not None]
        if not self.verify:
            said.append(("verify",))
        if len(said) > 1:
            what = f"{' and '.join(w for (w,) in said)} contradict each other; give one"
            raise faults_error([Fault(what, tuple(said))])
        return self


class Hypervisor(Section):
    short = "type"
    type: str = Field(
        default="kvm", description="The hypervisor's driver; `provision doctor` lists them."
    )
    uri: Uri = Field(
        default="",
        description="Where the hypervisor is, such as `qemu+ssh://root@host/system`, "
        "`xen+ssh://root@host/system`, `https://vcenter.example/` or `https://hv7:5986`; empty is "
        "this machine. Over SSH, "
        "commands for its host go the same way.",
    )
    user: Text | None = Field(default=None, description="Who we are to it, where it asks.")
    password: Secret | None = Field(
        default=None, description=f"Where our password is: {_REFERENCE}."
    )
    auth: Literal["ntlm", "kerberos", "basic", "certificate"] | None = Field(
        default=None,
        description="How we log in, where there are several ways (Hyper-V); empty is the usual.",
    )
    tls: Tls = Field(
        default=Tls(), description="How a server that is reached by TLS proves itself."
    )
    host: Text | None = Field(
        default=None, description="Which host of a manager that has several (vCenter, a pool)."
    )
    storage: Text | None = Field(
        default=None,
        description="Where guests' disks go, where there are several (datastore; Hyper-V and "
        "VirtualBox: a folder).",
    )
    ssh: SshTarget | None = Field(
        default=None,
        description="The host's dom0 as SSH is told, where its API cannot do all that a spec may "
        "ask for (XenServer); empty is `root@` its address.",
    )
    pool: Text | None = Field(default=None, description="The resource pool of the guests.")
    accel: Literal["auto", "kvm", "tcg"] = Field(
        default="auto",
        description="What executes the guests' instructions; `auto` tries `kvm`, then `tcg`.",
    )

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        known = registry.known()
        if value not in (*known, registry.IMAGINED):
            near = did_you_mean(value, known)
            raise ValueError(f"no driver {show(value)}; known: {', '.join(known)}{near}")
        return value
